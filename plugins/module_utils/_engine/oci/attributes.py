# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Scheduling class, I/O class, CPU affinity, personality: attributes of a process the standard library lacks."""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import KernelError, UsageError

if TYPE_CHECKING:
    from ..kernel.syscalls import Kernel

_POLICIES = {
    "SCHED_OTHER": 0, "SCHED_FIFO": 1, "SCHED_RR": 2, "SCHED_BATCH": 3, "SCHED_ISO": 4, "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}  # fmt: skip
_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01, "SCHED_FLAG_RECLAIM": 0x02, "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08, "SCHED_FLAG_KEEP_PARAMS": 0x10, "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}  # fmt: skip
_IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
_PERSONALITIES = {"LINUX": 0, "LINUX32": 8}


def check(process: Mapping[str, Any], at: str) -> None:
    """Raises ``UsageError``."""
    scheduler = process.get("scheduler")
    if scheduler:
        if scheduler.get("policy") not in _POLICIES or scheduler["policy"] == "SCHED_ISO":
            raise _bad(at + ".scheduler.policy", scheduler.get("policy"))
        for flag in scheduler.get("flags") or []:
            if flag not in _FLAGS:
                raise _bad(at + ".scheduler.flags", flag)
        if not -20 <= int(scheduler.get("nice") or 0) <= 19:
            raise _bad(at + ".scheduler.nice", scheduler["nice"])
        realtime = scheduler["policy"] in ("SCHED_FIFO", "SCHED_RR")
        if not realtime and scheduler.get("priority"):
            raise UsageError(
                "%s.scheduler.priority is for SCHED_FIFO and SCHED_RR only" % at, path=at + ".scheduler.priority"
            )
    priority = process.get("ioPriority")
    if priority:
        if priority.get("class") not in _IO_CLASSES:
            raise _bad(at + ".ioPriority.class", priority.get("class"))
        if not 0 <= int(priority.get("priority") or 0) <= 7:
            raise _bad(at + ".ioPriority.priority", priority.get("priority"))
    affinity = process.get("execCPUAffinity") or {}
    for key in ("initial", "final"):
        if affinity.get(key):
            cpus(affinity[key], "%s.execCPUAffinity.%s" % (at, key))


def _bad(field: str, value: Any) -> UsageError:
    return UsageError("%s: invalid value %r" % (field, value), path=field)


def cpus(text: str, field: str) -> set[int]:
    """``0-3,7`` as a set. Raises ``UsageError``."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()) or int(last or first) > 8191:
            raise _bad(field, text)
        found.update(range(int(first), int(last or first) + 1))
    return found


def apply(kernel: Kernel, process: Mapping[str, Any]) -> None:
    """While we still have the capabilities. Raises ``KernelError``."""
    scheduler, priority = process.get("scheduler"), process.get("ioPriority")
    if scheduler:
        flags = 0
        for flag in scheduler.get("flags") or []:
            flags |= _FLAGS[flag]
        # struct sched_attr, version 0
        attr = struct.pack(
            "=IIQiIQQQ",
            48,
            _POLICIES[scheduler["policy"]],
            flags,
            int(scheduler.get("nice") or 0),
            int(scheduler.get("priority") or 0),
            int(scheduler.get("runtime") or 0),
            int(scheduler.get("deadline") or 0),
            int(scheduler.get("period") or 0),
        )
        try:
            kernel.syscall("sched_setattr", 0, attr, 0)
        except OSError as error:
            raise KernelError.wrap(
                error, "Cannot set the scheduler %s" % scheduler["policy"], step="scheduler"
            ) from error
    if priority:
        value = _IO_CLASSES[priority["class"]] << 13 | int(priority.get("priority") or 0)
        try:
            kernel.syscall("ioprio_set", 1, 0, value)
        except OSError as error:
            raise KernelError.wrap(error, "Cannot set the I/O priority", step="io_priority") from error


def set_personality(kernel: Kernel, linux: Mapping[str, Any]) -> None:
    wanted = linux.get("personality")
    if wanted:
        try:
            kernel.syscall("personality", _PERSONALITIES[wanted["domain"]])
        except OSError as error:
            raise KernelError.wrap(error, "Cannot set the personality", step="personality") from error


def set_affinity(process: Mapping[str, Any], when: str) -> None:
    """``when``: ``initial`` (before the process is in the container's cgroup) or ``final``."""
    text = (process.get("execCPUAffinity") or {}).get(when)
    if text:
        try:
            os.sched_setaffinity(0, cpus(text, when))
        except OSError as error:
            raise KernelError.wrap(error, "Cannot run on the CPUs %s" % text, step="affinity") from error
