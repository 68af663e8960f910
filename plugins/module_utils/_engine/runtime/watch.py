# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A monitor's life while nothing happens: what runs as long as the container does, and so must cost little memory.

A fork shares its pages with the spawner until it writes to them, and in CPython looking at an object writes to it (its
reference count). So the process that stays does next to nothing. Its child, the starter, starts the container and
hands it over (``handover``); from then on the monitor waits in ``poll`` and passes what the container says to the log.
Everything else (``monitor.Monitor``: requests, restarts, health, execs, the end) is made when it is first asked for.

    spawner            monitor                starter                          container
    accept, fork     → fork                 → request, lock, streams, cgroup, mounts
                                              clone3(CLONE_PARENT: the monitor's child) →
                                              state.json, "run"
                       poll                 ← descriptors; answer; ends          runs
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Optional

from . import handover, starter
from .loop import Loop
from .stdio import Stdio

if TYPE_CHECKING:
    from .monitor import Monitor
    from .spawner import Spawner

# Plain integers: a member of an enum takes Python code, and with it pages, each time it is used.
_CHILD, _TERMINATE = int(signal.SIGCHLD), int(signal.SIGTERM)

CRASHED = 2  # the exit status after which the container gets another monitor


def main(spawner: Spawner, conn: int, container: str, streams: Sequence[int] = ()) -> NoReturn:
    """In the process the spawner forked. ``conn``: who asks, or -1 to adopt ``container``, whose pipes are
    ``streams``."""
    try:
        os._exit(_live(spawner, conn, container, streams))
    except BaseException:
        import traceback

        traceback.print_exc()  # standard error is the spawner's log
    finally:
        os._exit(CRASHED)


def _live(spawner: Spawner, conn: int, container: str, streams: Sequence[int]) -> int:
    held, held_end = spawner.held
    os.setsid()
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    _name_process()
    ours, theirs = socket.socketpair()
    helper = os.fork()
    if helper == 0:
        ours.close()
        os.close(woken)
        starter.main(spawner, conn, container, theirs, streams)
    theirs.close()
    if conn >= 0:
        os.close(conn)
    voice = spawner.voice.fileno()
    for fd in spawner.descriptors():
        if fd != voice:
            os.close(fd)
    if max(woken, wake, ours.fileno()) < held:
        os.closerange(held, held_end)
    got = handover.receive(ours)
    ours.close()
    if got is None:
        _pid, status = os.waitpid(helper, 0)
        return CRASHED if os.WIFSIGNALED(status) else 1  # it has said why, if anybody asked
    Watch(spawner, got[0], got[1], woken, helper).loop.run()
    return 0


def _name_process() -> None:
    """For ``ps``."""
    fd = os.open("/proc/self/comm", os.O_WRONLY | os.O_CLOEXEC)
    os.write(fd, b"wharf-monitor")
    os.close(fd)


class Watch:
    """``values`` and ``fds``: see ``Monitor.hand_over``. ``woken``: the signals' pipe; ``helper``: to be reaped."""

    __slots__ = ("fds", "helper", "loop", "monitor", "spawner", "stdio", "values", "woken")

    def __init__(self, spawner: Spawner, values: dict[str, Any], fds: list[int], woken: int, helper: int) -> None:
        self.spawner = spawner
        self.values = values
        self.fds = fds
        self.woken = woken
        self.helper = helper
        self.monitor: Optional[Monitor] = None
        if values["ended"]:
            os.waitpid(values["ended"], 0)
        self.loop = Loop()
        self.loop.add(woken, self._signalled)
        streams = {}
        for name, at in values["streams"].items():
            streams[name] = fds[at]
        self.stdio = Stdio(spawner.kernel, self.loop, values["run_directory"], values["run"], streams)
        self.stdio.trouble = self._log_trouble
        self.loop.add(fds[values["pidfd"]], self._wake_up)
        self.loop.add(fds[values["control"]], self._wake_up)
        if values["oom"]:
            self.loop.add(fds[values["oom"][0]], self._wake_up, values["oom"][4])
        if values["awake"]:
            self.full()
        if values["adopted"]:
            self.stdio.resume(bool(values["state"].get("log_error")))

    def _wake_up(self, _events: int) -> None:
        """Something that needs the whole monitor. It takes over the descriptors, and poll reports this one again."""
        self.full()

    def _log_trouble(self, sentence: str) -> None:
        """Where it can be looked up, and where whoever looks into the engine finds it when the disk is full."""
        if sentence:
            os.write(2, ("%s: %s\n" % (self.values["id"][:12], sentence)).encode("utf-8", "replace"))
        self.full().save(log_error=sentence)

    def full(self) -> Monitor:
        if self.monitor is None:
            from .monitor import Monitor

            spawner = self.spawner
            kept = spawner.kept.without_descriptors()  # they are closed here
            self.monitor = Monitor(spawner.kernel, spawner.paths, self.values["id"], spawner.layout, kept, watch=self)
        return self.monitor

    def _signalled(self, _events: int) -> None:
        """SIGTERM is the host going down: the container is stopped as it wishes, and counts as running at the next
        boot. SIGCHLD: the starter has ended, or somebody whose descriptor tells more."""
        numbers = os.read(self.woken, 64)
        if _CHILD in numbers:
            self.stdio.child_ended()
            if self.helper and os.waitpid(self.helper, os.WNOHANG)[0]:
                self.helper = 0
        if _TERMINATE in numbers:
            monitor = self.full()
            run = monitor.run_config
            timeout = run.get("stop_timeout")
            number = int(run.get("stop_signal") or signal.SIGTERM)
            monitor.stop(number, 10.0 if timeout is None else float(timeout), False)
