# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The resident process that forks monitors, so that containers outlive the task that asked for them.

Everything a monitor needs is imported once, here, and frozen: a forked monitor costs a millisecond and a few hundred
kilobytes. It also keeps the image layers' mounts (containers then share their cached pages) and compiled filters.
It has no state worth keeping: it may be killed at any time, monitors go on, the next request starts a new one.

Requests on the socket, one a connection: ``{"op": "start" | "adopt", "id"}``, answered by the forked monitor itself
with ``{"state"}`` or ``{"error"}``; ``{"op": "forget", "layers": [paths]}``; ``{"op": "ping"}``; ``{"op": "quit"}``.
"""

from __future__ import annotations

import fcntl
import gc
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from typing import Any, NoReturn, Optional

from ..errors import Conflict, WharfError
from ..kernel.cgroups import Layout
from ..kernel.syscalls import PR_SET_CHILD_SUBREAPER, PR_SET_DUMPABLE, Kernel
from ..paths import Paths
from ..storage import overlay
from . import parent, statefile, wire
from .monitor import Monitor

from . import cleanup, reaper  # isort: skip
from .. import process  # isort: skip
from ..kernel import devices, seccomp  # isort: skip
from ..kernel.cgroups import control, events  # isort: skip

# Imported for the monitors: none of them may have to import later, least of all inside a container.
PRELOADED = (cleanup, reaper, process, devices, seccomp, control, events)

IDLE = 30.0
_REQUEST_TIMEOUT = 5.0
_MAX_CACHED_LAYERS = 512
_LOCK_TIMEOUT = 30.0
_CRASHED = 2
_MAX_ADOPTIONS = 3  # of one container, before its crashing monitor is left alone


class Spawner:
    def __init__(self, paths: Paths, lock: int) -> None:
        self.paths = paths
        self.kernel = Kernel()
        self.lock = lock
        self.listener = wire.listen(paths.spawner_socket)
        self.monitors: dict[int, str] = {}  # pid → container id
        self.adoptions: dict[str, int] = {}
        self.layers: dict[str, int] = {}
        self.layout = Layout.detect()
        self.wake_read, self.wake_write = os.pipe()
        for fd in (self.wake_read, self.wake_write):
            os.set_blocking(fd, False)

    def run(self) -> None:
        # Monitors inherit this: whatever runs as us inside a container cannot be traced or opened by its processes.
        self.kernel.prctl(PR_SET_DUMPABLE, 0)
        # A container whose monitor was killed becomes our child: somebody reaps it, and its exit code can be asked for.
        self.kernel.prctl(PR_SET_CHILD_SUBREAPER, 1)
        signal.set_wakeup_fd(self.wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        gc.collect()
        gc.freeze()
        poll = select.poll()
        poll.register(self.listener, select.POLLIN)
        poll.register(self.wake_read, select.POLLIN)
        while True:
            ready = [fd for fd, _events in poll.poll(IDLE * 1000)]
            if self.wake_read in ready:
                _empty(self.wake_read)
            self._reap()
            if self.listener.fileno() in ready:
                if not self._serve():
                    return
            elif not ready and not self.monitors:
                return
            elif not ready and not os.path.exists(self.paths.spawner_socket):
                return  # somebody swept the run directory: nobody can reach us; monitors go on

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            container = self.monitors.pop(pid, None)
            if container is not None and (os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == _CRASHED):
                self._rescue(container)

    def _rescue(self, container: str) -> None:
        """A monitor was killed: its container, if it runs, gets another one."""
        count = self.adoptions.get(container, 0) + 1
        self.adoptions[container] = count
        if count <= _MAX_ADOPTIONS:
            self._fork("adopt", container, None)

    # -- requests --------------------------------------------------------------------------------------------------

    def _serve(self) -> bool:
        """One connection. False when we are asked to quit."""
        try:
            conn, _address = self.listener.accept()
        except OSError:
            return True
        with conn:
            if not wire.peer_is_owner(conn):
                return True
            conn.settimeout(_REQUEST_TIMEOUT)
            try:
                message = wire.LineReader(conn).wait()
                if message is None:
                    return True
                return self._handle(conn, message)
            except (OSError, ValueError):  # a client that says nothing, or nonsense
                return True

    def _handle(self, conn: socket.socket, message: dict[str, Any]) -> bool:
        operation = message.get("op")
        if message.get("engine", wire.ENGINE) != wire.ENGINE:
            return False  # the client sees the connection end and starts a spawner of its own bundle
        if operation in ("start", "adopt"):
            self.adoptions.pop(str(message["id"]), None)
            self._prepare(str(message["id"]))
            self._fork(operation, str(message["id"]), conn)
            return True
        if operation == "forget":
            for path in message.get("layers") or ():
                self._forget(path)
        wire.send_line(conn, {"ok": operation in ("forget", "ping", "quit"), "pid": os.getpid()})
        return operation != "quit"

    def _prepare(self, container: str) -> None:
        """What is worth keeping for the next start: layer mounts and the compiled filter. Failures are the monitor's to
        meet again and report."""
        for path in [path for path in self.layers if not os.path.exists(path)]:
            self._forget(path)
        try:
            directory = self.paths.container(container)
            run, config = (parent.load_json("%s/%s.json" % (directory, name)) for name in ("run", "config"))
            for layer in run["layers"]:
                if layer["path"] not in self.layers:
                    if len(self.layers) >= _MAX_CACHED_LAYERS:
                        self._forget(next(iter(self.layers)))
                    self.layers[layer["path"]] = overlay.open_layer(self.kernel, layer["path"], layer["form"])
            parent.seccomp_program(self.kernel, config)
        except (WharfError, OSError, KeyError, TypeError, ValueError):
            return

    def _forget(self, path: str) -> None:
        fd = self.layers.pop(path, None)
        if fd is not None:
            os.close(fd)

    def _fork(self, operation: str, container: str, conn: Optional[socket.socket]) -> None:
        pid = os.fork()
        if pid:
            self.monitors[pid] = container
            return
        try:
            self.listener.close()
            os.close(self.lock)
            signal.set_wakeup_fd(-1)
            os.close(self.wake_read)
            os.close(self.wake_write)

            def monitor() -> Monitor:
                return Monitor(self.kernel, self.paths, container, self.layers, self.layout)

            run_monitor(self.paths, operation, container, conn, monitor)
        finally:
            os._exit(1)


def _empty(fd: int) -> None:
    try:
        while os.read(fd, 4096):
            pass
    except BlockingIOError:
        pass


# -- the forked monitor ----------------------------------------------------------------------------------------------


def run_monitor(
    paths: Paths,
    operation: str,
    container: str,
    conn: Optional[socket.socket],
    make: Callable[[], Monitor],
) -> NoReturn:
    """The monitor's whole life; never returns. ``conn``: who asked, and gets the answer."""
    os.setsid()
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _set_up_process()
    monitor: Optional[Monitor] = None
    lock = -1
    try:
        try:
            lock = _lock(paths, container, conn)
            monitor = make()
            if operation == "adopt":
                monitor.adopt()
            else:
                monitor.begin()
        except BaseException as error:
            failure = _as_error(error)
            if monitor is not None:
                monitor.fail(failure)
            _answer(conn, {"error": wire.error_to_dict(failure)})
            os._exit(1)
        _answer(conn, {"state": monitor.state})
        _terminate_on(monitor)
        monitor.loop.run()
        os._exit(0)
    except BaseException:
        import traceback

        traceback.print_exc()  # standard error is the spawner's log
        os._exit(_CRASHED)
    finally:
        os._exit(lock)


