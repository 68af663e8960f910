# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""zstd frames written by hand (RFC 8878): raw and run-length blocks, so that no compressor is needed."""

from __future__ import annotations

MAGIC = b"\x28\xb5\x2f\xfd"
_BLOCK = 128 * 1024


def frame(data: bytes) -> bytes:
    """One frame of raw blocks, with its size in the header."""
    out = [MAGIC, b"\xa0", len(data).to_bytes(4, "little")]
    parts = [data[start : start + _BLOCK] for start in range(0, len(data), _BLOCK)] or [b""]
    for number, part in enumerate(parts):
        out += [_header(len(part), 0, number == len(parts) - 1), part]
    return b"".join(out)


def zeros(blocks: int, window: int = 1 << 20) -> bytes:
    """A frame of ``blocks`` times 128 KiB of zeros, 4 bytes each. ``window``: a power of two from 1 KiB on."""
    exponent = window.bit_length() - 11
    out = [MAGIC, b"\x00", bytes([exponent << 3])]
    out += [_header(_BLOCK, 1, number == blocks - 1) + b"\0" for number in range(blocks)]
    return b"".join(out)


def skippable(data: bytes, kind: int = 0) -> bytes:
    return bytes([0x50 + kind]) + b"\x2a\x4d\x18" + len(data).to_bytes(4, "little") + data


def _header(size: int, kind: int, last: bool) -> bytes:
    return (last | kind << 1 | size << 3).to_bytes(3, "little")
