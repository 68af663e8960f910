# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import struct

import pytest
from module_utils._engine.errors import Unsupported, UsageError
from module_utils._engine.kernel import seccomp
from module_utils._engine.kernel.capabilities import DEFAULT, NAMES
from module_utils._engine.kernel.seccomp import compiler, profile, tables

ALLOW, EPERM, ENOSYS = 0x7FFF0000, 0x00050001, 0x00050026
KERNEL = "6.12.0"
MACHINES = sorted(tables.AUDIT_ARCH)


def run(code, number, args=(), arch=tables.AUDIT_ARCH["x86_64"]):
    """A classic BPF interpreter. Returns (answer, steps)."""
    data = struct.pack("=IIQ6Q", number & 0xFFFFFFFF, arch, 0, *[*args, 0, 0, 0, 0, 0, 0][:6])
    accumulator, at, steps = 0, 0, 0
    while True:
        op, yes, no, k = struct.unpack_from("=HBBI", code, at * 8)
        at, steps = at + 1, steps + 1
        if op == 0x20:
            accumulator = struct.unpack_from("=I", data, k)[0]
        elif op == 0x54:
            accumulator &= k
        elif op == 0x05:
            at += k
        elif op == 0x06:
            return k, steps
        else:
            hit = {0x15: accumulator == k, 0x25: accumulator > k, 0x35: accumulator >= k}[op]
            at += yes if hit else no


def holds(test, args):
    value = args[test["index"]]
    one, two = test.get("value", 0), test.get("valueTwo", 0)
    return {
        "NE": value != one, "LT": value < one, "LE": value <= one, "EQ": value == one, "GE": value >= one,
        "GT": value > one, "MASKED_EQ": value & one == two,
    }[test["op"][9:]]  # fmt: skip


def judge(resolved, machine, number, args):
    """The profile's meaning, straight from its text."""
    names = {n: name for name, n in tables.numbers(machine).items()}
    mentioned = {name for rule in resolved["syscalls"] for name in rule["names"]}
    if number > max(n for n, name in names.items() if name in mentioned):
        return ENOSYS
    for rule in resolved["syscalls"]:
        if names.get(number) in rule["names"] and all(holds(test, args) for test in rule.get("args", [])):
            return profile.ACTIONS[rule["action"]] | (rule.get("errnoRet", 1) if "ERRNO" in rule["action"] else 0)
    return EPERM


def corners(resolved):
    values = {0, 1, 2**32 - 1, 2**32, 2**64 - 1}
    for rule in resolved["syscalls"]:
        for test in rule.get("args", []):
            for near in (test["value"] - 1, test["value"], test["value"] + 1):
                values |= {near & 2**64 - 1, near & 2**32 - 1 | 1 << 32}
    for bit in range(32):
        values.add(1 << bit)
    return sorted(values)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("capabilities", [DEFAULT, (), NAMES, ("CAP_SYS_ADMIN",), ("CAP_SYSLOG", "CAP_BPF")])
def test_the_filter_means_what_the_profile_says(machine, capabilities):
    resolved = profile.resolve(profile.default_profile(), capabilities, machine, KERNEL)
    code = seccomp.filter_for(None, capabilities, machine, KERNEL)
    arch = tables.AUDIT_ARCH[machine]
    with_args = {tables.numbers(machine)[n] for n in ("clone", "socket", "personality")}
    for number in [*range(520), 1 << 20]:
        for value in corners(resolved) if number in with_args else (0, 2**64 - 1):
            args = [value, 0, 0, 0, 0, 0]
            assert run(code, number, args, arch)[0] == judge(resolved, machine, number, args), (number, value)


def test_it_is_short_and_no_call_takes_long():
    code = seccomp.filter_for(None, DEFAULT, "x86_64", KERNEL)
    assert len(code) // 8 < 200
    assert max(run(code, number, [2**64 - 1])[1] for number in range(520)) <= 40


NR = tables.numbers("x86_64")
FILTER = seccomp.filter_for(None, DEFAULT, "x86_64", KERNEL)


