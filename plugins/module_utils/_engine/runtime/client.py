# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the rest of the engine sees of the runtime: start, stop, exec, and the present state of containers.

Cheap to import. Reading the state needs no process of ours; everything else talks to the container's monitor, and
brings back one that was lost.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Optional

from ..errors import Conflict, Interrupted, NotFound, TimedOut, WharfError
from ..paths import Paths
from ..tuples import NamedTuple
from . import statefile

if TYPE_CHECKING:
    import socket

    from ..kernel.syscalls import Kernel
    from .execspec import ExecSpec

_CONNECT_TIMEOUT = 15.0
_START_TIMEOUT = 120.0
_RECORD_TIMEOUT = 3.0
_CHANGING = 10.0  # how long a killed monitor's container may take to get another one, or to have ended
_GONE = (FileNotFoundError, ConnectionRefusedError)


class ExecResult(NamedTuple):
    """``exit_code`` is 137 when it ``timed_out``. With a tty everything is in ``stdout``."""

    exit_code: int
    stdout: bytes
    stderr: bytes
    pid: int
    timed_out: bool
    exec_id: str = ""


class Runtime:
    def __init__(self, paths: Paths, kernel: Optional[Kernel] = None) -> None:
        self.paths = paths
        self.kernel = kernel

    # -- looking ---------------------------------------------------------------------------------------------------

    def state(self, container: str) -> dict[str, Any]:
        """The container as it is now, in state.json's shape; ``status`` "created" when it never ran."""
        return self.look(container)[0]

    def look(self, container: str) -> tuple[dict[str, Any], bool]:
        """``state``, and whether its monitor is known to live: it is the parent of what runs."""
        path = self.paths.container(container) + "/state.json"
        deadline = 0.0
        while True:
            known = statefile.read(path)
            if known is None:
                return self._told_by_monitor(container) or statefile.blank(container), False
            if known["status"] in ("running", "paused"):
                parent = statefile.living_parent(known)
                if parent is not None:
                    return known, parent == known.get("monitor_pid")
            deadline = deadline or time.monotonic() + _RECORD_TIMEOUT
            if not statefile.unrecorded(known) or time.monotonic() >= deadline:
                return statefile.present(known), False
            time.sleep(0.002)

    def _told_by_monitor(self, container: str) -> Optional[dict[str, Any]]:
        """Where state.json is there but damaged: a monitor knows better, and writes it again. None without one."""
        if not os.path.exists(self.paths.container(container) + "/state.json"):
            return None
        try:
            state: dict[str, Any] = self._ask(container, {"op": "state"}, 5.0)["state"]
            return state
        except (WharfError, OSError, KeyError):  # it watches no more: then nothing is known
            return None

    def is_monitored(self, container: str) -> bool:
        """False for a running container whose monitor was killed: ``adopt`` it."""
        known = statefile.read(self.paths.container(container) + "/state.json")
        return known is not None and statefile.monitor_alive(known)

    # -- life ------------------------------------------------------------------------------------------------------

    def start(self, container: str, timeout: float = _START_TIMEOUT) -> dict[str, Any]:
        """Start it (no-op when it runs; at once when it waits for a restart). Returns the state.

        Raises ``StartError`` (``details.exit_code`` 125 to 128) after which nothing of the start is left but the
        reason in the state; ``Conflict`` for a port that is taken; ``Interrupted``, ``TimedOut``.
        """
        state = self.state(container)
        if state["status"] in ("running", "paused"):
            if self.is_monitored(container):
                return state
            try:
                return self.adopt(container)
            except NotFound:  # it ended meanwhile
                return self._through_spawner("start", container, timeout)
        if state["status"] == "restarting":
            try:
                answer: dict[str, Any] = self._ask(container, {"op": "start"}, timeout)["state"]
                return answer
            except NotFound:  # its monitor gave up just now
                pass
        return self._through_spawner("start", container, timeout)

    def adopt(self, container: str) -> dict[str, Any]:
        """Give a running container whose monitor was lost a new one. Raises ``NotFound`` when it does not run."""
        if self.is_monitored(container):
            return self.state(container)
        return self._through_spawner("adopt", container, _START_TIMEOUT)

    def stop(
        self,
        container: str,
        signal: Optional[int] = None,
        timeout: Optional[float] = None,
        manual: bool = True,
        *,
        hooks: bool = True,
    ) -> dict[str, Any]:
        """Stop it: ``signal``, and SIGKILL after ``timeout`` seconds (negative: never); by default what run.json says.
        ``manual``: it stays stopped, whatever its restart policy. ``hooks`` false: the caller does what
        ``on_exit`` in run.json would. Returns the final state; nothing of the container is left by then."""
        state = self.state(container)
        if state["status"] in ("created", "exited"):
            return state
        wait = None if timeout is not None and timeout < 0 else (600.0 if timeout is None else timeout) + 60.0
        request = {"op": "stop", "signal": signal, "timeout": timeout, "manual": manual, "hooks": hooks}
        try:
            self._ask(container, request, wait)
        except (NotFound, Interrupted):
            if self.state(container)["status"] in ("running", "paused"):
                raise
        self._wait_unlocked(container)
        return self.state(container)

    def restart(self, container: str, signal: Optional[int] = None, timeout: Optional[float] = None) -> dict[str, Any]:
        self.stop(container, signal, timeout, manual=False)
        return self.start(container)

    def kill(self, container: str, signal: int = 9) -> dict[str, Any]:
        """Send a signal. Raises ``Conflict`` when it does not run."""
        self._require_running(container)
        state: dict[str, Any] = self._ask(container, {"op": "kill", "signal": signal}, 30.0)["state"]
        return state

    def pause(self, container: str) -> dict[str, Any]:
        self._require_running(container)
        state: dict[str, Any] = self._ask(container, {"op": "pause"}, 30.0)["state"]
        return state

    @contextmanager
    def standstill(self, container: str) -> Iterator[None]:
        """Paused meanwhile; should we be killed in it, the monitor lets the container go on."""
        with self._connect(container) as sock:
            self._converse(sock, {"op": "pause", "hold": True}, 30.0, container)
            try:
                yield
            finally:
                self.unpause(container)

    def unpause(self, container: str) -> dict[str, Any]:
        self._require_running(container)
        state: dict[str, Any] = self._ask(container, {"op": "unpause"}, 30.0)["state"]
        return state

    def update(self, container: str, changes: Mapping[str, Any]) -> None:
        """Change run.json (restart, healthcheck, stop_signal, stop_timeout, log, reserve ...), of a running container
        through its monitor, with immediate effect. Raises ``Conflict`` for a port that is taken."""
        deadline = time.monotonic() + _CHANGING
        while self.state(container)["status"] in ("running", "paused", "restarting"):
            try:
                self._ask(container, {"op": "update", "changes": dict(changes)}, 30.0)
                return
            except (NotFound, Interrupted):  # it ended meanwhile; or its monitor was killed, and the next one answers
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        path = self.paths.container(container) + "/run.json"
        import json

        with open(path, "rb") as stream:
            run = json.loads(stream.read())
        run.update(changes)
        statefile.write_json(path, run, sync=True)

    def share_ports(self, old: str, new: str) -> None:
        """Let ``new`` hold the sockets that reserve published ports for ``old``, too: the ports are never free, not for
        an instant, when ``old`` ends. Raises ``UsageError`` when a monitor of an earlier version knows nothing of it.
        """
        held = self.reservations(old)
        try:
            self.hold(new, held)
        finally:
            for fd in [fd for *_key, fds in held for fd in fds]:
                os.close(fd)

    def reservations(self, container: str) -> list[tuple[str, int, str, list[int]]]:
        """``(host_ip, port, protocol, descriptors)`` of the sockets that reserve published ports; the descriptors are
        the caller's. Raises ``UsageError`` like ``share_ports``."""
        found: list[tuple[str, int, str, list[int]]] = []
        more = True
        while more:
            with self._connect(container) as sock:
                answer, fds = self._converse_fds(sock, {"op": "ports", "offset": len(found)}, container)
            for host_ip, port, protocol, count in answer["held"]:
                found.append((host_ip, port, protocol, fds[:count]))
                del fds[:count]
            more = bool(answer["more"])
        return found

    def hold(self, container: str, held: Sequence[tuple[str, int, str, Sequence[int]]]) -> None:
        """Let a container's monitor hold these, too, a few at a time."""
        for at in range(0, len(held), 4):
            part = held[at : at + 4]
            request = {"op": "hold", "held": [[*key, len(fds)] for *key, fds in part]}
            with self._connect(container) as sock:
                self._converse_fds(sock, request, container, tuple(fd for *_key, fds in part for fd in fds))

    def remount(
        self, container: str, add: Sequence[Mapping[str, Any]], remove: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """Mount and unmount inside a running container (see ``remount.change``). Raises ``Conflict`` when it does not
        run."""
        from ..kernel import pidfd as pidfds
        from ..kernel.syscalls import Kernel
        from . import remount

        state = self.state(container)
        fd = pidfds.open_pid(state["pid"], state["pid_start"]) if state["pid"] else None
        if fd is None:
            raise Conflict("Container %s is not running" % container[:12], step="remount", subject=container)
        try:
            remount.change(self.kernel or Kernel(), fd, add, remove, self._mapped(container, state["pid"]))
        finally:
            os.close(fd)

    def _mapped(self, container: str, pid: int) -> Any:
        """``userns.Mapped`` of a running container; its descriptor lives as long as this process or its reader."""
        from . import parent, userns

        config = parent.load_json(self.paths.container(container) + "/config.json")
        if not userns.wanted(config):
            return None
        fd = os.open("/proc/%d/ns/user" % pid, os.O_RDONLY | os.O_CLOEXEC)
        return userns.Mapped(fd, *userns.maps(config))

    def wait(self, container: str, condition: str = "exited", timeout: Optional[float] = None) -> dict[str, Any]:
        """Wait until it is "exited", "healthy" or "running". Returns the state.

        Raises ``UnhealthyError`` when it exits or turns unhealthy instead, ``TimedOut``.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        state = self.state(container)
        if state["status"] in ("created", "exited"):
            if condition == "exited":
                return state
            from ..errors import UnhealthyError

            raise UnhealthyError(
                "The container exited with code %d while it was waited for" % state["exit_code"],
                step="wait",
                details={"exit_code": state["exit_code"], "health": state["health"]},
            )
        try:
            reached: dict[str, Any] = self._ask(container, {"op": "wait", "condition": condition}, timeout)["state"]
            return reached
        except (NotFound, Interrupted):
            # It ended between the two looks; or its monitor was killed, then the connection brings a new one.
            return self.wait(container, condition, None if deadline is None else max(0.05, deadline - time.monotonic()))

    def delete(self, container: str) -> None:
        """Nothing of the container remains but its directory in the state: it is killed, its cgroup and run directory
        are removed. Idempotent. The caller releases its network."""
        with self.removing(container):
            pass

    @contextmanager
    def removing(self, container: str) -> Iterator[None]:
        """``delete``, and no monitor can start it before this is left: by then its directory should be gone. A start
        that a killed task had asked for may still be on its way."""
        lock = self._delete(container)
        try:
            yield
        finally:
            if lock >= 0:
                os.close(lock)

    def _delete(self, container: str) -> int:
        """See ``delete``. The held monitor lock; -1 without a directory."""
        state = self.state(container)
        if state["status"] in ("running", "paused", "restarting"):
            try:
                self.stop(container, 9, 0.0, hooks=False)
            except (WharfError, OSError):  # no monitor to be had: the cgroup kills it all the same
                pass
        from ..kernel.cgroups import Cgroup, Layout
        from . import cleanup

        path = "%s/%s" % (self.paths.cgroup, container)
        try:
            with open(self.paths.container(container) + "/run.json", "rb") as stream:
                import json

                path = json.loads(stream.read())["cgroup"] or path
        except (FileNotFoundError, ValueError, TypeError, KeyError):  # damaged: then where it usually is
            pass
        cgroup = Cgroup(Layout.detect(), path)
        try:
            lock = self._lock_monitor(container, 2.0)
        except TimedOut:  # a monitor that does not do as it is told: it ends with what it watches
            cgroup.kill_all()
            lock = self._lock_monitor(container)
        try:
            cleanup.tidy(self.paths, cgroup, container)
        except BaseException:
            if lock >= 0:
                os.close(lock)
            raise
        return lock

    def forget_layers(self, layers: list[str]) -> None:
        """Before layer directories are removed: let the spawner, if there is one, unmount them."""
        from . import wire

        try:
            with wire.connect(self.paths.spawner_socket, 5.0) as sock:
                wire.send_line(sock, {"op": "forget", "layers": layers})
                wire.LineReader(sock).wait()
        except OSError:  # no spawner, no mounts
            pass

    # -- exec ------------------------------------------------------------------------------------------------------

    def exec(
        self,
        container: str,
        spec: ExecSpec,
        stdin: bytes = b"",
        *,
        detach: bool = False,
        max_output: Optional[int] = None,
        on_output: Optional[Callable[[str, bytes], None]] = None,
    ) -> ExecResult:
        """Run a program in the container and wait for it. With ``detach`` return as soon as it runs (exit_code 0).
        ``max_output``: keep at most so many bytes of each stream. Raises ``StartError`` (126, 127), ``Conflict``."""
        from . import exec_client

        self._require_running(container)
        sock = self._connect(container)
        try:
            return exec_client.run(sock, spec, stdin, detach=detach, max_output=max_output, on_output=on_output)
        finally:
            sock.close()

    # -- talking ---------------------------------------------------------------------------------------------------

    def _require_running(self, container: str) -> None:
        state = self.state(container)
        if state["status"] not in ("running", "paused"):
            raise Conflict("Container %s is not running" % container[:12], step="runtime", subject=container)

    def _connect(self, container: str) -> socket.socket:
        """To the monitor; a running container without one gets one. Raises ``NotFound``."""
        from . import wire

        path = self.paths.container_run(container) + "/monitor.sock"
        for attempt in range(2):
            try:
                return wire.connect(path, _CONNECT_TIMEOUT)
            except _GONE:
                if attempt:
                    break
                self.adopt(container)
        raise NotFound("Container %s has no monitor" % container[:12], step="connect_monitor", subject=container)

    def _ask(self, container: str, request: dict[str, Any], timeout: Optional[float]) -> dict[str, Any]:
        with self._connect(container) as sock:
            return self._converse(sock, request, timeout, container)

    def _converse(
        self, sock: socket.socket, request: dict[str, Any], timeout: Optional[float], container: str
    ) -> dict[str, Any]:
        return self._converse_fds(sock, request, container, timeout=timeout)[0]

    def _converse_fds(
        self,
        sock: socket.socket,
        request: dict[str, Any],
        container: str,
        fds: tuple[int, ...] = (),
        timeout: Optional[float] = 30.0,
    ) -> tuple[dict[str, Any], list[int]]:
        """The answer and the descriptors that came with it."""
        from . import wire

        sock.settimeout(timeout)
        try:
            wire.send_line(sock, request, fds)
            reader = wire.LineReader(sock)
            answer = reader.wait()
        except TimeoutError:
            raise TimedOut(
                "Container %s: %s took longer than %g seconds" % (container[:12], request["op"], timeout or 0),
                step=str(request["op"]),
                subject=container,
            ) from None
        except (ConnectionError, BrokenPipeError):
            answer = None
        if answer is None:
            raise Interrupted(
                "The monitor of container %s died during %s" % (container[:12], request["op"]),
                step=str(request["op"]),
                subject=container,
                hint="Run the task again: what was left is repaired then.",
            )
        if "error" in answer:
            raise _named(wire.error_from_dict(answer["error"]), container)
        return answer, reader.fds

    def _through_spawner(self, operation: str, container: str, timeout: float) -> dict[str, Any]:
        from . import spawning, wire

        for attempt in range(3):
            with spawning.connect(self.paths) as sock:
                try:
                    request = {"op": operation, "id": container, "engine": wire.ENGINE}
                    answer = self._converse(sock, request, timeout, container)
                except Interrupted:
                    # The spawner ended just then, or its child was killed: whatever it left, the next one tidies.
                    state = self.state(container)
                    if state["status"] in ("running", "paused") and self.is_monitored(container):
                        return state
                    if attempt == 2:
                        raise
                    continue
                return dict(answer["state"])
        raise Interrupted("The spawner ended during the request", step=operation, subject=container)

    def _wait_unlocked(self, container: str, timeout: float = 30.0) -> None:
        """Until the container's monitor has let go of everything and ended."""
        lock = self._lock_monitor(container, timeout)
        if lock >= 0:
            os.close(lock)

    def _lock_monitor(self, container: str, timeout: float = 30.0) -> int:
        """The lock that a monitor holds as long as it lives, as a descriptor; -1 when the container has no directory.
        Raises ``TimedOut``."""
        import fcntl

        path = self.paths.container(container) + "/monitor.lock"
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            return -1
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return fd
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    os.close(fd)
                    raise TimedOut(
                        "The monitor of container %s does not end" % container[:12], step="stop", subject=container
                    ) from None
                time.sleep(0.002)


def _named(error: WharfError, container: str) -> WharfError:
    error.subject = error.subject or container
    return error
