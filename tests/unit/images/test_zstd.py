# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""zstd through whatever the host has: frames, skippable frames, damage, bombs, memory."""

from __future__ import annotations

import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator

import pytest
from helpers.zstd import MAGIC, frame, skippable, zeros
from module_utils._engine.errors import IntegrityError, Unsupported
from module_utils._engine.images import unpack, zstd

FOUND = [found for found in (zstd._libzstd(), zstd._standard(), zstd._zstandard()) if found is not None]
DATA = random.Random(1).randbytes(700_000)


@pytest.fixture(params=FOUND, ids=[found.name for found in FOUND])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[zstd.Backend]:
    monkeypatch.setattr(zstd, "_found", [request.param])
    yield request.param


def run(blob: bytes) -> bytes:
    out: list[bytes] = []
    with tempfile.TemporaryFile() as file:
        file.write(blob)
        file.flush()
        count = unpack.unpack(file.fileno(), out.append, subject="layer")
    assert max(map(len, out), default=0) <= 1 << 20
    data = b"".join(out)
    assert count == len(data)
    return data


@pytest.mark.parametrize(
    ("blob", "data"),
    [
        (frame(DATA), DATA),
        (frame(b""), b""),
        (frame(b"a") + frame(b"") + frame(DATA), b"a" + DATA),
        (skippable(b"toc" * 100_000) + frame(DATA) + skippable(b"x", 15), DATA),
        (frame(b"a") + skippable(b"") + skippable(b"y") + frame(b"b"), b"ab"),
        (zeros(20), bytes(20 << 17)),
    ],
)
def test_frames_one_after_the_other_are_one_stream(backend: zstd.Backend, blob: bytes, data: bytes) -> None:
    assert run(blob) == data


@pytest.mark.skipif(shutil.which("zstd") is None, reason="the zstd program is not there")
@pytest.mark.parametrize("level", ["-1", "-19", "--long=27"])
def test_what_the_real_compressor_makes(backend: zstd.Backend, level: str) -> None:
    text = b"".join(b"%d bottles of beer\n" % n for n in range(200_000))
    packed = subprocess.run(["zstd", "-q", "-c", level], input=text, stdout=subprocess.PIPE, check=True).stdout
    assert run(packed) == text
    assert run(packed + packed) == text * 2


@pytest.mark.parametrize("cut", [5, 9, 1000, 300_000, -1])
def test_data_that_end_in_the_middle_are_damaged(backend: zstd.Backend, cut: int) -> None:
    if backend.name == "zstandard":
        pytest.skip("does not say so; the DiffID does")
    with pytest.raises(IntegrityError, match="damaged zstd data"):
        run(frame(DATA)[:cut])


@pytest.mark.parametrize("blob", [frame(b"a") + b"garbage that is long enough", MAGIC + b"x" * 100])
def test_garbage_is_damage(backend: zstd.Backend, blob: bytes) -> None:
    with pytest.raises(IntegrityError, match="damaged zstd data"):
        run(blob)


def test_a_bomb_is_stopped(backend: zstd.Backend) -> None:
    with pytest.raises(IntegrityError, match="decompression bomb"):
        run(zeros(2000))


def test_a_window_that_would_eat_the_memory_is_refused(backend: zstd.Backend) -> None:
    with pytest.raises(IntegrityError, match="damaged zstd data"):
        run(zeros(1, 1 << 30))


def test_the_error_of_whoever_writes_comes_through(backend: zstd.Backend) -> None:
    class Full(Exception):
        pass

    def write(data: bytes) -> None:
        raise Full

    with tempfile.TemporaryFile() as file:
        file.write(frame(DATA))
        file.flush()
        with pytest.raises(Full):
            unpack.unpack(file.fileno(), write, subject="layer")


def test_a_host_without_any_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zstd, "_found", [None])
    with pytest.raises(Unsupported, match=r"nothing to read it with \(libzstd\.so\.1 is not there\)") as caught:
        run(frame(DATA))
    assert "libzstd" in (caught.value.hint or "")


def test_a_library_that_is_none_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("libc.so.6", "libnothing.so.1"):
        monkeypatch.setattr(zstd, "LIBRARY", name)
        assert zstd._libzstd() is None
