# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Entering and making namespaces, in the order that rights demand.

Without a user namespace: pid, ipc, uts and network are made by the clone itself; a pid namespace to join is entered by
the parent, for its children. A time namespace to make is unshared by the parent, because its clocks can only be set
while nobody is in it.

With one, there is a process in between. It joins the namespaces that belong to the host while it has the host's
rights, makes (or joins) the user namespace, joins the rest, and clones the container's first process, whose new
namespaces then belong to the user namespace. It never runs anything of the container's.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import KernelError
from ..kernel.syscalls import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWPID,
    CLONE_NEWTIME,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    Kernel,
)

FLAGS = {
    "cgroup": CLONE_NEWCGROUP, "ipc": CLONE_NEWIPC, "network": CLONE_NEWNET, "pid": CLONE_NEWPID, "uts": CLONE_NEWUTS,
    "time": CLONE_NEWTIME, "user": CLONE_NEWUSER,
}  # fmt: skip
_AT_CLONE = ("pid", "ipc", "uts", "network")


def clone_flags(spaces: Mapping[str, str]) -> int:
    flags = 0
    for kind in _AT_CLONE:
        if spaces.get(kind) == "":
            flags |= FLAGS[kind]
    return flags


def join(
    kernel: Kernel, spaces: Mapping[str, str], kinds: Sequence[str] = ("ipc", "uts", "network", "cgroup", "time")
) -> None:
    """Those of ``kinds`` that are given by path. Raises ``KernelError``."""
    for kind in kinds:
        if spaces.get(kind):
            enter(kernel, kind, spaces[kind])


def enter(kernel: Kernel, kind: str, path: str) -> None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            kernel.setns(fd, FLAGS[kind])
        finally:
            os.close(fd)
    except OSError as error:
        hint = "It is not a %s namespace." % kind if error.errno == 22 else None
        raise KernelError.wrap(
            error, "Cannot join the %s namespace %s" % (kind, path), step="join_namespace", hint=hint
        ) from error


def join_around_user(kernel: Kernel, spaces: Mapping[str, str], enter_user: Any) -> None:
    """All that are given by path, around ``enter_user()``: before it what the host's rights reach, after it the rest
    (which belongs to that very user namespace)."""
    later = []
    for kind in ("ipc", "uts", "network", "cgroup", "time", "pid"):
        if spaces.get(kind):
            try:
                enter(kernel, kind, spaces[kind])
            except KernelError as error:
                if error.errno != 1:
                    raise
                later.append(kind)
    enter_user()
    for kind in later:
        enter(kernel, kind, spaces[kind])


def make_time(kernel: Kernel, offsets: Mapping[str, Mapping[str, int]]) -> None:
    """A new time namespace for the children of this process, with these clocks."""
    try:
        kernel.unshare(CLONE_NEWTIME)
        lines = [
            "%s %d %d" % (clock, offset.get("secs") or 0, offset.get("nanosecs") or 0)
            for clock, offset in offsets.items()
        ]
        if lines:
            fd = os.open("/proc/self/timens_offsets", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, "\n".join(lines).encode())
            finally:
                os.close(fd)
    except OSError as error:
        raise KernelError.wrap(error, "Cannot make the time namespace", step="time_namespace") from error


class Detour:
    """This process in other namespaces for as long as it clones: pid (for children only) and time."""

    def __init__(self, kernel: Kernel, spaces: Mapping[str, str], offsets: Mapping[str, Mapping[str, int]]) -> None:
        self.kernel = kernel
        self.spaces = spaces
        self.offsets = offsets
        self._home: list[tuple[int, int]] = []

    def __enter__(self) -> Detour:
        if self.spaces.get("pid") and "user" not in self.spaces:
            self._remember("pid_for_children", CLONE_NEWPID)
            enter(self.kernel, "pid", self.spaces["pid"])
        if self.spaces.get("time") == "":
            self._remember("time", CLONE_NEWTIME)
            make_time(self.kernel, self.offsets)
        return self

    def _remember(self, name: str, flag: int) -> None:
        self._home.append((os.open("/proc/self/ns/" + name, os.O_RDONLY | os.O_CLOEXEC), flag))

    def __exit__(self, *_exc: object) -> None:
        for fd, flag in self._home:
            self.kernel.setns(fd, flag)
            os.close(fd)
