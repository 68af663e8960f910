# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a campaign does to the engine while it works."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterable
from typing import Any

from helpers.engine import Engine

from campaign.place import cgroups

FAULTS = (
    "task", "task", "task", "monitor", "monitor", "spawner", "spawner and monitor", "resolver", "everything",
    "container", "container and monitor", "disk full", "disk full, task", "clock", "power",
)  # fmt: skip
# After these nobody may have been told how a container ended that ended meanwhile, and 255 is the truth about it.
UNWATCHED = ("everything", "spawner and monitor", "container and monitor", "power")
_MOST = 120.0  # seconds that a task may take


def strike(engine: Engine, fault: str, rng: random.Random, task: int) -> str:
    """Kill what ``fault`` names, now. Returns what was hit, for the report."""
    if fault == "everything":
        return _kill([task, *sorted(ours(engine))], fault)
    hit = []
    for one in fault.replace("disk full, ", "").split(" and "):
        if one == "task":
            found = [task]
        else:
            found = _some(
                rng, {"container": inits, "monitor": monitors, "spawner": spawners, "resolver": resolvers}[one](engine)
            )
        hit += found
    return _kill(hit, fault)


def _some(rng: random.Random, pids: list[int]) -> list[int]:
    return [sorted(pids)[int(rng.random() * len(pids))]] if pids else []


def _kill(pids: list[int], what: str) -> str:
    hit = False
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            hit = True
    return what if hit else "%s (there was none)" % what


def kill_groups(tasks: Iterable[int]) -> None:
    for task in tasks:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(task, signal.SIGKILL)


def kill_all(engine: Engine) -> bool:
    """Everything that the engine and its containers are: what a power cut ends. Whether there was any."""
    pids = {pid for pid in [*engine.resident(), *in_containers(engine)] if is_running(pid)}
    _kill(sorted(pids), "")
    return bool(pids)


def ours(engine: Engine) -> set[int]:
    """Processes of the engine itself. (A container with ``init`` has one of our interpreters as its first process.)"""
    return {pid for pid in engine.resident() if is_running(pid)} - set(in_containers(engine))


def is_running(pid: int) -> bool:
    from module_utils._engine.kernel import procfs

    found = procfs.stat(pid)
    return found is not None and found.state not in "ZXx"


def in_containers(engine: Engine) -> list[int]:
    found = []
    for top in cgroups(engine):
        for directory, _names, _files in os.walk(top):
            with contextlib.suppress(OSError), open(directory + "/cgroup.procs") as stream:
                found += [int(line) for line in stream if line.strip() != "0"]
    return found


def monitors(engine: Engine) -> list[int]:
    return _from_states(engine, "monitor_pid", "monitor_start")


def inits(engine: Engine) -> list[int]:
    return _from_states(engine, "pid", "pid_start")


def _from_states(engine: Engine, pid: str, start: str) -> list[int]:
    """Pids that state files name, if that very process is there."""
    from module_utils._engine.kernel import procfs

    found = []
    for state in recorded_states(engine):
        if state[pid] and procfs.is_alive(state[pid], state[start]):
            found.append(int(state[pid]))
    return found


def recorded_states(engine: Engine) -> Iterable[dict[str, Any]]:
    for entry in os.listdir(engine.paths.containers):
        with contextlib.suppress(OSError, ValueError), open(engine.paths.container(entry) + "/state.json") as stream:
            yield json.load(stream)


class Residents:
    """The engine's own processes, by what they are, in one look: monitors that a state file names, spawners, resolvers,
    and others. (Monitors are forks of a spawner: same command line, a name of their own. A container with ``init`` has
    one of our interpreters as its first process, which is none of them.)"""

    def __init__(self, engine: Engine) -> None:
        pids = ours(engine)
        self.monitors = sorted(pids & set(monitors(engine)))
        rest = pids - set(self.monitors)
        self.spawners = sorted(pid for pid in rest if "runtime.spawner" in command(pid) and not _is_monitor(pid))
        self.resolvers = sorted(pid for pid in rest if "network.resolver" in command(pid))
        self.others = sorted(rest - set(self.spawners) - set(self.resolvers))


def spawners(engine: Engine) -> list[int]:
    return Residents(engine).spawners


def resolvers(engine: Engine) -> list[int]:
    return Residents(engine).resolvers


def _is_monitor(pid: int) -> bool:
    try:
        with open("/proc/%d/comm" % pid) as stream:
            return stream.read().startswith("wharf-monitor")
    except OSError:  # it ended
        return True


def command(pid: int) -> str:
    """Its command line; "" when it has ended."""
    try:
        with open("/proc/%d/cmdline" % pid, "rb") as stream:
            return stream.read().replace(b"\0", b" ").decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


# -- a full disk -------------------------------------------------------------------------------------------------------


def fill(engine: Engine) -> None:
    """Take what is free on the state's file system (the campaign's own: see ``place``)."""
    fd = os.open(_filler(engine), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        end, step = 0, 64 << 20
        while step >= 1 << 10:
            try:
                os.posix_fallocate(fd, end, step)
                end += step
            except OSError:  # ENOSPC
                step //= 2
    finally:
        os.close(fd)


def make_room(engine: Engine) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_filler(engine))


def _filler(engine: Engine) -> str:
    return os.path.dirname(engine.paths.state) + "/filler"


# -- the clock ---------------------------------------------------------------------------------------------------------


class Clock:
    """Clocks that jump. The machine's own only where that was asked for (a guest); otherwise the task's: what it calls
    now is hours or days away from what processes before, beside and after it call so."""

    def __init__(self, machine: bool) -> None:
        self.machine = machine
        self._truth = (0.0, 0.0)  # monotonic, real

    def jump(self, seconds: float) -> None:
        self._truth = (time.monotonic(), time.time())
        time.clock_settime(time.CLOCK_REALTIME, time.time() + seconds)

    def put_right(self) -> None:
        if self._truth != (0.0, 0.0):
            time.clock_settime(time.CLOCK_REALTIME, self._truth[1] + time.monotonic() - self._truth[0])
            self._truth = (0.0, 0.0)


def at_another_time(seconds: float, run: Callable[[], None]) -> Callable[[], None]:
    """``run`` in a process that is to see another time from then on."""
    real, real_ns = time.time, time.time_ns

    def there() -> None:
        time.time = lambda: real() + seconds  # type: ignore[assignment]
        time.time_ns = lambda: real_ns() + int(seconds * 1e9)  # type: ignore[assignment]
        run()

    return there


# -- a task and its end ------------------------------------------------------------------------------------------------


def spawn(work: Callable[[], None]) -> int:
    """``work`` in a child, the head of a process group: ended with 1 by an exception that it lets through."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setpgid(0, 0)
            work()
            code = 0
        finally:
            os._exit(code)
    with contextlib.suppress(OSError):  # it has done so itself
        os.setpgid(pid, pid)
    return pid


def ended_within(pid: int, seconds: float) -> bool:
    """Whether it has ended (it is left to be reaped)."""
    deadline = time.monotonic() + seconds
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def outcome(pid: int) -> int:
    """The exit code, or minus the signal; one that does not end within two minutes is killed, and counts as -1000."""
    if ended_within(pid, _MOST):
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return -1000
