# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The small instructions nf_tables rules are made of, one function each; a rule is their concatenation.

They work on registers: 1 to 4 are 16 bytes wide, and 8 to 23 are the same memory in steps of 4 bytes (1 = 8..11).
A set lookup over several fields reads them one after the other, each rounded up to 4 bytes. Register 0 is the verdict.
Values follow the kernel: packet fields in network order, what the kernel computes (interface types, connection
states) in host order. ``nft --debug=netlink`` prints the same instructions.
"""

from __future__ import annotations

import struct
from typing import Optional

from ..nfnetlink import attr, nest, text, u32

VERDICT_REGISTER = 0
NETWORK_HEADER, TRANSPORT_HEADER = 1, 2
META_IIF, META_IIFNAME, META_OIFNAME, META_L4PROTO = 4, 6, 7, 16
CT_STATE, CT_STATUS = 0, 2
CT_INVALID, CT_ESTABLISHED, CT_RELATED, CT_NEW = 1, 2, 4, 8  # bits of ct state
CT_STATUS_DNAT = 1 << 5  # IPS_DST_NAT
DROP, ACCEPT, RETURN, JUMP, GOTO = 0, 1, -5, -3, -4
EQUAL, NOT_EQUAL = 0, 1
_FIB_SADDR, _FIB_DADDR, _FIB_TYPE, _RTN_LOCAL = 1, 2, 3, 2
_SNAT, _DNAT = 0, 1


def expression(name: str, *attributes: bytes) -> bytes:
    return nest(1, text(1, name), nest(2, *attributes) if attributes else attr(2 | 0x8000, b""))


def value(kind: int, data: bytes) -> bytes:
    return nest(kind, attr(1, data))


def meta(key: int, register: int) -> bytes:
    return expression("meta", u32(2, key), u32(1, register))


def payload(base: int, offset: int, length: int, register: int) -> bytes:
    return expression("payload", u32(1, register), u32(2, base), u32(3, offset), u32(4, length))


def compare(register: int, operation: int, data: bytes) -> bytes:
    return expression("cmp", u32(1, register), u32(2, operation), value(3, data))


def mask(register: int, bits: bytes) -> bytes:
    """``register &= bits``."""
    return expression(
        "bitwise", u32(1, register), u32(2, register), u32(3, len(bits)), value(4, bits), value(5, b"\0" * len(bits))
    )


def lookup(set_name: str, register: int, *, into: Optional[int] = None, inverted: bool = False) -> bytes:
    """Is the key at ``register`` in the set; for a map, put its data at ``into`` (0 for a verdict map).

    A miss ends the rule (a hit does, if ``inverted``).
    """
    parts = [text(1, set_name), u32(2, register)]
    if into is not None:
        parts.append(u32(3, into))
    if inverted:
        parts.append(u32(5, 1))
    return expression("lookup", *parts)


def verdict_data(code: int, chain: str = "") -> bytes:
    """What stands where data are expected: in an immediate, or as a verdict map's data."""
    return nest(2, u32(1, code), *([text(2, chain)] if chain else []))


def verdict(code: int, chain: str = "") -> bytes:
    return expression("immediate", u32(1, VERDICT_REGISTER), nest(2, verdict_data(code, chain)))


def load(register: int, data: bytes) -> bytes:
    return expression("immediate", u32(1, register), value(2, data))


def counter() -> bytes:
    return expression("counter", attr(1, b"\0" * 8), attr(2, b"\0" * 8))


def masquerade() -> bytes:
    return expression("masq")


def nat(kind: int, family: int, address: int, port: Optional[int]) -> bytes:
    """``address`` and ``port`` are registers; the protocol of the rule must be known when a port is given."""
    parts = [u32(1, kind), u32(2, family), u32(3, address)]
    if port is not None:
        parts.append(u32(5, port))
    return expression("nat", *parts)


def dnat(family: int, address: int, port: Optional[int]) -> bytes:
    return nat(_DNAT, family, address, port)


def snat(family: int, address: int, port: Optional[int]) -> bytes:
    return nat(_SNAT, family, address, port)


# -- phrases: several instructions that mean one thing ------------------------------------------------------------


def interface_name(name: str) -> bytes:
    return name.encode().ljust(16, b"\0")


def ct_has(key: int, bits: int, register: int = 1) -> bytes:
    """``ct state``/``ct status`` has one of ``bits``."""
    return (
        expression("ct", u32(2, key), u32(1, register))
        + mask(register, struct.pack("=I", bits))
        + compare(register, NOT_EQUAL, b"\0" * 4)
    )


def fib_local(*, source: bool = False, register: int = 1) -> bytes:
    """The source (else destination) address is one of this host's."""
    flag = _FIB_SADDR if source else _FIB_DADDR
    load_type = expression("fib", u32(3, flag), u32(2, _FIB_TYPE), u32(1, register))
    return load_type + compare(register, EQUAL, struct.pack("=I", _RTN_LOCAL))


def l4proto(protocol: int, register: int = 1) -> bytes:
    return meta(META_L4PROTO, register) + compare(register, EQUAL, bytes([protocol]))
