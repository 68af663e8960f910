# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Members as almost all are (files, directories and links with a whole ustar, GNU or v7 header and nothing before it),
read twice as fast as ``tarstream`` reads block by block.

It judges nothing: at the first header that is anything else, or wrong, it stops, and the thorough reader takes that
one. A test reads mutated archives both ways and wants the same of both.
"""

from __future__ import annotations

import stat
import struct
import zlib
from typing import Any

from .tarentry import BLOCK, HARD_LINK, Entry, Sink

_HEADER = struct.Struct("100s24s12s12s8sc100s8s80s155s12s")
_KINDS = {b"0": stat.S_IFREG, b"1": HARD_LINK, b"2": stat.S_IFLNK, b"5": stat.S_IFDIR}
_CACHED = 4096  # values of a field that are remembered
_BLANKS = 8 * 32


class PlainMembers:
    """``read`` leaves behind what the last member wants: ``body`` and ``pad`` bytes to come, and whether the sink wants
    the body (``deliver``). ``entries`` and ``newest`` are the stream's."""

    __slots__ = ("_max_entries", "_max_size", "_owners", "_sink", "_sums", "_times", "body", "deliver", "entries",
                 "newest", "pad")  # fmt: skip

    def __init__(self, sink: Sink, max_entries: int, max_size: int) -> None:
        self._sink = sink
        self._max_entries = max_entries
        self._max_size = max_size
        self._owners: dict[bytes, tuple[int, int, int]] = {}
        self._sums: dict[bytes, int] = {}
        self._times: dict[bytes, int] = {}
        self.body = self.pad = self.entries = self.newest = 0
        self.deliver = False

    def read(self, data: bytes, at: int, offset: int) -> int:
        """From ``data[at]`` on, which is byte ``offset`` of the archive. Returns the position of the first byte of
        ``data`` that was not used: of a header that is not plain, of content to come, or the end."""
        unpack, adler32, judge, take = _HEADER.unpack_from, zlib.adler32, self._sink.entry, self._sink.file
        owners, sums, times = self._owners, self._sums, self._times
        make: Any = tuple.__new__
        self.body = self.pad = 0
        self.deliver = False
        end = len(data)
        last = end - BLOCK
        shift = offset - at
        while at <= last:
            name, owner, size, mtime, checksum, flag, link, magic, _rest, prefix, tail = unpack(data, at)
            kind = _KINDS.get(flag)
            if kind is None:
                break
            wanted = sums.get(checksum)
            if wanted is None:
                wanted = _remember(sums, checksum, _sum(checksum))
            if adler32(data[at : at + BLOCK]) & 0xFFFF != wanted:
                break
            known = owners.get(owner)
            if known is None:
                known = _remember(owners, owner, _owner(owner))
            seconds = times.get(mtime)
            if seconds is None:
                seconds = _remember(times, mtime, _octal(mtime))
            stored = _octal(size)
            if known is _NOBODY or seconds < 0 or not 0 <= stored <= self._max_size:
                break
            if kind != stat.S_IFREG:  # has no data whatever the field says
                stored = 0
            if prefix[0] and magic[:6] == b"ustar\0":
                if tail[8:] == b"tar\0":
                    break
                name = prefix.split(b"\0", 1)[0] + b"/" + name.split(b"\0", 1)[0]
            else:
                name = name.split(b"\0", 1)[0]
            if self.entries >= self._max_entries:
                break
            self.entries += 1
            if seconds > self.newest:
                self.newest = seconds
            at += BLOCK
            mode, uid, gid = known
            if kind == stat.S_IFREG and take(name, mode, uid, gid, stored, seconds, at + shift):
                wants = False
            else:
                link = link.split(b"\0", 1)[0] if link[0] else b""
                entry = (kind, name, link, mode, uid, gid, stored, seconds, 0, 0, None, at + shift, None)
                wants = judge(make(Entry, entry))
            if not stored:
                if wants:
                    self._sink.end()
                continue
            pad = -stored % BLOCK
            if not wants and at + stored + pad <= end:
                at += stored + pad
                continue
            if wants:
                self.body, self.pad, self.deliver = stored, pad, True
                return at
            here = min(stored, end - at)
            self.body = stored - here
            at += here
            self.pad = pad - (end - at)
            return end
        return at


_NOBODY = (-1, -1, -1)


def _remember(cache: dict[bytes, Any], key: bytes, value: Any) -> Any:
    if len(cache) >= _CACHED:
        cache.clear()
    cache[key] = value
    return value


def _octal(field: bytes) -> int:
    """The number in a field of octal digits that end in a NUL or a blank, or -1 for anything else."""
    digits = field[:-1]
    if not digits.isdigit() or field[-1] not in b" \0":
        return -1
    try:
        return int(digits, 8)
    except ValueError:
        return -1


def _owner(fields: bytes) -> tuple[int, int, int]:
    mode, uid, gid = _octal(fields[:8]), _octal(fields[8:16]), _octal(fields[16:])
    return _NOBODY if mode < 0 or uid < 0 or gid < 0 else (mode & 0o7777, uid, gid)


def _sum(field: bytes) -> int:
    """The low half of the Adler-32 of a header with this checksum field, if the sum is right: one more than the sum of
    all bytes, modulo 65,521. The field itself counts as blanks in the sum. -1 when it is no number."""
    digits = field.strip(b" \0")
    if not digits.isdigit():
        return -1
    try:
        return (int(digits, 8) - _BLANKS + sum(field) + 1) % 65521
    except ValueError:
        return -1