@pytest.mark.parametrize(
    "name, args, answer",
    [
        ("read", (), ALLOW), ("execve", (), ALLOW), ("ptrace", (), ALLOW), ("chroot", (), ALLOW),
        ("unshare", (), EPERM), ("mount", (), EPERM), ("bpf", (), EPERM), ("keyctl", (), EPERM), ("add_key", (), EPERM),
        ("io_uring_setup", (), EPERM), ("open_by_handle_at", (), EPERM), ("kexec_load", (), EPERM),
        ("setns", (), EPERM), ("fsopen", (), EPERM), ("reboot", (), EPERM), ("userfaultfd", (), EPERM),
        ("clone3", (), ENOSYS),
        ("clone", (0x11,), ALLOW), ("clone", (0x003D0F00,), ALLOW), ("clone", (0x10000000,), EPERM),
        ("clone", (0x20000,), EPERM), ("clone", (0x02000000,), EPERM), ("clone", (0x40000011,), EPERM),
        ("socket", (2,), ALLOW), ("socket", (37,), ALLOW), ("socket", (38,), EPERM), ("socket", (39,), ALLOW),
        ("socket", (40,), EPERM), ("socket", (41,), ALLOW), ("socket", (1,), ALLOW), ("socket", (16,), ALLOW),
        ("personality", (0,), ALLOW), ("personality", (8,), ALLOW), ("personality", (0x20000,), ALLOW),
        ("personality", (0x20008,), ALLOW), ("personality", (0xFFFFFFFF,), ALLOW), ("personality", (1,), EPERM),
        ("personality", (0x40000,), EPERM), ("open_tree_attr", (), ENOSYS), ("file_setattr", (), ENOSYS),
    ],
)  # fmt: skip
def test_dockers_answers(name, args, answer):
    assert run(FILTER, NR[name], args)[0] == answer


def test_foreign_abis_are_refused_whole():
    assert run(FILTER, 4, arch=0x40000003)[0] == ENOSYS  # i386 write
    assert run(FILTER, 0x40000000 | NR["read"])[0] == ENOSYS  # x32
    assert run(FILTER, -1)[0] == ENOSYS


def test_unconditional_calls_number_361_and_all_exist_somewhere_or_are_legacy():
    rules = profile.default_profile()["syscalls"]
    assert len(set(rules[0]["names"])) == 361
    assert all(name in rules[0]["names"] for name in ("read", "mseal", "removexattrat", "uretprobe"))


def test_tables_have_the_numbers_the_kernel_has():
    generic = tables.numbers("aarch64")
    for name, x86, arm in (
        ("read", 0, 63), ("execve", 59, 221), ("clone", 56, 220), ("seccomp", 317, 277), ("bpf", 321, 280),
        ("pidfd_send_signal", 424, 424), ("clone3", 435, 435), ("fchmodat2", 452, 452), ("file_setattr", 469, 469),
        ("newfstatat", 262, 79), ("personality", 135, 92), ("rseq", 334, 293),
    ):  # fmt: skip
        assert (NR[name], generic[name]) == (x86, arm)
    assert "open" not in generic and "fork" not in generic
    assert tables.numbers("riscv64")["riscv_hwprobe"] == 258
    assert len(set(NR.values())) == len(NR)


def test_the_tables_agree_with_installed_headers():
    path = "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"
    try:
        with open(path) as stream:
            lines = [line.split() for line in stream if line.startswith("#define __NR_")]
    except FileNotFoundError:
        pytest.skip("no kernel headers installed")
    for _define, name, number in lines:
        assert NR[name[5:]] == int(number)


@pytest.mark.parametrize("op", profile.OPERATORS)
def test_every_operator_at_the_32_bit_corners(op):
    for value in (0, 5, 2**32 - 1, 2**32, 2**32 + 5, 2**63, 2**64 - 1):
        test = {"index": 2, "value": value, "valueTwo": value & 0xF0000000F, "op": op}
        custom = {
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [{"names": ["read", "write"], "action": "SCMP_ACT_ALLOW", "args": [test]}],
        }
        code = seccomp.filter_for(custom, (), "x86_64", KERNEL)
        for near in (max(value - 1, 0), value, min(value + 1, 2**64 - 1), 0, 5, 2**32, 2**32 | 5, 2**64 - 1):
            expected = ALLOW if holds(test, [0, 0, near]) else EPERM
            assert run(code, 1, [0, 0, near])[0] == expected, (op, value, near)


