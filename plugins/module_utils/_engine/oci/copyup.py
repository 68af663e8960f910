# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""``tmpcopyup``: a tmpfs that starts with what lies in the directory it covers."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from ..errors import KernelError

if TYPE_CHECKING:
    from ..kernel.syscalls import Kernel

_CHUNK = 1 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def copy_up(kernel: Kernel, root: int, destination: str, tmpfs: int) -> None:
    """Only directories, files, links and nodes right there; relative to descriptors, links are not followed."""
    try:
        source = kernel.open_in_root(root, destination, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return
    target = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=tmpfs)
    try:
        _copy_directory(source, target)
    except OSError as error:
        raise KernelError.wrap(error, "Cannot copy %s up" % destination, step="copy_up") from error
    finally:
        os.close(source)
        os.close(target)


def _copy_directory(source: int, target: int) -> None:
    with os.scandir(source) as entries:
        names = [entry.name for entry in entries]
    for name in names:
        info = os.stat(name, dir_fd=source, follow_symlinks=False)
        kind = stat.S_IFMT(info.st_mode)
        if kind == stat.S_IFDIR:
            os.mkdir(name, 0o700, dir_fd=target)
            inner = os.open(name, _DIRECTORY, dir_fd=source)
            made = os.open(name, _DIRECTORY, dir_fd=target)
            try:
                _copy_directory(inner, made)
            finally:
                os.close(inner)
                os.close(made)
        elif kind == stat.S_IFLNK:
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        elif kind == stat.S_IFREG:
            _copy_file(source, target, name)
        else:
            continue  # sockets and pipes belong to whoever made them; nodes come with /dev
        os.chown(name, info.st_uid, info.st_gid, dir_fd=target, follow_symlinks=False)
        if kind != stat.S_IFLNK:
            os.chmod(name, stat.S_IMODE(info.st_mode), dir_fd=target)


def _copy_file(source: int, target: int, name: str) -> None:
    one = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=source)
    try:
        other = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target)
        try:
            while os.sendfile(other, one, None, _CHUNK):
                pass
        finally:
            os.close(other)
    finally:
        os.close(one)
