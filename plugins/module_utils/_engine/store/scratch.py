# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Half-done things below ``paths.tmp``: made, held, found again, thrown away.

Each entry is held by a ``flock`` on the entry itself (file or directory) for as long as somebody works on it; the
kernel drops the lock with the process. So *what can be locked is litter*, with one exception: ``ingest-<digest>``, a
partial download that waits to be resumed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from typing import Optional

from .. import fds
from ..errors import DiskFull, KernelError, WharfError
from ..tuples import NamedTuple

PARTIAL_SECONDS = 24 * 3600.0  # how long a partial download waits to be resumed
_UNKNOWN_SECONDS = 3600.0


def wrap(error: OSError, sentence: str, *, step: str, path: str, needed: int = 0) -> WharfError:
    """``DiskFull`` for ENOSPC and EDQUOT, with the bytes needed and free; ``KernelError`` for the rest."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        try:
            stats = os.statvfs(os.path.dirname(path))
            free = str(stats.f_bavail * stats.f_frsize)
        except OSError:
            free = "unknown"
        return DiskFull(
            "%s: no space left for %s (%d bytes needed, %s free)" % (sentence, path, needed, free),
            step=step,
            path=path,
            errno=error.errno,
            hint="Free some space, or remove unused images.",
            details={"bytes_needed": needed},
        )
    return KernelError.wrap(error, sentence, step=step)


def sync_dir(path: str) -> None:
    """Make creations and renames in directory ``path`` survive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def try_lock(fd: int, operation: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(fd, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def new_dir(tmp: str, prefix: str) -> tuple[str, int]:
    """A new directory ``tmp/<prefix>-<hex>``, and the descriptor that holds it."""
    while True:
        path = "%s/%s-%s" % (tmp, prefix, os.urandom(8).hex())
        try:
            os.mkdir(path, 0o700)
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            if not os.path.isdir(tmp):
                raise
            continue  # taken for litter between mkdir and open
        except OSError as error:
            raise wrap(error, "Cannot create a work directory", step="stage", path=path) from error
        if try_lock(fd) and fds.is_at(fd, path):
            return path, fd
        os.close(fd)


def trash(tmp: str, path: str) -> Optional[str]:
    """Take ``path`` out of sight in one step: rename it to ``tmp/trash-<hex>``. ``None`` when it doesn't exist."""
    target = "%s/trash-%s" % (tmp, os.urandom(8).hex())
    try:
        os.rename(path, target)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KernelError.wrap(error, "Cannot remove %s" % path, step="remove") from error
    return target


def empty(path: Optional[str]) -> int:
    """Delete ``tmp/trash-<hex>`` unless somebody else is at it. Returns the bytes that were freed."""
    if path is None:
        return 0
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return 0
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a symlink or a socket: nothing to hold
            os.unlink(path)
            return 0
        raise KernelError.wrap(error, "Cannot remove %s" % path, step="remove") from error
    try:
        if not try_lock(fd):
            return 0
        return remove_tree(path)
    finally:
        os.close(fd)


def remove_tree(path: str) -> int:
    """rm -rf, without following links and without recursion. Returns the bytes freed (512-byte blocks used).

    What a container wrote is deleted here, so depth is the attacker's choice: subdirectories are first moved up into
    the top one (``rename`` doesn't care about depth), so that no path and no descriptor chain grows. A mount point
    inside is refused by the kernel (EBUSY, EXDEV), never emptied.
    """
    try:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            return _unlink(path, None)
        top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        freed = _empty_dir(top, top)
        for name in _subdirectories(top):
            freed += _empty_moved(top, name)
        os.rmdir(path)
    except FileNotFoundError:
        return 0  # another process was faster
    except OSError as error:
        raise KernelError.wrap(error, "Cannot remove %s" % path, step="remove") from error
    finally:
        os.close(top)
    return freed


def _subdirectories(top: int) -> Iterator[str]:
    while True:
        names = os.listdir(top)
        if not names:
            return
        yield from names


def _empty_moved(top: int, name: str) -> int:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
    except FileNotFoundError:
        return 0
    try:
        freed = _empty_dir(fd, top)
        while not _rmdir(name, top):  # a directory that changes while it is read may show less than it has
            freed += _empty_dir(fd, top)
    finally:
        os.close(fd)
    return freed


def _rmdir(name: str, dirfd: int) -> bool:
    """False if something is left in it."""
    try:
        os.rmdir(name, dir_fd=dirfd)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def _empty_dir(fd: int, top: int) -> int:
    """Unlink the files in ``fd``; move its subdirectories up into ``top``."""
    freed = 0
    with os.scandir(fd) as entries:
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                freed += _unlink(entry.name, fd)
            elif fd != top:
                try:
                    os.rename(entry.name, os.urandom(8).hex(), src_dir_fd=fd, dst_dir_fd=top)
                except FileNotFoundError:
                    pass
    return freed


def _unlink(name: str, dirfd: Optional[int]) -> int:
    try:
        info = os.lstat(name) if dirfd is None else os.stat(name, dir_fd=dirfd, follow_symlinks=False)
        os.unlink(name, dir_fd=dirfd)
    except FileNotFoundError:
        return 0
    return info.st_blocks * 512 if info.st_nlink == 1 else 0


class Swept(NamedTuple):
    """Names that are gone, bytes freed, and sentences about what could not be removed (the next sweep tries again)."""

    gone: list[str]
    freed: int
    problems: list[str]


def sweep(tmp: str, *, partial_seconds: float = PARTIAL_SECONDS) -> Swept:
    """Delete what nobody holds."""
    gone: list[str] = []
    problems: list[str] = []
    freed = 0
    for name in os.listdir(tmp):
        path = "%s/%s" % (tmp, name)
        if not _expired(path, name, partial_seconds):
            continue
        try:
            size = _sweep_one(tmp, path, name)
        except KernelError as error:
            problems.append(error.msg)
            continue
        if size is not None:
            gone.append(name)
            freed += size
    return Swept(gone, freed, problems)


def _expired(path: str, name: str, partial_seconds: float) -> bool:
    kind, _dash, rest = name.partition("-")
    if kind in ("layer", "trash", "volume") or (kind == "ingest" and len(rest) != 64):
        return True
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        return False
    if kind == "ingest" and info.st_nlink > 1:
        return True  # published already; only its temporary name was left
    age = time.time() - info.st_mtime
    return age > (partial_seconds if kind == "ingest" else _UNKNOWN_SECONDS)


def _sweep_one(tmp: str, path: str, name: str) -> Optional[int]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError:  # a symlink, socket or device node: nobody holds such a thing
        return empty(trash(tmp, path))
    try:
        if not try_lock(fd) or not fds.is_at(fd, path):
            return None
        if not name.startswith("trash-"):
            moved = trash(tmp, path)
            return 0 if moved is None else remove_tree(moved)
        return remove_tree(path)
    finally:
        os.close(fd)
