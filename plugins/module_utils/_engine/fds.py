# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""One owner per descriptor."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Optional


class Fd:
    """Owns one file descriptor; usable in ``with``, and wherever an object with ``fileno()`` is.

    ``take()`` gives ownership away (the ``Fd`` no longer closes it). Closing twice is harmless.
    """

    __slots__ = ("n",)

    def __init__(self, n: int) -> None:
        self.n = n

    def fileno(self) -> int:
        return self.n

    def take(self) -> int:
        n, self.n = self.n, -1
        return n

    def close(self) -> None:
        if self.n >= 0:
            n, self.n = self.n, -1
            os.close(n)

    def __enter__(self) -> Fd:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], value: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def is_at(fd: int, path: str) -> bool:
    """Is ``path`` still the file that ``fd`` was opened from? (Between open and flock somebody may have moved it.)"""
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        return False
    here = os.fstat(fd)
    return (there.st_ino, there.st_dev) == (here.st_ino, here.st_dev)
