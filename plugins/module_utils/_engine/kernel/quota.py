# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Project quotas: directories whose files are counted together, and may be limited (``<linux/quota.h>``,
``<linux/dqblk_xfs.h>``, FS_IOC_FSSETXATTR of ``<linux/fs.h>``).

The same calls for ext4 and xfs. A file system is named by a descriptor on it (quotactl_fd(2), Linux 5.14), before that
by its block device.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct

from ..tuples import NamedTuple
from . import procfs
from .syscalls import Kernel

_PROJECT = 2  # PRJQUOTA
_GET, _SET, _STATE = 0x800007, 0x800008, 0x5808  # Q_GETQUOTA, Q_SETQUOTA, Q_XGETQSTATV
_DQBLK = struct.Struct("=8QI4x")  # hard and soft limit (KiB), bytes used, then inodes; times; what is valid
_LIMITS = 1  # QIF_BLIMITS
_ENFORCED = 1 << 5  # FS_QUOTA_PDQ_ENFD
_FSXATTR = struct.Struct("=5I8x")  # flags, extent size, extents, project, cow extent size
_GETX, _SETX = 0x801C581F, 0x401C5820  # FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR
_INHERIT = 0x200  # FS_XFLAG_PROJINHERIT: what is made below is of the same project


class Quota(NamedTuple):
    """``limit``: bytes, 0 for none; ``used``: bytes; ``files``: how many."""

    limit: int
    used: int
    files: int


def is_enforced(kernel: Kernel, fd: int) -> bool:
    """Whether the file system that ``fd`` is on counts projects and refuses what is beyond their limits."""
    buffer = ctypes.create_string_buffer(256)
    buffer[0] = b"\1"  # FS_QSTATV_VERSION1
    try:
        _quotactl(kernel, fd, _STATE, 0, buffer)
    except OSError:  # no quotas: this kernel's, this file system's, or not switched on
        return False
    return bool(int.from_bytes(buffer.raw[2:4], "little" if _LITTLE else "big") & _ENFORCED)


_LITTLE = struct.pack("=H", 1) == b"\1\0"


def get(kernel: Kernel, fd: int, project: int) -> Quota:
    """Of a project that nobody has used: all 0. Raises ``OSError``."""
    buffer = ctypes.create_string_buffer(_DQBLK.size)
    try:
        _quotactl(kernel, fd, _GET, project, buffer)
    except FileNotFoundError:  # xfs has no record of it
        return Quota(0, 0, 0)
    hard, _soft, used, _ihard, _isoft, files, _btime, _itime, _valid = _DQBLK.unpack(buffer.raw)
    return Quota(hard << 10, used, files)


def set_limit(kernel: Kernel, fd: int, project: int, size: int) -> None:
    """``size``: bytes, rounded up to KiB; 0 for no limit. Raises ``OSError``."""
    blocks = (size + 1023) >> 10
    buffer = ctypes.create_string_buffer(_DQBLK.pack(blocks, blocks, 0, 0, 0, 0, 0, 0, _LIMITS), _DQBLK.size)
    _quotactl(kernel, fd, _SET, project, buffer)


def project(fd: int) -> int:
    """Whose files are made below this directory; 0: nobody's in particular. Raises ``OSError``."""
    flags, _extent, _extents, number, _cow = _FSXATTR.unpack(fcntl.ioctl(fd, _GETX, bytes(_FSXATTR.size)))
    return int(number) if flags & _INHERIT else 0


def assign(fd: int, number: int) -> None:
    """An empty directory to a project. Raises ``OSError``."""
    flags, extent, extents, _number, cow = _FSXATTR.unpack(fcntl.ioctl(fd, _GETX, bytes(_FSXATTR.size)))
    fcntl.ioctl(fd, _SETX, _FSXATTR.pack(flags | _INHERIT, extent, extents, number, cow))


def _quotactl(kernel: Kernel, fd: int, command: int, number: int, buffer: ctypes.Array[ctypes.c_char]) -> None:
    code = command << 8 | _PROJECT
    try:
        kernel.syscall("quotactl_fd", fd, code, number, buffer, what="quotactl")
    except OSError as error:
        if error.errno != 38:  # ENOSYS: also said of a file system without quotas, which its device is then asked for
            raise
        kernel.syscall("quotactl", code, os.fsencode(_device(fd)), number, buffer, what="quotactl")


def _device(fd: int) -> str:
    """The block device of the file system; ``OSError`` where there is none that can be named."""
    wanted = os.fstat(fd).st_dev
    numbers = "%d:%d" % (os.major(wanted), os.minor(wanted))
    names = ["/dev/block/" + numbers]
    names += [entry.source for entry in procfs.mountinfo("/proc/self/mountinfo") if entry.device == numbers]
    for name in names:
        try:
            if os.stat(name).st_rdev == wanted:
                return name
        except OSError:  # udev's links need not be there, and "/dev/root" is no file
            continue
    raise OSError(95, os.strerror(95), "quotactl")
