# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What ``ps`` would say of some processes, and counters of their network: read from /proc, without any program."""

from __future__ import annotations

import os
from typing import Optional

from ..tuples import NamedTuple

TICKS = 100  # USER_HZ, on every architecture the engine runs on
NETWORK = (
    "rx_bytes", "rx_packets", "rx_errors", "rx_dropped", "", "", "", "",
    "tx_bytes", "tx_packets", "tx_errors", "tx_dropped",
)  # fmt: skip


class Process(NamedTuple):
    """``cpu``: ticks used; ``start``: ticks after boot; ``tty``: device number; ``size`` and ``resident``: bytes.
    ``command``: its arguments, or its name in brackets when it has none (a zombie, a kernel thread)."""

    pid: int
    parent: int
    group: int
    session: int
    uid: int
    state: str
    tty: int
    cpu: int
    priority: int
    nice: int
    threads: int
    start: int
    size: int
    resident: int
    name: str
    command: str


def process(pid: int) -> Optional[Process]:
    """None when there is no such process (any more)."""
    try:
        text = _read("/proc/%d/stat" % pid)
        # The owner of its directory may be root for one that is not dumpable; status has it right.
        uid = next(int(line.split()[2]) for line in _read("/proc/%d/status" % pid).split("\n") if line[:4] == "Uid:")
        argv = _read("/proc/%d/cmdline" % pid)
    except (FileNotFoundError, ProcessLookupError, StopIteration):
        return None
    head, _paren, tail = text.rpartition(")")  # the name is the process's own choice and may hold anything
    name = head.partition("(")[2]
    fields = [int(field) if field.lstrip("-").isdigit() else 0 for field in tail.split()]
    state = tail.split()[0]
    command = " ".join(argv.rstrip("\0").split("\0")) if argv.strip("\0") else "[%s]" % name
    return Process(
        pid,
        parent=fields[1],
        group=fields[2],
        session=fields[3],
        uid=uid,
        state=state,
        tty=fields[4],
        cpu=fields[11] + fields[12],
        priority=fields[15],
        nice=fields[16],
        threads=fields[17],
        start=fields[19],
        size=fields[20],
        resident=fields[21] * os.sysconf("SC_PAGE_SIZE"),
        name=_printable(name),
        command=_printable(command),
    )


def _read(path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts: list[bytes] = []
        while True:
            data = os.read(fd, 65536)
            if not data:
                return b"".join(parts).decode("utf-8", "replace")
            parts.append(data)
    finally:
        os.close(fd)


def _printable(text: str) -> str:
    """A process names itself: nothing of it may steer the terminal of who reads it."""
    return "".join(char if char.isprintable() else "?" for char in text)


def boot_time() -> int:
    """Seconds since the epoch."""
    return next(int(line.split()[1]) for line in _read("/proc/stat").split("\n") if line.startswith("btime "))


def uptime() -> float:
    return float(_read("/proc/uptime").split()[0])


def total_memory() -> int:
    """Bytes."""
    return (
        next(int(line.split()[1]) for line in _read("/proc/meminfo").split("\n") if line.startswith("MemTotal")) << 10
    )


def system_cpu() -> tuple[int, int]:
    """``(nanoseconds that all processors have spent so far, how many there are)``."""
    lines = _read("/proc/stat").split("\n")
    spent = sum(int(field) for field in lines[0].split()[1:8])
    processors = sum(1 for line in lines if line.startswith("cpu")) - 1
    return spent * (10**9 // TICKS), processors


def network_counters(pid: int) -> dict[str, dict[str, int]]:
    """Of every link but the loopback in the network namespace of ``pid``; {} when it is gone."""
    try:
        text = _read("/proc/%d/net/dev" % pid)
    except (FileNotFoundError, ProcessLookupError):
        return {}
    out = {}
    for line in text.split("\n")[2:]:
        name, _colon, values = line.partition(":")
        if values and name.strip() != "lo":
            out[name.strip()] = {key: int(value) for key, value in zip(NETWORK, values.split()) if key}
    return out
