# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A layer blob as the uncompressed tar bytes in it: gzip (of several members too), zstd or plain, told by magic.

Blobs may come here while they still arrive (``builder``), unverified. What is made of them then counts for nothing
until blob and layer have the digests they should have.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn, Optional

from ..errors import IntegrityError, KernelError, Unsupported
from . import inflate

if TYPE_CHECKING:
    from typing import Protocol

    class Source(Protocol):
        """``read`` gives some compressed bytes (the first time enough to tell what they are), b"" at the end;
        ``offset`` is how many it has given."""

        @property
        def offset(self) -> int: ...

        def read(self) -> bytes: ...


CHUNK = 256 * 1024
_OUT = 512 * 1024  # smaller pieces mean more waiting for the interpreter, larger ones only memory
_BEHIND = 2  # pieces between the two threads
# A megabyte of zeros is 1 KiB of gzip: past the free allowance, no honest layer is packed better than this.
RATIO_LIMIT = 1000
RATIO_FREE = 64 << 20

_GZIP = b"\x1f\x8b\x08"
_HEADER_LIMIT = 1 << 17
_RESERVED = 0xE0  # of the flags, which follow
_OTHER = (
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\xfd7zXZ\0", "xz"),
    (b"BZh", "bzip2"),
)


def compression(start: bytes) -> str:
    """``gzip``, ``zstd``, ``xz``, ``bzip2``, or "" for a plain tar, by the first bytes of the blob."""
    if start.startswith(_GZIP):
        return "gzip"
    for magic, name in _OTHER:
        if start.startswith(magic):
            # A tar begins with a member's name, and a name may begin with BZh; a tar says so at 257.
            return "" if start[257:262] == b"ustar" else name
    if len(start) >= 4 and 0x50 <= start[0] <= 0x5F and start[1:4] == b"\x2a\x4d\x18":
        return "zstd"  # begins with a skippable frame (zstd:chunked)
    return ""


def unpack(fd: int, write: Callable[[bytes], object], *, subject: str) -> int:
    """``unpack_source`` of the blob behind ``fd``, read from its beginning. The descriptor stays open."""
    return unpack_source(FileSource(fd, subject), write, subject=subject)


def unpack_source(source: Source, write: Callable[[bytes], object], *, subject: str) -> int:
    """Feed the uncompressed bytes of the blob that ``source`` reads to ``write``, in pieces of at most a MiB. Returns
    their number.

    ``write`` runs in a thread of its own while the next bytes are decompressed (zlib, sha256 and write(2) all let go
    of the interpreter: twice as fast on two processors). It has ended when this function returns or raises.

    Raises ``IntegrityError`` (damaged data, garbage after it, a decompression bomb), ``Unsupported`` (another
    compression, or zstd where the host cannot read it), and what ``write`` raises.
    """
    with _Behind(write) as behind:
        return _feed(source, behind.put, subject)


