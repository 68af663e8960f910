# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whole directory trees, by descriptors: remove, copy, measure.

Trees come from images and containers, so every name in them is hostile: nothing is opened by a path from the host's
root, no symlink is followed, no mount point is crossed, and neither depth nor width costs descriptors.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import Optional, Union

from ..kernel.syscalls import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, Kernel

Name = Union[str, bytes]
_OPEN_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_INSIDE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV
_MAX_DEPTH = 32
_CHUNK = 1 << 20


def is_empty(dirfd: int) -> bool:
    with os.scandir(dirfd) as entries:
        return next(entries, None) is None


# -- remove ------------------------------------------------------------------------------------------------------


class _Removal:
    """``tag`` names what is waiting at the top; ``waiting`` counts it."""

    __slots__ = ("kernel", "tag", "top", "waiting")

    def __init__(self, kernel: Kernel, top: int) -> None:
        self.kernel = kernel
        self.top = top
        self.tag = ".wharf-%s-" % os.urandom(8).hex()
        self.waiting = 0


def remove_tree(kernel: Kernel, parent: int, name: Name) -> None:
    """Remove ``name`` below the directory ``parent``, whatever it is; absent is fine.

    Directories deeper than 32 are renamed up to the top and wait there, so that a chain of 100,000 directories needs
    neither recursion nor descriptors. Raises ``OSError``; EXDEV when something is mounted in the tree (what is
    mounted is not touched).
    """
    try:
        top = kernel.openat2(parent, name, _OPEN_DIR, resolve=_INSIDE)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        os.unlink(name, dir_fd=parent)
        return
    try:
        job = _Removal(kernel, top)
        _clear(job, top, 0)
        done = 0
        while done < job.waiting:
            _remove_directory(job, top, job.tag + str(done), 1)
            done += 1
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=parent)


def _remove_directory(job: _Removal, parent: int, name: Name, depth: int) -> None:
    try:
        fd = job.kernel.openat2(parent, name, _OPEN_DIR, resolve=_INSIDE)
    except FileNotFoundError:
        return
    try:
        _clear(job, fd, depth)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=parent)


def _clear(job: _Removal, dirfd: int, depth: int) -> None:
    with os.scandir(dirfd) as entries:
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.name, dir_fd=dirfd)
            elif depth < _MAX_DEPTH:
                _remove_directory(job, dirfd, entry.name, depth + 1)
            else:
                os.rename(entry.name, job.tag + str(job.waiting), src_dir_fd=dirfd, dst_dir_fd=job.top)
                job.waiting += 1


# -- copy --------------------------------------------------------------------------------------------------------


class _Copy:
    """``links`` maps (device, inode) of files with several names to the first copied path."""

    __slots__ = ("capability", "directories", "kernel", "links", "owner", "source", "target")

    def __init__(
        self, kernel: Kernel, source: int, target: int, owner: Optional[Owner], capability: Optional[Capability]
    ) -> None:
        self.owner = owner
        self.capability = capability
        self.kernel = kernel
        self.source = source
        self.target = target
        self.links: dict[tuple[int, int], str] = {}
        self.directories: list[str] = []

    def open(self, root: int, path: str, flags: int = _OPEN_DIR) -> int:
        return self.kernel.openat2(root, path, flags, resolve=_INSIDE)


Owner = Callable[[int, int], tuple[int, int]]
Capability = Callable[[bytes], bytes]


def copy_tree(
    kernel: Kernel,
    source: int,
    target: int,
    owner: Optional[Owner] = None,
    capability: Optional[Capability] = None,
) -> None:
    """Copy the contents and the attributes of directory ``source`` into directory ``target`` (descriptors).

    Owner, mode, times, xattrs, links, devices, FIFOs and sockets are kept; mounts in ``source`` are not entered.
    Entries that exist in ``target`` are left as they are, and files appear complete, so a copy that was cut off is
    finished by copying again. ``owner``: (uid, gid) of the copy from those of the source; ``capability``: the same for
    the attribute of file capabilities. Raises ``OSError``.
    """
    job = _Copy(kernel, source, target, owner, capability)
    waiting = ["."]
    while waiting:
        path = waiting.pop()
        job.directories.append(path)
        _copy_directory(job, path, waiting)
    for path in reversed(job.directories):  # last: their own times change while they fill
        src, dst = job.open(source, path), job.open(target, path)
        try:
            _copy_attributes(job, os.fstat(src), "/proc/self/fd/%d/." % src, "/proc/self/fd/%d/." % dst)
        finally:
            os.close(src)
            os.close(dst)


