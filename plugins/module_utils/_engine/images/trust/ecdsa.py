# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""ECDSA signatures verified over the NIST curves (FIPS 186-5 section 6.4.2, SEC 1 section 4.1.4).

Points are (X, Y, Z) in Jacobian coordinates, (x, y) being (X/Z^2, Y/Z^3); Z = 0 is the point at infinity. The curves'
a is -3, which the doubling formula uses.
"""

from __future__ import annotations

import hashlib
from typing import Optional

from ...tuples import NamedTuple
from .der import Malformed, whole_sequence

Point = tuple[int, int, int]
INFINITY: Point = (1, 1, 0)


class Curve(NamedTuple):
    """``size``: bytes of a coordinate. ``hashes``: what signers use with it. Sigstore's registry pairs each curve with
    the hash of its strength, but cosign itself always took SHA-256."""

    name: str
    p: int
    b: int
    n: int
    gx: int
    gy: int
    size: int
    hashes: tuple[str, ...]


P256 = Curve(
    "P-256",
    0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF,
    0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B,
    0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
    32,
    ("sha256",),
)
P384 = Curve(
    "P-384",
    0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEFFFFFFFF0000000000000000FFFFFFFF,
    0xB3312FA7E23EE7E4988E056BE3F82D19181D9C6EFE8141120314088F5013875AC656398D8A2ED19D2A85C8EDD3EC2AEF,
    0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
    0xAA87CA22BE8B05378EB1C71EF320AD746E1D3B628BA79B9859F741E082542A385502F25DBF55296C3A545E3872760AB7,
    0x3617DE4A96262C6F5D9E98BF9292DC29F8F41DBD289A147CE9DA3113B5F0B8C00A60B1CE1D7E819D7A431D7C90EA0E5F,
    48,
    ("sha384", "sha256"),
)
P521 = Curve(
    "P-521",
    (1 << 521) - 1,
    0x0051953EB9618E1C9A1F929A21A0B68540EEA2DA725B99B315F3B8B489918EF109E156193951EC7E937B1652C0BD3BB1BF073573DF883D2C34F1EF451FD46B503F00,
    0x01FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFA51868783BF2F966B7FCC0148F709A5D03BB5C9B8899C47AEBB6FB71E91386409,
    0x00C6858E06B70404E9CD9E3ECB662395B4429C648139053FB521F828AF606B4D3DBAA14B5E77EFE75928FE1DC127A2FFA8DE3348B3C1856A429BF97E7E31C2E5BD66,
    0x011839296A789A3BC0045C8A5FB42C7D1BD998F54449579B446817AFBD17273E662C97EE72995EF42640C550B9013FAD0761353C7086A272C24088BE94769FD16650,
    66,
    ("sha512", "sha256"),
)


def point(curve: Curve, encoded: bytes) -> Optional[tuple[int, int]]:
    """A public key out of SEC 1's octets, compressed or not; None when it is no point of the curve (a key beside the
    curve is of another, weaker group)."""
    p, size = curve.p, curve.size
    if len(encoded) == 1 + 2 * size and encoded[0] == 4:
        x, y = int.from_bytes(encoded[1 : 1 + size], "big"), int.from_bytes(encoded[1 + size :], "big")
    elif len(encoded) == 1 + size and encoded[0] in (2, 3):
        x = int.from_bytes(encoded[1:], "big")
        # All three primes are 3 modulo 4, so this power is a root where there is one.
        y = pow((x * x * x - 3 * x + curve.b) % p, (p + 1) // 4, p)
        if y & 1 != encoded[0] & 1:
            y = p - y
    else:
        return None
    if x >= p or y >= p or (y * y - x * x * x + 3 * x - curve.b) % p:
        return None
    return x, y


def verify(curve: Curve, public: tuple[int, int], signature: bytes, message: bytes) -> bool:
    """Whether ``signature`` (DER) is one of ``message`` by the owner of ``public``, with any of the curve's hashes."""
    try:
        reader = whole_sequence(signature)
        r, s = reader.integer(), reader.integer()
        reader.end()
    except Malformed:
        return False
    if not (1 <= r < curve.n and 1 <= s < curve.n):
        return False
    return any(_holds(curve, public, r, s, hashlib.new(name, message).digest()) for name in curve.hashes)


def _holds(curve: Curve, public: tuple[int, int], r: int, s: int, digest: bytes) -> bool:
    n = curve.n
    e = int.from_bytes(digest, "big") >> max(0, 8 * len(digest) - n.bit_length())
    w = pow(s, -1, n)
    x, _y, z = _sum_of_products(curve, e * w % n, r * w % n, public)
    if z == 0:
        return False
    return x * pow(z, -2, curve.p) % curve.p % n == r


def _sum_of_products(curve: Curve, u: int, v: int, public: tuple[int, int]) -> Point:
    """u*G + v*Q, both at once, bit by bit (Shamir's trick)."""
    p = curve.p
    base: Point = (curve.gx, curve.gy, 1)
    other: Point = (public[0], public[1], 1)
    choice = (INFINITY, base, other, _add(p, base, other))
    result = INFINITY
    for bit in range(max(u.bit_length(), v.bit_length()) - 1, -1, -1):
        result = _double(p, result)
        which = (u >> bit & 1) | (v >> bit & 1) << 1
        if which:
            result = _add(p, result, choice[which])
    return result


def _double(p: int, one: Point) -> Point:
    x, y, z = one
    if z == 0 or y == 0:
        return INFINITY
    yy = y * y % p
    zz = z * z % p
    s = 4 * x * yy % p
    m = 3 * (x - zz) * (x + zz) % p
    x3 = (m * m - 2 * s) % p
    return x3, (m * (s - x3) - 8 * yy * yy) % p, 2 * y * z % p


def _add(p: int, one: Point, two: Point) -> Point:
    if one[2] == 0:
        return two
    if two[2] == 0:
        return one
    x1, y1, z1 = one
    x2, y2, z2 = two
    zz1, zz2 = z1 * z1 % p, z2 * z2 % p
    u1, u2 = x1 * zz2 % p, x2 * zz1 % p
    s1, s2 = y1 * zz2 * z2 % p, y2 * zz1 * z1 % p
    h, r = (u2 - u1) % p, (s2 - s1) % p
    if h == 0:  # the same point, or its opposite
        return _double(p, one) if r == 0 else INFINITY
    hh = h * h % p
    hhh = hh * h % p
    v = u1 * hh % p
    x3 = (r * r - hhh - 2 * v) % p
    return x3, (r * (v - x3) - s1 * hhh) % p, h * z1 * z2 % p
