# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""``events``: a container's figures, in the shape of runc's lines."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import Conflict, UsageError
from ..kernel import pidfd as pidfds
from . import states

if TYPE_CHECKING:
    from ..kernel.cgroups import Cgroup
    from .main import Context

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def interval(text: str) -> float:
    """``5s``, ``500ms``, ``1m``; a plain number is seconds. Raises ``UsageError``."""
    number, unit = text, "s"
    for suffix in ("ms", "s", "m", "h"):
        if text.endswith(suffix):
            number, unit = text[: -len(suffix)], suffix
            break
    try:
        value = float(number) * _SECONDS[unit]
    except ValueError:
        value = 0.0
    if not 0.0 < value < 1e9:
        raise UsageError("duration interval must be greater than 0, not %r" % text, path="interval")
    return value


def events(context: Context, values: dict[str, Any], words: Sequence[str]) -> int:
    pause = interval(values["interval"])
    state = states.load(context.root, words[0])
    group = states.cgroup(state)
    if group is None or states.status(context.root, state) in (states.STOPPED, states.CREATING):
        raise Conflict("container with id %s is not running" % words[0], subject=words[0])
    if values["stats"]:
        _write("stats", words[0], figures(group))
        return 0
    fd = pidfds.open_pid(int(state["pid"]), int(state["start"]))
    if fd is None:
        return 0
    try:
        killed = group.oom_kill_count()
        while not pidfds.wait(fd, pause):
            now = group.oom_kill_count()
            for _number in range(now - killed):
                _write("oom", words[0], None)
            killed = now
            _write("stats", words[0], figures(group))
    finally:
        os.close(fd)
    return 0


def _write(kind: str, name: str, data: Any) -> None:
    line: dict[str, Any] = {"type": kind, "id": name}
    if data is not None:
        line["data"] = data
    sys.stdout.write(json.dumps(line, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def figures(group: Cgroup) -> dict[str, Any]:
    found = group.stats()
    memory, cpu, pids = found.get("memory", {}), found.get("cpu", {}), found.get("pids", {})
    return {
        "cpu": {
            "usage": {
                "total": cpu.get("usage_ns", 0),
                "kernel": cpu.get("system_ns", 0),
                "user": cpu.get("user_ns", 0),
            },
            "throttling": {
                "periods": cpu.get("periods", 0),
                "throttledPeriods": cpu.get("throttled_periods", 0),
                "throttledTime": cpu.get("throttled_ns", 0),
            },
        },
        "memory": {
            "cache": memory.get("file", 0),
            "usage": {
                "limit": memory.get("limit") or (1 << 64) - 1,
                "usage": memory.get("usage", 0),
                "max": memory.get("max_usage", 0),
                "failcnt": memory.get("oom_kills", 0),
            },
            "raw": {"inactive_file": memory.get("inactive_file", 0), "anon": memory.get("anon", 0)},
        },
        "pids": {"current": pids.get("current", 0), "limit": pids.get("limit") or 0},
        "blkio": {"ioServiceBytesRecursive": _devices(found.get("io", []))},
        "hugetlb": {},
        "network_interfaces": None,
    }


def _devices(entries: Sequence[Mapping[str, int]]) -> list[dict[str, Any]]:
    out = []
    for entry in entries:
        for word, key in (("Read", "read_bytes"), ("Write", "write_bytes")):
            out.append({"major": entry["major"], "minor": entry["minor"], "op": word, "value": entry[key]})
    return out