def _copy_directory(job: _Copy, path: str, waiting: list[str]) -> None:
    src = job.open(job.source, path)
    try:
        dst = job.open(job.target, path)
        try:
            with os.scandir(src) as entries:
                for entry in entries:
                    info = entry.stat(follow_symlinks=False)
                    inner = entry.name if path == "." else path + "/" + entry.name
                    if stat.S_ISDIR(info.st_mode):
                        try:
                            os.mkdir(entry.name, 0o700, dir_fd=dst)
                        except FileExistsError:
                            pass
                        waiting.append(inner)
                    else:
                        _copy_entry(job, src, dst, entry.name, inner, info)
        finally:
            os.close(dst)
    finally:
        os.close(src)


def _copy_entry(job: _Copy, src: int, dst: int, name: str, path: str, info: os.stat_result) -> None:
    key = (info.st_dev, info.st_ino)
    first = job.links.get(key) if info.st_nlink > 1 else None
    try:
        if first is not None:
            parent = job.open(job.target, os.path.dirname(first) or ".")
            try:
                os.link(os.path.basename(first), name, src_dir_fd=parent, dst_dir_fd=dst, follow_symlinks=False)
            finally:
                os.close(parent)
            return
        if info.st_nlink > 1:
            job.links[key] = path
        if stat.S_ISREG(info.st_mode):
            _copy_file(job, src, dst, name, info)
            return
        if stat.S_ISLNK(info.st_mode):
            os.symlink(os.readlink(name, dir_fd=src), name, dir_fd=dst)
        else:
            os.mknod(name, info.st_mode, info.st_rdev, dir_fd=dst)
        _copy_attributes(job, info, "/proc/self/fd/%d/%s" % (src, name), "/proc/self/fd/%d/%s" % (dst, name))
    except FileExistsError:
        return


def _copy_file(job: _Copy, src: int, dst: int, name: str, info: os.stat_result) -> None:
    """Under a temporary name until it is whole."""
    temporary = ".wharf-copy-%s" % os.urandom(8).hex()
    reader = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=src)
    try:
        writer = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=dst)
        try:
            copy_bytes(reader, writer)
            _copy_attributes(job, info, "/proc/self/fd/%d/%s" % (src, name), "/proc/self/fd/%d/%s" % (dst, temporary))
            os.link(temporary, name, src_dir_fd=dst, dst_dir_fd=dst)
        finally:
            os.close(writer)
            os.unlink(temporary, dir_fd=dst)
    finally:
        os.close(reader)


def copy_bytes(reader: int, writer: int) -> None:
    """Everything from ``reader``'s position to its end, by the kernel where it can."""
    try:
        while os.copy_file_range(reader, writer, _CHUNK * 64):
            pass
        return
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM):
            raise
    while True:
        data = os.read(reader, _CHUNK)
        if not data:
            return
        view = memoryview(data)
        while view:
            view = view[os.write(writer, view) :]


def _copy_attributes(job: _Copy, info: os.stat_result, source: str, target: str) -> None:
    """Both paths start at a descriptor and end in one name that is not followed. Owner first: chown clears set-id
    bits and file capabilities."""
    owner = (info.st_uid, info.st_gid)
    os.chown(target, *(job.owner(*owner) if job.owner else owner), follow_symlinks=False)
    for key in os.listxattr(source, follow_symlinks=False):
        if key != "security.selinux":  # a label is the target's policy's business
            _copy_xattr(job, source, target, key)
    if not stat.S_ISLNK(info.st_mode):
        os.chmod(target, stat.S_IMODE(info.st_mode))
    os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns), follow_symlinks=False)


def _copy_xattr(job: _Copy, source: str, target: str, key: str) -> None:
    try:
        value = os.getxattr(source, key, follow_symlinks=False)
        if job.capability and key == "security.capability":
            value = job.capability(value)
        os.setxattr(target, key, value, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENODATA):  # the target's file system has no such attributes
            raise


# -- measure -----------------------------------------------------------------------------------------------------


def usage(kernel: Kernel, root: int, seen: Optional[set[tuple[int, int]]] = None) -> int:
    """Bytes of disk used below the directory ``root``; a file with several names counts once. Entries that vanish
    meanwhile are skipped, mounts are not entered."""
    seen = set() if seen is None else seen
    total = os.fstat(root).st_blocks * 512
    waiting = ["."]
    while waiting:
        path = waiting.pop()
        try:
            fd = kernel.openat2(root, path, _OPEN_DIR, resolve=_INSIDE)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EXDEV, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
                continue
            raise
        try:
            total += _usage_of(fd, path, waiting, seen)
        finally:
            os.close(fd)
    return total


def _usage_of(fd: int, path: str, waiting: list[str], seen: set[tuple[int, int]]) -> int:
    total = 0
    with os.scandir(fd) as entries:
        for entry in entries:
            try:
                info = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if stat.S_ISDIR(info.st_mode):
                waiting.append(entry.name if path == "." else path + "/" + entry.name)
            elif info.st_nlink > 1:
                key = (info.st_dev, info.st_ino)
                if key in seen:
                    continue
                seen.add(key)
            total += info.st_blocks * 512
    return total
