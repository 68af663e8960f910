# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""How the stages talk: JSON objects, one per message, errors included.

Between init and its parent a SOCK_SEQPACKET pair (the kernel keeps the message boundaries); on the control sockets
SOCK_STREAM with a newline after each object.
"""

from __future__ import annotations

import json
import os
import socket
import time
from array import array
from typing import Any, Optional

from .. import errors
from ..errors import WharfError

# Which copy of the engine we are: a spawner of another bundle gives way to one of ours.
ENGINE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

_FIELDS = ("msg", "step", "subject", "path", "errno", "hint", "details")
_MAX_PACKET = 65536
_MAX_LINE = 8 << 20


def error_to_dict(error: BaseException, step: str = "") -> dict[str, Any]:
    """Any exception as a JSON-able dict; ``step`` is what was going on, for those that do not know it themselves."""
    if isinstance(error, WharfError):
        fields = {name: getattr(error, name) for name in _FIELDS}
        fields["step"] = fields["step"] or step or None
        return {"class": type(error).__name__, **fields}
    if isinstance(error, OSError):
        subject = error.filename if isinstance(error.filename, (str, bytes)) else step
        words = error.strerror or str(error)
        return {
            "class": "KernelError",
            "msg": "%s: %s" % (os.fsdecode(subject) if subject else "system call", words),
            "step": step or None,
            "errno": error.errno,
        }
    return {
        "class": "WharfError",
        "msg": "Internal error: %s: %s" % (type(error).__name__, error),
        "step": step or None,
    }


def error_from_dict(fields: dict[str, Any]) -> WharfError:
    known = {name: fields[name] for name in _FIELDS[1:] if fields.get(name) is not None}
    kind = getattr(errors, str(fields.get("class")), WharfError)
    if not (isinstance(kind, type) and issubclass(kind, WharfError)):
        kind = WharfError
    return kind(str(fields.get("msg", "unknown error")), **known)


# -- packets (init and its parent) ---------------------------------------------------------------------------------


def send_packet(sock: socket.socket, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
    raw = json.dumps(message).encode()
    if len(raw) > _MAX_PACKET - 1024:
        raw = json.dumps({"error": {"class": "WharfError", "msg": raw[:4096].decode(errors="replace")}}).encode()
    control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))] if fds else []
    sock.sendmsg([raw], control)


def recv_packet(sock: socket.socket, max_fds: int = 1) -> tuple[Optional[dict[str, Any]], list[int]]:
    """The next message and the descriptors it carried; ``(None, [])`` when the peer is gone. Raises ``OSError``,
    ``TimeoutError`` by the socket's timeout."""
    raw, control = _receive(sock, _MAX_PACKET, max_fds)
    fds = _descriptors(control)
    return (json.loads(raw) if raw else None), fds


def _receive(sock: socket.socket, size: int, max_fds: int) -> tuple[bytes, list[tuple[int, int, bytes]]]:
    try:
        raw, control, _flags, _address = sock.recvmsg(size, socket.CMSG_SPACE(4 * max_fds), socket.MSG_CMSG_CLOEXEC)
    except socket.timeout as error:
        raise TimeoutError(110, "timed out") from error
    return raw, control


def _descriptors(control: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array("i")
    for level, kind, data in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return list(fds)


# -- lines (control sockets) ---------------------------------------------------------------------------------------


def connect(path: str, timeout: Optional[float] = None) -> socket.socket:
    """A stream connection to a path socket. The path may exceed sun_path's 108 bytes: its directory is entered through
    a descriptor. Raises ``OSError``."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.settimeout(timeout)
        if len(os.fsencode(path)) < 108:
            _connect(sock, path, timeout)
            return sock
        directory, name = os.path.split(path)
        fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _connect(sock, "/proc/self/fd/%d/%s" % (fd, name), timeout)
        finally:
            os.close(fd)
        return sock
    except BaseException:
        sock.close()
        raise


def _connect(sock: socket.socket, address: str, timeout: Optional[float]) -> None:
    """A full backlog is EAGAIN at once for a socket with a timeout, not a wait: many tasks may come together."""
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        try:
            sock.connect(address)
            return
        except BlockingIOError:
            if deadline is not None and time.monotonic() >= deadline:
                raise
            time.sleep(0.005)


def listen(path: str) -> socket.socket:
    """A listening path socket, 0600, replacing whatever was at ``path`` (the caller holds the lock that makes it ours).
    Never an abstract address: those are reachable from containers in the host's network (CVE-2020-15257)."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    directory, name = os.path.split(path)
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    mask = os.umask(0o177)
    try:
        sock.bind(path if len(os.fsencode(path)) < 108 else "/proc/self/fd/%d/%s" % (fd, name))
        sock.listen(256)
    except BaseException:
        sock.close()
        raise
    finally:
        os.umask(mask)
        os.close(fd)
    return sock


def peer_is_owner(sock: socket.socket) -> bool:
    """SO_PEERCRED: only root, or whoever runs the engine, may command it."""
    _pid, uid, _gid = array("i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return uid in (0, os.geteuid())


def send_line(sock: socket.socket, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
    raw = json.dumps(message).encode() + b"\n"
    if fds:
        sent = sock.sendmsg([raw], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))])
        raw = raw[sent:]
    if raw:
        sock.sendall(raw)


class LineReader:
    """Collects one connection's messages and descriptors. ``feed`` reads once; works with blocking and non-blocking
    sockets."""

    __slots__ = ("_buffer", "closed", "fds", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.fds: list[int] = []
        self.closed = False
        self._buffer = b""

    def feed(self) -> None:
        raw, control = _receive(self.sock, 65536, 8)
        self.fds += _descriptors(control)
        if not raw:
            self.closed = True
        self._buffer += raw
        if len(self._buffer) > _MAX_LINE:
            raise OSError(90, "message too long")  # EMSGSIZE

    def next(self) -> Optional[dict[str, Any]]:
        """The next complete message; None when there is none yet. Raises ``ValueError`` for what is no JSON object."""
        line, newline, rest = self._buffer.partition(b"\n")
        if not newline:
            return None
        self._buffer = rest
        message = json.loads(line)
        if not isinstance(message, dict):
            raise ValueError("no JSON object")
        return message

    def wait(self) -> Optional[dict[str, Any]]:
        """Block for the next message; None when the peer closed. Raises ``TimeoutError`` by the socket's timeout."""
        while True:
            message = self.next()
            if message is not None or self.closed:
                return message
            self.feed()
