# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Named volumes as directories: ``<state>/volumes/<name>/_data``.

A volume holds users' data: it is removed by renaming it out of the way first (a crash leaves litter in ``tmp/``,
never half a volume under its name), and it is filled from an image only while it is empty.
"""

from __future__ import annotations

import errno
import fcntl
import os
from typing import Optional

from ..errors import DiskFull, InUse, KernelError, UsageError
from ..kernel.syscalls import Kernel
from ..paths import Paths

_COPYING = ".copying"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def check_name(name: str) -> None:
    """Docker's rule: two or more of ``[a-zA-Z0-9][a-zA-Z0-9_.-]``, at most 255. Raises ``UsageError``."""
    allowed = name.isascii() and all(c.isalnum() or c in "_.-" for c in name)
    if not allowed or not 2 <= len(name) <= 255 or not name[0].isalnum():
        raise UsageError(
            "Volume name %r is invalid: two or more of a-z A-Z 0-9 _ . - are allowed, the first a letter or digit"
            % name,
            path="name",
        )


def create(paths: Paths, name: str) -> str:
    """Make the volume's directories; existing ones are left as they are. Returns the data directory's path.

    Data 0755, the volume's own directory 0701, both root's, as Docker has them.
    """
    check_name(name)
    data = paths.volume_data(name)
    try:
        os.makedirs(paths.volumes, mode=0o711, exist_ok=True)
        for path, mode in ((paths.volume(name), 0o701), (data, 0o755)):
            try:
                os.mkdir(path, 0o700)
            except FileExistsError:
                continue
            os.chmod(path, mode)
        _sync(paths.volume(name))
        _sync(paths.volumes)
    except OSError as error:
        raise _wrapped(error, "Cannot create volume %s" % name, "volume " + name) from error
    return data


def remove(paths: Paths, name: str, kernel: Optional[Kernel] = None) -> bool:
    """Delete the volume and its data. False when there is no such directory.

    Raises ``InUse`` when something is mounted inside; nothing is touched then.
    """
    from .trees import remove_tree

    check_name(name)
    _refuse_mounts(paths.volume(name), name)
    litter = "volume-" + os.urandom(8).hex()
    parent = held = -1
    try:
        os.makedirs(paths.tmp, mode=0o700, exist_ok=True)
        parent = os.open(paths.tmp, _DIRECTORY)
        held = os.open(paths.volume(name), _DIRECTORY)
        # Whoever cleans tmp/ takes what can be locked for litter: this is held until it is gone.
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rename(paths.volume(name), paths.tmp + "/" + litter)
        _sync(paths.volumes)
        remove_tree(kernel or Kernel(), parent, litter)
    except (FileNotFoundError, BlockingIOError):  # absent, or being removed by somebody else
        return False
    except OSError as error:
        raise _wrapped(error, "Cannot remove volume %s" % name, "volume " + name) from error
    finally:
        for fd in (parent, held):
            if fd >= 0:
                os.close(fd)
    return True


def _refuse_mounts(path: str, name: str) -> None:
    prefix = os.path.realpath(path) + "/"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            # Blanks and backslashes are octal in this file; names of volumes hold neither.
            place = line.split(" ")[4].replace("\\040", " ").replace("\\134", "\\")
            if place.startswith(prefix):
                raise InUse(
                    "Cannot remove volume %s: %s is a mount point" % (name, place),
                    step="volume",
                    subject="volume " + name,
                    path=place,
                    hint="Unmount it first.",
                )


def copy_up(kernel: Kernel, rootfs_fd: int, path_in_image: str, volume_dir: str) -> bool:
    """Fill an empty volume with what the image has at ``path_in_image``; also takes over that directory's own owner,
    mode and attributes, as Docker does.

    ``rootfs_fd``: the root of a mounted image or container; the path is resolved inside it. ``volume_dir``: the data
    directory. Returns whether anything was copied: not when the volume has entries, or the image no such directory.
    A copy cut off by a crash is found by its marker beside the data and finished by the next call.
    """
    from .trees import copy_tree, is_empty

    subject = "volume " + os.path.basename(os.path.dirname(volume_dir))
    try:
        target = os.open(volume_dir, _DIRECTORY)
        try:
            source = _image_directory(kernel, rootfs_fd, path_in_image)
            if source is None:
                return False
            try:
                marker = _lock(os.path.dirname(volume_dir) + "/" + _COPYING)
                try:
                    if not is_empty(target) and not os.fstat(marker).st_size:
                        return False
                    os.pwrite(marker, b"1", 0)
                    os.fsync(marker)
                    copy_tree(kernel, source, target)
                    kernel.syncfs(target)
                    os.truncate(marker, 0)
                    return True
                finally:
                    _unlock(marker, os.path.dirname(volume_dir) + "/" + _COPYING)
            finally:
                os.close(source)
        finally:
            os.close(target)
    except OSError as error:
        raise _wrapped(error, "Cannot copy %s of the image into the %s" % (path_in_image, subject), subject) from error


def _image_directory(kernel: Kernel, rootfs_fd: int, path: str) -> Optional[int]:
    try:
        return kernel.open_in_root(rootfs_fd, path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise


def _lock(path: str) -> int:
    """Two containers may start with the same new volume at once: one copies, the other waits."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:  # else: the other has removed it while we waited
            return fd
        os.close(fd)


def _unlock(fd: int, path: str) -> None:
    """The marker stays exactly when a copy was begun and not finished."""
    if os.fstat(fd).st_size == 0:
        os.unlink(path)
    os.close(fd)


def usage(path: str, kernel: Optional[Kernel] = None) -> int:
    """Bytes of disk used below ``path``. Raises ``KernelError``."""
    from . import trees

    try:
        fd = os.open(path, _DIRECTORY)
        try:
            return trees.usage(kernel or Kernel(), fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise KernelError.wrap(error, "Cannot measure %s" % path, step="disk_usage") from error


def _sync(path: str) -> None:
    fd = os.open(path, _DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _wrapped(error: OSError, sentence: str, subject: str) -> Exception:
    if error.errno in (errno.EXDEV, errno.EBUSY):
        return InUse(sentence + ": something is mounted inside it", step="volume", subject=subject, errno=error.errno)
    kind = DiskFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else KernelError
    return kind.wrap(error, sentence, step="volume", subject=subject)
