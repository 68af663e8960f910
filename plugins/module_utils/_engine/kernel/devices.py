# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which device nodes a cgroup may use: a BPF program in the unified hierarchy, or the v1 devices controller.

Rules are in the order of v1: the last one that matches decides. What no rule matches is denied.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional

from ..errors import KernelError, Unsupported, UsageError
from ..tuples import NamedTuple

if TYPE_CHECKING:
    from .cgroups.group import Cgroup
    from .syscalls import Kernel


class DeviceRule(NamedTuple):
    """``kind``: ``a`` (any), ``b`` or ``c``; ``major``/``minor`` None: any; ``access``: of ``rwm``."""

    allow: bool
    kind: str
    major: Optional[int]
    minor: Optional[int]
    access: str

    def __str__(self) -> str:
        """As devices.allow takes it: ``c 1:3 rwm``."""
        numbers = ["*" if n is None else str(n) for n in (self.major, self.minor)]
        return "%s %s:%s %s" % (self.kind, numbers[0], numbers[1], self.access)


def _char(major: int, minor: Optional[int]) -> DeviceRule:
    return DeviceRule(True, "c", major, minor, "rwm")


NOTHING = DeviceRule(False, "a", None, None, "rwm")
EVERYTHING = DeviceRule(True, "a", None, None, "rwm")

# Docker's rules followed by runc's: making any node is harmless (using it is not), the terminals and the usual five
# may be used; /dev/fuse is denied.
DEFAULT: tuple[DeviceRule, ...] = (
    NOTHING,
    _char(1, 5),  # zero
    _char(1, 3),  # null
    _char(1, 9),  # urandom
    _char(1, 8),  # random
    _char(5, 0),  # tty
    _char(5, 1),  # console
    DeviceRule(False, "c", 10, 229, "rwm"),  # fuse
    DeviceRule(True, "c", None, None, "m"),
    DeviceRule(True, "b", None, None, "m"),
    _char(1, 7),  # full
    _char(136, None),  # pts
    _char(5, 2),  # ptmx
)
PRIVILEGED: tuple[DeviceRule, ...] = (EVERYTHING,)


def parse_rule(text: str, *, option: str = "device_cgroup_rules") -> DeviceRule:
    """``c 1:3 rwm``, ``a *:* rw``. Raises ``UsageError``."""
    parts = text.split(" ")
    numbers = parts[1].split(":") if len(parts) == 3 else []
    good = len(numbers) == 2 and parts[0] in ("a", "b", "c") and all(n == "*" or _is_number(n) for n in numbers)
    if not good or not 1 <= len(parts[2]) <= 3 or not set(parts[2]) <= set("rwm"):
        raise UsageError(
            "%r is not a device rule: TYPE MAJOR:MINOR ACCESS, such as c 1:3 rwm" % text,
            path=option,
            hint="TYPE is a, b or c; the numbers may be *; ACCESS is made of r, w and m.",
        )
    major, minor = (None if n == "*" else int(n) for n in numbers)
    return DeviceRule(True, parts[0], major, minor, _order(parts[2]))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and int(text) < 1 << 32


def _order(access: str) -> str:
    return "".join(letter for letter in "rwm" if letter in access)


def from_oci(entries: Iterable[Mapping[str, Any]]) -> list[DeviceRule]:
    """OCI ``linux.resources.devices``: ``[{"allow", "type", "major", "minor", "access"}]``; absent or negative numbers
    mean any. Raises ``UsageError``."""
    rules = []
    for entry in entries:
        kind = entry.get("type") or "a"
        access = _order(entry.get("access") or "rwm")
        major, minor = (None if n is None or n < 0 else n for n in (entry.get("major"), entry.get("minor")))
        if kind not in ("a", "b", "c", "u", "p") or not access:
            raise UsageError("linux.resources.devices: %r is not a device rule" % dict(entry), path="devices")
        if kind == "p":
            continue  # a FIFO is no device
        rules.append(DeviceRule(bool(entry.get("allow")), "c" if kind == "u" else kind, major, minor, access))
    return rules


