# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""zstd (RFC 8878) through what the host has: the system's libzstd, Python's own module (3.14), or ``zstandard``.

Frames that follow each other are one stream, and skippable frames (zstd:chunked keeps its table of contents in one)
are skipped; libzstd does both. Memory is bounded: frames that want a window of more than 128 MiB are refused, which
is libzstd's own limit, and output comes in pieces.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, Optional

from ..errors import Unsupported
from ..tuples import NamedTuple

LIBRARY = "libzstd.so.1"
WINDOW = 1 << 27
_OUT = 1 << 20

Read = Callable[[], bytes]  # the next compressed bytes, b"" at the end
Write = Callable[[bytes], object]


class Damaged(Exception):
    """What is wrong with the data, in a few words."""


class _In(ctypes.Structure):
    _fields_ = [("src", ctypes.c_char_p), ("size", ctypes.c_size_t), ("pos", ctypes.c_size_t)]


class _Out(ctypes.Structure):
    _fields_ = [("dst", ctypes.c_void_p), ("size", ctypes.c_size_t), ("pos", ctypes.c_size_t)]


class Backend(NamedTuple):
    name: str
    run: Callable[[bytes, Read, Write], None]


_found: list[Optional[Backend]] = []


def backend() -> Optional[Backend]:
    """What this host reads zstd with, or None. Looked for once per process."""
    if not _found:
        _found.append(_libzstd() or _standard() or _zstandard())
    return _found[0]


def decompress(start: bytes, read: Read, write: Write, *, subject: str) -> None:
    """Feed the uncompressed bytes of ``start`` and what ``read`` gives after it to ``write``, at most 1 MiB at a time.

    Raises ``Unsupported`` (nothing here reads zstd), ``Damaged``, and what ``write`` raises.
    """
    found = backend()
    if found is None:
        raise Unsupported(
            "%s %s" % (subject, missing()),
            step="unpack_layer",
            subject=subject,
            hint=HINT,
            details={"compression": "zstd"},
        )
    found.run(start, read, write)


HINT = "Install libzstd (package libzstd1 or zstd-libs) on the host, or push the image with gzip layers."


def missing() -> str:
    return "is compressed with zstd, and this host has nothing to read it with (%s is not there)" % LIBRARY


# -- the system's library ------------------------------------------------------------------------------------------


def _libzstd() -> Optional[Backend]:
    try:
        library = ctypes.CDLL(LIBRARY)
        for name, result, arguments in (
            ("ZSTD_createDStream", ctypes.c_void_p, []),
            ("ZSTD_freeDStream", ctypes.c_size_t, [ctypes.c_void_p]),
            ("ZSTD_decompressStream", ctypes.c_size_t, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]),
            ("ZSTD_isError", ctypes.c_uint, [ctypes.c_size_t]),
            ("ZSTD_getErrorName", ctypes.c_char_p, [ctypes.c_size_t]),
        ):
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError):  # not there, or something else of that name
        return None
    return Backend("libzstd", lambda start, read, write: _run_library(library, start, read, write))


def _run_library(library: Any, start: bytes, read: Read, write: Write) -> None:
    stream = library.ZSTD_createDStream()
    if not stream:
        raise MemoryError("libzstd has no memory")
    buffer = ctypes.create_string_buffer(_OUT)
    try:
        hint = 0  # bytes that the decoder still wants; 0 between frames
        data = start
        while data:
            source = _In(data, len(data), 0)
            full = False
            while source.pos < source.size or full:
                out = _Out(ctypes.addressof(buffer), _OUT, 0)
                hint = library.ZSTD_decompressStream(stream, ctypes.byref(out), ctypes.byref(source))
                if library.ZSTD_isError(hint):
                    raise Damaged(library.ZSTD_getErrorName(hint).decode("ascii", "replace"))
                if out.pos:
                    write(ctypes.string_at(buffer, out.pos))
                full = out.pos == _OUT and hint != 0
            data = read()
        if hint:
            raise Damaged("it ends in the middle")
    finally:
        library.ZSTD_freeDStream(stream)


# -- Python 3.14 -----------------------------------------------------------------------------------------------------


def _standard() -> Optional[Backend]:
    try:
        from importlib import import_module

        module = import_module("compression.zstd")
    except ImportError:
        return None
    return Backend("compression.zstd", lambda start, read, write: _run_standard(module, start, read, write))


def _run_standard(module: Any, start: bytes, read: Read, write: Write) -> None:
    data, fresh = start, True
    decoder = module.ZstdDecompressor()
    while data or not fresh:
        try:
            out = decoder.decompress(data, _OUT)
        except (module.ZstdError, EOFError) as error:
            raise Damaged(str(error)) from error
        fresh = False
        if out:
            write(out)
        if decoder.eof:
            data, decoder, fresh = decoder.unused_data or read(), module.ZstdDecompressor(), True
        elif decoder.needs_input:
            data = read()
            if not data:
                raise Damaged("it ends in the middle")
        else:
            data = b""


# -- the zstandard module --------------------------------------------------------------------------------------------


class _Reader:
    """What ``zstandard`` wants to read from."""

    def __init__(self, start: bytes, read: Read) -> None:
        self._start = start
        self._read = read

    def read(self, _size: int = -1) -> bytes:
        data, self._start = self._start, b""
        return data or self._read()


def _zstandard() -> Optional[Backend]:
    try:
        from importlib import import_module

        module = import_module("zstandard")
    except ImportError:
        return None
    return Backend("zstandard", lambda start, read, write: _run_zstandard(module, start, read, write))


def _run_zstandard(module: Any, start: bytes, read: Read, write: Write) -> None:
    """It says nothing about data that end in the middle: the tar reader and the DiffID do."""
    decoder = module.ZstdDecompressor(max_window_size=WINDOW)
    with decoder.stream_reader(_Reader(start, read), read_across_frames=True) as stream:
        while True:
            try:
                out = stream.read(_OUT)
            except module.ZstdError as error:
                raise Damaged(str(error)) from error
            if not out:
                return
            write(out)
