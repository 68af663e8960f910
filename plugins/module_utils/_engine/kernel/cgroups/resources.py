# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Limits in three languages: task options, OCI ``linux.resources``, and what a kernel makes of them (rounded).

Options: ``memory memory_swap memory_reservation`` (bytes; ``memory_swap`` is memory plus swap, -1 unlimited),
``cpus`` (float), ``cpu_shares``, ``cpuset_cpus``, ``cpuset_mems``, ``pids_limit``. Absent or ``None``: unlimited.
Not read back: ``cpu_period``, ``cpu_quota`` (as ``cpus``), ``memory_swappiness``, ``oom_killer`` (True: disabled),
``blkio_weight``, ``device_{read,write}_{bps,iops}`` (``[{path, rate}]``).
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Mapping
from typing import Any, Optional

from ...errors import UsageError

OPTIONS = (
    "memory", "memory_swap", "memory_reservation", "cpus", "cpu_shares", "cpuset_cpus", "cpuset_mems", "pids_limit",
)  # fmt: skip

PERIOD = 100_000  # microseconds: the scheduler period ``cpus`` is expressed in
DEFAULT_SHARES = 1024
MINIMUM_MEMORY = 6 * 1024 * 1024  # below it a container's init cannot even start; Docker's floor too


def from_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """OCI ``linux.resources`` (without ``devices``). Raises ``UsageError`` for values that contradict each other."""
    resources: dict[str, Any] = {}
    memory = _memory(options)
    if memory:
        resources["memory"] = memory
    cpu: dict[str, Any] = {}
    if options.get("cpus"):
        cpu["quota"], cpu["period"] = quota(options["cpus"]), PERIOD
    for option, key in (("cpu_quota", "quota"), ("cpu_period", "period")):
        if options.get(option):
            cpu[key] = options[option]
    if options.get("cpu_shares"):
        cpu["shares"] = options["cpu_shares"]
    for option, key in (("cpuset_cpus", "cpus"), ("cpuset_mems", "mems")):
        if options.get(option):
            format_list(parse_list(options[option], option))
            cpu[key] = options[option]
    if cpu:
        resources["cpu"] = cpu
    block = _block(options)
    if block:
        resources["blockIO"] = block
    if options.get("pids_limit"):
        resources["pids"] = {"limit": options["pids_limit"] if options["pids_limit"] > 0 else -1}
    return resources


_RATES = (
    ("device_read_bps", "throttleReadBpsDevice"),
    ("device_write_bps", "throttleWriteBpsDevice"),
    ("device_read_iops", "throttleReadIOPSDevice"),
    ("device_write_iops", "throttleWriteIOPSDevice"),
)


def _block(options: Mapping[str, Any]) -> dict[str, Any]:
    block: dict[str, Any] = {}
    if options.get("blkio_weight"):
        block["weight"] = options["blkio_weight"]
    for option, key in _RATES:
        for index, entry in enumerate(options.get(option) or ()):
            try:
                info = os.stat(entry["path"])
            except OSError as error:
                sentence = "%s: %s cannot be used: %s" % (option, entry["path"], error.strerror)
                raise UsageError(sentence, path="%s[%d].path" % (option, index)) from None
            if not stat.S_ISBLK(info.st_mode):
                raise UsageError(
                    "%s: %s is not a block device" % (option, entry["path"]), path="%s[%d].path" % (option, index)
                )
            device = {"major": os.major(info.st_rdev), "minor": os.minor(info.st_rdev)}
            block.setdefault(key, []).append({**device, "rate": entry["rate"]})
    return block


