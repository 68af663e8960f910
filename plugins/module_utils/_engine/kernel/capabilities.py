# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Capabilities: names, Docker's rules for adding and dropping them, and the order in which a process gives them up.

The engine's own root may lack some (a host that itself is a container): what is granted is always cut down to the
bounding set we have, and what a task asks for by name and cannot have is refused before anything is created.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Optional

from ..errors import KernelError, UsageError

if TYPE_CHECKING:
    from .syscalls import Kernel

# In the order of their numbers, <linux/capability.h>.
_ORDER = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE "
    "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT "
    "SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE "
    "AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ "
    "PERFMON BPF CHECKPOINT_RESTORE"
)
NAMES: tuple[str, ...] = tuple("CAP_" + name for name in _ORDER.split())
NUMBERS: dict[str, int] = {name: number for number, name in enumerate(NAMES)}

# What a container gets when the task says nothing (Docker's 14).
_GRANTED = (
    "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT "
    "KILL AUDIT_WRITE"
)
DEFAULT: tuple[str, ...] = tuple("CAP_" + name for name in _GRANTED.split())

ALL = "ALL"

_PR_CAPBSET_READ, _PR_CAPBSET_DROP, _PR_SET_KEEPCAPS = 23, 24, 8
_PR_CAP_AMBIENT, _AMBIENT_RAISE, _AMBIENT_CLEAR_ALL = 47, 2, 4
_EINVAL = 22


def last_cap() -> int:
    """The highest capability number this kernel knows."""
    try:
        with open("/proc/sys/kernel/cap_last_cap") as stream:
            return int(stream.read())
    except FileNotFoundError:
        return len(NAMES) - 1


def to_mask(names: Iterable[str]) -> int:
    """Bit mask of full names ("CAP_CHOWN"). Names must be known (``normalise`` them first)."""
    mask = 0
    for name in names:
        mask |= 1 << NUMBERS[name]
    return mask


def from_mask(mask: int) -> list[str]:
    return [name for number, name in enumerate(NAMES) if mask >> number & 1]


def own() -> dict[str, int]:
    """Masks of this process: ``{"inheritable", "permitted", "effective", "bounding", "ambient"}``."""
    keys = {"CapInh": "inheritable", "CapPrm": "permitted", "CapEff": "effective", "CapBnd": "bounding"}
    keys["CapAmb"] = "ambient"
    masks = dict.fromkeys(keys.values(), 0)
    with open("/proc/self/status") as stream:
        for line in stream:
            key, _sep, value = line.partition(":")
            if key in keys:
                masks[keys[key]] = int(value, 16)
    return masks


def available() -> set[str]:
    """Names this process can hand on: what its bounding set and its permitted set both hold."""
    masks = own()
    return set(from_mask(masks["bounding"] & masks["permitted"]))


def normalise(name: str) -> str:
    """``chown`` → ``CAP_CHOWN``; ``all`` → ``ALL``. Does not check that it exists."""
    upper = name.strip().upper()
    return upper if upper == ALL or upper.startswith("CAP_") else "CAP_" + upper


def parse(names: Iterable[str], *, option: str = "capabilities", held: Optional[set[str]] = None) -> set[str]:
    """Full names, with ``ALL`` left as it is. Raises ``UsageError`` in Docker's words for a name nobody knows, or that
    this kernel or this environment cannot give (checked against ``held`` when given)."""
    parsed = set()
    for name in names:
        full = normalise(name)
        if full != ALL and full not in NUMBERS:
            raise UsageError(
                'unknown capability: "%s"' % full,
                path=option,
                hint="Capability names are those of capabilities(7), with or without CAP_, or ALL.",
            )
        if held is not None and full != ALL and full not in held:
            raise UsageError(
                'capability not supported by your kernel or not available in the current environment: "%s"' % full,
                path=option,
                hint="Drop it from the task, or give the engine's own environment that capability.",
            )
        parsed.add(full)
    return parsed


def resolve(
    add: Sequence[str] = (),
    drop: Sequence[str] = (),
    *,
    privileged: bool = False,
    default: Sequence[str] = DEFAULT,
    held: Optional[set[str]] = None,
) -> list[str]:
    """The capabilities of a container, in the order of their numbers.

    Docker's rules: privileged gives all; ``add`` holds ALL: all minus ``drop``; ``drop`` holds ALL: exactly ``add``;
    else default - drop + add. ``held`` (this process' own, by default) bounds the result; only names that ``add``
    spells out and that are not held are an error.
    """
    if held is None:
        held = available()
    adds = parse(add, option="capabilities", held=held)
    drops = parse(drop, option="cap_drop")
    if privileged:
        wanted = set(held)
    elif ALL in adds:
        wanted = held - drops
    elif ALL in drops:
        wanted = adds
    else:
        wanted = (set(default) | adds) - drops
    return [name for name in NAMES if name in wanted and name in held]


def apply(
    kernel: Kernel,
    bounding: Iterable[str],
    effective: Iterable[str],
    permitted: Iterable[str],
    inheritable: Iterable[str] = (),
    ambient: Iterable[str] = (),
    *,
    switch_user: Optional[Callable[[], None]] = None,
) -> None:
    """Give up everything but these sets (full names; ones this process lacks are left out).

    ``switch_user`` does setgroups, setresgid, setresuid at the one right moment: after the bounding set shrank (that
    needs CAP_SETPCAP), before the sets are written, with KEEPCAPS on so that the permitted set survives it.

    ``inheritable`` must stay empty unless ``ambient`` is used: a non-empty one lets files with file capabilities gain
    them (CVE-2022-27649, CVE-2022-27650, CVE-2022-24769). Reads nothing from /proc, which is the container's by now.
    """
    keep = to_mask(bounding)
    try:
        may_have = kernel.capget()[1]
        for number in range(64):
            if not keep >> number & 1 and not _drop(kernel, number):
                break
        kernel.prctl(_PR_SET_KEEPCAPS, 1)
        if switch_user is not None:
            switch_user()
        kernel.capset(to_mask(effective) & may_have, to_mask(permitted) & may_have, to_mask(inheritable) & may_have)
        kernel.prctl(_PR_SET_KEEPCAPS, 0)
        _raise_ambient(kernel, to_mask(ambient) & may_have)
    except OSError as error:
        raise KernelError.wrap(error, "Cannot set the capabilities of the process", step="set_capabilities") from error


def _drop(kernel: Kernel, number: int) -> bool:
    """Drop one from the bounding set; False past the last one the kernel knows."""
    try:
        if kernel.prctl(_PR_CAPBSET_READ, number):
            kernel.prctl(_PR_CAPBSET_DROP, number)
    except OSError as error:
        if error.errno == _EINVAL:
            return False
        raise
    return True


def _raise_ambient(kernel: Kernel, mask: int) -> None:
    kernel.prctl(_PR_CAP_AMBIENT, _AMBIENT_CLEAR_ALL)
    for number in range(64):
        if mask >> number & 1:
            kernel.prctl(_PR_CAP_AMBIENT, _AMBIENT_RAISE, number)


def set_id(uid: int, gid: int, groups: Sequence[int]) -> None:
    """The usual ``switch_user``: supplementary groups first (they need CAP_SETGID), then gid, then uid."""
    os.setgroups(list(groups))
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