def test_several_tests_on_one_argument_are_alternatives_on_several_all_must_hold():
    def rule(*pairs):
        args = [{"index": i, "value": v, "op": "SCMP_CMP_EQ"} for i, v in pairs]
        return {
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": args}],
        }

    either = seccomp.filter_for(rule((0, 1), (0, 2)), (), "x86_64", KERNEL)
    assert [run(either, 0, [n])[0] == ALLOW for n in (0, 1, 2, 3)] == [False, True, True, False]
    both = seccomp.filter_for(rule((0, 1), (1, 2)), (), "x86_64", KERNEL)
    assert run(both, 0, [1, 2])[0] == ALLOW
    assert run(both, 0, [1, 3])[0] == EPERM


def test_long_rule_lists_get_wide_jumps():
    args = [{"index": 0, "value": n << 33 | n, "op": "SCMP_CMP_EQ"} for n in range(200)]
    custom = {
        "defaultAction": "SCMP_ACT_KILL_PROCESS",
        "syscalls": [{"names": [name], "action": "SCMP_ACT_ALLOW", "args": args} for name in ("read", "close", "mmap")],
    }
    code = seccomp.filter_for(custom, (), "x86_64", KERNEL)
    for name in ("read", "close", "mmap"):
        assert run(code, NR[name], [199 << 33 | 199])[0] == ALLOW
        assert run(code, NR[name], [199])[0] == 0x80000000
    assert run(code, NR["write"], [0])[0] == 0x80000000


def test_a_profile_too_long_for_the_kernel_is_told():
    args = [{"index": 0, "value": n, "op": "SCMP_CMP_EQ"} for n in range(1500)]
    custom = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": args}],
    }
    with pytest.raises(UsageError, match="4096"):
        seccomp.filter_for(custom, (), "x86_64", KERNEL)


def test_actions_and_errno_values():
    custom = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {"name": "mkdir", "action": "SCMP_ACT_ERRNO", "errnoRet": 13},
            {"names": ["rmdir"], "action": "SCMP_ACT_KILL"},
            {"names": ["link"], "action": "SCMP_ACT_LOG"},
            {"names": ["unlink"], "action": "SCMP_ACT_TRACE", "errnoRet": 7},
            {"names": ["symlink"], "action": "SCMP_ACT_ERRNO"},
            {"names": ["no_such_call"], "action": "SCMP_ACT_KILL"},
        ],
    }
    code = seccomp.filter_for(custom, (), "x86_64", KERNEL)
    wanted = {"mkdir": 0x5000D, "rmdir": 0, "link": 0x7FFC0000, "unlink": 0x7FF00007, "symlink": 0x50001, "read": ALLOW}
    assert {name: run(code, NR[name])[0] for name in wanted} == wanted


def test_conditions_on_kernel_architecture_and_capabilities():
    def one(**conditions):
        custom = {
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW", **conditions}],
        }
        return len(profile.resolve(custom, {"CAP_CHOWN"}, "x86_64", "5.10.0-8-amd64")["syscalls"])

    assert one(includes={"minKernel": "5.10"}) and not one(includes={"minKernel": "5.11"})
    assert one(includes={"minKernel": "4.19"}) and not one(excludes={"minKernel": "4.19"})
    assert one(includes={"arches": ["amd64"]}) and not one(includes={"arches": ["arm64"]})
    assert one(includes={"caps": ["CAP_CHOWN"]}) and not one(includes={"caps": ["CAP_CHOWN", "CAP_KILL"]})
    assert not one(excludes={"caps": ["CAP_KILL", "CAP_CHOWN"]}) and not one(excludes={"arches": ["amd64"]})


GOOD = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]}


