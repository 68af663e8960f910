# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The task's side of an exec: pipes of its own go to the monitor as descriptors, so that output never passes through
the monitor and a chatty program can only hold up itself."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Optional

from ..errors import Interrupted
from . import wire

if TYPE_CHECKING:
    from .client import ExecResult
    from .exec import ExecSpec

_READ = 65536

OnOutput = Callable[[str, bytes], None]


class _Session:
    def __init__(self, sock: socket.socket, stdin: bytes, limit: Optional[int], on_output: Optional[OnOutput]) -> None:
        self.sock = sock
        self.reader = wire.LineReader(sock)
        self.poll = select.poll()
        self.limit = limit
        self.on_output = on_output
        self.pending = memoryview(stdin)
        self.stdin = -1
        self.streams: dict[int, str] = {}
        self.output: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
        self.sizes = {"stdout": 0, "stderr": 0}
        self.pid = 0
        self.exec_id = ""
        self.terminal = -1
        self.exit: Optional[dict[str, Any]] = None

    def close(self) -> None:
        for fd in {*self.streams, *([self.stdin] if self.stdin >= 0 else [])}:
            os.close(fd)
        self.streams.clear()
        self.stdin = -1

    def send(self, request: dict[str, Any], tty: bool) -> None:
        if tty:
            wire.send_line(self.sock, request)
            return
        theirs = []
        if self.pending:
            read, self.stdin = os.pipe()
            theirs.append(read)
            os.set_blocking(self.stdin, False)
            self.poll.register(self.stdin, select.POLLOUT)
        else:
            theirs.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
        for name in ("stdout", "stderr"):
            read, write = os.pipe()
            theirs.append(write)
            self._listen(read, name)
        try:
            wire.send_line(self.sock, request, tuple(theirs))
        finally:
            for fd in theirs:
                os.close(fd)

    def _listen(self, fd: int, name: str) -> None:
        os.set_blocking(fd, False)
        self.streams[fd] = name
        self.poll.register(fd, select.POLLIN)

    def run(self, detach: bool) -> None:
        self.poll.register(self.sock, select.POLLIN)
        while self.exit is None:
            for fd, _events in self.poll.poll():
                if fd == self.sock.fileno():
                    self._message()
                    if detach and self.pid:
                        return
                elif fd == self.stdin:
                    self._feed()
                else:
                    self._read(fd)
        self._drain()

    def _message(self) -> None:
        try:
            self.reader.feed()
        except ConnectionError:
            self.reader.closed = True
        while True:
            message = self.reader.next()
            if message is None:
                break
            if "error" in message:
                raise wire.error_from_dict(message["error"])
            if "started" in message:
                self.pid = message["pid"]
                self.exec_id = message.get("exec_id", "")
                for fd in self.reader.fds:
                    self._attach(fd)
                self.reader.fds = []
            elif "exit_code" in message:
                self.exit = message
        if self.reader.closed and self.exit is None:
            raise Interrupted("The container's monitor died during the exec", step="exec")

    def _attach(self, terminal: int) -> None:
        self.terminal = terminal
        self._listen(terminal, "stdout")
        if self.pending:
            self.poll.modify(terminal, select.POLLIN | select.POLLOUT)

    def _feed(self) -> None:
        try:
            self.pending = self.pending[os.write(self.stdin, self.pending[:_READ]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:  # the program does not want it
            self.pending = self.pending[:0]
        if not self.pending:
            self.poll.unregister(self.stdin)
            os.close(self.stdin)
            self.stdin = -1

    def _read(self, fd: int) -> bool:
        """False when there is nothing (more) for now."""
        if fd == self.terminal and self.pending:
            self._type(fd)
        try:
            data = os.read(fd, _READ)
        except BlockingIOError:
            return False
        except OSError:  # EIO: the terminal's other side is closed
            data = b""
        if not data:
            self.poll.unregister(fd)
            self.streams.pop(fd)
            os.close(fd)
            return False
        name = self.streams[fd]
        if self.on_output is not None:
            self.on_output(name, data)
        room = len(data) if self.limit is None else max(0, self.limit - self.sizes[name])
        self.output[name].append(data[:room])
        self.sizes[name] += len(data)
        return True

    def _type(self, terminal: int) -> None:
        try:
            self.pending = self.pending[os.write(terminal, self.pending[:1024]) :]
        except OSError:  # EAGAIN: its input queue is full; EIO: nobody reads
            return
        if not self.pending:
            self.poll.modify(terminal, select.POLLIN)

    def _drain(self) -> None:
        for fd in list(self.streams):
            while fd in self.streams and self._read(fd):
                pass


def run(
    sock: socket.socket,
    spec: ExecSpec,
    stdin: bytes,
    *,
    detach: bool,
    max_output: Optional[int],
    on_output: Optional[OnOutput],
) -> ExecResult:
    from .client import ExecResult

    session = _Session(sock, stdin, max_output, on_output)
    sock.settimeout(None)
    request = {"op": "exec", **spec._asdict()}
    try:
        try:
            if detach:
                wire.send_line(sock, request)
            else:
                session.send(request, spec.tty)
        except ConnectionError:  # killed between the connection and the request
            raise Interrupted("The container's monitor died before the exec", step="exec") from None
        session.run(detach)
        end = session.exit or {"exit_code": 0, "timed_out": False}
        return ExecResult(
            end["exit_code"],
            b"".join(session.output["stdout"]),
            b"".join(session.output["stderr"]),
            session.pid,
            bool(end.get("timed_out")),
            session.exec_id,
        )
    finally:
        session.close()