def _as_error(error: BaseException) -> WharfError:
    if isinstance(error, WharfError):
        return error
    return wire.error_from_dict(wire.error_to_dict(error, "start"))


def _answer(conn: Optional[socket.socket], message: dict[str, Any]) -> None:
    if conn is None:
        return
    try:
        wire.send_line(conn, message)
    except OSError:  # the task died meanwhile; the container goes on
        pass
    conn.close()


def _lock(paths: Paths, container: str, asker: Optional[socket.socket]) -> int:
    """One monitor per container. The one before may still be tidying up; or somebody else was faster, such as a task
    that was killed after it had asked for the same: when the container runs by then, their success is the asker's."""
    fd = os.open(paths.container(container) + "/monitor.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + _LOCK_TIMEOUT
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        except BlockingIOError:
            state = statefile.read(paths.container(container) + "/state.json")
            if state is not None and _runs(state):
                _answer(asker, {"state": state})
                os._exit(0)
            if time.monotonic() >= deadline:
                raise Conflict("Container %s has a monitor already" % container[:12], step="start") from None
            time.sleep(0.005)


def _runs(state: dict[str, Any]) -> bool:
    return (
        state["status"] in ("running", "paused") and statefile.monitor_alive(state) and statefile.process_alive(state)
    )


def _set_up_process() -> None:
    """A name for ``ps``; and when memory runs out the kernel should take a container, not the one process that knows
    its exit code (needs CAP_SYS_RESOURCE). Plain writes: every function of the interpreter used here is a page of
    memory that the monitor no longer shares."""
    for path, value in (("/proc/self/comm", b"wharf-monitor"), ("/proc/self/oom_score_adj", b"-999")):
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, value)
            finally:
                os.close(fd)
        except OSError:  # neither is needed to go on
            continue


def _terminate_on(monitor: Monitor) -> None:
    """SIGTERM is the host going down: the container is stopped as it wishes, and counts as running at the next boot."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)

    def woken(_events: int) -> None:
        os.read(read, 64)
        run = monitor.run_config
        timeout = run.get("stop_timeout")
        monitor.stop(int(run.get("stop_signal") or signal.SIGTERM), 10.0 if timeout is None else float(timeout), False)

    monitor.loop.add(read, woken)
    signal.signal(signal.SIGTERM, lambda _number, _frame: None)


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
