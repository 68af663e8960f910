# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""cgroup v2 control files: OCI resources → writes; files → options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

from ...errors import UsageError
from .files import Write, keyed
from .resources import format_list, parse_list, same_shares, shares_to_weight, weight_to_shares
from .v1 import Reader, check_page_size, number

_IO = (
    ("throttleReadBpsDevice", "rbps"),
    ("throttleWriteBpsDevice", "wbps"),
    ("throttleReadIOPSDevice", "riops"),
    ("throttleWriteIOPSDevice", "wiops"),
)


def writes(resources: Mapping[str, Any], read: Reader) -> list[Write]:
    """For the keys present in ``resources``. Raises ``UsageError`` for what v2 cannot express."""
    return [
        *_memory(resources.get("memory") or {}),
        *_cpu(resources.get("cpu") or {}, read),
        *_pids(resources.get("pids") or {}),
        *_block(resources.get("blockIO") or {}, read),
        *_huge(resources.get("hugepageLimits") or []),
        *_unified(resources.get("unified") or {}),
    ]


def _memory(memory: Mapping[str, Any]) -> list[Write]:
    out = []
    limit, total = memory.get("limit"), memory.get("swap")
    if limit is not None:
        out.append(Write("memory", "memory.max", _max(limit), "memory"))
    if total is not None and total != 0:
        if total > 0 and not (limit and limit > 0):
            raise UsageError("memory_swap needs memory: it is the sum of memory and swap", path="memory_swap")
        # OCI (and v1) count memory and swap together, v2 counts swap alone. An empty value would mean 0.
        swap = "max" if total < 0 else str(total - (limit or 0))
        out.append(Write("memory", "memory.swap.max", swap, "memory_swap", True))
    if memory.get("reservation") is not None:
        value = memory["reservation"]
        out.append(Write("memory", "memory.low", str(max(value, 0)), "memory_reservation"))
    return out


def _cpu(cpu: Mapping[str, Any], read: Reader) -> list[Write]:
    out = []
    if cpu.get("shares"):
        out.append(Write("cpu", "cpu.weight", str(shares_to_weight(cpu["shares"])), "cpu_shares"))
    quota, period = cpu.get("quota"), cpu.get("period")
    if quota is not None or period:
        old = (read("cpu", "cpu.max") or "max 100000").split()
        first = old[0] if quota is None else str(quota) if quota > 0 else "max"
        out.append(Write("cpu", "cpu.max", "%s %s" % (first, period or old[1]), "cpus"))
    if cpu.get("burst") is not None:
        out.append(Write("cpu", "cpu.max.burst", str(cpu["burst"]), "cpu_burst"))
    if cpu.get("idle") is not None:
        out.append(Write("cpu", "cpu.idle", str(cpu["idle"]), "cpu_idle"))
    for key, file in (("cpus", "cpuset.cpus"), ("mems", "cpuset.mems")):
        if cpu.get(key) is not None:
            out.append(Write("cpuset", file, cpu[key], "cpuset_" + key))
    return out


def _pids(pids: Mapping[str, Any]) -> list[Write]:
    limit = pids.get("limit")
    if limit is None:
        return []
    return [Write("pids", "pids.max", str(limit) if limit > 0 else "max", "pids_limit")]


def _block(block: Mapping[str, Any], read: Reader) -> list[Write]:
    out = []
    weight = block.get("weight")
    if weight is not None:  # 0: as if never set
        if read("io", "io.bfq.weight") is not None:
            out.append(Write("io", "io.bfq.weight", str(weight or 100), "blkio_weight"))
        else:
            scaled = 1 + (weight - 10) * 9999 // 990 if weight else 100  # 10..1000 onto 1..10000
            out.append(Write("io", "io.weight", "default %d" % scaled, "blkio_weight", True))
    for entry in block.get("weightDevice") or []:
        value = "%d:%d %d" % (entry["major"], entry["minor"], entry["weight"])
        out.append(Write("io", "io.bfq.weight", value, "blkio_weight_device", True))
    for key, word in _IO:
        for entry in block.get(key) or []:
            value = "%d:%d %s=%s" % (entry["major"], entry["minor"], word, entry["rate"] or "max")
            out.append(Write("io", "io.max", value, key))
    return out


def _huge(limits: list[Mapping[str, Any]]) -> list[Write]:
    out = []
    for entry in limits:
        size = check_page_size(entry["pageSize"])
        out.append(Write("hugetlb", "hugetlb.%s.max" % size, str(entry["limit"]), "hugetlb"))
        out.append(Write("hugetlb", "hugetlb.%s.rsvd.max" % size, str(entry["limit"]), "hugetlb", True))
    return out


