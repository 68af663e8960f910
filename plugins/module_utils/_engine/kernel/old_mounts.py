# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What mount_setattr(2) does, on kernels that do not have it (before Linux 5.12).

mount(2) changes only mounts of the caller's own namespace, and a detached mount is in none. So a forked child enters a
private namespace, attaches the mount there, changes it, and hands a detached clone of the result back, which takes the
place of the old descriptor. The mount is never visible anywhere with other attributes than it should have.
"""

from __future__ import annotations

import os
from typing import NoReturn

from .syscalls import (
    AT_FDCWD,
    AT_RECURSIVE,
    CLONE_NEWNS,
    MOUNT_ATTR_IDMAP,
    MOUNT_ATTR_NOATIME,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MOUNT_ATTR_STRICTATIME,
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    OPEN_TREE_CLONE,
    Kernel,
)

_NOATIME, _NODIRATIME, _RELATIME, _STRICTATIME = 1 << 10, 1 << 11, 1 << 21, 1 << 24  # of mount(2)
_ST_RELATIME = 1 << 12  # of statvfs(3); the others have the same numbers in both
_FLAGS = (
    (MOUNT_ATTR_RDONLY, MS_RDONLY),
    (MOUNT_ATTR_NOSUID, MS_NOSUID),
    (MOUNT_ATTR_NODEV, MS_NODEV),
    (MOUNT_ATTR_NOEXEC, MS_NOEXEC),
)
_ATIME = _NOATIME | _RELATIME | _STRICTATIME
_ENOSYS, _EINVAL = 38, 22
_PLACES = ("/run", "/tmp", "/proc")  # hidden only inside the private namespace


def set_attributes(
    kernel: Kernel, mount_fd: int, attr_set: int, attr_clear: int, propagation: int, recursive: bool
) -> None:
    """As ``Kernel.mount_setattr``; the descriptor ``mount_fd`` may then stand for a clone with the new attributes.

    Raises ``OSError``; ENOSYS for id-mapped mounts, for which there is no other way.
    """
    if attr_set & MOUNT_ATTR_IDMAP:
        raise OSError(_ENOSYS, os.strerror(_ENOSYS), "id-mapped mount")
    if not recursive and not propagation:
        try:
            _remount(kernel, "/proc/self/fd/%d" % mount_fd, attr_set, attr_clear)
            return
        except OSError as error:
            if error.errno != _EINVAL:  # EINVAL: it is detached
                raise
    changed = _in_child(kernel, mount_fd, attr_set, attr_clear, propagation, recursive)
    try:
        os.dup2(changed, mount_fd, inheritable=False)
    finally:
        os.close(changed)


def remount_flags(present: int, attr_set: int, attr_clear: int) -> int:
    """Flags of mount(2) for ``present`` ones (``statvfs``): a remount that leaves one out takes it away."""
    flags = present & (MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | _NOATIME | _NODIRATIME)
    if present & _ST_RELATIME:
        flags |= _RELATIME
    for attr, flag in _FLAGS:
        flags = flags | flag if attr_set & attr else flags & ~flag if attr_clear & attr else flags
    if attr_set & MOUNT_ATTR_NOATIME:
        flags = flags & ~_ATIME | _NOATIME
    elif attr_set & MOUNT_ATTR_STRICTATIME:
        flags = flags & ~_ATIME | _STRICTATIME
    return flags


def _remount(kernel: Kernel, path: str, attr_set: int, attr_clear: int) -> None:
    present = os.statvfs(path).f_flag
    kernel.mount(None, path, None, MS_REMOUNT | MS_BIND | remount_flags(present, attr_set, attr_clear))


def _in_child(kernel: Kernel, mount_fd: int, attr_set: int, attr_clear: int, propagation: int, recursive: bool) -> int:
    import socket

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        _child(kernel, mount_fd, attr_set, attr_clear, propagation, recursive, theirs.fileno())
    theirs.close()
    try:
        message, fds, _flags, _address = socket.recv_fds(ours, 256, 1)
    finally:
        ours.close()
        os.waitpid(pid, 0)
    if fds:
        return fds[0]
    number = int(message or b"5")
    raise OSError(number, os.strerror(number), "mount attributes")


def _child(
    kernel: Kernel, mount_fd: int, attr_set: int, attr_clear: int, propagation: int, recursive: bool, channel: int
) -> NoReturn:
    import socket

    try:
        sock = socket.socket(fileno=channel)
        try:
            fd = _change(kernel, mount_fd, attr_set, attr_clear, propagation, recursive)
            socket.send_fds(sock, [b"0"], [fd])
        except OSError as error:
            sock.send(b"%d" % (error.errno or 5))
    finally:
        os._exit(0)


def _change(kernel: Kernel, mount_fd: int, attr_set: int, attr_clear: int, propagation: int, recursive: bool) -> int:
    kernel.unshare(CLONE_NEWNS)
    kernel.mount(None, "/", None, MS_REC | MS_PRIVATE)
    table = os.open("/proc/self/mountinfo", os.O_RDONLY)  # of the new namespace; /proc may be hidden in a moment
    place = next(path for path in _PLACES if os.path.isdir(path) and not os.path.islink(path))
    kernel.mount("wharf", place, "tmpfs", 0, "mode=0700")
    os.chdir(place)
    if _is_directory(mount_fd):
        os.mkdir("m")
    else:
        os.close(os.open("m", os.O_WRONLY | os.O_CREAT, 0o600))
    target = os.open("m", os.O_PATH)
    kernel.move_mount(mount_fd, target, what="m")
    os.close(target)
    for path in ["m", *(_below(table, place + "/m/") if recursive else ())]:
        if attr_set or attr_clear:
            _remount(kernel, path, attr_set, attr_clear)
    if propagation:
        kernel.mount(None, "m", None, propagation | (MS_REC if recursive else 0))
    flags = OPEN_TREE_CLONE | os.O_CLOEXEC | (AT_RECURSIVE if recursive else 0)
    return kernel.syscall("open_tree", AT_FDCWD, b"m", flags, what="m")


def _is_directory(fd: int) -> bool:
    import stat

    return stat.S_ISDIR(os.fstat(fd).st_mode)


def _below(table: int, prefix: str) -> list[str]:
    from .procfs import parse_mountinfo

    chunks = []
    while True:
        data = os.read(table, 1 << 16)
        if not data:
            break
        chunks.append(data)
    mounts = parse_mountinfo(b"".join(chunks).decode(errors="surrogateescape"))
    return ["m/" + mount.target[len(prefix) :] for mount in mounts if mount.target.startswith(prefix)]
