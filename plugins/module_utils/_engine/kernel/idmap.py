# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Identity mappings: a user namespace made only to be named by descriptor (for idmapped mounts)."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..errors import KernelError, UsageError

if TYPE_CHECKING:
    from .syscalls import Kernel

_CLONE_NEWUSER = 0x10000000
_LIMIT = 1 << 32


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
    try:
        pid, pidfd = kernel.clone3(_CLONE_NEWUSER)
    except OSError as error:
        raise KernelError.wrap(error, "Cannot create a user namespace", step="userns", hint=_HINT) from error
    if pid == 0:
        try:
            while True:
                signal.pause()
        finally:
            os._exit(0)
    try:
        write_maps(pid, uids, gids)
        return os.open("/proc/%d/ns/user" % pid, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise KernelError.wrap(error, "Cannot open the user namespace", step="userns") from error
    finally:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        os.close(pidfd)
