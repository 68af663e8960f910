# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ed25519 signatures verified (RFC 8032 section 5.1.7), without the cofactor, as OpenSSL, Go and BoringSSL do.

Points are (X, Y, Z, T) in extended coordinates: x = X/Z, y = Y/Z, x*y = T/Z.
"""

from __future__ import annotations

import hashlib
from typing import Optional

Point = tuple[int, int, int, int]

P = (1 << 255) - 19
L = (1 << 252) + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
_ROOT = pow(2, (P - 1) // 4, P)
_NEUTRAL: Point = (0, 1, 1, 0)


def point(encoded: bytes) -> Optional[Point]:
    """A point out of its 32 bytes; None when there is none, or when the bytes are not its only encoding."""
    if len(encoded) != 32:
        return None
    y = int.from_bytes(encoded, "little")
    sign = y >> 255
    y &= (1 << 255) - 1
    if y >= P:
        return None
    x = _x_of(y, sign)
    return None if x is None else (x, y, 1, x * y % P)


def _x_of(y: int, sign: int) -> Optional[int]:
    xx = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(xx, (P + 3) // 8, P)
    if (x * x - xx) % P:
        x = x * _ROOT % P
    if (x * x - xx) % P or (x == 0 and sign):
        return None
    return P - x if x & 1 != sign else x


_BASE = point(bytes([0x58] + [0x66] * 31))


def is_weak(one: Point) -> bool:
    """Whether a key is one of the eight points of small order: anybody can sign for those."""
    for _n in range(3):
        one = _add(one, one)
    return _same(one, _NEUTRAL)


def verify(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether ``signature`` (64 bytes) is one of ``message`` by the owner of ``public`` (32 bytes)."""
    key = point(public)
    if key is None or is_weak(key) or _BASE is None or len(signature) != 64:
        return False
    s = int.from_bytes(signature[32:], "little")
    if s >= L:  # another s for the same signature (malleability)
        return False
    k = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little") % L
    x, y, z, t = key
    found = _sum_of_products(s, _BASE, k, (P - x, y, z, P - t))
    return _encoded(found) == signature[:32]


def _sum_of_products(u: int, one: Point, v: int, two: Point) -> Point:
    choice = (_NEUTRAL, one, two, _add(one, two))
    result = _NEUTRAL
    for bit in range(max(u.bit_length(), v.bit_length()) - 1, -1, -1):
        result = _add(result, result)
        which = (u >> bit & 1) | (v >> bit & 1) << 1
        if which:
            result = _add(result, choice[which])
    return result


def _add(one: Point, two: Point) -> Point:
    """Complete on this curve: it doubles, too."""
    x1, y1, z1, t1 = one
    x2, y2, z2, t2 = two
    a = (y1 - x1) * (y2 - x2) % P
    b = (y1 + x1) * (y2 + x2) % P
    c = 2 * t1 * t2 * D % P
    d = 2 * z1 * z2 % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def _same(one: Point, two: Point) -> bool:
    return (one[0] * two[2] - two[0] * one[2]) % P == 0 and (one[1] * two[2] - two[1] * one[2]) % P == 0


def _encoded(one: Point) -> bytes:
    inverse = pow(one[2], -1, P)
    x, y = one[0] * inverse % P, one[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")
