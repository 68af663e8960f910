# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The monitor's running execs: started, timed out, reaped, their cgroup leaves removed. Nothing here blocks."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any, Optional

from ..errors import KernelError, WharfError
from ..kernel import pidfd as pidfds
from ..kernel import procfs
from ..kernel.cgroups import Cgroup
from ..kernel.syscalls import Kernel
from . import exec as execution
from . import wire
from .loop import Loop, Timer

TIMED_OUT = -1
_DYING = 0.25

OnStart = Callable[[Optional[WharfError], int, int], None]  # error or None, pid, terminal master or -1
OnExit = Callable[[int], None]  # exit code, TIMED_OUT


class _Running:
    __slots__ = (
        "leaf",
        "moved",
        "on_exit",
        "on_start",
        "pid",
        "pidfd",
        "started",
        "sync",
        "terminal",
        "timed_out",
        "timer",
    )

    def __init__(self, leaf: str, started: execution.Started, on_start: OnStart, on_exit: OnExit) -> None:
        self.leaf = leaf
        self.pid = started.pid
        self.pidfd = started.pidfd
        self.sync: Any = started.sync
        self.on_start = on_start
        self.on_exit = on_exit
        self.started = False
        self.moved = False
        self.terminal = -1
        self.timed_out = False
        self.timer: Optional[Timer] = None


class Execs:
    def __init__(self, kernel: Kernel, loop: Loop, cgroup: Cgroup) -> None:
        self.kernel = kernel
        self.loop = loop
        self.cgroup = cgroup
        self._running: dict[int, _Running] = {}
        self._count = 0
        self._left: list[str] = []  # leaves that something still runs in

    def start(
        self,
        target: execution.Target,
        spec: execution.ExecSpec,
        stdio: tuple[int, int, int],
        on_start: OnStart,
        on_exit: OnExit,
    ) -> None:
        """Begin an exec. ``on_start`` is called once, later; ``on_exit`` once after a start without error. The caller
        may close ``stdio`` as soon as this returns. Raises ``WharfError`` when not even the clone worked."""
        self._tidy()
        self._count += 1
        leaf = "exec-" + (spec.id or "%d-%d" % (os.getpid(), self._count))
        self.cgroup.add_leaf(leaf)
        try:
            started = execution.spawn(self.kernel, target, spec, stdio, leaf)
        except WharfError:
            self._remove_leaf(leaf)
            raise
        running = _Running(leaf, started, on_start, on_exit)
        self._running[started.pid] = running
        self.loop.add(started.sync.fileno(), lambda _events: self._synced(running))
        self._watch(running)
        if spec.timeout is not None:
            running.timer = self.loop.after(spec.timeout, lambda: self._expired(running))

    def _watch(self, running: _Running) -> None:
        pidfd = running.pidfd
        self.loop.add(pidfd, lambda _events: self._ended(running, pidfd))

    def kill_all(self) -> None:
        for running in list(self._running.values()):
            self._kill(running)

    def drain(self, seconds: float = 2.0) -> None:
        """After the container ended: let the execs' ends be noticed and reported."""
        for running in list(self._running.values()):
            while running.pid in self._running:
                self._kill(running)
                if not pidfds.wait(running.pidfd, seconds):
                    break
                if running.sync is not None:
                    self._synced(running)
                self._ended(running, running.pidfd)

    def signal(self, pid: int, number: int) -> bool:
        running = self._running.get(pid)
        return running is not None and pidfds.send_signal(running.pidfd, number)

    # -- events ----------------------------------------------------------------------------------------------------

    def _synced(self, running: _Running) -> None:
        """End of file: the program runs. A message: the terminal, or why it does not run."""
        if running.sync is None:
            return
        try:
            message, fds = wire.recv_packet(running.sync)
        except OSError:
            message, fds = None, []
        if message is not None and "terminal" in message:
            running.terminal = fds[0] if fds else -1
            return
        if message is not None and "moved" in message:
            self._moved(running, message["pid"])
            return
        self.loop.remove(running.sync.fileno())
        running.sync.close()
        running.sync = None
        error = wire.error_from_dict(message["error"]) if message is not None else None
        running.started = error is None
        terminal, running.terminal = running.terminal, -1
        try:
            running.on_start(error, running.pid, terminal)
        finally:
            if terminal >= 0:
                os.close(terminal)

    def _moved(self, running: _Running, pid: Any) -> None:
        """The process has ended and another one, our child like it, goes on in its place (see ``joined``). Only once,
        and only a child of ours: the new one shares the container's pid namespace with whoever may take its end of the
        socket away from it and write what they like."""
        found = procfs.stat(pid) if isinstance(pid, int) and not running.moved else None
        if found is None or found.parent != os.getpid() or pid in self._running:
            return
        new = os.pidfd_open(pid)
        self.loop.remove(running.pidfd)
        del self._running[running.pid]
        old = running.pidfd  # on its way out, or frozen there with the container: not to be waited for
        self.loop.add(old, lambda _events: self._gone(old))
        running.pid, running.pidfd, running.moved = pid, new, True
        self._running[pid] = running
        self._watch(running)
        if running.timed_out:
            self._kill(running)
        try:
            wire.send_packet(running.sync, {"run": True})
        except OSError:  # killed meanwhile; its end is reported like any
            pass

    def _gone(self, pidfd: int) -> None:
        self.loop.remove(pidfd)
        pidfds.reap(pidfd)
        os.close(pidfd)

    def _expired(self, running: _Running) -> None:
        running.timed_out = True
        self._kill(running)

    def _kill(self, running: _Running) -> None:
        """The whole leaf where there is one (cgroup.kill: no process forks away), else process and session."""
        pidfds.send_signal(running.pidfd, signal.SIGKILL)
        if self.cgroup.unified(running.leaf) is None:
            try:
                os.killpg(running.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):  # no session yet, or nobody left in it
                pass
            return
        try:
            self.cgroup.kill_all(running.leaf, timeout=0.0)
        except KernelError:  # the process itself is dead; what it left ends with the container
            pass

    def _ended(self, running: _Running, pidfd: int) -> None:
        if running.sync is not None:  # its last words first
            self._synced(running)
            if running.sync is not None:
                self._synced(running)
        if running.pidfd != pidfd or self._running.pop(running.pid, None) is None:
            return
        self.loop.remove(running.pidfd)
        code = pidfds.reap(running.pidfd)
        os.close(running.pidfd)
        if running.timer is not None:
            running.timer.cancel()
        self._remove_leaf(running.leaf)
        if running.timed_out and self._left:  # the others die as fast as it did, but not before it
            self.loop.after(_DYING, self._tidy)
        if running.started:
            running.on_exit(TIMED_OUT if running.timed_out else code if code is not None else 255)

    def _remove_leaf(self, leaf: str) -> None:
        """Only an empty one: what an exec left running in the background goes on, as under Docker."""
        if not self._rmdir(leaf):
            self._left.append(leaf)

    def _tidy(self) -> None:
        """Leaves whose last process has ended meanwhile; what is still in use goes with the container's cgroup."""
        self._left = [leaf for leaf in self._left if not self._rmdir(leaf)]

    def _rmdir(self, leaf: str) -> bool:
        directory = self.cgroup.unified(leaf)
        if directory is None:
            return True
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            return True
        except OSError:  # EBUSY
            return False
        return True
