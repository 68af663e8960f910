# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a campaign does to the engine while it works."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import signal
import time
from collections.abc import Callable

from helpers.engine import Engine

FAULTS = ("task", "task", "task", "monitor", "monitor", "spawner", "resolver", "everything", "init", "disk full")


def inflict(engine: Engine, fault: str, rng: random.Random, task_pid: int) -> str:
    """One fault, now. Returns what was hit, for the report."""
    if fault == "task":
        return _kill([task_pid], "task")
    if fault == "everything":
        return _kill([task_pid, *engine.resident()], "task and every process of the engine")
    if fault == "init":
        return _kill(_some(rng, inits(engine)), "a container's first process")
    if fault == "disk full":
        fill(engine)
        return "disk full"
    found = {"monitor": monitors, "spawner": spawners, "resolver": resolvers}[fault](engine)
    return _kill(_some(rng, found), fault)


def _some(rng: random.Random, pids: list[int]) -> list[int]:
    return [rng.choice(sorted(pids))] if pids else []


def _kill(pids: list[int], what: str) -> str:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return what if pids else "%s (there was none)" % what


def monitors(engine: Engine) -> list[int]:
    return _from_states(engine, "monitor_pid", "monitor_start")


def inits(engine: Engine) -> list[int]:
    return _from_states(engine, "pid", "pid_start")


def _from_states(engine: Engine, pid: str, start: str) -> list[int]:
    """Pids that state files name, if that very process is there."""
    from module_utils._engine.kernel import procfs

    found = []
    for entry in os.listdir(engine.paths.containers):
        with contextlib.suppress(OSError, ValueError), open(engine.paths.container(entry) + "/state.json") as stream:
            state = json.load(stream)
            if state[pid] and procfs.is_alive(state[pid], state[start]):
                found.append(int(state[pid]))
    return found


def spawners(engine: Engine) -> list[int]:
    """Monitors are forks of a spawner: same command line, a name of their own."""
    return [pid for pid in _running(engine, b"runtime.spawner") if not _is_monitor(pid)]


def _is_monitor(pid: int) -> bool:
    try:
        with open("/proc/%d/comm" % pid) as stream:
            return stream.read().startswith("wharf-monitor")
    except OSError:  # it ended
        return True


def resolvers(engine: Engine) -> list[int]:
    return _running(engine, b"network.resolver")


def _running(engine: Engine, module: bytes) -> list[int]:
    found = []
    for pid in engine.resident():
        with contextlib.suppress(OSError), open("/proc/%d/cmdline" % pid, "rb") as stream:
            if module in stream.read():
                found.append(pid)
    return found


# -- a full disk -------------------------------------------------------------------------------------------------------


def fill(engine: Engine) -> None:
    """Take what is free on the state's file system (the campaign's own: see ``run``)."""
    with open(_filler(engine), "wb", buffering=0) as out:
        block = bytes(1 << 20)
        while block:
            try:
                out.write(block)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                block = block[: len(block) // 2]


def make_room(engine: Engine) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_filler(engine))


def _filler(engine: Engine) -> str:
    return os.path.dirname(engine.paths.state) + "/filler"


def run_hit(work: Callable[[], None], fault: Callable[[int], str], delay: float) -> tuple[str, int]:
    """``work`` in a child, ``fault(pid)`` after ``delay`` seconds; what was hit and how the child ended (0, 1 or
    minus the signal). A child that neither ends nor dies within two minutes is killed, and counts as -1000."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    time.sleep(delay)
    hit = fault(pid)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return hit, os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return hit, -1000
