# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whatever a host reads gzip with, the verdict is zlib's."""

from __future__ import annotations

import gzip
import random
import struct
import zlib
from typing import Optional

import pytest
from module_utils._engine.errors import IntegrityError
from module_utils._engine.images import inflate, unpack

FOUND = inflate.every()
DATA = b"".join(b"line %d of a file that packs well\n" % (n * n) for n in range(1500))
NOISE = random.Random(1).randbytes(5000)


@pytest.fixture(params=FOUND, ids=[found.name for found in FOUND])
def backend(request: pytest.FixtureRequest) -> inflate.Backend:
    found: inflate.Backend = request.param
    return found


class Pieces:
    """A blob as it may come in: pieces of these sizes, over and over."""

    def __init__(self, blob: bytes, sizes: list[int]) -> None:
        self._blob, self._sizes, self._turn, self.offset = blob, sizes, 0, 0

    def read(self) -> bytes:
        size = self._sizes[self._turn % len(self._sizes)] if self.offset else 300
        self._turn += 1
        piece = self._blob[self.offset : self.offset + size]
        self.offset += len(piece)
        return piece


def read(backend: inflate.Backend, blob: bytes, sizes: Optional[list[int]] = None) -> Optional[bytes]:
    """What is in the blob, or None when it is refused."""
    out: list[bytes] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inflate, "_found", [backend])
        try:
            unpack.unpack_source(Pieces(blob, sizes or [unpack.CHUNK]), out.append, subject="Layer x")
        except IntegrityError:
            return None
    return b"".join(out)


def member(data: bytes, flags: int = 0, fields: bytes = b"", level: int = 6) -> bytes:
    packer = zlib.compressobj(level, zlib.DEFLATED, -15)
    head = b"\x1f\x8b\x08" + bytes([flags]) + bytes(4) + b"\0\x03" + fields
    return head + packer.compress(data) + packer.flush() + struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)


def with_header_sum(data: bytes, change: int = 0) -> bytes:
    head = b"\x1f\x8b\x08\x02" + bytes(4) + b"\0\x03"
    return member(data, 2, struct.pack("<H", (zlib.crc32(head) & 0xFFFF) ^ change))


GOOD = {
    "one member": (gzip.compress(DATA, mtime=0), DATA),
    "stored": (member(NOISE, level=0), NOISE),
    "fixed codes": (member(b"a"), b"a"),
    "empty": (member(b""), b""),
    "two members": (member(DATA) + member(NOISE), DATA + NOISE),
    "empty ones between": (member(b"") + member(b"x") + member(b"") * 3 + member(DATA), b"x" + DATA),
    "many small members": (b"".join(member(b"%d" % n) for n in range(60)), b"".join(b"%d" % n for n in range(60))),
    "all header fields": (member(DATA, 4 | 8 | 16, b"\x05\0extra" + b"name\0" + b"comment\0"), DATA),
    "a long name": (member(DATA, 8, b"n" * 3000 + b"\0"), DATA),
    "a header with its sum": (with_header_sum(DATA), DATA),
    "long fields": (member(DATA, 4 | 8 | 16, b"\x10\x27" + NOISE * 2 + b"n" * 999 + b"\0" + b"c" * 999 + b"\0"), DATA),
    "zeros": (member(bytes(1 << 20)), bytes(1 << 20)),
}
BAD = {
    "wrong sum": member(DATA)[:-8] + b"\0\0\0\0" + member(DATA)[-4:],
    "wrong length": member(DATA)[:-4] + b"\0\0\0\0",
    "wrong sum in the second member": member(NOISE) + member(DATA)[:-8] + b"\0\0\0\0" + member(DATA)[-4:],
    "wrong header sum": with_header_sum(DATA, 1),
    "reserved flags": member(DATA, 0x20),
    "reserved flags in the second member": member(NOISE) + member(DATA, 0x80),
    "another method": b"\x1f\x8b\x08" + member(DATA)[3:20] + b"\xff" * 50,
    "garbage behind": member(DATA) + b"garbage",
    "a zero behind": member(DATA) + b"\0",
    "a beginning behind": member(DATA) + b"\x1f\x8b",
    "a reserved block type": member(b"")[:10] + b"\x07" + bytes(20),
    "a stored block that contradicts itself": member(b"")[:10] + b"\x01\x05\0\x05\0hello" + bytes(8),
    "a distance before the beginning": member(b"")[:10] + b"\x4b\x04\x7e\x00" + bytes(30),
}


@pytest.mark.parametrize("sizes", [None, [1, 2, 3], [7, 4096], [18, 1]], ids=str)
@pytest.mark.parametrize("what", GOOD)
def test_what_is_right_is_read_whatever_pieces_it_comes_in(
    backend: inflate.Backend, what: str, sizes: Optional[list[int]]
) -> None:
    blob, data = GOOD[what]
    assert read(backend, blob, sizes) == data


@pytest.mark.parametrize("sizes", [None, [1], [7, 4096]], ids=str)
@pytest.mark.parametrize("what", BAD)
def test_what_is_wrong_is_refused_whatever_pieces_it_comes_in(
    backend: inflate.Backend, what: str, sizes: Optional[list[int]]
) -> None:
    assert read(backend, BAD[what], sizes) is None


def test_what_ends_in_the_middle_is_refused_wherever_that_is(backend: inflate.Backend) -> None:
    blob = with_header_sum(b"some words, and some words again") + member(NOISE[:300])
    for cut in range(3, len(blob)):
        whole = cut == len(with_header_sum(b"some words, and some words again"))
        assert (read(backend, blob[:cut]) is not None) == whole, cut


def test_a_header_longer_than_any_is_refused(backend: inflate.Backend) -> None:
    assert read(backend, member(DATA, 8, b"n" * 600_000 + b"\0")) is None


def test_the_verdict_on_a_changed_blob_is_that_of_zlib(backend: inflate.Backend) -> None:
    chance = random.Random(2)
    blobs = [blob for blob, _data in GOOD.values()] + [member(DATA[:3000], level=1)]
    for turn in range(250):
        blob = bytearray(chance.choice(blobs))
        for _n in range(chance.choice((1, 1, 2, 5))):
            blob[chance.randrange(3, len(blob))] = chance.randrange(256)
        sizes = chance.choice([None, None, [40 + chance.randrange(50)]])
        assert read(backend, bytes(blob), sizes) == read(inflate.plain(), bytes(blob), sizes), turn


def test_something_else_of_the_librarys_name_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("libc.so.6", "libwharf-has-no-such-thing.so.1"):
        monkeypatch.setattr(inflate, "LIBRARY", name)
        assert inflate._libisal() is None


@pytest.mark.parametrize("name, value", [("_FINISHED", 4), ("_GZIP", 0), ("_GZIP", 3)])
def test_a_library_whose_structures_are_others_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, name: str, value: int
) -> None:
    monkeypatch.setattr(inflate, name, value)
    assert inflate._libisal() is None


def test_zlib_is_there_when_nothing_else_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inflate, "_found", [])
    monkeypatch.setattr(inflate, "_libisal", lambda: None)
    monkeypatch.setattr(inflate, "_module", lambda _name: None)
    assert inflate.backend().name == "zlib"
