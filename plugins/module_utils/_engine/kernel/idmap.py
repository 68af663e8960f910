# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Identity mappings: user namespaces named by descriptor only, and other namespaces that belong to them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Optional, TypeVar

from ..errors import KernelError, UsageError
from ..tuples import NamedTuple

if TYPE_CHECKING:
    from .syscalls import Kernel

_CLONE_NEWUSER = 0x10000000
_LIMIT = 1 << 32
_PR_SET_PDEATHSIG = 1
_FILES = ((0x40000000, "net"), (0x08000000, "ipc"), (0x04000000, "uts"))  # CLONE_NEWNET, CLONE_NEWIPC, CLONE_NEWUTS


class Range(NamedTuple):
    """``size`` ids from ``inside`` on (in the namespace) are those from ``outside`` on (in ours)."""

    inside: int
    outside: int
    size: int


def check(ranges: Sequence[Range], option: str = "idmap") -> None:
    """Raises ``UsageError`` for what the kernel would refuse: empty, out of range, overlapping, more than 340."""
    if not ranges or len(ranges) > 340:
        raise UsageError("%s: from 1 to 340 ranges are needed, not %d" % (option, len(ranges)), path=option)
    for side in ("inside", "outside"):
        end = -1
        for first, size in sorted((getattr(entry, side), entry.size) for entry in ranges):
            if first < 0 or size < 1 or first + size > _LIMIT - 1:
                raise UsageError("%s: the range %d+%d is out of bounds" % (option, first, size), path=option)
            if first <= end:
                raise UsageError("%s: ranges overlap at %d (%s)" % (option, first, side), path=option)
            end = first + size - 1


def outward(ranges: Sequence[Range], number: int) -> Optional[int]:
    """What the id ``number`` inside is outside; None when it has no mapping."""
    for entry in ranges:
        if entry.inside <= number < entry.inside + entry.size:
            return entry.outside + number - entry.inside
    return None


def inward(ranges: Sequence[Range], number: int) -> Optional[int]:
    """What the id ``number`` outside is inside; None when it has no mapping."""
    return outward([Range(entry.outside, entry.inside, entry.size) for entry in ranges], number)


def from_oci(entries: Sequence[Mapping[str, Any]]) -> tuple[Range, ...]:
    """``linux.uidMappings`` and its like."""
    return tuple(Range(entry["containerID"], entry["hostID"], entry["size"]) for entry in entries)


def text(ranges: Sequence[Range]) -> str:
    return "".join("%d %d %d\n" % entry for entry in ranges)


def write_maps(pid: int, uids: Sequence[Range], gids: Sequence[Range], *, setgroups: bool = True) -> None:
    """Fill in the maps of a process that has just made its user namespace: setgroups, then gid_map, then uid_map.

    ``setgroups`` False denies it, as is demanded of a writer without CAP_SETGID. Raises ``KernelError``.
    """
    check(uids, "uid_map")
    check(gids, "gid_map")
    files = [("gid_map", text(gids)), ("uid_map", text(uids))]
    if not setgroups:
        files.insert(0, ("setgroups", "deny"))
    for name, value in files:
        path = "/proc/%d/%s" % (pid, name)
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, value.encode())
            finally:
                os.close(fd)
        except OSError as error:
            raise KernelError.wrap(error, "Cannot write %s" % path, step="id_map", hint=_HINT) from error


_HINT = "user.max_user_namespaces may be 0, or the ids are not ours to map."


def userns_fd(kernel: Kernel, uids: Sequence[Range], gids: Sequence[Range]) -> int:
    """Descriptor of a user namespace with these maps and no process in it. The caller closes it."""
    check(uids, "uid_map")
    check(gids, "gid_map")

    def take(pid: int) -> int:
        write_maps(pid, uids, gids)
        return os.open("/proc/%d/ns/user" % pid, os.O_RDONLY | os.O_CLOEXEC)

    return _with_holder(kernel, _CLONE_NEWUSER, -1, take)


def namespaces(kernel: Kernel, owner: int, flags: int) -> dict[str, int]:
    """New namespaces that belong to the user namespace ``owner`` (a descriptor): ``{"ipc": descriptor, ...}`` for the
    ``CLONE_NEW*`` flags of ``_FILES``, without a process in them. The caller closes them."""

    def take(pid: int) -> dict[str, int]:
        found: dict[str, int] = {}
        try:
            for flag, name in _FILES:
                if flags & flag:
                    found[name] = os.open("/proc/%d/ns/%s" % (pid, name), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            for fd in found.values():
                os.close(fd)
            raise
        return found

    return _with_holder(kernel, flags, owner, take)


_Taken = TypeVar("_Taken")


def _with_holder(kernel: Kernel, flags: int, owner: int, take: Callable[[int], _Taken]) -> _Taken:
    """``take(pid)`` of a process that lives as long as that takes, in new namespaces. It is in ``owner`` first, if that
    is not -1: whoever makes a namespace, their user namespace owns it (clone(2) alone cannot do both)."""
    ready, tell = os.pipe()
    parent = os.getpid()
    try:
        try:
            pid, pidfd = kernel.clone3(0 if owner >= 0 else flags)
        except OSError as error:
            raise KernelError.wrap(error, "Cannot create a user namespace", step="userns", hint=_HINT) from error
        if pid == 0:
            _hold(kernel, flags, owner, tell, parent)
        os.close(tell)
        tell = -1
        try:
            said = os.read(ready, 16)
            if said != b"0":
                number = int(said or b"3")
                refused = OSError(number, os.strerror(number))
                raise KernelError.wrap(refused, "Cannot create namespaces", step="userns", hint=_HINT)
            return take(pid)
        except OSError as error:
            raise KernelError.wrap(error, "Cannot open the user namespace", step="userns") from error
        finally:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
            os.close(pidfd)
    finally:
        os.close(ready)
        if tell >= 0:
            os.close(tell)


def _hold(kernel: Kernel, flags: int, owner: int, tell: int, parent: int) -> NoReturn:
    """The holder's whole life; it goes with its parent, however early that is killed: it has the parent's locks."""
    try:
        kernel.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(0)
        if owner >= 0:
            kernel.setns(owner, _CLONE_NEWUSER)
            kernel.unshare(flags)
        os.write(tell, b"0")
        while True:
            signal.pause()
    except OSError as error:
        os.write(tell, b"%d" % (error.errno or 5))
    finally:
        os._exit(0)


def owner_fd(namespace: int) -> int:
    """The user namespace that owns the namespace ``namespace`` (ioctl_ns(2) NS_GET_USERNS, Linux 4.9). Raises
    ``OSError``."""
    import fcntl

    return fcntl.ioctl(namespace, 0xB701)
