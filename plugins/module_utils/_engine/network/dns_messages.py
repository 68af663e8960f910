# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""DNS messages (RFC 1035, 6891): read a query's question, answer for our own names, relay the rest as it is.

Only the first question and an OPT record right behind it are ever parsed, without following compression pointers (a
question has nothing to point back to). A general parser would let one container stop everybody's names: 64 KB of
records that are chains of pointers cost a Python parser seconds. What is relayed is relayed as bytes.
"""

from __future__ import annotations

import random
import socket
import struct
from typing import Optional, Union

from ..tuples import NamedTuple

A, PTR, AAAA, OPT, ANY = 1, 12, 28, 41, 255
IN = 1
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = range(6)
TTL = 600  # Docker's
PLAIN_UDP = 512
EDNS_UDP = 1232  # what we say we take; no fragments on any sane path
_HEADER = struct.Struct(">HHHHHH")
_QR, _AA, _TC, _RD, _RA = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080


class Names:
    """Where answers come from. ``asker`` is a container id; this base class knows nobody."""

    def lookup(self, asker: str, name: str) -> Optional[list[str]]:
        """Addresses of ``name`` (lower case, no trailing dot), both families, as ``asker`` may see it.

        None: not one of our names, ask elsewhere. Empty: ours, but nobody is there; never asked elsewhere, so that an
        outside server cannot take over a container's name (netavark's CVE-2025-8283).
        """
        return None

    def reverse(self, asker: str, address: str) -> Optional[str]:
        """The name of an address; "" for an address of the asker's networks that nobody has; None: not ours."""
        return None

    def outside(self, asker: str) -> bool:
        """May names that are not ours be asked on the asker's behalf in the host's network?"""
        return True

    def own_servers(self, asker: str) -> list[str]:
        """Name servers the container was given: they are asked from inside its network."""
        return []


class Query(NamedTuple):
    """``name`` lower case without trailing dot; ``question`` the section's bytes; ``limit`` for a UDP reply."""

    id: int
    flags: int
    name: str
    kind: int
    klass: int
    question: bytes
    edns: bool
    limit: int


def parse(data: bytes) -> Union[bytes, Query, None]:
    """A query; the reply to something that is no usable query; or None for what must not be answered at all (too
    short, or a response: answering responses lets two servers talk to each other for ever)."""
    if len(data) < 12:
        return None
    ident, flags, questions, answers, authorities, additionals = _HEADER.unpack_from(data)
    if flags & _QR:
        return None
    if flags & 0x7800:
        return _bare(ident, flags, NOTIMP)
    if questions != 1:
        return _bare(ident, flags, FORMERR)
    end, labels = _labels(data)
    if end < 0 or len(data) < end + 4:
        return _bare(ident, flags, FORMERR)
    kind, klass = struct.unpack_from(">HH", data, end)
    end += 4
    edns, limit = False, PLAIN_UDP
    if not answers and not authorities and additionals and len(data) >= end + 11 and data[end] == 0:
        option, size = struct.unpack_from(">HH", data, end + 1)
        if option == OPT:
            edns, limit = True, max(PLAIN_UDP, size)
    name = b".".join(labels).lower().decode("latin-1")
    return Query(ident, flags, name, kind, klass, data[12:end], edns, limit)


def _labels(data: bytes) -> tuple[int, list[bytes]]:
    """``(offset behind the name at 12, labels)``; offset -1 for a malformed or compressed name."""
    labels: list[bytes] = []
    pos = 12
    while pos < len(data) and pos < 12 + 255:
        length = data[pos]
        pos += 1
        if length == 0:
            return pos, labels
        if length > 63 or pos + length > len(data):
            break
        labels.append(data[pos : pos + length])
        pos += length
    return -1, labels


