# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""cgroup v1 control files: OCI resources → writes, in an order the kernel accepts; files → options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable, Optional

from ...errors import UsageError
from .files import Write, keyed
from .resources import PERIOD, format_list, pages, parse_list, same_shares

# (controller, file) → its text, or None when it is absent.
Reader = Callable[[str, str], Optional[str]]

_UNLIMITED = 1 << 62  # the kernel prints the largest page count in bytes, which depends on the page size

_THROTTLE = (
    ("throttleReadBpsDevice", "blkio.throttle.read_bps_device"),
    ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device"),
    ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device"),
    ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device"),
)


def writes(resources: Mapping[str, Any], read: Reader) -> list[Write]:
    """For the keys present in ``resources``; ``read`` gives the present values where order depends on them."""
    return [
        *_memory(resources.get("memory") or {}, read),
        *_cpu(resources.get("cpu") or {}, read),
        *_pids(resources.get("pids") or {}),
        *_block(resources.get("blockIO") or {}, read),
        *_huge(resources.get("hugepageLimits") or []),
    ]


def _memory(memory: Mapping[str, Any], read: Reader) -> list[Write]:
    out = []
    limit, swap = memory.get("limit"), memory.get("swap")
    one = Write("memory", "memory.limit_in_bytes", str(limit), "memory")
    # Without swap accounting the file is absent; wanting no limit is then no loss.
    both = Write("memory", "memory.memsw.limit_in_bytes", str(swap), "memory_swap", True)
    if limit is not None and swap is not None:
        # The kernel keeps limit <= memory+swap at every instant, so which one goes first depends on the direction.
        now = number(read("memory", "memory.memsw.limit_in_bytes"))
        raising = now is not None and (limit < 0 or limit > now)
        out += [both, one] if raising else [one, both]
    elif limit is not None:
        out.append(one)
    elif swap is not None:
        out.append(both)
    if memory.get("reservation") is not None:
        out.append(Write("memory", "memory.soft_limit_in_bytes", str(memory["reservation"]), "memory_reservation"))
    if memory.get("swappiness") is not None:
        value = memory["swappiness"]
        out.append(Write("memory", "memory.swappiness", str(value if value >= 0 else 60), "memory_swappiness"))
    if memory.get("disableOOMKiller") is not None:
        value = "1" if memory["disableOOMKiller"] else "0"
        out.append(Write("memory", "memory.oom_control", value, "oom_killer"))
    return out


def _cpu(cpu: Mapping[str, Any], read: Reader) -> list[Write]:
    out = []
    if cpu.get("shares"):
        out.append(Write("cpu", "cpu.shares", str(cpu["shares"]), "cpu_shares"))
    period, quota = cpu.get("period"), cpu.get("quota")
    if quota is not None:
        limit = Write("cpu", "cpu.cfs_quota_us", str(quota if quota > 0 else -1), "cpus")
        if period:
            span = Write("cpu", "cpu.cfs_period_us", str(period), "cpus")
            # A period is refused while the old quota would exceed what the new one allows; taking the quota first
            # is safe when it shrinks.
            now = number(read("cpu", "cpu.cfs_quota_us"))
            out += [limit, span] if now is not None and 0 < quota <= now else [span, limit]
        else:
            out.append(limit)
    elif period:
        out.append(Write("cpu", "cpu.cfs_period_us", str(period), "cpus"))
    if cpu.get("burst") is not None:
        out.append(Write("cpu", "cpu.cfs_burst_us", str(cpu["burst"]), "cpu_burst"))
    if cpu.get("idle") is not None:
        out.append(Write("cpu", "cpu.idle", str(cpu["idle"]), "cpu_idle"))
    for key, file in (("cpus", "cpuset.cpus"), ("mems", "cpuset.mems")):
        if cpu.get(key):
            out.append(Write("cpuset", file, cpu[key], "cpuset_" + key))
    return out


def _pids(pids: Mapping[str, Any]) -> list[Write]:
    limit = pids.get("limit")
    if limit is None:
        return []
    return [Write("pids", "pids.max", str(limit) if limit > 0 else "max", "pids_limit")]


def _block(block: Mapping[str, Any], read: Reader) -> list[Write]:
    out = []
    bfq = read("blkio", "blkio.bfq.weight") is not None
    prefix = "blkio.bfq." if bfq else "blkio."
    if block.get("weight") is not None:
        value = str(block["weight"] or (100 if bfq else 500))
        out.append(Write("blkio", prefix + "weight", value, "blkio_weight", True))
    for entry in block.get("weightDevice") or []:
        value = "%d:%d %d" % (entry["major"], entry["minor"], entry["weight"])
        out.append(Write("blkio", prefix + "weight_device", value, "blkio_weight_device", True))
    for key, file in _THROTTLE:
        for entry in block.get(key) or []:
            out.append(Write("blkio", file, "%d:%d %d" % (entry["major"], entry["minor"], entry["rate"]), key))
    return out


def _huge(limits: list[Mapping[str, Any]]) -> list[Write]:
    out = []
    for entry in limits:
        size = check_page_size(entry["pageSize"])
        out.append(Write("hugetlb", "hugetlb.%s.limit_in_bytes" % size, str(entry["limit"]), "hugetlb"))
    return out