class _Behind:
    """Hands pieces to ``write`` in another thread, a few at a time. Leaving ``with`` waits until it is done."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._queue: queue.Queue[Optional[bytes]] = queue.Queue(_BEHIND)
        self._error: Optional[BaseException] = None
        self._thread = threading.Thread(target=self._work, name="unpack", daemon=True)

    def put(self, data: bytes) -> None:
        if self._error is not None:
            raise self._error
        self._queue.put(data)

    def _work(self) -> None:
        while True:
            data = self._queue.get()
            if data is None:
                return
            if self._error is None:
                try:
                    self._write(data)
                except BaseException as error:  # raised again in the thread that waits
                    self._error = error

    def __enter__(self) -> _Behind:
        self._thread.start()
        return self

    def __exit__(self, kind: Optional[type[BaseException]], *_rest: object) -> None:
        self._queue.put(None)
        self._thread.join()
        if kind is None and self._error is not None:
            raise self._error


def _feed(source: Source, write: Callable[[bytes], object], subject: str) -> int:
    start = source.read()
    kind = compression(start)
    if kind == "gzip":
        return _Gunzip(source, write, subject).run(start)
    if kind == "zstd":
        return _unzstd(source, start, write, subject)
    if kind:
        raise Unsupported(
            "%s is compressed with %s, which no registry's layer may be; push the image with gzip or zstd layers"
            % (subject, kind),
            step="unpack_layer",
            subject=subject,
            details={"compression": kind},
        )
    while start:
        write(start)
        start = source.read()
    return source.offset


def _unzstd(source: Source, start: bytes, write: Callable[[bytes], object], subject: str) -> int:
    from . import zstd

    produced = 0

    def take(data: bytes) -> None:
        nonlocal produced
        produced += len(data)
        check_ratio(produced, source.offset, subject)
        write(data)

    try:
        zstd.decompress(start, source.read, take, subject=subject)
    except zstd.Damaged as error:
        _refuse(subject, "is damaged zstd data (%s)" % error)
    return produced


def check_ratio(produced: int, taken: int, subject: str) -> None:
    if produced > RATIO_FREE and produced > RATIO_LIMIT * taken:
        _refuse(subject, "unpacks to more than %d times its size; that is a decompression bomb" % RATIO_LIMIT)


def _refuse(subject: str, why: str) -> NoReturn:
    raise IntegrityError("%s %s" % (subject, why), step="unpack_layer", subject=subject)


def _wants_more(data: bytes) -> bool:
    """Whether a gzip header begins with ``data`` and goes on behind it (RFC 1952, 2.3)."""
    if not data.startswith(_GZIP):
        return _GZIP.startswith(data)
    if len(data) < 10:
        return True
    flags, end = data[3], 10
    if flags & 4:  # extra field
        if len(data) < 12:
            return True
        end += 2 + int.from_bytes(data[10:12], "little")
    for flag in (8, 16):  # name, comment
        if flags & flag:
            end = data.find(b"\0", end) + 1 if end <= len(data) else 0
            if not end:
                return True
    return end + (flags & 2) > len(data)  # a sum of two bytes


class FileSource:
    """A whole blob."""

    __slots__ = ("_fd", "_subject", "offset")

    def __init__(self, fd: int, subject: str) -> None:
        self._fd = fd
        self._subject = subject
        self.offset = 0

    def read(self) -> bytes:
        try:
            data = os.pread(self._fd, CHUNK, self.offset)
        except OSError as error:
            raise KernelError.wrap(error, "Cannot read %s" % self._subject, step="unpack_layer") from error
        self.offset += len(data)
        return data


class _Gunzip:
    def __init__(self, source: Source, write: Callable[[bytes], object], subject: str) -> None:
        self._source = source
        self._write = write
        self._subject = subject
        self._produced = 0
        self._backend = inflate.backend()

    def run(self, data: bytes) -> int:
        """One member after the other (pigz, estargz): Go's reader, which made most layers, does the same."""
        data = self._more(data)
        while data:
            self._check_beginning(data)
            data = self._more(self._member(data))
        return self._produced

    def _more(self, data: bytes) -> bytes:
        """As much as tells what begins here, and a member's whole header, unless the blob ends before. (ISA-L forgets
        what fields a header has when it is given it in parts.)"""
        while _wants_more(data):
            if len(data) > _HEADER_LIMIT:
                _refuse(self._subject, "has a gzip header of more than %d bytes" % _HEADER_LIMIT)
            read = self._source.read()
            if not read:
                break
            data += read
        return data

    def _check_beginning(self, data: bytes) -> None:
        if data[: len(_GZIP)] != _GZIP[: len(data)]:
            _refuse(self._subject, "has garbage after its compressed data")
        if len(data) > len(_GZIP) and data[len(_GZIP)] & _RESERVED:  # not everything that reads gzip looks at them
            _refuse(self._subject, "is damaged gzip data (unknown header flags set)")

    def _member(self, data: bytes) -> bytes:
        """Decompress one member that begins with ``data``; returns what was read beyond its end."""
        decoder = self._backend.make()
        while True:
            try:
                out = decoder.decompress(data, _OUT)
            except self._backend.errors as error:
                _refuse(self._subject, "is damaged gzip data (%s)" % error)
            if out:
                self._produced += len(out)
                check_ratio(self._produced, self._source.offset, self._subject)
                self._write(out)
            if decoder.eof:
                return decoder.unused_data
            data = decoder.unconsumed_tail
            if not data:
                data = self._source.read()
                if not data and not out:
                    _refuse(self._subject, "ends in the middle of its compressed data")