def to_oci(rules: Iterable[DeviceRule]) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    for rule in rules:
        entry: dict[str, Any] = {"allow": rule.allow, "access": rule.access}
        if rule.kind != "a":
            entry["type"] = rule.kind
        if rule.major is not None:
            entry["major"] = rule.major
        if rule.minor is not None:
            entry["minor"] = rule.minor
        out.append(entry)
    return out


# -- deciding ------------------------------------------------------------------------------------------------------

_ACCESS = {"m": 1, "r": 2, "w": 4}  # BPF_DEVCG_ACC_*
_TYPE = {"b": 1, "c": 2}  # BPF_DEVCG_DEV_*


def permits(rules: Sequence[DeviceRule], kind: str, major: int, minor: int, access: str) -> bool:
    """What the filter must answer: each letter of ``access`` is decided by the last rule that covers it."""
    return all(_permits_one(rules, kind, major, minor, letter) for letter in access)


def _permits_one(rules: Sequence[DeviceRule], kind: str, major: int, minor: int, letter: str) -> bool:
    for rule in reversed(rules):
        same = rule.kind in ("a", kind) and rule.major in (None, major) and rule.minor in (None, minor)
        if same and letter in rule.access:
            return rule.allow
    return False


# -- BPF -----------------------------------------------------------------------------------------------------------


