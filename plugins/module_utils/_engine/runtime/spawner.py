# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The resident process that forks monitors, so that containers outlive the task that asked for them.

Everything a monitor needs is imported once, here, and frozen: a forked monitor costs a millisecond and a few hundred
kilobytes. It also keeps the image layers' mounts (containers then share their cached pages) and compiled filters.
It has no state worth keeping: it may be killed at any time, monitors go on, the next request starts a new one.

It does as little as it can itself, since each page it writes to is one less that it shares with the monitors: a
connection is accepted, and read by what is forked then (``watch``, ``starter``), which sends word of what concerns
the spawner as an "order".

Requests on the socket, one a connection: ``{"op": "start" | "adopt", "id"}``, answered by the starter with
``{"state"}`` or ``{"error"}``; ``{"op": "forget", "layers": [paths]}``; ``{"op": "ping"}``; ``{"op": "quit"}``.
"""

from __future__ import annotations

import fcntl
import gc
import os
import select
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ..kernel.cgroups import Layout
from ..kernel.syscalls import PR_SET_CHILD_SUBREAPER, PR_SET_DUMPABLE, Kernel
from ..paths import Paths
from ..storage import overlay
from . import handover, watch, wire
from .kept import Kept
from .loop import Loop
from .stdio import Stdio

from . import cleanup, monitor, reaper, stdio  # isort: skip
from .. import process  # isort: skip
from ..kernel import devices, old_mounts, seccomp  # isort: skip
from ..kernel.cgroups import control, events  # isort: skip

# Imported for the monitors: none of them may have to import later, least of all inside a container.
PRELOADED = (cleanup, monitor, reaper, process, devices, old_mounts, seccomp, control, events)

IDLE = 30.0
HELD, HELD_END = 512, 1024  # numbers of the descriptors that are kept for monitors, of the 1024 that a process may have
_MAX_ADOPTIONS = 3  # of one container, before its crashing monitor is left alone


class Spawner:
    def __init__(self, paths: Paths, lock: int) -> None:
        self.paths = paths
        self.kernel = Kernel()
        self.lock = lock
        self.listener = wire.listen(paths.spawner_socket)
        self.orders, self.voice = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.orders.setblocking(False)
        self.monitors: dict[int, str] = {}  # pid → container id, "" until the starter tells
        self.adoptions: dict[str, int] = {}
        # By monitor: read ends of its container's pipes, so that what it says last while nobody watches is not lost.
        self.streams: dict[int, list[int]] = {}
        self.held = (HELD, HELD_END)
        self.kept = Kept()
        self.layout = Layout.detect()
        self.filling: list[Any] = []
        self.wake_read, self.wake_write = os.pipe()
        for fd in (self.wake_read, self.wake_write):
            os.set_blocking(fd, False)
        overlay.learn(self.kernel)

    def descriptors(self) -> list[int]:
        """What a monitor has no use for, besides those from ``HELD`` on."""
        sockets = (self.listener, self.orders, self.voice)
        own = [sock.fileno() for sock in sockets]
        return [*own, self.lock, self.wake_read, self.wake_write, *self.kept.descriptors()]

    def run(self) -> None:
        # Monitors inherit this: whatever runs as us inside a container cannot be traced or opened by its processes.
        self.kernel.prctl(PR_SET_DUMPABLE, 0)
        # A container whose monitor was killed becomes our child: somebody reaps it, and its exit code can be asked for.
        self.kernel.prctl(PR_SET_CHILD_SUBREAPER, 1)
        _set_signals(self.wake_write)
        listener, orders, wake = self.listener.fileno(), self.orders.fileno(), self.wake_read
        poll = select.poll()
        for fd in (listener, orders, wake):
            poll.register(fd, select.POLLIN)
        _pack(_OFTEN)
        try:
            stdio.rehearse(self.kernel, self.paths.run + "/rehearsal")
        except OSError:  # a full disk; monitors are a little larger then
            pass
        gc.collect()
        self.filling = _fill()
        gc.freeze()
        while True:
            ready = poll.poll(IDLE * 1000)
            if not ready and (not self.monitors or not os.path.exists(self.paths.spawner_socket)):
                return  # idle; or somebody swept the run directory: nobody can reach us, monitors go on
            for fd, _events in ready:
                if fd == orders:
                    if not self._obey():
                        return
                elif fd == wake:
                    _empty(wake)
                    if not self._obey():  # first: one of the dead may not have been introduced yet
                        return
                    self._reap()
                else:
                    self._accept()

    def _accept(self) -> None:
        try:
            conn, _address = self.listener.accept()
        except OSError as error:
            if error.errno not in (23, 24):  # ENFILE, EMFILE; anything else is whoever came and went
                return
            if not self.kept.layers:
                raise  # who waits starts another spawner then
            self.kept.forget(next(iter(self.kept.layers)))  # they are only kept to be shared
            return
        self._fork(conn.detach(), "")

    def _fork(self, conn: int, container: str, streams: Sequence[int] = ()) -> None:
        """``streams``: what a monitor that was killed has left to the next."""
        pid = os.fork()
        if pid == 0:
            watch.main(self, conn, container, streams)
        self.monitors[pid] = container
        if conn >= 0:
            os.close(conn)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            container, streams = self.monitors.pop(pid, ""), self.streams.pop(pid, [])
            if container and (os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == watch.CRASHED):
                self._rescue(container, streams)
            for fd in streams:
                os.close(fd)

    def _rescue(self, container: str, streams: Sequence[int]) -> None:
        """A monitor was killed: its container, if it runs, gets another one."""
        count = self.adoptions.get(container, 0) + 1
        self.adoptions[container] = count
        if count <= _MAX_ADOPTIONS:
            self._fork(-1, container, streams)

    # -- orders ----------------------------------------------------------------------------------------------------

    def _obey(self) -> bool:
        """What our forks have to say. False when we are asked to end."""
        while True:
            received = handover.receive_order(self.orders)
            if received is None:
                return True
            values, fds = received
            order = values["order"]
            if order == "born":
                if values["pid"] in self.monitors:
                    if values["asked"]:
                        self.adoptions.pop(values["container"], None)
                    self.monitors[values["pid"]] = values["container"]
            elif order == "streams":
                self._hold(values["pid"], fds)
            elif order == "keep":
                self.kept.learn(values, fds)
            elif not self._handle(values["message"], socket.socket(fileno=fds[0])):
                return False

    def _hold(self, monitor: int, fds: list[int]) -> None:
        """The newest of a monitor's, as far as there is room. Under numbers of their own: a monitor closes those of all
        others with one call, and need not look at them, which would cost memory."""
        held: list[int] = []
        try:
            if monitor in self.monitors:
                for fd in fds:
                    held.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, HELD))
        except OSError:  # EMFILE, EINVAL: that many containers; their last words are lost if all else fails, too
            pass
        gone = [*fds, *self.streams.pop(monitor, [])]
        if len(held) == len(fds):
            self.streams[monitor] = held
        else:
            gone += held
        for fd in gone:
            os.close(fd)

    def _handle(self, message: Mapping[str, Any], conn: socket.socket) -> bool:
        """A request that is for the spawner itself."""
        operation = message.get("op")
        with conn:
            if message.get("engine", wire.ENGINE) != wire.ENGINE:
                self.listener.close()
                return False  # the client sees the connection end and starts a spawner of its own bundle
            if operation == "forget":
                for path in message.get("layers") or ():
                    self.kept.forget(path)
            try:
                wire.send_line(conn, {"ok": operation in ("forget", "ping", "quit"), "pid": os.getpid()})
            except OSError:  # it did not wait for the answer
                pass
        return operation != "quit"


def _pack(functions: Sequence[Any]) -> None:
    """Copies of their code, made one after the other, lie side by side. Running code writes to it (reference counts,
    what the interpreter learns), so that this many functions else cost as many pages in every monitor."""
    for function in functions:
        function.__code__ = function.__code__.replace()


def _fill() -> list[Any]:
    """Objects to be kept, which take every free place in the allocator's pools (16 KiB for each size). What monitors
    make then begins new pools, of which they write to the first page, instead of to two pages of an old one."""
    kept: list[Any] = [None] * 32
    for size in range(16, 513, 16):
        for _n in range(2048):
            thing: Any = object() if size == 16 else float(_n) if size == 32 else bytes(size - 33)
            kept.append(thing)
            if id(thing) % 16384 == 48:
                break
    return kept


def _set_signals(wake: int) -> None:
    """For us and, so that they need not touch it, for the monitors, which put a pipe of their own in place of ours."""
    owner = os.getpid()

    def terminated(_number: int, _frame: Any) -> None:
        if os.getpid() == owner:
            os._exit(0)

    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.signal(signal.SIGTERM, terminated)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)


def _empty(fd: int) -> None:
    try:
        while os.read(fd, 4096):
            pass
    except BlockingIOError:
        pass


# What runs in the spawner for each monitor, and in each monitor whose container says nothing.
_OFTEN = (
    Spawner._accept, Spawner._fork, Spawner._obey, Spawner._hold, Spawner._reap, Spawner.descriptors, Kept.descriptors,
    watch.main, watch._live, watch._name_process, watch.Watch.__init__, watch.Watch._signalled,
    handover.receive, handover._receive, handover.receive_order,
    Loop.__init__, Loop.add, Loop.once, Loop.run,
    Stdio.__init__, Stdio._take_over, Stdio._listen, Stdio.child_ended,
    socket.socketpair, socket.socket.__init__, socket.socket.accept, socket.socket.close,
)  # fmt: skip


def main(argv: list[str]) -> None:
    """``<state directory> <run directory>``. Returns at once when another spawner serves this run directory."""
    paths = Paths(argv[0], argv[1])
    lock = os.open(paths.run + "/spawner.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    for _attempt in range(100):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:  # one that is about to end (idle, or of another bundle), or one that serves
            time.sleep(0.01)
    else:
        return
    _hold_bundle()
    spawner = Spawner(paths, lock)
    try:
        spawner.run()
    finally:
        try:
            os.unlink(paths.spawner_socket)
        except FileNotFoundError:
            pass


def _hold_bundle() -> None:
    """A shared lock beside the code we run from, inherited by every monitor: it says this bundle is in use."""
    root = os.path.dirname(os.path.abspath(__file__))
    for _level in range(2):
        root = os.path.dirname(root)
    try:
        fd = os.open(os.path.dirname(root) + "/.lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # a checkout, not an installed bundle
        return
    fcntl.flock(fd, fcntl.LOCK_SH)
