# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading gzip with the fastest that a host has: ISA-L (by ``ctypes``, or the ``isal`` module), ``zlib_ng``, or zlib.

Inflating is half of what a pull costs a processor, and ISA-L needs a third of zlib's time. None of them is needed. All
look the same from outside, and a test holds them against zlib with damaged data: they check length and CRC-32 too.
"""

from __future__ import annotations

import ctypes
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Optional

from ..tuples import NamedTuple

if TYPE_CHECKING:
    from typing import Protocol

    class Decoder(Protocol):
        """One gzip member, as ``zlib.decompressobj(wbits=31)`` reads it."""

        @property
        def eof(self) -> bool: ...

        @property
        def unused_data(self) -> bytes: ...

        @property
        def unconsumed_tail(self) -> bytes: ...

        # The first ``data`` has the whole header.
        def decompress(self, data: bytes, max_length: int) -> bytes: ...


LIBRARY = "libisal.so.2"

# ISA-L, igzip_lib.h: struct inflate_state (87,368 bytes so far, and room for more behind what is named here).
_STATE_SIZE = 128 << 10
_TABLES = 18912 + 2208  # two Huffman tables, which nobody else looks at
_GZIP = 1
_FINISHED = 5


class _State(ctypes.Structure):
    _fields_ = [
        ("next_out", ctypes.c_void_p),
        ("avail_out", ctypes.c_uint32),
        ("total_out", ctypes.c_uint32),
        ("next_in", ctypes.c_char_p),
        ("read_in", ctypes.c_uint64),
        ("avail_in", ctypes.c_uint32),
        ("read_in_length", ctypes.c_int32),
        ("tables", ctypes.c_uint8 * _TABLES),
        ("block_state", ctypes.c_uint32),
        ("dict_length", ctypes.c_uint32),
        ("bfinal", ctypes.c_uint32),
        ("crc_flag", ctypes.c_uint32),
    ]


class Backend(NamedTuple):
    """``make`` begins a member; ``errors`` is what its ``decompress`` raises for damaged data."""

    name: str
    make: Callable[[], Decoder]
    errors: tuple[type[Exception], ...]


_found: list[Backend] = []


def backend() -> Backend:
    """What this host reads gzip with. Looked for once per process."""
    if not _found:
        _found.append(_libisal() or _module("isal.isal_zlib") or _module("zlib_ng.zlib_ng") or plain())
    return _found[0]


def every() -> list[Backend]:
    """All that this host has, for tests."""
    maybe = [_libisal(), _module("isal.isal_zlib"), _module("zlib_ng.zlib_ng"), plain()]
    return [one for one in maybe if one is not None]


def plain() -> Backend:
    """zlib, which Python always has."""
    return Backend("zlib", lambda: zlib.decompressobj(wbits=31), (zlib.error,))


def _module(name: str) -> Optional[Backend]:
    """A module that is made as ``zlib`` is."""
    from importlib import import_module

    try:
        module: Any = import_module(name)
        found = Backend(name, lambda: module.decompressobj(wbits=31), (module.error,))
    except (ImportError, AttributeError):
        return None
    return found if _works(found) else None


def _works(found: Backend) -> bool:
    """Whether it is what it looks like: a library's structures are known here by their layout alone."""
    data = bytes(range(256)) * 40
    packer = zlib.compressobj(wbits=31)
    blob = packer.compress(data) + packer.flush()
    broken = blob[:-8] + bytes([blob[-8] ^ 1]) + blob[-7:]
    return _trial(found, blob + b"more") == (data, True) and _trial(found, broken) == (data, False)


def _trial(found: Backend, blob: bytes) -> tuple[bytes, bool]:
    """What comes of ``blob``, given and taken in small pieces, and whether that is all and nothing is wrong."""
    out, decoder, at = b"", found.make(), 0
    try:
        while at < len(blob) and not decoder.eof:
            piece = blob[at : at + (2 if at else 10)]  # the header is given whole
            at += len(piece)
            while piece and not decoder.eof:
                out += decoder.decompress(piece, 1000)
                piece = decoder.unconsumed_tail
    except found.errors:
        return out, False
    return out, decoder.eof and decoder.unused_data + blob[at:] == b"more"


# -- ISA-L -----------------------------------------------------------------------------------------------------------


class _Damaged(Exception):
    """What is wrong, in a few words."""


_WORDS = {
    -1: "invalid block",
    -2: "invalid symbol",
    -3: "invalid distance",
    -4: "invalid header",
    -5: "unknown compression method",
    -6: "incorrect data check",
}


def _libisal() -> Optional[Backend]:
    try:
        library = ctypes.CDLL(LIBRARY)
        library.isal_inflate_init.argtypes = library.isal_inflate.argtypes = [ctypes.c_void_p]
        library.isal_inflate_init.restype = None
        library.isal_inflate.restype = ctypes.c_int
    except (OSError, AttributeError):  # not there, or something else of that name
        return None
    found = Backend("libisal", lambda: _Isal(library), (_Damaged,))
    return found if _works(found) else None


# Memory of members that are done: some blobs (eStargz) are a member per file.
_spare: list[tuple[ctypes.Array[ctypes.c_char], ctypes.Array[ctypes.c_char]]] = []


class _Isal:
    """As ``zlib.decompressobj(wbits=31)``, until the end of the member."""

    __slots__ = ("_idle", "_inflate", "_memory", "_out", "_state", "eof", "unconsumed_tail", "unused_data")

    def __init__(self, library: Any) -> None:
        self._inflate = library.isal_inflate
        try:
            self._memory, self._out = _spare.pop()
            ctypes.memset(self._memory, 0, _STATE_SIZE)  # not all that matters is reset by isal_inflate_init
        except IndexError:
            self._memory, self._out = ctypes.create_string_buffer(_STATE_SIZE), ctypes.create_string_buffer(0)
        self._state = _State.from_buffer(self._memory)
        self.eof = self._idle = False
        self.unused_data = self.unconsumed_tail = b""
        library.isal_inflate_init(ctypes.addressof(self._memory))
        self._state.crc_flag = _GZIP

    def decompress(self, data: bytes, max_length: int) -> bytes:
        if len(self._out) < max_length:
            self._out = ctypes.create_string_buffer(max_length)
        state = self._state
        state.next_in, state.avail_in = data, len(data)
        state.next_out, state.avail_out = ctypes.addressof(self._out), max_length
        result = self._inflate(ctypes.addressof(self._memory))
        if result < 0:
            raise _Damaged(_WORDS.get(result, "error %d" % result))
        rest = data[len(data) - state.avail_in :]
        if state.block_state == _FINISHED:
            self.eof = True
            self.unused_data, self.unconsumed_tail = self._read_ahead() + rest, b""
        else:
            self.unconsumed_tail = rest
            idle = data and len(rest) == len(data) and state.avail_out == max_length
            if idle and self._idle:  # once it may have gone on inside (a header), but nobody may go round for ever
                raise _Damaged("it leads nowhere")
            self._idle = bool(idle)
        out: bytes = ctypes.string_at(self._out, max_length - state.avail_out)
        if self.eof:
            _spare.append((self._memory, self._out))
        return out

    def _read_ahead(self) -> bytes:
        """Whole bytes behind the member's end that it has taken in already."""
        taken: int = self._state.read_in
        length: int = self._state.read_in_length
        count, bits = divmod(max(length, 0), 8)
        return (taken >> bits).to_bytes(8, "little")[:count]
