# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The bytes of netfilter netlink, without a kernel."""

from __future__ import annotations

import errno
import socket
import struct
from typing import Any, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st
from module_utils._engine.kernel import nfnetlink as nf
from module_utils._engine.kernel.nftables import expressions as x
from module_utils._engine.kernel.nftables import objects


@given(st.lists(st.tuples(st.integers(1, 0x3FFF), st.binary(max_size=300)), max_size=8))
def test_attributes_come_back_as_they_went(pairs: list[tuple[int, bytes]]) -> None:
    data = b"".join(nf.attr(kind, value) for kind, value in pairs)
    assert len(data) % 4 == 0
    assert list(nf.each(data)) == pairs


@given(st.binary(max_size=200))
def test_damaged_attributes_end_the_reading(data: bytes) -> None:
    assert len(list(nf.each(data))) <= len(data) // 4
    list(nf._messages(data))
    objects._rule({7: data})


def test_integers_are_big_endian_and_nesting_is_flagged() -> None:
    assert nf.u32(3, -100) == struct.pack("=HH", 8, 3) + b"\xff\xff\xff\x9c"
    assert nf.nest(4, nf.u32(1, 2)) == struct.pack("=HH", 12, 0x8004) + struct.pack("=HH", 8, 1) + b"\0\0\0\2"


def test_concatenated_types_take_six_bits_each_as_nft_counts() -> None:
    assert objects.type_number((objects.INET_PROTOCOL, objects.INET_SERVICE)) == 0x30D
    assert objects.type_number((objects.IPV4, objects.INET_PROTOCOL, objects.INET_SERVICE)) == 0x730D
    assert objects.type_number((objects.VERDICT,)) == objects.VERDICT
    assert objects.type_length((objects.INET_PROTOCOL, objects.INET_SERVICE)) == 8
    assert objects.type_length((objects.IPV6, objects.INET_SERVICE)) == 20
    assert objects.padded(b"\6", b"\0\x50") == b"\6\0\0\0\0\x50\0\0"


def test_an_expression_is_a_name_and_its_attributes() -> None:
    element = nf.parse(x.payload(x.TRANSPORT_HEADER, 2, 2, 9))
    fields = nf.parse(element[1])
    assert nf.string(fields[1]) == "payload"
    assert {k: nf.number(v) for k, v in nf.parse(fields[2]).items()} == {1: 9, 2: 2, 3: 2, 4: 2}


class Wire:
    """A netlink socket that keeps what is sent and answers what it is told."""

    def __init__(self, *answers: bytes) -> None:
        self.sent: list[bytes] = []
        self.answers = list(answers)

    def send(self, data: bytes) -> None:
        self.sent.append(data)

    def recv(self, _size: int, _flags: int = 0) -> bytes:
        if not self.answers:
            raise BlockingIOError
        return self.answers.pop(0)

    def getsockopt(self, *_args: Any) -> int:
        return 1 << 30


def message(kind: int, seq: int, body: bytes, flags: int = 0) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, seq, 0) + body


def error(seq: int, code: int, said: Optional[str] = None) -> bytes:
    body = struct.pack("=i", -code) + struct.pack("=IHHII", 20, 0, 0, seq, 0)
    if said is None:
        return message(2, seq, body)
    return message(2, seq, body + nf.text(1, said), 0x300)


def client(*answers: bytes) -> tuple[nf.Nfnetlink, Wire]:
    wire = Wire(*answers)
    return nf.Nfnetlink(wire), wire  # type: ignore[arg-type]


def batch(*names: str) -> nf.Batch:
    made = nf.Batch()
    for name in names:
        made.add(objects.NEWTABLE, nf.AF_INET, nf.text(1, name), "add " + name)
    return made


def test_a_batch_is_one_datagram_between_begin_and_end() -> None:
    nl, wire = client()
    nl.commit(batch("one", "two"), generation=7)
    (data,) = wire.sent
    kinds = [(kind, seq) for kind, _flags, seq, _body in nf._messages(data)]
    assert kinds == [(16, 1), (objects.NEWTABLE, 2), (objects.NEWTABLE, 3), (17, 4)]
    first = next(iter(nf._messages(data)))[3]
    assert first[:4] == struct.pack(">BBH", 0, 0, 10)
    assert nf.number(nf.parse(first[4:])[1]) == 7
    assert nl.commit(nf.Batch()) is None and len(wire.sent) == 1


def test_the_first_refused_message_is_named_with_the_kernels_words() -> None:
    nl, _wire = client(error(3, errno.EINVAL, "No such thing") + error(4, errno.ENOENT))
    with pytest.raises(OSError) as failed:
        nl.commit(batch("one", "two", "three"))
    assert (failed.value.errno, failed.value.filename) == (errno.EINVAL, "add two")
    assert failed.value.strerror == "Invalid argument (No such thing)"


def test_a_refusal_of_the_whole_is_a_commit_error() -> None:
    nl, _wire = client(error(1, errno.ERESTART))
    with pytest.raises(OSError) as failed:
        nl.commit(batch("one"))
    assert (failed.value.errno, failed.value.filename) == (errno.ERESTART, "commit")


def test_answers_of_an_earlier_batch_are_not_taken_for_ours() -> None:
    nl, _wire = client(error(2, errno.EPERM))
    nl._seq = 10
    nl.commit(batch("one"))


def test_a_dump_that_spans_a_change_is_asked_again() -> None:
    done = struct.pack("=i", 0)
    answer = nf.AF_INET.to_bytes(1, "big") + b"\0\0\0" + nf.text(1, "t")
    nl, wire = client(
        message(objects.NEWTABLE, 1, answer, 0x10) + message(3, 1, done, 0x10),
        message(objects.NEWTABLE, 2, answer) + message(3, 2, done),
    )
    assert nl.dump(objects.GETTABLE, 0, b"", "x") == [(nf.AF_INET, nf.text(1, "t"))]
    assert len(wire.sent) == 2


def test_elements_are_sent_in_lists_that_fit_an_attribute() -> None:
    declared = objects.Set("ports", (objects.INET_PROTOCOL, objects.INET_SERVICE), (objects.IPV6, objects.INET_SERVICE))
    made = nf.Batch()
    elements = {n.to_bytes(8, "big"): socket.inet_pton(socket.AF_INET6, "::1") + b"\0\1\0\0" for n in range(5000)}
    objects.add_elements(made, nf.AF_INET6, "t", declared, elements)
    assert 1 < len(made) < 20
    seen: dict[bytes, bytes] = {}
    for sent in made.messages:
        assert len(sent.body) < 65000
        for _kind, element in nf.each(nf.parse(sent.body)[3]):
            key, data = objects._read_element(declared, element)
            seen[key] = data
    assert seen == elements
