# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The monitor's control socket: one JSON request a connection, one or more JSON answers.

Requests (``op``): ``state``; ``stop {signal, timeout, manual, hooks}``; ``kill {signal}``; ``start``;
``pause {hold}`` (with ``hold`` as long as the connection), ``unpause``; ``update {changes}``;
``wait {condition: exited | healthy | running}``; ``exec {argv, env, user, groups,
cwd, tty, timeout, privileged}`` with three descriptors for 0, 1, 2 (none: /dev/null), answered by ``{started, pid,
exec_id}`` (with a tty the master's descriptor comes along) and at its end ``{exit_code, timed_out}``;
``exec_signal {pid, signal}``;
``ports {offset}``: a few of the sockets that reserve published ports, ``{held: [[host_ip, port, protocol, how many
descriptors]], more}``; ``hold {held}``: keep such sockets, which come along.
Answers: ``{state}``, ``{ok}``, or ``{error}`` as in ``wire``.
"""

from __future__ import annotations

import os
import signal
import socket
from typing import TYPE_CHECKING, Any, Optional

from ..errors import UnhealthyError, UsageError, WharfError
from . import joined, statefile, wire
from .execs import TIMED_OUT
from .execspec import ExecSpec
from .tell import tell

if TYPE_CHECKING:
    from .monitor import Monitor

_MAX_CLIENTS = 256
_PORTS = 4  # ports in one answer, of two sockets at most: a reader takes eight descriptors at once


class _Client:
    __slots__ = ("condition", "holds", "reader", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.reader = wire.LineReader(sock)
        self.condition = ""  # what it waits for
        self.holds = False  # the container stands still as long as this connection


class Control:
    def __init__(self, monitor: Monitor, listener: Optional[socket.socket] = None) -> None:
        self.monitor = monitor
        self._clients: dict[int, _Client] = {}
        self.listener = listener or wire.listen(monitor.run_directory + "/monitor.sock")
        self.listener.setblocking(False)
        monitor.loop.add(self.listener.fileno(), lambda _events: self._accept())

    # -- connections -----------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        try:
            sock, _address = self.listener.accept()
        except OSError:  # the client is gone already
            return
        if not wire.peer_is_owner(sock) or len(self._clients) >= _MAX_CLIENTS:
            sock.close()
            return
        sock.setblocking(False)
        client = _Client(sock)
        self._clients[sock.fileno()] = client
        self.monitor.loop.add(sock.fileno(), lambda _events: self._readable(client))

    def _readable(self, client: _Client) -> None:
        try:
            client.reader.feed()
            message = client.reader.next()
        except (OSError, ValueError):
            self._drop(client)
            return
        if message is not None:
            fds, client.reader.fds = client.reader.fds, []
            try:
                self._handle(client, message, fds)
            finally:
                for fd in fds:
                    os.close(fd)
        elif client.reader.closed:
            self._drop(client)

    def _drop(self, client: _Client) -> None:
        if self._clients.pop(client.sock.fileno(), None) is not None:
            self.monitor.loop.remove(client.sock.fileno())
            for fd in client.reader.fds:
                os.close(fd)
            client.sock.close()
            if client.holds and self.monitor.running and self.monitor.state.get("held"):
                self.monitor.pause(False)

    def _answer(self, client: _Client, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        """Never blocks: a client that does not read its small answers loses its connection."""
        if client.sock.fileno() < 0:
            return
        try:
            wire.send_line(client.sock, message, fds)
        except OSError:
            self._drop(client)

    def changed(self) -> None:
        """The state has changed: answer whoever waits for that."""
        for client in list(self._clients.values()):
            if client.condition:
                self._check(client)

    def close(self) -> None:
        """The container has ended for good: everybody gets the final state."""
        self.monitor.loop.remove(self.listener.fileno())
        self.listener.close()
        for client in list(self._clients.values()):
            if client.condition:
                self._check(client, final=True)
            self._drop(client)

    # -- requests --------------------------------------------------------------------------------------------------

    def _handle(self, client: _Client, message: dict[str, Any], fds: list[int]) -> None:
        operation = getattr(self, "_op_" + str(message.get("op")), None)
        try:
            if operation is None:
                raise UsageError("The monitor knows no operation %r" % message.get("op"), step="control")
            operation(client, message, fds)
        except WharfError as error:
            self._answer(client, {"error": wire.error_to_dict(error)})
        except (OSError, KeyError, TypeError, ValueError) as error:
            self._answer(client, {"error": wire.error_to_dict(error, "control")})

    def _op_state(self, client: _Client, _message: dict[str, Any], _fds: list[int]) -> None:
        if statefile.read(self.monitor.directory + "/state.json") is None:
            self.monitor.save()
        self._answer(client, {"state": self.monitor.state})

    def _op_stop(self, client: _Client, message: dict[str, Any], _fds: list[int]) -> None:
        run = self.monitor.run_config
        number = message.get("signal") or run.get("stop_signal") or signal.SIGTERM
        timeout = message.get("timeout")
        if timeout is None:
            timeout = run.get("stop_timeout")
        client.condition = "exited"
        self.monitor.hooks = bool(message.get("hooks", True))
        self.monitor.stop(int(number), 10.0 if timeout is None else float(timeout), bool(message.get("manual", True)))

    def _op_kill(self, client: _Client, message: dict[str, Any], _fds: list[int]) -> None:
        self.monitor.kill(int(message["signal"]))
        self._answer(client, {"state": self.monitor.state})

    def _op_start(self, client: _Client, _message: dict[str, Any], _fds: list[int]) -> None:
        self.monitor.start_now()
        self._answer(client, {"state": self.monitor.state})

    def _op_pause(self, client: _Client, message: dict[str, Any], _fds: list[int]) -> None:
        client.holds = bool(message.get("hold"))
        self.monitor.pause(True, held=client.holds)
        self._answer(client, {"state": self.monitor.state})

    def _op_unpause(self, client: _Client, _message: dict[str, Any], _fds: list[int]) -> None:
        self.monitor.pause(False)
        self._answer(client, {"state": self.monitor.state})

    def _op_update(self, client: _Client, message: dict[str, Any], _fds: list[int]) -> None:
        self.monitor.update(message["changes"])
        self._answer(client, {"ok": True})

    def _op_ports(self, client: _Client, message: dict[str, Any], _fds: list[int]) -> None:
        offset, held = int(message["offset"]), self.monitor.ports.held()
        part = held[offset : offset + _PORTS]
        answer = {"held": [[*key, len(fds)] for *key, fds in part], "more": len(held) > offset + _PORTS}
        self._answer(client, answer, tuple(fd for *_key, fds in part for fd in fds))

    def _op_hold(self, client: _Client, message: dict[str, Any], fds: list[int]) -> None:
        rest, held = [os.dup(fd) for fd in fds], []
        for host_ip, port, protocol, count in message["held"]:
            held.append((str(host_ip), int(port), str(protocol), rest[:count]))
            del rest[:count]
        self.monitor.ports.take_over(held)
        self._answer(client, {"ok": True})

    def _op_wait(self, client: _Client, message: dict[str, Any], _fds: list[int]) -> None:
        if message["condition"] not in ("exited", "healthy", "running"):
            raise UsageError("Nobody can wait for %r" % message["condition"], step="control")
        client.condition = message["condition"]
        self._check(client)

    def _check(self, client: _Client, final: bool = False) -> None:
        state = self.monitor.state
        health = (state.get("health") or {}).get("status")
        reached = {
            "exited": final,
            "running": state["status"] == "running",
            "healthy": state["status"] == "running" and health in ("healthy", None),
        }[client.condition]
        if reached:
            client.condition = ""
            self._answer(client, {"state": state})
        elif client.condition != "exited" and (final or health == "unhealthy"):
            words = "exited with code %d" % state["exit_code"] if final else "is unhealthy"
            error = UnhealthyError(
                "The container %s while it was waited for" % words,
                step="wait",
                details={"exit_code": state["exit_code"], "health": state.get("health")},
            )
            client.condition = ""
            self._answer(client, {"error": wire.error_to_dict(error)})

    def _op_exec(self, client: _Client, message: dict[str, Any], fds: list[int]) -> None:
        spec = ExecSpec(
            argv=list(message["argv"]),
            env=list(message.get("env") or ()),
            user=message.get("user"),
            groups=list(message.get("groups") or ()),
            cwd=message.get("cwd"),
            tty=bool(message.get("tty")),
            timeout=message.get("timeout"),
            privileged=bool(message.get("privileged")),
            id=os.urandom(32).hex(),
        )
        if not spec.argv:
            raise UsageError("No command to execute", step="exec", path="command")
        stdio = (fds[0], fds[1], fds[2]) if len(fds) == 3 else (-1, -1, -1)
        exec_id = spec.id

        def started(error: Optional[WharfError], pid: int, terminal: int) -> None:
            if error is not None:
                self._answer(client, {"error": wire.error_to_dict(error)})
            else:
                tell(self.monitor, "exec_start", execID=exec_id)
                self._answer(
                    client, {"started": True, "pid": pid, "exec_id": exec_id}, (terminal,) if terminal >= 0 else ()
                )

        def ended(code: int) -> None:
            timed_out = code == TIMED_OUT
            tell(self.monitor, "exec_die", execID=exec_id, exitCode=137 if timed_out else code)
            self._answer(client, {"exit_code": 137 if timed_out else code, "timed_out": timed_out})

        target = self.monitor.target()
        if spec.privileged:
            joined.mark(self.monitor.directory)
        tell(self.monitor, "exec_create", execID=exec_id)  # not the command: it may hold a password
        self.monitor.execs.start(target, spec, stdio, started, ended)

    def _op_exec_signal(self, client: _Client, message: dict[str, Any], _fds: list[int]) -> None:
        sent = self.monitor.execs.signal(int(message["pid"]), int(message["signal"]))
        self._answer(client, {"ok": sent})
