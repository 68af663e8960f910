# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from module_utils._engine.errors import Unsupported, UsageError
from module_utils._engine.kernel import devices
from module_utils._engine.kernel.devices import DeviceRule


def run_ebpf(code, kind, major, minor, access):
    """Interprets the dozen eBPF operations the filter uses; as the kernel would call it."""
    context = struct.pack("=III", access << 16 | kind, major, minor)
    registers = [0] * 11
    at = 0
    while True:
        op, regs, off, imm = struct.unpack_from("=BBhi", code, at * 8)
        dst, src = regs & 15, regs >> 4
        at += 1
        if op == 0x61:
            registers[dst] = struct.unpack_from("=I", context, off)[0]
        elif op == 0x54:
            registers[dst] &= imm & 0xFFFFFFFF
        elif op == 0x74:
            registers[dst] >>= imm
        elif op == 0xBC:
            registers[dst] = registers[src]
        elif op == 0xB7:
            registers[dst] = imm
        elif op == 0x55:
            at += off if registers[dst] != imm & 0xFFFFFFFFFFFFFFFF else 0
        elif op == 0x56:
            at += off if registers[dst] != imm & 0xFFFFFFFF else 0
        elif op == 0x15:
            at += off if registers[dst] == imm & 0xFFFFFFFFFFFFFFFF else 0
        elif op == 0x95:
            return registers[0]
        else:
            raise AssertionError("unknown operation %#x" % op)


NUMBER = st.sampled_from([None, 0, 1, 3, 0x80000001, 0xFFFFFFFF])
RULE = st.builds(
    DeviceRule,
    st.booleans(),
    st.sampled_from("abc"),
    NUMBER,
    NUMBER,
    st.sampled_from(["r", "w", "m", "rw", "rm", "rwm"]),
)
REAL = st.sampled_from([0, 1, 3, 4, 0x80000001, 0xFFFFFFFF])
MASK = {"m": 1, "r": 2, "w": 4}


@settings(max_examples=300, deadline=None)
@given(st.lists(RULE, max_size=6), st.sampled_from("bc"), REAL, REAL, st.sampled_from(["r", "w", "m", "rw", "rwm"]))
def test_the_program_answers_as_the_rules_say(rules, kind, major, minor, access):
    answer = run_ebpf(
        devices.assemble(rules), {"b": 1, "c": 2}[kind], major, minor, sum(MASK[letter] for letter in access)
    )
    assert bool(answer) == devices.permits(rules, kind, major, minor, access)


@settings(max_examples=300, deadline=None)
@given(st.lists(RULE, max_size=6), st.sampled_from("bc"), REAL, REAL, st.sampled_from("rwm"))
def test_what_v1_is_told_means_the_same(rules, kind, major, minor, letter):
    try:
        default, exceptions = devices.reduce_v1(rules)
    except Unsupported:
        return
    hit = any(
        e.kind == kind and e.major in (None, major) and e.minor in (None, minor) and letter in e.access
        for e in exceptions
    )
    assert all(e.allow != default for e in exceptions)
    assert (not default if hit else default) == devices.permits(rules, kind, major, minor, letter)


@pytest.mark.parametrize(
    "kind, major, minor, access, allowed",
    [
        ("c", 1, 3, "rw", True),
        ("c", 1, 7, "rw", True),
        ("c", 136, 77, "rw", True),
        ("c", 5, 2, "rw", True),
        ("c", 1, 1, "r", False),  # /dev/mem
        ("c", 1, 1, "m", True),
        ("b", 8, 0, "m", True),
        ("b", 8, 0, "r", False),
        ("c", 10, 229, "r", False),
        ("c", 10, 200, "rw", False),
        ("c", 1, 3, "rwm", True),
    ],
)
def test_the_default_rules_are_dockers(kind, major, minor, access, allowed):
    assert devices.permits(devices.DEFAULT, kind, major, minor, access) is allowed


def test_a_hole_in_a_wildcard_is_refused_on_v1_and_works_in_bpf():
    rules = [devices.NOTHING, DeviceRule(True, "c", 10, None, "rwm"), DeviceRule(False, "c", 10, 229, "rwm")]
    with pytest.raises(Unsupported, match="10:229"):
        devices.reduce_v1(rules)
    assert run_ebpf(devices.assemble(rules), 2, 10, 229, 2) == 0
    assert run_ebpf(devices.assemble(rules), 2, 10, 1, 2) == 1


@pytest.mark.parametrize("text", ["c 1:3 rwm", "a *:* rwm", "b 8:* r", "c *:1 mr"])
def test_rules_are_parsed(text):
    rule = devices.parse_rule(text)
    assert rule.allow
    assert devices.from_oci(devices.to_oci([rule])) == [rule]


@pytest.mark.parametrize(
    "text",
    ["", "c 1:3", "d 1:3 r", "c 1 r", "c 1:3 x", "c 1:3 rwmr", "c -1:3 r", "c 1:4294967296 r", "c  1:3 r", "c ٣:3 r"],
)
def test_malformed_rules_are_refused(text):
    with pytest.raises(UsageError):
        devices.parse_rule(text)


def test_oci_rules_take_absent_and_negative_numbers_for_any():
    assert devices.from_oci([{"allow": False, "access": "rwm"}]) == [devices.NOTHING]
    assert devices.from_oci([{"allow": True, "type": "c", "major": 1, "minor": -1, "access": "wr"}]) == [
        DeviceRule(True, "c", 1, None, "rw")
    ]
    with pytest.raises(UsageError):
        devices.from_oci([{"allow": True, "type": "z"}])
