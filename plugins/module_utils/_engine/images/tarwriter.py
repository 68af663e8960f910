# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tar archives whose bytes depend on nothing but what is put in: ustar headers, PAX records where ustar has no room.

Not ``tarfile``: names are bytes here, attributes are binary, and the format is fixed (its defaults moved once).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from typing import Any, Optional

BLOCK = 512
HARD_LINK = 0  # as in ``tarstream``
_FLAGS = {
    stat.S_IFREG: b"0", HARD_LINK: b"1", stat.S_IFLNK: b"2", stat.S_IFCHR: b"3", stat.S_IFBLK: b"4",
    stat.S_IFDIR: b"5", stat.S_IFIFO: b"6",
}  # fmt: skip
_MAX_ID = 8**7 - 1
_MAX_SIZE = 8**11 - 1


class TarWriter:
    """``add`` members, after one with a size its ``data``, in the end ``finish``."""

    def __init__(self, write: Callable[[bytes], Any]) -> None:
        self._write = write
        self._pad = 0
        self.size = 0

    def add(
        self,
        name: bytes,
        kind: int = stat.S_IFREG,
        *,
        size: int = 0,
        mode: int = 0o644,
        uid: int = 0,
        gid: int = 0,
        mtime_ns: int = 0,
        link: bytes = b"",
        rdev: int = 0,
        xattrs: Optional[Mapping[bytes, bytes]] = None,
    ) -> None:
        """``name`` relative to the root; a directory's gets its slash here. ``size`` counts for regular files only."""
        self._end_member()
        if kind == stat.S_IFDIR and not name.endswith(b"/"):
            name += b"/"
        seconds, nsec = divmod(mtime_ns, 1_000_000_000)
        records: list[tuple[bytes, bytes]] = []
        if len(name) > 100:
            records.append((b"path", name))
        if len(link) > 100:
            records.append((b"linkpath", link))
        if size > _MAX_SIZE:
            records.append((b"size", b"%d" % size))
        if uid > _MAX_ID:
            records.append((b"uid", b"%d" % uid))
        if gid > _MAX_ID:
            records.append((b"gid", b"%d" % gid))
        if nsec or not 0 <= seconds <= _MAX_SIZE:
            records.append((b"mtime", _decimal(mtime_ns)))
        records += [(b"SCHILY.xattr." + key, value) for key, value in sorted((xattrs or {}).items())]
        if records:
            body = b"".join(_record(key, value) for key, value in records)
            self._out(_header(b"PaxHeaders/" + os.path.basename(name.rstrip(b"/"))[:80], b"x", len(body)))
            self._out(body + bytes(-len(body) % BLOCK))
        self._out(
            _header(
                name[:100], _FLAGS[kind], size if size <= _MAX_SIZE else 0, mode & 0o7777, uid if uid <= _MAX_ID else 0,
                gid if gid <= _MAX_ID else 0, seconds if 0 <= seconds <= _MAX_SIZE else 0, link[:100],
                os.major(rdev), os.minor(rdev),
            )
        )  # fmt: skip
        self._pad = -size % BLOCK

    def data(self, data: bytes) -> None:
        self._out(data)

    def finish(self) -> None:
        self._end_member()
        self._out(bytes(2 * BLOCK))

    def _end_member(self) -> None:
        if self._pad:
            self._out(bytes(self._pad))
            self._pad = 0

    def _out(self, data: bytes) -> None:
        self.size += len(data)
        self._write(data)


def _header(
    name: bytes,
    flag: bytes,
    size: int,
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    mtime: int = 0,
    link: bytes = b"",
    major: int = 0,
    minor: int = 0,
) -> bytes:
    device = flag in (b"3", b"4")
    raw = b"".join(
        (
            name.ljust(100, b"\0"), b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (mode, uid, gid, size, mtime), b" " * 8, flag,
            link.ljust(100, b"\0"), b"ustar\x0000", bytes(64),
            b"%07o\0%07o\0" % (major, minor) if device else bytes(16), bytes(167),
        )
    )  # fmt: skip
    return raw[:148] + b"%06o\0 " % sum(raw) + raw[156:]


def _record(key: bytes, value: bytes) -> bytes:
    """``<length> <key>=<value>\\n``; the length counts itself."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) > len(str(rest)):
        length += 1
    return b"%d %s=%s\n" % (length, key, value)


def _decimal(nanoseconds: int) -> bytes:
    """Seconds with their fraction, without zeros at its end."""
    sign = b"-" if nanoseconds < 0 else b""
    seconds, nsec = divmod(abs(nanoseconds), 1_000_000_000)
    fraction = (b".%09d" % nsec).rstrip(b"0") if nsec else b""
    return sign + b"%d" % seconds + fraction