def _insn(code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    return struct.pack("=BBhi", code, src << 4 | dst, off, imm - (1 << 32) if imm > 0x7FFFFFFF else imm)


def assemble(rules: Sequence[DeviceRule]) -> bytes:
    """An eBPF program for BPF_PROG_TYPE_CGROUP_DEVICE with ``permits``' answers.

    r2 type, r3 the access letters nobody has decided yet, r4 major, r5 minor. From the last rule to the first: a rule
    that covers the device either denies (if it covers any undecided letter) or strikes the letters it allows; none left
    is a yes.
    """
    code = [
        _insn(0x61, 2, 1, 0),  # r2 = access_type
        _insn(0x54, 2, imm=0xFFFF),  # its low half is the device type
        _insn(0x61, 3, 1, 0),
        _insn(0x74, 3, imm=16),  # its high half the access
        _insn(0x61, 4, 1, 4),  # r4 = major
        _insn(0x61, 5, 1, 8),  # r5 = minor
    ]
    for rule in reversed(rules):
        code += _rule(rule)
    code += [_insn(0xB7, 0, imm=0), _insn(0x95)]
    return b"".join(code)


def _rule(rule: DeviceRule) -> list[bytes]:
    mask = sum(_ACCESS[letter] for letter in rule.access)
    if rule.allow:
        body = [
            _insn(0x54, 3, imm=~mask & 7),  # strike what it allows
            _insn(0x55, 3, off=2, imm=0),  # something undecided is left: on to the next rule
            _insn(0xB7, 0, imm=1),
            _insn(0x95),
        ]
    else:
        body = [
            _insn(0xBC, 1, 3),
            _insn(0x54, 1, imm=mask),
            _insn(0x15, 1, off=2, imm=0),  # covers nothing undecided
            _insn(0xB7, 0, imm=0),
            _insn(0x95),
        ]
    tests = []
    if rule.kind != "a":
        tests.append((2, _TYPE[rule.kind]))
    tests += [(register, value) for register, value in ((4, rule.major), (5, rule.minor)) if value is not None]
    # 32-bit compare (0x56, JMP32): the 64-bit one would sign-extend numbers above 2^31.
    head = [
        _insn(0x56, register, off=len(tests) - at - 1 + len(body), imm=value)
        for at, (register, value) in enumerate(tests)
    ]
    return head + body


_PROG_LOAD, _PROG_ATTACH, _PROG_DETACH, _PROG_GET_FD_BY_ID, _PROG_QUERY = 5, 8, 9, 13, 16
_TYPE_CGROUP_DEVICE, _ATTACH_DEVICE = 15, 6
_ALLOW_MULTI, _REPLACE = 2, 4
_EPERM, _EAGAIN, _ENOENT = 1, 11, 2
_LICENCE = b"GPL\0"


def load(kernel: Kernel, code: bytes) -> int:
    """Descriptor of the loaded program. Raises ``OSError`` with the verifier's complaint."""
    import ctypes

    insns, licence = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(_LICENCE)
    log = ctypes.create_string_buffer(65536)

    def attr(level: int) -> bytes:
        return struct.pack(
            "=IIQQIIQII",
            _TYPE_CGROUP_DEVICE,
            len(code) // 8,
            ctypes.addressof(insns),
            ctypes.addressof(licence),
            level,
            len(log) if level else 0,
            ctypes.addressof(log) if level else 0,
            0,
            0,
        )

    for attempt in range(30):
        try:
            return _above_stdio(kernel.bpf(_PROG_LOAD, attr(0))[0])
        except OSError as error:
            if error.errno == _EAGAIN and attempt < 29:  # a signal interrupted the verifier
                time.sleep(0.001)
                continue
            try:
                return _above_stdio(kernel.bpf(_PROG_LOAD, attr(1))[0])
            except OSError:
                lines = [
                    x for x in log.value.decode(errors="replace").split("\n") if x and not x.startswith("processed ")
                ]
                words = os.strerror(error.errno or 0) + (" (%s)" % lines[-1] if lines else "")
                raise OSError(error.errno, words, "bpf") from None
    raise OSError(_EAGAIN, os.strerror(_EAGAIN), "bpf")


def _above_stdio(fd: int) -> int:
    """BPF_PROG_ATTACH takes 0 for "none", so a descriptor 0 cannot be named."""
    if fd > 2:
        return fd
    import fcntl

    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(fd)


def attached(kernel: Kernel, cgroup_fd: int) -> list[int]:
    """Ids of the device programs attached to this cgroup itself."""
    import ctypes

    ids = (ctypes.c_uint32 * 64)()
    # 64 bytes: Linux 6.17 and later write a revision past shorter blocks.
    attr = struct.pack("=IIIIQIIQQQQ", cgroup_fd, _ATTACH_DEVICE, 0, 0, ctypes.addressof(ids), 64, 0, 0, 0, 0, 0)
    raw = kernel.bpf(_PROG_QUERY, attr)[1]
    count: int = struct.unpack_from("=I", raw, 24)[0]
    return list(ids[:count])


def attach(kernel: Kernel, cgroup_fd: int, code: bytes, loaded: Optional[Mapping[bytes, int]] = None) -> None:
    """Make ``code`` the device program of a cgroup v2, in one step where one is there already: at no moment is the
    cgroup without a filter. ``loaded``: programs there are already (see ``keep``). Raises ``OSError``."""
    program = (loaded or {}).get(code, -1)
    own: list[int] = []
    old: list[int] = []
    if program < 0:
        program = load(kernel, code)
        own.append(program)
    try:
        for identifier in attached(kernel, cgroup_fd):
            try:
                old.append(kernel.bpf(_PROG_GET_FD_BY_ID, struct.pack("=III", identifier, 0, 0))[0])
            except OSError as error:
                if error.errno not in (_EPERM, _ENOENT):  # somebody else's (an LSM hides it), or gone meanwhile
                    raise
        if len(old) == 1:
            _attach(kernel, cgroup_fd, program, _ALLOW_MULTI | _REPLACE, old[0])
            return
        _attach(kernel, cgroup_fd, program, _ALLOW_MULTI, 0)
        for fd in old:
            kernel.bpf(_PROG_DETACH, struct.pack("=IIIII", cgroup_fd, fd, _ATTACH_DEVICE, 0, 0))
    finally:
        for fd in (*own, *old):
            os.close(fd)


def _attach(kernel: Kernel, cgroup_fd: int, program: int, flags: int, replaced: int) -> None:
    kernel.bpf(_PROG_ATTACH, struct.pack("=IIIII", cgroup_fd, program, _ATTACH_DEVICE, flags, replaced))


# -- applying ------------------------------------------------------------------------------------------------------


def keep(kernel: Kernel, rules: Sequence[DeviceRule], loaded: dict[bytes, int]) -> None:
    """Load the rules' program into ``loaded`` (descriptors by code, the caller's to close) unless it is there: one
    program serves any number of cgroups, and checking it is most of what a filter costs. Where it cannot be loaded
    ``apply`` will say so."""
    code = assemble(rules)
    if code in loaded or (all(rule.allow for rule in rules) and EVERYTHING in rules):
        return
    try:
        loaded[code] = load(kernel, code)
    except OSError:
        return


def apply(
    kernel: Kernel, group: Cgroup, rules: Sequence[DeviceRule], loaded: Optional[Mapping[bytes, int]] = None
) -> str:
    """Restrict ``group``. Returns how: ``"bpf"``, ``"v1"``, or ``"none"`` when nothing is to be restricted and no
    filter is in force. ``loaded``: see ``keep``.

    Raises ``Unsupported`` when the host offers neither: a container must not start with every device open.
    """
    if all(rule.allow for rule in rules) and EVERYTHING in rules and not _has_filter(kernel, group):
        return "none"
    unified = group.fd_v2("")
    try:
        if unified is not None:
            attach(kernel, unified, assemble(rules), loaded)
            return "bpf"
    except OSError as error:
        # EPERM in a user namespace, EINVAL/ENOSYS on kernels without CONFIG_CGROUP_BPF: v1 may still do.
        if group.directory("devices") is None:
            raise KernelError.wrap(
                error, "Cannot restrict devices of %s" % group.path, step="device_filter", subject=group.path
            ) from error
    finally:
        if unified is not None:
            os.close(unified)
    if not _apply_v1(group, rules):
        raise Unsupported(
            "This host can restrict device access neither by BPF (cgroup2) nor by the v1 devices controller",
            step="device_filter",
            subject=group.path,
            hint="Mount a cgroup2 hierarchy: mount -t cgroup2 none /sys/fs/cgroup/unified",
        )
    return "v1"


def _has_filter(kernel: Kernel, group: Cgroup) -> bool:
    unified = group.fd_v2("")
    if unified is None:
        return False
    try:
        return bool(attached(kernel, unified))
    except OSError:  # cannot be asked, so cannot have been attached by us either
        return False
    finally:
        os.close(unified)


def _apply_v1(group: Cgroup, rules: Sequence[DeviceRule]) -> bool:
    directory = group.directory("devices")
    if directory is None:
        return False
    allow, exceptions = reduce_v1(rules)
    whole = EVERYTHING if allow else NOTHING
    for rule in (whole, *exceptions):
        name = "devices.allow" if rule.allow else "devices.deny"
        try:
            group.files.write("%s/%s" % (directory, name), "a" if rule == whole else str(rule))
        except OSError as error:
            raise KernelError.wrap(
                error, "Cannot set the device rule %r" % str(rule), step="device_filter", subject=group.path
            ) from error
    return True


def reduce_v1(rules: Sequence[DeviceRule]) -> tuple[bool, list[DeviceRule]]:
    """(default, exceptions to it) with the same meaning as ``rules``.

    The v1 controller is no rule list: it takes an exception back only when the numbers are exactly those it was given
    with, and ignores the rest without an error. So what it would get wrong is computed here, and a hole in a wildcard,
    which it cannot express at all, is refused (``Unsupported``).
    """
    default, exceptions = False, list[DeviceRule]()
    for rule in rules:
        if (rule.kind, rule.major, rule.minor, rule.access) == ("a", None, None, "rwm"):
            default, exceptions = rule.allow, []
            continue
        for one in [rule._replace(kind=kind) for kind in ("b", "c")] if rule.kind == "a" else [rule]:
            if one.allow != default:
                exceptions.append(one)
            else:
                exceptions = [left for old in exceptions for left in _take_back(old, one)]
    return default, exceptions


def _take_back(old: DeviceRule, by: DeviceRule) -> list[DeviceRule]:
    access = "".join(letter for letter in old.access if letter not in by.access)
    touches = all(a is None or b is None or a == b for a, b in ((old.major, by.major), (old.minor, by.minor)))
    if old.kind != by.kind or not touches or access == old.access:
        return [old]
    if by.major not in (None, old.major) or by.minor not in (None, old.minor):
        raise Unsupported(
            "cgroup v1 cannot express the device rule %r next to %r" % (str(by), str(old)),
            step="device_filter",
            path="device_cgroup_rules",
            hint="A part of a wildcard cannot be taken out again: list the wanted devices instead.",
        )
    return [old._replace(access=access)] if access else []
