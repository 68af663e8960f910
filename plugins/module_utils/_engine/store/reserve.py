# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A little space kept for bad times.

On a full disk SQLite cannot even open a database in WAL mode (it must allocate the -shm file: "disk I/O error"), nor
delete a row: nobody could remove an image to make room. ``<state>/reserve`` is allocated while there is plenty, and
given back in steps when the store is opened, or something is removed, on a full disk.
"""

from __future__ import annotations

import errno
import os

from . import scratch

SIZE = 4 << 20
STEP = 512 << 10
_PLENTY = 16 << 20
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EOPNOTSUPP)


def free_bytes(directory: str) -> int:
    """What may still be written below ``directory``; 0 also when no inode is left."""
    stats = os.statvfs(directory)
    if stats.f_files and not stats.f_favail:
        return 0
    return stats.f_bavail * stats.f_frsize


def is_used_up(directory: str) -> bool:
    """Whether a small file does not fit. A quota may be reached where the file system has plenty, and SQLite calls that
    an I/O error."""
    try:
        fd = os.open(directory, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, bytes(65536))
            os.fsync(fd)  # where space is given late, this is when it turns out
        finally:
            os.close(fd)
    except OSError as error:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return False


def keep(state: str) -> None:
    """Allocate the reserve where there is plenty of space. Doing without is no error."""
    path = state + "/reserve"
    try:
        if os.stat(path).st_size == SIZE:
            return
    except FileNotFoundError:
        pass
    if free_bytes(state) < _PLENTY:
        return
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, SIZE)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise scratch.wrap(error, "Cannot reserve space", step="open_state", path=path, needed=SIZE) from error


def spend(state: str) -> None:
    """On a full disk, give one step back."""
    if free_bytes(state) >= STEP:
        return
    path = state + "/reserve"
    try:
        size = os.stat(path).st_size
        if size:
            os.truncate(path, max(0, size - STEP))
    except FileNotFoundError:
        pass  # there never was plenty
    except OSError as error:
        if error.errno != errno.EROFS:
            raise scratch.wrap(error, "Cannot free reserved space", step="open_state", path=path) from error
