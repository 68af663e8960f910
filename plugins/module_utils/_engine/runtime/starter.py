# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The short-lived child of a monitor that does its work of a start: takes the request, makes streams and sockets,
starts the container as the monitor's child, hands everything over, answers, ends. See ``watch``.

It touches much memory, and takes it along when it ends. Should its monitor be killed it dies with it: then the start
was cut short, and whoever comes next repairs it.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Optional

from .. import fds
from ..errors import Conflict, NotFound, WharfError
from ..kernel.syscalls import PR_SET_PDEATHSIG
from . import handover, parent, statefile, wire
from .monitor import Monitor

if TYPE_CHECKING:
    from .spawner import Spawner

_REQUEST_TIMEOUT = 5.0
_LOCK_TIMEOUT = 30.0


def main(spawner: Spawner, conn: int, container: str, monitor: socket.socket, streams: Sequence[int]) -> NoReturn:
    """``conn``: who asks, or -1 to adopt ``container``; ``monitor``: where the monitor waits for the handover;
    ``streams``: the container's pipes, kept by the spawner when its monitor was killed."""
    status = 1
    try:
        _prepare_process(spawner)
        if conn < 0:
            status = _start(spawner, "adopt", container, None, monitor, streams)
        else:
            status = _serve(spawner, socket.socket(fileno=conn), monitor)
    except BaseException:
        import traceback

        traceback.print_exc()  # standard error is the spawner's log
    finally:
        os._exit(status)


def _prepare_process(spawner: Spawner) -> None:
    owner = os.getppid()
    spawner.kernel.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != owner:
        os._exit(1)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    spawner.listener.close()
    os.close(spawner.lock)
    try:  # when memory runs out the kernel should take a container, not the one process that knows its exit code
        fd = os.open("/proc/%d/oom_score_adj" % owner, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, b"-999")
        finally:
            os.close(fd)
    except OSError:  # needs CAP_SYS_RESOURCE; not needed to go on
        pass


def _serve(spawner: Spawner, conn: socket.socket, monitor: socket.socket) -> int:
    """One connection."""
    if not wire.peer_is_owner(conn):
        return 1
    conn.settimeout(_REQUEST_TIMEOUT)
    try:
        message = wire.LineReader(conn).wait()
    except (OSError, ValueError):  # a client that says nothing, or nonsense
        return 1
    if message is None:
        return 1
    operation = message.get("op")
    if message.get("engine", wire.ENGINE) != wire.ENGINE or operation not in ("start", "adopt"):
        handover.send_order(spawner.voice, {"order": "request", "message": message}, (conn.fileno(),))
        return 1
    return _start(spawner, str(operation), str(message["id"]), conn, monitor)


def _start(
    spawner: Spawner,
    operation: str,
    container: str,
    conn: Optional[socket.socket],
    handed: socket.socket,
    streams: Sequence[int] = (),
) -> int:
    born = {"order": "born", "pid": os.getppid(), "container": container, "asked": conn is not None}
    handover.send_order(spawner.voice, born)
    monitor: Optional[Monitor] = None
    try:
        lock = _lock(spawner, container, conn)
        monitor = Monitor(spawner.kernel, spawner.paths, container, spawner.layout, spawner.kept, pid=os.getppid())
        if operation == "adopt":
            monitor.adopt(streams)
        else:
            monitor.config = parent.load_json(monitor.directory + "/config.json")
            _fill_caches(spawner, monitor)
            monitor.begin()
    except BaseException as error:
        failure = error if isinstance(error, WharfError) else wire.error_from_dict(wire.error_to_dict(error, "start"))
        if monitor is not None:
            monitor.fail(failure)
        _answer(conn, {"error": wire.error_to_dict(failure)})
        return 1
    values, fds = monitor.hand_over(lock)
    handover.send(handed, values, fds)
    monitor.leave_streams(spawner.voice)
    _answer(conn, {"state": monitor.state})
    return 0


def _answer(conn: Optional[socket.socket], message: dict[str, Any]) -> None:
    if conn is None:
        return
    try:
        wire.send_line(conn, message)
    except OSError:  # the task died meanwhile; the container goes on
        pass
    conn.close()


def _lock(spawner: Spawner, container: str, asker: Optional[socket.socket]) -> int:
    """One monitor per container. The one before may still be tidying up; or somebody else was faster, such as a task
    that was killed after it had asked for the same: when the container runs by then, their success is the asker's."""
    directory = spawner.paths.container(container)
    fd = os.open(directory + "/monitor.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + _LOCK_TIMEOUT
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not fds.is_at(fd, directory + "/monitor.lock"):
                raise NotFound(
                    "Container %s was removed while its start was on the way" % container[:12],
                    step="start",
                    subject=container,
                )
            return fd
        except BlockingIOError:
            state = statefile.read(directory + "/state.json")
            if state is not None and _runs(state):
                _answer(asker, {"state": state})
                os._exit(1)
            if time.monotonic() >= deadline:
                raise Conflict("Container %s has a monitor already" % container[:12], step="start") from None
            time.sleep(0.005)


def _runs(state: dict[str, Any]) -> bool:
    return (
        state["status"] in ("running", "paused") and statefile.monitor_alive(state) and statefile.process_alive(state)
    )


def _fill_caches(spawner: Spawner, monitor: Monitor) -> None:
    """What the spawner does not know yet and the next start can use: layer mounts (containers then share their cached
    pages), compiled filters, device programs. Failures are the start's to meet again and report."""
    kept = spawner.kept
    known = (set(kept.layers), set(kept.programs), set(kept.devices))
    try:
        kept.fill(spawner.kernel, monitor.run_config, monitor.config or {})
    except (WharfError, OSError, KeyError, TypeError, ValueError):
        pass
    layers = [path for path in kept.layers if path not in known[0]]
    programs = [(key, kept.programs[key]) for key in kept.programs if key not in known[1]]
    codes = [code for code in kept.devices if code not in known[2]]
    if layers or programs or codes:
        fds = [kept.layers[path] for path in layers] + [kept.devices[code] for code in codes]
        order = {"order": "keep", "layers": layers, "programs": programs, "devices": codes}
        handover.send_order(spawner.voice, order, fds)
