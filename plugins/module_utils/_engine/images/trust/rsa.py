# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""RSA signatures verified: PKCS #1 v1.5 (RFC 8017 section 8.2.2), which is what cosign makes with RSA keys."""

from __future__ import annotations

import hashlib

BITS_LEAST = 2048
BITS_MOST = 8192  # beyond, one verification costs seconds
# DigestInfo up to the digest (RFC 8017 section 9.2, note 1).
_PREFIXES = {
    "sha256": bytes.fromhex("3031300d060960864801650304020105000420"),
    "sha384": bytes.fromhex("3041300d060960864801650304020205000430"),
    "sha512": bytes.fromhex("3051300d060960864801650304020305000440"),
}


def fault(modulus: int, exponent: int) -> str:
    """Why a key is not used, or ""."""
    bits = modulus.bit_length()
    if not BITS_LEAST <= bits <= BITS_MOST:
        return "its RSA modulus has %d bits, and %d to %d are accepted" % (bits, BITS_LEAST, BITS_MOST)
    if not modulus & 1 or not exponent & 1 or not 3 <= exponent < 1 << 33:
        return "its RSA modulus or exponent is not one of a usable key"
    return ""


def verify(modulus: int, exponent: int, signature: bytes, message: bytes) -> bool:
    """Whether ``signature`` is one of ``message``. The padded digest is made anew and compared as a whole: a parser of
    the padding is what forgeries with small exponents live on (Bleichenbacher, CVE-2006-4339)."""
    size = (modulus.bit_length() + 7) // 8
    value = int.from_bytes(signature, "big")
    if len(signature) != size or value >= modulus:
        return False
    found = pow(value, exponent, modulus).to_bytes(size, "big")
    for name, prefix in _PREFIXES.items():
        info = prefix + hashlib.new(name, message).digest()
        if found == b"\0\1" + b"\xff" * (size - len(info) - 3) + b"\0" + info:
            return True
    return False