def answer(query: Query, names: Names, asker: str) -> Optional[bytes]:
    """The reply if the name is ours, else None: to be relayed."""
    if query.klass not in (IN, ANY) or not query.name:
        return None
    found = names.lookup(asker, query.name)
    if found is not None:
        return _addresses(query, found)
    if query.kind in (PTR, ANY):
        address = reverse_address(query.name)
        name = names.reverse(asker, address) if address else None
        if name:
            return reply(query, NOERROR, [_record(PTR, encode_name(name))])
        if name == "":
            return reply(query, NXDOMAIN)
    return None


def _addresses(query: Query, addresses: list[str]) -> bytes:
    """Wrong family or another type: NOERROR without answers, so that a resolver stops looking. Random order."""
    if not addresses:
        return reply(query, NXDOMAIN)
    records = []
    for address in random.sample(addresses, len(addresses)):
        kind = AAAA if ":" in address else A
        if query.kind in (kind, ANY):
            records.append(
                _record(kind, socket.inet_pton(socket.AF_INET6 if kind == AAAA else socket.AF_INET, address))
            )
    return reply(query, NOERROR, records)


def reverse_address(name: str) -> str:
    """``2.0.17.172.in-addr.arpa`` → ``172.17.0.2``, the same for ip6.arpa; "" if it is no whole address."""
    labels = name.split(".")
    try:
        if name.endswith(".in-addr.arpa") and len(labels) == 6:
            return socket.inet_ntop(socket.AF_INET, bytes(int(label) for label in labels[3::-1]))
        if name.endswith(".ip6.arpa") and len(labels) == 34:
            return socket.inet_ntop(socket.AF_INET6, bytes.fromhex("".join(labels[31::-1])))
    except ValueError:
        pass
    return ""


def encode_name(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".") if 0 < len(label) < 64) + b"\0"


def _record(kind: int, data: bytes) -> bytes:
    return b"\xc0\x0c" + struct.pack(">HHIH", kind, IN, TTL, len(data)) + data  # 0xc00c: the question's name


def reply(query: Query, code: int, records: Optional[list[bytes]] = None, *, authoritative: bool = True) -> bytes:
    records = records or []
    flags = _QR | _RA | (query.flags & _RD) | (_AA if authoritative else 0) | code
    option = b"\0" + struct.pack(">HHIH", OPT, EDNS_UDP, 0, 0) if query.edns else b""
    header = _HEADER.pack(query.id, flags, 1, len(records), 0, 1 if option else 0)
    return header + query.question + b"".join(records) + option


def failure(query: Query) -> bytes:
    return reply(query, SERVFAIL, authoritative=False)


def _bare(ident: int, flags: int, code: int) -> bytes:
    return _HEADER.pack(ident, _QR | _RA | (flags & (_RD | 0x7800)) | code, 0, 0, 0, 0)


def fit(query: Query, message: bytes) -> bytes:
    """A reply that fits the asker's UDP limit: whole, or only the question with TC set (ask again over TCP)."""
    if len(message) <= query.limit or len(message) < 12:
        return message
    flags = int.from_bytes(message[2:4], "big") | _TC
    return _HEADER.pack(query.id, flags, 1, 0, 0, 0) + query.question


def relayed(query: Query, message: bytes, ident: int) -> Optional[bytes]:
    """An upstream's reply under the asker's id; None if it does not belong to what was asked (id, QR, question):
    somebody may be guessing."""
    if len(message) < 12 or message[:2] != ident.to_bytes(2, "big") or not message[2] & 0x80:
        return None
    size = len(query.question)
    if message[4:6] == b"\0\1":
        if message[12 : 12 + size].lower() != query.question.lower():
            return None
    elif not rcode(message) and not message[2] & (_TC >> 8):
        return None  # only errors, and "ask again over TCP", may leave the question out
    return query.id.to_bytes(2, "big") + message[2:]


def rcode(message: bytes) -> int:
    return message[3] & 0xF


def with_id(message: bytes, ident: int) -> bytes:
    return ident.to_bytes(2, "big") + message[2:]
