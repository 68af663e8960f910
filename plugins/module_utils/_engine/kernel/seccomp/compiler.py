# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Classic BPF from a resolved profile, native ABI only, little-endian machines.

The numbers are grouped into runs with the same constant answer and searched by halving, so the longest path is some
30 instructions instead of libseccomp's 370 comparisons.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, Union

from ...errors import Unsupported, UsageError
from ...tuples import NamedTuple
from .profile import ACTIONS, ENOSYS, EPERM
from .tables import AUDIT_ARCH, numbers

# <linux/bpf_common.h>: load word, and, the jumps, return
LD, AND, JEQ, JGT, JGE, JA, RET = 0x20, 0x54, 0x15, 0x25, 0x35, 0x05, 0x06

_NUMBER, _ARCH, _ARGS = 0, 4, 16  # offsets in struct seccomp_data
_X32 = 0x40000000
_LONGEST = 4096  # BPF_MAXINSNS
_ABSENT = 0x00050000 | ENOSYS
_PERMISSIVE = (ACTIONS["SCMP_ACT_ALLOW"], ACTIONS["SCMP_ACT_LOG"])

Target = Union[int, str]


class Test(NamedTuple):
    """Of argument ``arg`` (0 to 5). ``two``: what is left after masking by ``value`` (MASKED_EQ only)."""

    op: str
    arg: int
    value: int
    two: int


class Rule(NamedTuple):
    """Answer ``action`` when all ``tests`` hold."""

    action: int
    tests: tuple[Test, ...]


Table = dict[int, list[Rule]]


class Program:
    """A forward-only assembler. Jump targets are numbers of instructions to skip, or labels."""

    def __init__(self) -> None:
        self.code: list[tuple[int, Target, Target, Target]] = []  # operation, if true, if false, operand
        self.labels: dict[str, int] = {}
        self.serial = 0

    def label(self) -> str:
        self.serial += 1
        return "L%d" % self.serial

    def mark(self, label: str) -> None:
        self.labels[label] = len(self.code)

    def emit(self, op: int, operand: Target = 0, yes: Target = 0, no: Target = 0) -> None:
        self.code.append((op, yes, no, operand))

    def assemble(self) -> bytes:
        """Raises ``UsageError`` when the program is longer than the kernel takes."""
        while self._widen():
            pass
        if len(self.code) > _LONGEST:
            raise UsageError("The seccomp profile needs %d instructions, the kernel takes 4096" % len(self.code))
        out = []
        for at, (op, yes, no, operand) in enumerate(self.code):
            skips = [self.labels[x] - at - 1 if isinstance(x, str) else x for x in (yes, no, operand)]
            out.append(struct.pack("=HBBI", op, skips[0], skips[1], skips[2] & 0xFFFFFFFF))
        return b"".join(out)

    def _widen(self) -> bool:
        """A conditional jump skips at most 255 instructions: send a longer one through an unconditional jump placed
        right behind the test. Returns whether anything was changed."""
        for at, (op, yes, no, operand) in enumerate(self.code):
            if op not in (JEQ, JGT, JGE):
                continue
            for side, target in ((0, yes), (1, no)):
                if not isinstance(target, str) or self.labels[target] - at - 1 <= 255:
                    continue
                other = no if side == 0 else yes
                # Whoever goes the other way now has one more instruction to skip.
                kept: Target = other + 1 if isinstance(other, int) else other
                for name, place in self.labels.items():
                    self.labels[name] = place + (place > at)
                self.code[at] = (op, 0, kept, operand) if side == 0 else (op, kept, 0, operand)
                self.code.insert(at + 1, (JA, 0, 0, target))
                return True
        return False


def compile_profile(resolved: Mapping[str, Any], machine: str) -> bytes:
    """``resolved``: OCI ``linux.seccomp``. Other ABIs of the machine get ENOSYS, as do calls newer than the profile:
    libc probes those and falls back only on ENOSYS. Raises ``Unsupported``, ``UsageError``."""
    if machine not in AUDIT_ARCH:
        raise Unsupported(
            "There is no system call table for %s, so no seccomp filter can be made" % machine,
            step="compile_seccomp",
            hint="Run without one: security_opts: [seccomp=unconfined]",
        )
    default, table = build_table(resolved, machine)
    program = Program()
    program.emit(LD, _ARCH)
    program.emit(JEQ, AUDIT_ARCH[machine], 1, 0)
    program.emit(RET, _ABSENT)
    program.emit(LD, _NUMBER)
    if machine == "x86_64":
        # x32 has the same AUDIT_ARCH: its calls would be judged by the 64-bit numbers.
        program.emit(JGE, _X32, 0, 1)
        program.emit(RET, _ABSENT)
    _emit_table(program, table, default)
    return program.assemble()