def check_page_size(size: str) -> str:
    """``2MB``, ``1GB``: it becomes part of a file name, so nothing but digits and a unit may pass."""
    if not (size[:-2].isdigit() and size[-2:] in ("KB", "MB", "GB")):
        raise UsageError("hugetlb: %r is not a page size such as 2MB" % size, path="hugetlb")
    return size


def defaults(parent: Reader) -> dict[str, Any]:
    """Resources that undo every limit; ``parent`` reads the parent cgroup (a v1 cpuset cannot be empty)."""
    return {
        "memory": {"limit": -1, "swap": -1, "reservation": -1},
        "cpu": {
            "shares": 1024,
            "quota": -1,
            "period": PERIOD,
            "cpus": parent("cpuset", "cpuset.cpus"),
            "mems": parent("cpuset", "cpuset.mems"),
        },
        "pids": {"limit": -1},
    }


def limits(read: Reader, parent: Reader, controllers: set[str]) -> dict[str, Any]:
    """What is in force, as options; only of ``controllers``."""
    found: dict[str, Any] = {}
    if "memory" in controllers:
        found["memory"] = _bytes(read("memory", "memory.limit_in_bytes"))
        found["memory_swap"] = _bytes(read("memory", "memory.memsw.limit_in_bytes"))
        found["memory_reservation"] = _bytes(read("memory", "memory.soft_limit_in_bytes"))
    if "cpu" in controllers:
        quota = number(read("cpu", "cpu.cfs_quota_us"))
        period = number(read("cpu", "cpu.cfs_period_us")) if quota and quota > 0 else None
        found["cpus"] = quota / period if quota and period else None
        found["cpu_shares"] = same_shares(number(read("cpu", "cpu.shares")) or 1024, 1)
    if "cpuset" in controllers:
        for option, file in (("cpuset_cpus", "cpuset.cpus"), ("cpuset_mems", "cpuset.mems")):
            value = read("cpuset", file) or ""
            found[option] = None if value == (parent("cpuset", file) or "") else format_list(parse_list(value)) or None
    if "pids" in controllers:
        found["pids_limit"] = number(read("pids", "pids.max"))
    return found


def stats(read: Reader, controllers: set[str]) -> dict[str, Any]:
    """See ``Cgroup.stats`` for the shape."""
    found: dict[str, Any] = {}
    if "cpuacct" in controllers:
        raw = keyed(read("cpuacct", "cpuacct.stat"))
        tick = 10_000_000  # nanoseconds: USER_HZ is 100 on every architecture the engine runs on
        found["cpu"] = {
            "usage_ns": number(read("cpuacct", "cpuacct.usage")) or 0,
            "user_ns": raw.get("user", 0) * tick,
            "system_ns": raw.get("system", 0) * tick,
        }
    if "cpu" in controllers:
        raw = keyed(read("cpu", "cpu.stat"))
        found.setdefault("cpu", {}).update(
            periods=raw.get("nr_periods", 0),
            throttled_periods=raw.get("nr_throttled", 0),
            throttled_ns=raw.get("throttled_time", 0),
        )
    if "memory" in controllers:
        raw = keyed(read("memory", "memory.stat"))
        usage = number(read("memory", "memory.usage_in_bytes")) or 0
        inactive = raw.get("total_inactive_file", 0)
        found["memory"] = {
            "usage": usage,
            "working_set": usage - min(inactive, usage),
            "inactive_file": inactive,
            "anon": raw.get("total_rss", 0),
            "file": raw.get("total_cache", 0),
            "swap": raw.get("total_swap", 0),
            "max_usage": number(read("memory", "memory.max_usage_in_bytes")) or 0,
            "limit": _bytes(read("memory", "memory.limit_in_bytes")),
            "oom_kills": keyed(read("memory", "memory.oom_control")).get("oom_kill", 0),
        }
    if "pids" in controllers:
        found["pids"] = {
            "current": number(read("pids", "pids.current")) or 0,
            "limit": number(read("pids", "pids.max")),
        }
    if "blkio" in controllers:
        found["io"] = _block_stats(read)
    return found


def _block_stats(read: Reader) -> list[dict[str, int]]:
    devices: dict[str, dict[str, int]] = {}
    for file, unit in (("io_service_bytes", "bytes"), ("io_serviced", "ops")):
        text = read("blkio", "blkio.throttle.%s_recursive" % file) or read("blkio", "blkio.throttle." + file) or ""
        for line in text.split("\n"):
            fields = line.split()
            if len(fields) == 3 and fields[1] in ("Read", "Write"):
                devices.setdefault(fields[0], {})["%s_%s" % (fields[1].lower(), unit)] = int(fields[2])
    out = []
    for name, values in devices.items():
        major, _colon, minor = name.partition(":")
        out.append({"major": int(major), "minor": int(minor), **_ZERO_IO, **values})
    return out


_ZERO_IO = {"read_bytes": 0, "write_bytes": 0, "read_ops": 0, "write_ops": 0}


def number(text: Optional[str]) -> Optional[int]:
    """``None`` for an absent file, an empty one, and for ``max``."""
    if not text or text == "max":
        return None
    return int(text.split()[0])


def _bytes(text: Optional[str]) -> Optional[int]:
    value = number(text)
    return None if value is None or value >= _UNLIMITED else pages(value)
