# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""An incremental tar reader that is pushed: bytes go in as they arrive, entries come out.

Not ``tarfile``: that wants to pull from a file, makes a heavy object per member, decodes names, and has had a run of
holes (CVE-2025-4517, -4330, -4138, -4435, -8194). Formats: v7, ustar, star, GNU (long names, base-256 numbers, old
sparse), PAX (incl. ``SCHILY.xattr.``, ``LIBARCHIVE.xattr.`` and the three PAX sparse formats). Where formats leave
room, what Go's archive/tar does is done here, since that is what images were tested with: header-only types have no
data whatever their size field says, a GNU long name wins over a PAX path, global headers are ignored, two zero
blocks end the archive and anything may follow, an end without zero blocks is fine.

Every defect raises ``IntegrityError``. Names are bytes and are handed on as found (the layer tree judges them).
"""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Mapping
from typing import Any, Optional, Union

from .tarentry import BLOCK, HARD_LINK, MAX_TIME, MIN_TIME, Entry, Sink, Sparse, refuse
from .tarplain import PlainMembers

__all__ = ["BLOCK", "HARD_LINK", "MAX_TIME", "MIN_TIME", "Entry", "Sink", "Sparse", "TarStream", "refuse"]

_MAX_META = 1 << 20  # PAX records, long names, sparse maps (Go's limit too)
_MAX_SPARSE = 1 << 17
_ZERO = bytes(BLOCK)
_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12s")

_KINDS = {
    b"0": stat.S_IFREG, b"7": stat.S_IFREG, b"1": HARD_LINK, b"2": stat.S_IFLNK, b"3": stat.S_IFCHR,
    b"4": stat.S_IFBLK, b"5": stat.S_IFDIR, b"6": stat.S_IFIFO, b"S": stat.S_IFREG,
}  # fmt: skip


class TarStream:
    """``write`` the archive in pieces of any size, then ``close``. ``entries`` counts what was delivered, ``newest`` is
    the latest mtime (0 at least)."""

    def __init__(self, sink: Sink, *, max_entries: int = 2_000_000, max_size: int = 64 << 30) -> None:
        self.entries = 0
        self.newest = 0
        self.offset = 0  # stream position of the next byte
        self._sink = sink
        self._max_entries = max_entries
        self._max_size = max_size
        self._partial = b""  # a block that is not complete yet
        self._body = 0  # content bytes still to come
        self._pad = 0  # then padding
        self._deliver = False
        self._collect: Optional[bytearray] = None  # content of a meta entry
        self._collecting = b""  # its type
        self._zeros = 0
        self._ended = False
        self._numbers: dict[bytes, int] = {}
        self._pax: dict[bytes, bytes] = {}
        self._pax_sparse: list[int] = []
        self._long_name: Optional[bytes] = None
        self._long_link: Optional[bytes] = None
        self._maps: Any = None  # a sparse map being read
        self._plain = PlainMembers(sink, max_entries, max_size)

    # -- the pump ------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """The next bytes of the archive."""
        position, end = 0, len(data)
        if self._ended:
            self.offset += end
            return
        view = memoryview(data)
        while position < end:
            if self._body:
                take = min(self._body, end - position)
                if self._deliver:
                    self._sink.data(view[position : position + take])
                elif self._collect is not None:
                    self._collect += view[position : position + take]
                self._body -= take
                position += take
                self.offset += take
                if not self._body:
                    self._content_ends()
            elif self._pad:
                take = min(self._pad, end - position)
                self._pad -= take
                position += take
                self.offset += take
            else:
                if end - position >= BLOCK and not self._special():
                    position = self._plain_members(data, position)
                    if position == end or self._body or self._pad:
                        continue
                take = BLOCK - len(self._partial)
                block = data[position : position + take]
                position += len(block)
                self.offset += len(block)
                if self._partial or len(block) < BLOCK:
                    self._partial += block
                    if len(self._partial) < BLOCK:
                        return
                    block, self._partial = self._partial, b""
                self._block(bytes(block))
                if self._ended:
                    self.offset += end - position
                    return

    def _special(self) -> bool:
        """Whether the next header is begun already, or what came before it decides what it means."""
        return bool(
            self._partial
            or self._zeros
            or self._pax
            or self._long_name is not None
            or self._long_link is not None
            or self._maps is not None
        )

    def _plain_members(self, data: bytes, position: int) -> int:
        """Let the fast reader have what it can; it stops before what ``_block`` must judge."""
        plain = self._plain
        before = position
        plain.entries, plain.newest = self.entries, self.newest
        position = plain.read(data, position, self.offset)
        self.entries, self.newest = plain.entries, plain.newest
        self.offset += position - before
        self._body, self._pad, self._deliver = plain.body, plain.pad, plain.deliver
        return position

    def skippable(self) -> int:
        """Bytes of content and padding that come next and that nobody wants: who can seek leaves them out."""
        unwanted = self._body and not self._deliver and self._collect is None and self._maps is None
        return self._body + self._pad if unwanted else 0

    def skip(self) -> None:
        """Go on behind what ``skippable`` told."""
        self.offset += self._body + self._pad
        self._body = self._pad = 0

    def close(self) -> None:
        """The archive is over. Missing padding and missing end blocks are fine, missing content is not."""
        if self._body or self._maps is not None:
            refuse("the archive is cut off inside an entry (%d bytes are missing)", self._body)
        if self._partial:
            refuse("the archive is cut off inside a header")

    def _content_ends(self) -> None:
        if self._deliver:
            self._deliver = False
            self._sink.end()
        elif self._collect is not None:
            content, self._collect = bytes(self._collect), None
            if self._collecting == b"x":
                self._read_pax(content)
            elif self._collecting == b"L":
                self._long_name = content.split(b"\0", 1)[0]
            else:
                self._long_link = content.split(b"\0", 1)[0]

    def _begin(self, size: int) -> None:
        self._body = size
        self._pad = -size % BLOCK

    # -- headers -------------------------------------------------------------------------------------------

    def _block(self, block: bytes) -> None:
        if self._maps is not None:
            self._maps(block)
            return
        if block == _ZERO:
            self._zeros += 1
            self._ended = self._zeros == 2
            return
        if self._zeros:
            refuse("a zero block inside the archive")
        fields = _HEADER.unpack(block)
        self._check(block, fields[6])
        kind = fields[7]
        if kind in (b"x", b"L", b"K", b"g"):
            size = self._number(fields[4], "size")
            if not 0 <= size <= _MAX_META:
                refuse("an extension header of %d bytes", size)
            self._collecting = kind
            self._collect = None if kind == b"g" else bytearray()
            self._begin(size)
            if not size and kind != b"g":
                self._content_ends()
            return
        self._member(block, fields)

    def _check(self, block: bytes, field: bytes) -> None:
        """The sum of all bytes with the field itself as blanks. Adler-32's low half is that sum + 1 modulo 65,521."""
        try:
            wanted = int(field.strip(b" \0") or b"0", 8)
        except ValueError:
            refuse("a broken header at byte %d", self.offset - BLOCK)
        blank = block[:148] + b"        " + block[156:]
        if (zlib.adler32(blank) & 0xFFFF) == (wanted + 1) % 65521:
            return
        if sum(b - 256 if b > 127 else b for b in blank) != wanted:  # historical: signed bytes
            refuse("a header with a wrong checksum at byte %d", self.offset - BLOCK)

    def _number(self, field: bytes, what: str) -> int:
        """An octal or base-256 field."""
        known = self._numbers.get(field)
        if known is not None:
            return known
        if field[0] & 0x80:
            value = int.from_bytes(field, "big", signed=False) & ((1 << (len(field) * 8 - 1)) - 1)
            if field[0] & 0x40:
                value -= 1 << (len(field) * 8 - 1)
            return value
        digits = field.strip(b" \0").split(b"\0", 1)[0]
        if not digits:
            return 0
        if not digits.isdigit():
            refuse("%r is no number (%s)", digits, what)
        try:
            value = int(digits, 8)
        except ValueError:
            refuse("%r is no octal number (%s)", digits, what)
        if len(self._numbers) > 4096:
            self._numbers.clear()
        self._numbers[field] = value
        return value

    def _member(self, block: bytes, fields: tuple[bytes, ...]) -> None:
        name, mode, uid, gid, size, mtime, _sum, flag, link, magic = fields[:10]
        name = name.split(b"\0", 1)[0]
        link = link.split(b"\0", 1)[0]
        if magic[:6] == b"ustar\0" and fields[14][0]:
            prefix = fields[14][:131] if block[508:] == b"tar\0" else fields[14]
            prefix = prefix.split(b"\0", 1)[0]
            if prefix:
                name = prefix + b"/" + name
        number = self._number
        values: dict[str, int] = {}
        xattrs: Optional[dict[bytes, bytes]] = None
        nsec = 0
        seconds = number(mtime, "mtime")
        stored = number(size, "size")
        owner, group = number(uid, "uid"), number(gid, "gid")
        pax, self._pax = self._pax, {}
        if pax:
            name, link = pax.get(b"path", name), pax.get(b"linkpath", link)
            values, xattrs = _pax_values(pax)
            stored = values.get("size", stored)
            owner, group = values.get("uid", owner), values.get("gid", group)
            seconds, nsec = values.get("mtime", seconds), values.get("nsec", nsec)
        if self._long_name is not None:
            name, self._long_name = self._long_name, None
        if self._long_link is not None:
            link, self._long_link = self._long_link, None
        if flag == b"\0":
            kind = stat.S_IFDIR if name.endswith(b"/") else stat.S_IFREG
        else:
            found = _KINDS.get(flag)
            if found is None:
                refuse("%r has the unknown type %r", name, flag)
            kind = found
        if stored < 0 or stored > self._max_size:
            refuse("%r has a size of %d bytes", name, stored)
        if not (0 <= owner < 0xFFFFFFFF and 0 <= group < 0xFFFFFFFF):
            refuse("%r has the owner %d:%d", name, owner, group)
        if seconds < MIN_TIME or seconds > MAX_TIME:
            seconds, nsec = (MIN_TIME if seconds < MIN_TIME else MAX_TIME), 0
        rdev = _device(name, number(fields[12], "devmajor"), number(fields[13], "devminor")) if flag in b"34" else 0
        if seconds > self.newest:
            self.newest = seconds
        self.entries += 1
        if self.entries > self._max_entries:
            refuse("more than %d entries", self._max_entries)
        if kind != stat.S_IFREG:
            stored = 0
        entry = Entry(
            kind, name, link, number(mode, "mode") & 0o7777, owner, group, stored, seconds, nsec, rdev, xattrs,
            self.offset, None,
        )  # fmt: skip
        if kind == stat.S_IFREG and (flag == b"S" or (pax and any(k.startswith(b"GNU.sparse.") for k in pax))):
            self._sparse(entry, block if flag == b"S" else b"", pax)
            return
        self._begin(stored)
        if self._sink.entry(entry):
            if stored:
                self._deliver = True
            else:
                self._sink.end()

    # -- PAX -----------------------------------------------------------------------------------------------

    def _read_pax(self, content: bytes) -> None:
        """Records ``<length> <key>=<value>\\n``; the length counts the whole record."""
        records: dict[bytes, bytes] = {}
        offsets: list[int] = []
        position = 0
        while position < len(content):
            space = content.find(b" ", position, position + 20)
            digits = content[position:space] if space > position else b""
            if not digits.isdigit():
                refuse("a broken PAX record")
            end = position + int(digits)
            key, equals, value = content[space + 1 : end - 1].partition(b"=")
            if end > len(content) or end <= space + 1 or content[end - 1 : end] != b"\n" or not equals or not key:
                refuse("a broken PAX record")
            if b"\0" in key or (b"\0" in value and key in (b"path", b"linkpath", b"GNU.sparse.name")):
                refuse("a NUL byte in the PAX record %r", key)
            if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):  # repeated, in pairs: sparse format 0.0
                offsets.append(_decimal(value, key))
            if value or key.startswith(b"SCHILY.xattr."):
                records[key] = value
            else:
                records.pop(key, None)
            position = end
        self._pax = records
        self._pax_sparse = offsets

    # -- sparse files --------------------------------------------------------------------------------------

    def _sparse(self, entry: Entry, block: bytes, pax: Mapping[bytes, bytes]) -> None:
        """Find the map (in the header, in following blocks, in PAX records, or before the data), then deliver."""
        if block:
            self._old_sparse(entry, block)
            return
        name = pax.get(b"GNU.sparse.name", entry.name)
        size = _decimal(pax.get(b"GNU.sparse.realsize") or pax.get(b"GNU.sparse.size") or b"", b"GNU.sparse.size")
        if pax.get(b"GNU.sparse.major") == b"1":
            self._map_blocks(entry._replace(name=name), size)
            return
        text = pax.get(b"GNU.sparse.map")
        flat = [_decimal(n, b"GNU.sparse.map") for n in text.split(b",")] if text else self._pax_sparse
        self._deliver_sparse(entry._replace(name=name), size, flat, entry.size)

    def _old_sparse(self, entry: Entry, block: bytes) -> None:
        size = self._number(block[483:495], "realsize")
        flat = self._pairs(block[386:482])
        if not block[482]:
            self._deliver_sparse(entry, size, flat, entry.size)
            return

        def more(extension: bytes) -> None:
            flat.extend(self._pairs(extension[:504]))
            if len(flat) > 2 * _MAX_SPARSE:
                refuse("%r has more than %d sparse pieces", entry.name, _MAX_SPARSE)
            if not extension[504]:
                self._maps = None
                self._deliver_sparse(entry, size, flat, entry.size)

        self._maps = more

    def _pairs(self, area: bytes) -> list[int]:
        flat: list[int] = []
        for at in range(0, len(area), 24):
            if not area[at]:
                break
            flat += [self._number(area[at : at + 12], "sparse"), self._number(area[at + 12 : at + 24], "sparse")]
        return flat

    def _map_blocks(self, entry: Entry, size: int) -> None:
        """Format 1.0: decimal lines (count, then offset and length of each piece) in whole blocks before the data."""
        text = bytearray()
        if entry.size < BLOCK:
            refuse("%r has no sparse map", entry.name)

        def more(block: bytes) -> None:
            nonlocal text
            text += block
            if len(text) > min(_MAX_META, entry.size):
                refuse("%r has a broken sparse map", entry.name)
            count = _decimal(text.split(b"\n", 1)[0], b"sparse map") if b"\n" in text else None
            if count is not None and count > _MAX_SPARSE:
                refuse("%r has more than %d sparse pieces", entry.name, _MAX_SPARSE)
            if count is not None and text.count(b"\n") > 2 * count:
                self._maps = None
                flat = [_decimal(line, b"sparse map") for line in text.split(b"\n")[1 : 2 * count + 1]]
                self._deliver_sparse(entry, size, flat, entry.size - len(text))
            elif len(text) >= entry.size:
                refuse("%r has a broken sparse map", entry.name)

        self._maps = more

    def _deliver_sparse(self, entry: Entry, size: int, flat: list[int], stored: int) -> None:
        pieces = list(zip(flat[::2], flat[1::2]))
        end = 0
        for offset, length in pieces:
            if offset < end or length < 0:
                refuse("%r has a broken sparse map", entry.name)
            end = offset + length
        if len(flat) % 2 or end > size or not 0 <= size <= self._max_size or sum(flat[1::2]) > stored:
            refuse("%r has a broken sparse map", entry.name)
        self._begin(stored)
        if self._sink.entry(entry._replace(size=size, offset=self.offset, sparse=pieces)):
            if stored:
                self._deliver = True
            else:
                self._sink.end()


