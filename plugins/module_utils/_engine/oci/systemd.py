# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""``--systemd-cgroup``: systemd makes the container's cgroup, a transient scope with ``Delegate=yes``.

``linux.cgroupsPath`` is then ``slice:prefix:name``. A scope needs a process to begin with, and the container's is to be
born in its cgroup: a placeholder of ours holds the scope until the container is in it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional

from ..errors import KernelError, Unsupported, UsageError
from ..kernel.cgroups import Cgroup, Layout
from .group import Placed

if TYPE_CHECKING:
    from ..process import Completed

_BOOTED = "/run/systemd/system"
_BUS = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager")
_SECONDS = 30.0


def parse(text: str, name: str) -> tuple[str, str]:
    """``(slice, scope)`` of ``slice:prefix:name``; an empty path is ``system.slice`` and the id. Raises
    ``UsageError``."""
    if not text:
        return "system.slice", "wharf-oci-%s.scope" % name
    parts = text.split(":")
    if len(parts) != 3 or not parts[2]:
        raise UsageError(
            'expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, got %r instead' % text,
            path="linux.cgroupsPath",
        )
    parent, prefix, last = parts
    parent = parent or "system.slice"
    expand(parent)
    if "/" in prefix + last:
        raise UsageError("linux.cgroupsPath: no / may be in %r" % text, path="linux.cgroupsPath")
    if last.endswith(".slice"):
        raise Unsupported("linux.cgroupsPath: a container in a slice of its own (%s) is not supported" % last)
    return parent, "%s-%s.scope" % (prefix, last) if prefix else last + ".scope"


def expand(name: str) -> str:
    """``a-b.slice`` lies in ``a.slice``; ``-.slice`` is the root. Raises ``UsageError``."""
    if name == "-.slice":
        return ""
    stem = name[: -len(".slice")]
    if not name.endswith(".slice") or not stem or "/" in stem or "" in stem.split("-"):
        raise UsageError("linux.cgroupsPath: %r is not the name of a slice" % name, path="linux.cgroupsPath")
    parts = stem.split("-")
    return "/".join("-".join(parts[: at + 1]) + ".slice" for at in range(len(parts)))


def place(config: Mapping[str, Any], name: str) -> tuple[Cgroup, str]:
    """The cgroup that the scope will have, and the scope's name. Raises ``Unsupported``, ``UsageError``."""
    if not os.path.isdir(_BOOTED):
        raise Unsupported(
            "--systemd-cgroup needs systemd, which does not run on this host",
            path="systemd-cgroup",
            hint="Leave the option out: the runtime then makes the cgroup itself.",
        )
    parent, scope = parse(str((config.get("linux") or {}).get("cgroupsPath") or ""), name)
    found = Layout.detect(base="")
    layout = Placed(found.hierarchies, files=found.files)
    layout.prefixes = {}
    return Cgroup(layout, (expand(parent) + "/" + scope).strip("/")), scope


def command(parent: str, scope: str, name: str, pid: int) -> list[str]:
    """argv of the call that makes the scope (busctl's own types: an array of (name, variant) pairs)."""
    properties = [
        ["Description", "s", "container %s" % name],
        ["Slice", "s", parent],
        ["Delegate", "b", "true"],
        ["DefaultDependencies", "b", "false"],
        ["CollectMode", "s", "inactive-or-failed"],
        ["PIDs", "au", "1", str(pid)],
    ]
    words = ["busctl", "--system", "call", *_BUS, "StartTransientUnit", "ssa(sv)a(sa(sv))", scope, "fail"]
    words.append(str(len(properties)))
    for entry in properties:
        words += entry
    return [*words, "0"]


class Holder:
    """A process that sleeps in the scope until the container is there."""

    def __init__(self, group: Cgroup, config: Mapping[str, Any], scope: str, name: str) -> None:
        parent, _scope = parse(str((config.get("linux") or {}).get("cgroupsPath") or ""), name)
        self.pid = os.fork()
        if self.pid == 0:
            _sleep()
        try:
            _call(command(parent, scope, name, self.pid), scope)
            self._wait(group, scope)
        except BaseException:
            self.end()
            raise

    def _wait(self, group: Cgroup, scope: str) -> None:
        """The call returns before the job is done: until the kernel says that our process is in there."""
        deadline = time.monotonic() + _SECONDS
        while group.path not in group.files.read("/proc/%d/cgroup" % self.pid):
            if time.monotonic() > deadline:
                raise KernelError("systemd did not make %s within %d seconds" % (scope, _SECONDS), step="systemd_scope")
            time.sleep(0.005)

    def end(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def _sleep() -> None:
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        while True:
            signal.pause()
    finally:
        os._exit(0)


def stop(scope: str) -> None:
    """Have systemd forget the scope; one that is gone with its last process already is no error."""
    _run(["busctl", "--system", "call", *_BUS, "StopUnit", "ss", scope, "replace"])


def _call(argv: Sequence[str], scope: str) -> None:
    result = _run(argv)
    if result is None:
        raise Unsupported("--systemd-cgroup needs the program busctl, which this host lacks", path="systemd-cgroup")
    if result.returncode:
        words = result.stderr.decode(errors="replace").strip()
        raise KernelError("systemd did not make %s: %s" % (scope, words), step="systemd_scope", subject=scope)


def _run(argv: Sequence[str]) -> Optional[Completed]:
    from .. import process

    try:
        return process.run(argv, timeout=_SECONDS)
    except FileNotFoundError:
        return None
