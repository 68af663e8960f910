# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""How much a writable layer may hold: a project of its own for ``upper`` and ``work``.

Both, because overlay makes a file in ``work`` and moves it to ``upper``, which between projects is refused. The
project's number is read from the directory: nothing else has to remember it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Optional

from ..errors import DiskFull, KernelError, StateError
from ..kernel import quota
from ..kernel.syscalls import Kernel

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FIRST, _COUNT = 0x40000000, 0x3FFFFFFF  # administrators number theirs from 1 on
_TRIES = 64
_NO_QUOTAS = (errno.ENOTTY, errno.EOPNOTSUPP, errno.ENOSYS, errno.ESRCH)


def is_possible(kernel: Kernel, path: str) -> bool:
    """Whether the file system that ``path``, or what exists above it, is on can limit what is written."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return quota.is_enforced(kernel, fd)
    finally:
        os.close(fd)


def give(kernel: Kernel, directories: Sequence[str], seed: str, size: int) -> None:
    """Empty ``directories`` may hold ``size`` bytes together. ``seed``: hexadecimal digits that the number is made of,
    the next one where that is somebody's. Raises ``KernelError``, ``DiskFull``, ``StateError``."""
    with _wrapped("Cannot limit %s to %d bytes" % (directories[0], size)):
        fds = [os.open(path, _DIRECTORY) for path in directories]
        try:
            number = _free(kernel, fds[0], int(seed[:8], 16))
            quota.set_limit(kernel, fds[0], number, size)
            for fd in fds:
                quota.assign(fd, number)
        finally:
            for fd in fds:
                os.close(fd)


def _free(kernel: Kernel, fd: int, seed: int) -> int:
    for step in range(_TRIES):
        number = _FIRST + (seed + step) % _COUNT
        if not any(quota.get(kernel, fd, number)):
            return number
    raise StateError("No project number for a quota is free after %d tries" % _TRIES, step="storage_quota")


def limit(kernel: Kernel, directory: str) -> Optional[int]:
    """Bytes that ``directory`` may hold, 0: as many as it likes; None: nobody counts. Raises ``KernelError``."""
    with _wrapped("Cannot read the quota of %s" % directory), _opened(directory) as fd:
        try:
            number = quota.project(fd)
            return quota.get(kernel, fd, number).limit if number else None
        except OSError as error:
            if error.errno in _NO_QUOTAS:
                return None
            raise


def change(kernel: Kernel, directory: str, size: int) -> None:
    """Of a directory that has a project; 0: no limit, which is so as well where the file system was mounted again
    without quotas. Raises ``KernelError``."""
    with _wrapped("Cannot limit %s to %d bytes" % (directory, size)), _opened(directory) as fd:
        try:
            number = quota.project(fd)
            if number:
                quota.set_limit(kernel, fd, number, size)
        except OSError as error:
            if size or error.errno not in _NO_QUOTAS:
                raise


@contextmanager
def _opened(directory: str) -> Iterator[int]:
    fd = os.open(directory, _DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _wrapped(sentence: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        kind = DiskFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else KernelError
        raise kind.wrap(error, sentence, step="storage_quota") from error