@pytest.mark.parametrize(
    "change, field",
    [
        ({"defaultAction": "ALLOW"}, "defaultAction"),
        ({"defaultAction": None}, "defaultAction"),
        ({"defaultErrnoRet": -1}, "defaultErrnoRet"),
        ({"syscalls": {}}, "syscalls"),
        ({"syscalls": ["read"]}, "syscalls[0]"),
        ({"architectures": ["a"], "archMap": [{}]}, "archMap"),
        ({"syscalls": [{"action": "SCMP_ACT_ALLOW"}]}, "syscalls[0].names"),
        ({"syscalls": [{"names": ["read", 3], "action": "SCMP_ACT_ALLOW"}]}, "syscalls[0].names"),
        ({"syscalls": [{"names": ["a"], "name": "b", "action": "SCMP_ACT_ALLOW"}]}, "syscalls[0].name"),
        ({"syscalls": [{"names": ["a"], "action": "SCMP_ACT_NOTIFY"}]}, "syscalls[0].action"),
        (
            {"syscalls": [{"names": ["a"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 6}]}]},
            "syscalls[0].args[0].op",
        ),
        (
            {"syscalls": [{"names": ["a"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 6, "op": "SCMP_CMP_EQ"}]}]},
            "syscalls[0].args[0].index",
        ),
        (
            {"syscalls": [{"names": ["a"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": "X"}}]},
            "syscalls[0].includes.caps",
        ),
        (
            {"syscalls": [{"names": ["a"], "action": "SCMP_ACT_ALLOW", "excludes": {"minKernel": "5"}}]},
            "syscalls[0].excludes.minKernel",
        ),
    ],
)
def test_the_bad_field_is_named(change, field):
    with pytest.raises(UsageError) as caught:
        profile.load(json.dumps({**GOOD, **change}), "my.json")
    assert caught.value.path == field
    assert "my.json: %s:" % field in caught.value.msg


@pytest.mark.parametrize("text", ["", "[]", "3", "{", "null"])
def test_what_is_no_object_is_refused(text):
    with pytest.raises(UsageError, match=r"my\.json"):
        profile.load(text, "my.json")


def test_the_default_survives_a_round_trip_through_json_and_through_oci():
    default = profile.default_profile()
    assert profile.load(json.dumps(default)) == default
    oci = profile.resolve(default, DEFAULT, "x86_64", KERNEL)
    assert seccomp.filter_for(oci, (), "x86_64", KERNEL) == FILTER


def test_a_machine_without_a_table_is_told():
    with pytest.raises(Unsupported, match="vax"):
        seccomp.filter_for(None, (), "vax", KERNEL)


def test_the_cache_key_changes_with_everything_that_counts():
    base = seccomp.cache_key(None, DEFAULT, "x86_64", "6.1.0")
    assert base == seccomp.cache_key(None, list(reversed(DEFAULT)), "x86_64", "6.1.9-x")
    others = [
        seccomp.cache_key(GOOD, DEFAULT, "x86_64", "6.1.0"),
        seccomp.cache_key(None, DEFAULT[1:], "x86_64", "6.1.0"),
        seccomp.cache_key(None, DEFAULT, "aarch64", "6.1.0"),
        seccomp.cache_key(None, DEFAULT, "x86_64", "6.2.0"),
    ]
    assert len({base, *others}) == 5


def test_the_assembler_widens_both_sides_of_a_jump():
    program = compiler.Program()
    far, farther = program.label(), program.label()
    program.emit(compiler.JEQ, 7, far, farther)
    for _n in range(300):
        program.emit(compiler.LD, 0)
    program.mark(far)
    program.emit(compiler.RET, 1)
    for _n in range(300):
        program.emit(compiler.LD, 0)
    program.mark(farther)
    program.emit(compiler.RET, 2)
    code = program.assemble()
    assert run(struct.pack("=HBBI", 0x20, 0, 0, 0) + code, 7)[0] == 1
    assert run(struct.pack("=HBBI", 0x20, 0, 0, 0) + code, 8)[0] == 2


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_tables_agree_with_libseccomp(machine):
    import ctypes

    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        pytest.skip("no libseccomp")
    resolve = library.seccomp_syscall_resolve_name_arch
    arch = ctypes.c_uint32(tables.AUDIT_ARCH[machine])
    answers = {name: resolve(arch, name.encode()) for name in tables.numbers(machine)}
    known = {name: number for name, number in answers.items() if number >= 0}  # it may be older than our tables
    assert len(known) > 300
    assert known == {name: number for name, number in tables.numbers(machine).items() if name in known}
