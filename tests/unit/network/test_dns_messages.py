# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""DNS messages, held against dnslib."""

from __future__ import annotations

import struct
from typing import Optional

import pytest
from dnslib import EDNS0, QTYPE, RCODE, RR, A, DNSHeader, DNSQuestion, DNSRecord
from hypothesis import given, settings
from hypothesis import strategies as st
from module_utils._engine.network import dns_messages as dns


class Fake(dns.Names):
    def lookup(self, asker: str, name: str) -> Optional[list[str]]:
        return {
            "web": ["10.0.0.2", "fd00::2"],
            "four": ["10.0.0.3"],
            "stopped": [],
            "many": ["10.0.%d.%d" % (n // 250, n % 250) for n in range(100)],
        }.get(name)

    def reverse(self, asker: str, address: str) -> Optional[str]:
        return {"10.0.0.2": "web.net", "fd00::2": "web.net", "10.0.0.99": ""}.get(address)


def ask(name: str, kind: str = "A", *, edns: int = 0, ident: int = 4711) -> bytes:
    record = DNSRecord(DNSHeader(id=ident, rd=1), q=DNSQuestion(name, getattr(QTYPE, kind)))
    if edns:
        record.add_ar(EDNS0(udp_len=edns))
    packed: bytes = record.pack()
    return packed


def answered(name: str, kind: str = "A", *, edns: int = 0) -> Optional[DNSRecord]:
    query = dns.parse(ask(name, kind, edns=edns))
    assert isinstance(query, dns.Query)
    reply = dns.answer(query, Fake(), "asker")
    if reply is None:
        return None
    parsed = DNSRecord.parse(dns.fit(query, reply))
    assert parsed.header.id == 4711 and parsed.header.qr and parsed.header.ra and parsed.header.rd
    assert str(parsed.q.qname).rstrip(".") == name.rstrip(".")
    return parsed


def data(record: Optional[DNSRecord]) -> list[str]:
    assert record is not None
    assert all(rr.ttl == 600 for rr in record.rr)
    return [str(rr.rdata) for rr in record.rr]


def test_addresses_of_each_family() -> None:
    assert data(answered("web", "A")) == ["10.0.0.2"]
    assert data(answered("web", "AAAA")) == ["fd00::2"]
    assert sorted(data(answered("web", "ANY"))) == ["10.0.0.2", "fd00::2"]


def test_the_case_of_the_question_is_ignored_and_given_back() -> None:
    assert data(answered("wEb", "A")) == ["10.0.0.2"]


@pytest.mark.parametrize("kind", ["AAAA", "MX", "TXT", "SRV", "HTTPS"])
def test_our_names_other_types_are_empty_and_not_asked_elsewhere(kind: str) -> None:
    record = answered("four", kind)
    assert record is not None and record.header.rcode == RCODE.NOERROR and not record.rr and record.header.aa


def test_a_stopped_containers_name_is_not_asked_elsewhere() -> None:
    record = answered("stopped")
    assert record is not None and record.header.rcode == RCODE.NXDOMAIN


def test_unknown_names_are_to_be_relayed() -> None:
    assert answered("example.com") is None
    assert answered("2.0.0.11.in-addr.arpa", "PTR") is None
    assert answered("0.0.10.in-addr.arpa", "PTR") is None


def test_reverse_names_of_both_families() -> None:
    assert data(answered("2.0.0.10.in-addr.arpa", "PTR")) == ["web.net."]
    ip6 = ".".join(reversed("fd00" + "0" * 27 + "2")) + ".ip6.arpa"
    assert data(answered(ip6, "PTR")) == ["web.net."]
    record = answered("99.0.0.10.in-addr.arpa", "PTR")
    assert record is not None and record.header.rcode == RCODE.NXDOMAIN


def test_several_addresses_come_in_changing_order() -> None:
    orders = {tuple(data(answered("many", "A", edns=4096))) for _try in range(5)}
    assert len(orders) > 1
    assert len({frozenset(order) for order in orders}) == 1


def test_what_does_not_fit_a_datagram_is_cut_to_the_question_with_tc() -> None:
    record = answered("many", "A")
    assert record is not None and record.header.tc and not record.rr
    whole = answered("many", "A", edns=4096)
    assert whole is not None and not whole.header.tc and len(whole.rr) == 100


def test_edns_is_answered_with_edns_only() -> None:
    with_edns, without = answered("web", edns=1400), answered("web")
    assert with_edns is not None and [rr.rtype for rr in with_edns.ar] == [QTYPE.OPT]
    assert without is not None and not without.ar


def test_what_is_no_query_gets_no_answer_or_an_error() -> None:
    assert dns.parse(b"") is None
    assert dns.parse(b"x" * 11) is None
    response = DNSRecord.parse(ask("web")).reply().pack()
    assert dns.parse(response) is None, "two servers would answer each other for ever"
    notify = bytearray(ask("web"))
    notify[2] |= 4 << 3
    for message, code in (
        (bytes(notify), RCODE.NOTIMP),
        (ask("web")[:-3], RCODE.FORMERR),
        (ask("")[:12], RCODE.FORMERR),
    ):
        refused = dns.parse(message)
        assert isinstance(refused, bytes)
        assert DNSRecord.parse(refused).header.rcode == code
        assert DNSRecord.parse(refused).header.id == 4711


def test_names_longer_than_255_and_compressed_questions_are_malformed() -> None:
    header = struct.pack(">HHHHHH", 1, 0x100, 1, 0, 0, 0)
    for name in ((b"\x3f" + b"a" * 63) * 5 + b"\0", b"\xc0\x0c", b"\x40" + b"a" * 64 + b"\0"):
        assert isinstance(dns.parse(header + name + b"\0\1\0\1"), bytes)


def test_a_relayed_reply_must_belong_to_the_question() -> None:
    query = dns.parse(ask("Example.com"))
    assert isinstance(query, dns.Query)
    upstream = DNSRecord.parse(ask("example.com", ident=99)).reply()
    upstream.add_answer(RR("example.com", rdata=A("192.0.2.1")))
    good = upstream.pack()
    relayed = dns.relayed(query, good, 99)
    assert relayed is not None and relayed[:2] == (4711).to_bytes(2, "big") and relayed[2:] == good[2:]
    assert dns.relayed(query, good, 98) is None
    assert dns.relayed(query, ask("example.com", ident=99), 99) is None
    assert dns.relayed(query, DNSRecord.parse(ask("evil.com", ident=99)).reply().pack(), 99) is None
    assert dns.relayed(query, good[:11], 99) is None


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=600))
def test_random_bytes_never_raise(message: bytes) -> None:
    check(message)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(["web", "many", "2.0.0.10.in-addr.arpa", "x.y"]), st.data())
def test_damaged_queries_never_raise(name: str, draw: st.DataObject) -> None:
    message = bytearray(ask(name, draw.draw(st.sampled_from(["A", "AAAA", "PTR", "ANY"])), edns=1232))
    for _change in range(draw.draw(st.integers(1, 6))):
        message[draw.draw(st.integers(0, len(message) - 1))] = draw.draw(st.integers(0, 255))
    check(bytes(message[: draw.draw(st.integers(0, len(message)))]))


def check(message: bytes) -> None:
    query = dns.parse(message)
    if isinstance(query, dns.Query):
        reply = dns.answer(query, Fake(), "asker") or dns.failure(query)
        assert len(dns.fit(query, reply)) <= query.limit
        if query.name.isascii():  # dnslib refuses labels that are no UTF-8
            assert DNSRecord.parse(dns.fit(query, reply)).header.id == query.id
        dns.relayed(query, message, query.id)


@settings(max_examples=200, deadline=None)
@given(st.text("abcdef0123456789.:", max_size=80))
def test_reverse_names_never_raise(text: str) -> None:
    for suffix in (".in-addr.arpa", ".ip6.arpa", ""):
        dns.reverse_address(text + suffix)