def _decimal(text: Union[bytes, bytearray], what: bytes) -> int:
    if not text.isdigit() or len(text) > 20:
        refuse("%r is no number (%s)", bytes(text[:40]), what.decode("ascii", "replace"))
    return int(text)


def _device(name: bytes, major: int, minor: int) -> int:
    """Linux's 32-bit encoding: 12 bits of major, 20 of minor."""
    if not (0 <= major < 1 << 12 and 0 <= minor < 1 << 20):
        refuse("%r is the device %d:%d", name, major, minor)
    return minor & 0xFF | major << 8 | (minor & ~0xFF) << 12


def _pax_values(pax: Mapping[bytes, bytes]) -> tuple[dict[str, int], Optional[dict[bytes, bytes]]]:
    """Numbers (size, uid, gid, mtime, nsec) and extended attributes among PAX records."""
    values: dict[str, int] = {}
    xattrs: dict[bytes, bytes] = {}
    for key, value in pax.items():
        if key in (b"size", b"uid", b"gid"):
            values[key.decode()] = _decimal(value, key)
        elif key == b"mtime":
            values["mtime"], values["nsec"] = _time(value)
        elif key.startswith(b"SCHILY.xattr."):
            xattrs[key[13:]] = value
        elif key.startswith(b"LIBARCHIVE.xattr."):
            xattrs.setdefault(*_libarchive(key[17:], value))
    return values, xattrs or None


def _libarchive(key: bytes, value: bytes) -> tuple[bytes, bytes]:
    """Names are URL-encoded, values base64 without padding."""
    import base64
    import binascii
    from urllib.parse import unquote_to_bytes

    try:
        return unquote_to_bytes(key), base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
    except (binascii.Error, ValueError):
        refuse("the attribute %r is not base64", key)


def _time(text: bytes) -> tuple[int, int]:
    """Decimal seconds with any number of fraction digits to (seconds, nanoseconds ≥ 0)."""
    whole, _dot, fraction = text.partition(b".")
    negative = whole.startswith(b"-")
    digits = whole[1:] if negative else whole
    if not digits.isdigit() or (fraction and not fraction.isdigit()) or len(text) > 60:
        refuse("%r is no time", text[:60])
    seconds, nsec = int(digits), int(fraction[:9].ljust(9, b"0")) if fraction else 0
    if not negative:
        return seconds, nsec
    return (-seconds - 1, 1_000_000_000 - nsec) if nsec else (-seconds, 0)
