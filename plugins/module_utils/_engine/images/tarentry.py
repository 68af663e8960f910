# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a tar reader hands on, and to whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, Optional

from ..errors import IntegrityError
from ..tuples import NamedTuple

BLOCK = 512
HARD_LINK = 0  # kind of an entry beside the S_IF* constants

# Clamped to what ext4, XFS and Btrfs all keep (1901 to 2446), so that a layer looks the same in either form.
MIN_TIME, MAX_TIME = -(1 << 31), 0x37FFFFFFF

Sparse = Sequence[tuple[int, int]]


class Entry(NamedTuple):
    """One archive member. ``kind``: an S_IF* constant, or ``HARD_LINK``. ``size``: of the finished file. ``offset``:
    of its data in the stream. ``sparse``: (offset, length) of the stored pieces, or None when it is stored whole."""

    kind: int
    name: bytes
    link: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    nsec: int
    rdev: int
    xattrs: Optional[Mapping[bytes, bytes]]
    offset: int
    sparse: Optional[Sparse]


class Sink:
    """What a stream delivers to."""

    def entry(self, entry: Entry) -> bool:
        """A member; True to be given its data (only regular files have any)."""
        raise NotImplementedError

    def file(self, name: bytes, mode: int, uid: int, gid: int, size: int, mtime: int, offset: int) -> bool:
        """A regular file with nothing unusual about it; False to be given it as an ``entry`` instead. What returns True
        is not given its data. (Most members are such files, and making an ``Entry`` of each takes its time.)"""
        return False

    def data(self, piece: memoryview) -> None:
        """Stored bytes of the last entry, in order."""

    def end(self) -> None:
        """All data of the last entry has been delivered. Called only when ``entry`` returned True."""


def refuse(sentence: str, *args: Any) -> NoReturn:
    raise IntegrityError("Layer refused: " + (sentence % args if args else sentence), step="read_layer")
