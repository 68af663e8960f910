# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What running containers use, in the shape of Docker's ``/containers/ID/stats``.

Derived whenever it is asked for, never stored. Beside Docker's fields there are those that its command line computes
from them: ``cpu_percent`` (of one processor, None without a second sample), ``memory_used`` (without what the kernel
can drop at once) and ``memory_percent``.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Optional

from ..timestamps import ZERO, now
from .container_actual import state
from .container_make import cgroup_path
from .task import Task

if TYPE_CHECKING:
    from ..store.records import ContainerRecord

_NO_CPU = {
    "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
    "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
}


def collect(task: Task, records: list[ContainerRecord], interval: float) -> list[Optional[dict[str, Any]]]:
    """For each container; None for one that does not run. ``interval``: seconds between two samples, 0 for one only."""
    first = [_sample(task, record) for record in records]
    if not interval or not any(first):
        return first
    time.sleep(interval)  # what is measured is this time
    return [
        _compared(before, _sample(task, record)) if before is not None else None
        for before, record in zip(first, records)
    ]


def _sample(task: Task, record: ContainerRecord) -> Optional[dict[str, Any]]:
    from ..kernel import processes
    from ..kernel.cgroups import Cgroup

    facts = state(task, record)
    if facts["status"] not in ("running", "paused") or not facts.get("pid"):
        return None
    group = Cgroup(task.layout, cgroup_path(task, record))
    if not group.exists():
        return None
    found = group.stats()
    host = record.spec.get("network_mode") == "host"
    out: dict[str, Any] = {
        "name": "/" + record.name,
        "id": record.id,
        "read": now(),
        "preread": ZERO,
        "pids_stats": {key: value for key, value in found.get("pids", {}).items() if value is not None},
        "blkio_stats": _block(found.get("io", [])),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": _cpu(found.get("cpu", {})),
        "precpu_stats": _NO_CPU,
        "memory_stats": _memory(group.memory_stat(), found.get("memory"), processes.total_memory()),
        "networks": {} if host else processes.network_counters(facts["pid"]),
    }
    memory = found.get("memory") or {}
    used, limit = memory.get("working_set", 0), out["memory_stats"].get("limit", 0)
    out["cpu_percent"] = None
    out["memory_used"] = used
    out["memory_percent"] = round(100 * used / limit, 2) if limit else 0.0
    return out


def _compared(before: dict[str, Any], after: Optional[dict[str, Any]]) -> Optional[dict[str, Any]]:
    """The second sample with the first in it. None when the container ended meanwhile."""
    if after is None:
        return None
    after["preread"], after["precpu_stats"] = before["read"], before["cpu_stats"]
    old, new = before["cpu_stats"], after["cpu_stats"]
    own = new["cpu_usage"]["total_usage"] - old["cpu_usage"]["total_usage"]
    all_of_it = new["system_cpu_usage"] - old["system_cpu_usage"]
    after["cpu_percent"] = round(100 * own / all_of_it * new["online_cpus"], 2) if all_of_it > 0 and own > 0 else 0.0
    return after


def _cpu(cpu: dict[str, int]) -> dict[str, Any]:
    from ..kernel import processes

    spent, processors = processes.system_cpu()
    return {
        "cpu_usage": {
            "total_usage": cpu.get("usage_ns", 0),
            "usage_in_kernelmode": cpu.get("system_ns", 0),
            "usage_in_usermode": cpu.get("user_ns", 0),
        },
        "system_cpu_usage": spent,
        "online_cpus": processors,
        "throttling_data": {
            "periods": cpu.get("periods", 0),
            "throttled_periods": cpu.get("throttled_periods", 0),
            "throttled_time": cpu.get("throttled_ns", 0),
        },
    }


def _memory(raw: dict[str, int], memory: Optional[dict[str, Any]], total: int) -> dict[str, Any]:
    """``stats`` are the lines of memory.stat, so they differ between cgroup v1 and v2, as in Docker."""
    if memory is None:
        return {}
    out = {"usage": memory["usage"], "max_usage": memory["max_usage"], "stats": raw, "failcnt": memory["oom_kills"]}
    out["limit"] = min(memory["limit"] or total, total)
    return out


def _block(devices: list[dict[str, int]]) -> dict[str, Any]:
    def entries(unit: str) -> list[dict[str, Any]]:
        return [
            {"major": device["major"], "minor": device["minor"], "op": op, "value": device["%s_%s" % (op, unit)]}
            for device in devices
            for op in ("read", "write")
        ]

    names = ("queue", "service_time", "wait_time", "merged", "time")
    return {
        "io_service_bytes_recursive": entries("bytes"),
        "io_serviced_recursive": entries("ops"),
        **{"io_%s_recursive" % name: None for name in names},
        "sectors_recursive": None,
    }