def _unified(files: Mapping[str, str]) -> list[Write]:
    out = []
    for name, value in files.items():
        controller = name.partition(".")[0]
        if "/" in name or "\0" in name or "." not in name or controller == "cgroup":
            raise UsageError("unified: %r is not a resource control file" % name, path="unified")
        out.append(Write(controller, name, value, "unified"))
    return out


def defaults() -> dict[str, Any]:
    """Resources that undo every limit."""
    return {
        "memory": {"limit": -1, "swap": -1, "reservation": 0},
        "cpu": {"shares": 1024, "quota": -1, "period": 100_000, "cpus": "", "mems": ""},
        "pids": {"limit": -1},
    }


def limits(read: Reader, controllers: set[str]) -> dict[str, Any]:
    """What is in force, as options; only of ``controllers``."""
    found: dict[str, Any] = {}
    if "memory" in controllers:
        limit, swap = number(read("memory", "memory.max")), number(read("memory", "memory.swap.max"))
        found["memory"] = limit
        found["memory_swap"] = None if swap is None or limit is None else limit + swap
        found["memory_reservation"] = number(read("memory", "memory.low")) or None
    if "cpu" in controllers:
        quota, period = (read("cpu", "cpu.max") or "max 100000").split()
        found["cpus"] = None if quota == "max" else int(quota) / int(period)
        found["cpu_shares"] = same_shares(weight_to_shares(number(read("cpu", "cpu.weight")) or 100), 2)
    if "cpuset" in controllers:
        for option, file in (("cpuset_cpus", "cpuset.cpus"), ("cpuset_mems", "cpuset.mems")):
            found[option] = format_list(parse_list(read("cpuset", file) or "", option)) or None
    if "pids" in controllers:
        found["pids_limit"] = number(read("pids", "pids.max"))
    return found


def stats(read: Reader, controllers: set[str]) -> dict[str, Any]:
    """See ``Cgroup.stats`` for the shape."""
    found: dict[str, Any] = {}
    raw = keyed(read("cpu", "cpu.stat"))  # usage is there even where the controller is not
    if "cpu" in controllers:
        found["cpu"] = {
            "usage_ns": raw.get("usage_usec", 0) * 1000,
            "user_ns": raw.get("user_usec", 0) * 1000,
            "system_ns": raw.get("system_usec", 0) * 1000,
            "periods": raw.get("nr_periods", 0),
            "throttled_periods": raw.get("nr_throttled", 0),
            "throttled_ns": raw.get("throttled_usec", 0) * 1000,
        }
    if "memory" in controllers:
        raw = keyed(read("memory", "memory.stat"))
        usage = number(read("memory", "memory.current")) or 0
        inactive = raw.get("inactive_file", 0)
        found["memory"] = {
            "usage": usage,
            "working_set": usage - min(inactive, usage),
            "inactive_file": inactive,
            "anon": raw.get("anon", 0),
            "file": raw.get("file", 0),
            "swap": number(read("memory", "memory.swap.current")) or 0,
            "max_usage": number(read("memory", "memory.peak")) or 0,
            "limit": number(read("memory", "memory.max")),
            "oom_kills": keyed(read("memory", "memory.events")).get("oom_kill", 0),
        }
    if "pids" in controllers:
        found["pids"] = {
            "current": number(read("pids", "pids.current")) or 0,
            "limit": number(read("pids", "pids.max")),
        }
    if "io" in controllers:
        found["io"] = _io_stats(read("io", "io.stat") or "")
    return found


def _io_stats(text: str) -> list[dict[str, int]]:
    out = []
    for line in text.split("\n"):
        device, *pairs = line.split() or [""]
        major, colon, minor = device.partition(":")
        if not colon:
            continue
        values = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        out.append(
            {
                "major": int(major),
                "minor": int(minor),
                "read_bytes": int(values.get("rbytes", 0)),
                "write_bytes": int(values.get("wbytes", 0)),
                "read_ops": int(values.get("rios", 0)),
                "write_ops": int(values.get("wios", 0)),
            }
        )
    return out


def _max(value: int) -> str:
    return "max" if value < 0 else str(value)


def reclaimable(read: Reader) -> Optional[int]:
    """Bytes the kernel can take back without killing anybody: the page cache."""
    raw = keyed(read("memory", "memory.stat"))
    return raw.get("active_file", 0) + raw.get("inactive_file", 0)