def taken_back(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """``now`` and with it what undoes the parts of ``before`` (both OCI resources) that are not in it and that no
    table of defaults knows: rates of 0 and a weight of 0 mean "as if never set"."""
    merged = {key: dict(value) if isinstance(value, dict) else value for key, value in now.items()}
    for section in ("memory", "blockIO"):
        for key, value in (before.get(section) or {}).items():
            mine = merged.setdefault(section, {})
            if isinstance(value, list):
                kept = {(entry["major"], entry["minor"]) for entry in mine.get(key, [])}
                gone = [{**entry, "rate": 0} for entry in value if (entry["major"], entry["minor"]) not in kept]
                mine[key] = gone + mine.get(key, [])
            elif key in ("weight", "disableOOMKiller"):
                mine.setdefault(key, False if key == "disableOOMKiller" else 0)
            elif key == "swappiness":
                mine.setdefault(key, -1)
    return merged


def _memory(options: Mapping[str, Any]) -> dict[str, Any]:
    limit, total = options.get("memory") or 0, options.get("memory_swap") or 0
    reservation = options.get("memory_reservation") or 0
    if 0 < limit < MINIMUM_MEMORY:
        raise UsageError("memory must be at least 6 MiB, not %d bytes" % limit, path="memory")
    if total and not limit > 0 and total != -1:
        raise UsageError("memory_swap needs memory: it is the sum of memory and swap", path="memory_swap")
    if 0 < total < limit:
        raise UsageError(
            "memory_swap (%d) is the sum of memory and swap, so it cannot be below memory (%d)" % (total, limit),
            path="memory_swap",
        )
    if limit > 0 and reservation > limit:
        raise UsageError(
            "memory_reservation (%d) is above memory (%d)" % (reservation, limit), path="memory_reservation"
        )
    found = {}
    if limit > 0:
        found["limit"] = limit
        found["swap"] = total or 2 * limit  # Docker's default: as much swap as memory
    elif total == -1:
        found["swap"] = -1
    if reservation > 0:
        found["reservation"] = reservation
    if options.get("memory_swappiness") is not None:
        found["swappiness"] = options["memory_swappiness"]
    if options.get("oom_killer"):
        found["disableOOMKiller"] = True
    return found


def quota(cpus: float) -> int:
    """Microseconds per ``PERIOD``. Raises ``UsageError`` below 0.01 (the kernel's least is 1 ms a period)."""
    value = int(cpus * PERIOD)
    if value < 1000:
        raise UsageError("cpus must be at least 0.01, not %g" % cpus, path="cpus")
    return value


def shares_to_weight(shares: int) -> int:
    """v1 ``cpu.shares`` (2 to 262144) as a v2 ``cpu.weight`` (1 to 10000): runc's and crun's curve through
    (2, 1), (1024, 100) and (262144, 10000), not the older straight line that made the default 39."""
    if shares <= 0:
        return 0
    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    log = math.log2(shares)
    return math.ceil(10 ** ((log * log + 125 * log) / 612 - 7 / 34))


def weight_to_shares(weight: int) -> int:
    """A number of shares with that weight (several have it). The round ones are preferred, then the least."""
    for exponent in range(1, 19):
        if shares_to_weight(1 << exponent) == weight:
            return 1 << exponent
    low, high = 2, 262144
    while low < high:
        middle = (low + high) // 2
        if shares_to_weight(middle) < weight:
            low = middle + 1
        else:
            high = middle
    return low


def parse_list(text: str, option: str = "cpuset_cpus") -> set[int]:
    """``"0-2,5"`` as a set. Raises ``UsageError``."""
    found: set[int] = set()
    for part in text.replace("\n", ",").split(","):
        part = part.strip()
        if not part:
            continue
        first, dash, last = part.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()) or (dash and int(last) < int(first)):
            raise UsageError("%s: %r is not a list of numbers and ranges such as 0-2,5" % (option, text), path=option)
        if int(last or first) > 8192:
            raise UsageError("%s: %s is out of range" % (option, part), path=option)
        found.update(range(int(first), int(last or first) + 1))
    return found


def format_list(numbers: set[int]) -> str:
    """As the kernel prints it: ``{0,1,2,5}`` → ``"0-2,5"``."""
    out: list[str] = []
    run: list[int] = []
    for number in [*sorted(numbers), -1]:
        if run and number == run[-1] + 1:
            run.append(number)
            continue
        if run:
            out.append("%d" % run[0] if len(run) == 1 else "%d-%d" % (run[0], run[-1]))
        run = [number]
    return ",".join(out)


def expected(options: Mapping[str, Any], *, version: Mapping[str, int], swap: bool = True) -> dict[str, Any]:
    """What ``Cgroup.read`` reports once ``options`` are in force: pages rounded, lists in the kernel's spelling.

    ``version``: controller → 1 or 2 (they round differently); ``swap``: does the kernel account swap.
    """
    resources = from_options(options)
    memory, cpu = resources.get("memory", {}), resources.get("cpu", {})
    result: dict[str, Any] = dict.fromkeys(OPTIONS)
    limit, total = memory.get("limit", -1), memory.get("swap", -1)
    result["memory"] = pages(limit)
    if swap and limit > 0 and total != -1:
        v2 = version.get("memory") == 2
        result["memory_swap"] = (pages(limit) or 0) + (pages(total - limit) or 0) if v2 else pages(total)
    result["memory_reservation"] = pages(memory.get("reservation", -1))
    if cpu.get("quota", 0) > 0:
        result["cpus"] = cpu["quota"] / cpu.get("period", PERIOD)
    result["cpu_shares"] = same_shares(cpu.get("shares", DEFAULT_SHARES), version.get("cpu", 1))
    for option, key in (("cpuset_cpus", "cpus"), ("cpuset_mems", "mems")):
        if key in cpu:
            result[option] = format_list(parse_list(cpu[key], option))
    count = resources.get("pids", {}).get("limit", -1)
    result["pids_limit"] = count if count > 0 else None
    return result


def same_shares(shares: int, version: int) -> Optional[int]:
    """Shares in the form ``read`` gives them: the kernel's range; on v2 one number for all that share a weight.
    ``None`` for the default."""
    shares = min(max(shares, 2), 262144)
    if version == 2:
        shares = weight_to_shares(shares_to_weight(shares))
    return None if shares == DEFAULT_SHARES else shares


def pages(size: int) -> Optional[int]:
    """A byte count cut down to whole pages, as the kernel stores it; ``None`` for unlimited."""
    if size < 0:
        return None
    page = os.sysconf("SC_PAGE_SIZE")
    return size // page * page


def hint(option: str, errno: int) -> Optional[str]:
    """What to tell besides the kernel's word for it."""
    if errno == 16 and option.startswith("memory"):
        return "The container uses more than that now, and the kernel could not take enough back."
    if errno in (22, 34, 13) and option.startswith("cpuset"):
        return "The list must be non-empty and lie within what this host has and the parent cgroup allows."
    if errno == 2:
        return "This kernel does not offer that control."
    return None