def build_table(resolved: Mapping[str, Any], machine: str) -> tuple[int, Table]:
    """The default answer, and for each number its rules in the profile's order. Names this machine lacks are skipped;
    rules that repeat the default are too (as runc does), so that a later rule for the same call still counts."""
    known, table = numbers(machine), Table()
    default = _action(resolved["defaultAction"], resolved.get("defaultErrnoRet"))
    for entry in resolved.get("syscalls") or []:
        action = _action(entry["action"], entry.get("errnoRet"))
        if action == default:
            continue
        variants = _variants(entry.get("args") or [])
        for name in entry["names"]:
            if name in known:
                table.setdefault(known[name], []).extend(Rule(action, tests) for tests in variants)
    return default, table


def _action(name: str, errno: Any) -> int:
    number = ACTIONS[name]
    if name in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
        number |= EPERM if errno is None else int(errno)
    return number


def _variants(args: Sequence[Mapping[str, Any]]) -> list[tuple[Test, ...]]:
    """All tests must hold; but several on the same argument are alternatives (runc's reading of Docker's format)."""
    tests = [Test(arg["op"], arg["index"], arg.get("value", 0), arg.get("valueTwo", 0)) for arg in args]
    if len({test.arg for test in tests}) < len(tests):
        return [(test,) for test in tests]
    return [tuple(tests)]


def _emit_table(program: Program, table: Table, default: int) -> None:
    """The accumulator holds the number."""
    highest = max(table) if table else -1
    # A profile that only forbids has no opinion on calls it does not name.
    if table and default not in _PERMISSIVE:
        known = program.label()
        program.emit(JGT, highest, 0, known)
        program.emit(RET, _ABSENT)
        program.mark(known)

    def answer(number: int) -> Union[int, tuple[str, int]]:
        rules = table.get(number)
        if rules is None:
            return default
        return rules[0].action if not rules[0].tests else ("rules", number)

    limit = highest + 1 if default in _PERMISSIVE else highest
    edges = {0} | {edge for number in table for edge in (number, number + 1) if edge <= limit}
    runs: list[tuple[int, Union[int, tuple[str, int]]]] = []
    for number in sorted(edges):
        if not runs or runs[-1][1] != answer(number):
            runs.append((number, answer(number)))

    def search(low: int, high: int) -> None:
        if low == high:
            what = runs[low][1]
            if isinstance(what, int):
                program.emit(RET, what)
            else:
                _emit_rules(program, table[what[1]], default)
            return
        middle, right = (low + high + 1) // 2, program.label()
        program.emit(JGE, runs[middle][0], right, 0)
        search(low, middle - 1)
        program.mark(right)
        search(middle, high)

    search(0, len(runs) - 1)


def _emit_rules(program: Program, rules: Sequence[Rule], default: int) -> None:
    for action, tests in rules:
        miss = program.label()
        for test in tests:
            _emit_test(program, test, miss)
        program.emit(RET, action)
        program.mark(miss)
        if not tests:
            return
    program.emit(RET, default)


def _emit_test(p: Program, test: Test, miss: str) -> None:
    """Fall through when it holds. Arguments are 64 bits, the machine compares 32 (unsigned)."""
    low, high = _ARGS + 8 * test.arg, _ARGS + 8 * test.arg + 4
    lo, hi = test.value & 0xFFFFFFFF, test.value >> 32
    op, hit = test.op[len("SCMP_CMP_") :], p.label()
    p.emit(LD, high)
    if op == "EQ":
        p.emit(JEQ, hi, 0, miss)
        p.emit(LD, low)
        p.emit(JEQ, lo, 0, miss)
    elif op == "NE":
        p.emit(JEQ, hi, 0, hit)
        p.emit(LD, low)
        p.emit(JEQ, lo, miss, 0)
    elif op == "MASKED_EQ":
        p.emit(AND, hi)
        p.emit(JEQ, test.two >> 32, 0, miss)
        p.emit(LD, low)
        p.emit(AND, lo)
        p.emit(JEQ, test.two & 0xFFFFFFFF, 0, miss)
    elif op in ("GT", "GE"):
        p.emit(JGT, hi, hit, 0)
        p.emit(JEQ, hi, 0, miss)
        p.emit(LD, low)
        p.emit(JGT if op == "GT" else JGE, lo, 0, miss)
    else:  # LT, LE
        p.emit(JGT, hi, miss, 0)
        p.emit(JEQ, hi, 0, hit)
        p.emit(LD, low)
        p.emit(JGE if op == "LT" else JGT, lo, miss, 0)
    p.mark(hit)
