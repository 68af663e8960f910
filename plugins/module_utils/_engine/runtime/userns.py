# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A container with a user namespace of its own: root inside is nobody outside.

Its tree is built by the host's root (device nodes, procfs and sysfs need no tricks then), with every file made as the
id that is root inside. Once the host's tree is out of sight the process joins the user namespace and copies its mount
namespace: the copy belongs to the user namespace, and the kernel locks every mount of ours in it, so that not even
CAP_SYS_ADMIN inside uncovers what is masked or makes writable what is read-only (user_namespaces(7)).

UTS, IPC and network namespaces are made by a process that is in the user namespace already, and joined by descriptor,
so that they belong to it. The pid namespace stays the host's: only what reboot(2) does depends on that.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Optional

from ..errors import KernelError, StartError
from ..kernel import idmap
from ..kernel.syscalls import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    PR_SET_DUMPABLE,
    PR_SET_SECUREBITS,
    SECBIT_NO_SETUID_FIXUP,
    Kernel,
)
from ..tuples import NamedTuple
from . import finalize
from .users import Identity

_OWNED = {"network": (CLONE_NEWNET, "net"), "ipc": (CLONE_NEWIPC, "ipc"), "uts": (CLONE_NEWUTS, "uts")}


class Mapped(NamedTuple):
    """``fd``: the user namespace, which lives as long as this or a process in it does."""

    fd: int
    uids: tuple[idmap.Range, ...]
    gids: tuple[idmap.Range, ...]

    def uid(self, number: int) -> int:
        """The host's id for one inside. Raises ``StartError`` when it has none."""
        return _outside(self.uids, number, "user")

    def gid(self, number: int) -> int:
        return _outside(self.gids, number, "group")

    def owner(self, uid: int, gid: int) -> tuple[int, int]:
        """For files of the host that are shown inside: what has no mapping there becomes root's."""
        found = (idmap.outward(self.uids, uid), idmap.outward(self.gids, gid))
        return (
            self.uid(0) if found[0] is None else found[0],
            self.gid(0) if found[1] is None else found[1],
        )

    def identity(self, inside: Identity) -> Identity:
        """The same with the host's ids. Raises ``StartError``."""
        groups = tuple(self.gid(number) for number in inside.groups)
        return inside._replace(uid=self.uid(inside.uid), gid=self.gid(inside.gid), groups=groups)


def _outside(ranges: tuple[idmap.Range, ...], number: int, what: str) -> int:
    found = idmap.outward(ranges, number)
    if found is None:
        raise StartError(
            "%s %d has no mapping in the container's user namespace" % (what, number),
            step="resolve_user",
            path="user",
            details={"exit_code": 126},
            hint="A larger range has it: userns_mode auto:size=%d, say." % max(131072, 1 << number.bit_length()),
        )
    return found


def maps(config: Mapping[str, Any]) -> tuple[tuple[idmap.Range, ...], tuple[idmap.Range, ...]]:
    """``linux.uidMappings`` and ``gidMappings``."""
    linux = config["linux"]
    return idmap.from_oci(linux.get("uidMappings") or ()), idmap.from_oci(linux.get("gidMappings") or ())


def wanted(config: Mapping[str, Any]) -> Optional[Mapping[str, Any]]:
    """The entry of the user namespace, None for the host's."""
    return next((entry for entry in config["linux"]["namespaces"] if entry["type"] == "user"), None)


def prepare(kernel: Kernel, config: dict[str, Any]) -> tuple[dict[str, Any], Optional[Mapped]]:
    """``config`` with descriptors (inherited by the clone) for the namespaces that the user namespace must own.

    Raises ``StartError``, ``KernelError``.
    """
    entry = wanted(config)
    if entry is None:
        return config, None
    uids, gids = maps(config)
    if not uids or not gids:
        raise StartError("A user namespace needs uidMappings and gidMappings", step="userns")
    if "path" in entry:
        try:
            fd = os.open(entry["path"], os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise KernelError.wrap(error, "Cannot open the user namespace", step="userns") from error
    else:
        fd = idmap.userns_fd(kernel, uids, gids)
    namespaces = [dict(namespace) for namespace in config["linux"]["namespaces"]]
    new = [n for n in namespaces if n["type"] in _OWNED and "path" not in n]
    flags = 0
    for namespace in new:
        flags |= _OWNED[namespace["type"]][0]
    made = idmap.namespaces(kernel, fd, flags) if flags else {}
    for namespace in new:
        namespace["path"] = "/proc/self/fd/%d" % made[_OWNED[namespace["type"]][1]]
        namespace["fresh"] = True
    return {**config, "linux": {**config["linux"], "namespaces": namespaces}}, Mapped(fd, uids, gids)


# -- in the child ------------------------------------------------------------------------------------------------------


def make_files_as_root_inside(kernel: Kernel, mapped: Optional[Mapped]) -> None:
    """From here on files are made as the container's root, with all capabilities of the host's: those would go with
    the file system uid but for the secure bit. Joining the user namespace resets both."""
    if mapped is None:
        return
    try:
        kernel.prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP)
        kernel.set_fs_ids(mapped.uid(0), mapped.gid(0))
    except OSError as error:
        raise KernelError.wrap(error, "Cannot make files as the container's root", step="userns") from error


class acting_as_root_inside:
    """With its effective ids, too: the owner of a namespace's sysctls, which no capability stands in for. A class,
    because ``contextlib`` would be one more import of everybody who starts a container."""

    def __init__(self, kernel: Kernel, mapped: Mapped) -> None:
        self.kernel = kernel
        self.mapped = mapped

    def __enter__(self) -> None:
        os.setegid(self.mapped.gid(0))
        os.seteuid(self.mapped.uid(0))
        self.kernel.prctl(PR_SET_DUMPABLE, 0)  # a change of ids resets it

    def __exit__(self, *_exc: object) -> None:
        os.seteuid(0)
        os.setegid(0)
        self.kernel.prctl(PR_SET_DUMPABLE, 0)
        self.kernel.set_fs_ids(self.mapped.uid(0), self.mapped.gid(0))


def enter(kernel: Kernel, mapped: Optional[Mapped], *, renew: bool = True) -> None:
    """Join; from here on the process has no power over anything of the host's. ``renew``: take copies of the mount and
    cgroup namespaces along that belong to the user namespace (PID 1; an exec has joined those already)."""
    if mapped is None:
        return
    try:
        kernel.setns(mapped.fd, CLONE_NEWUSER)
        os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        kernel.prctl(PR_SET_DUMPABLE, 0)
        if renew:
            kernel.unshare(CLONE_NEWNS | CLONE_NEWCGROUP)
        finalize.join_keyring(kernel)  # the one of before is the host's root's
    except OSError as error:
        raise KernelError.wrap(error, "Cannot enter the user namespace", step="userns") from error
    os.close(mapped.fd)
