# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Calls over the system's D-Bus with strings as arguments and a string, or nothing, as the answer.

That is all the engine asks of other services, and a host need not have a D-Bus library for Python. The wire is the
D-Bus specification's (dbus.freedesktop.org): a line of authentication, then messages with a header of typed fields,
every value aligned to its size.
"""

from __future__ import annotations

import os
import socket
import struct
from types import TracebackType
from typing import Optional

from ..tuples import NamedTuple

SYSTEM_BUS = "/run/dbus/system_bus_socket"
_CALL, _RETURN, _ERROR = 1, 2, 3
_PATH, _INTERFACE, _MEMBER, _ERROR_NAME, _REPLY_SERIAL, _DESTINATION, _SIGNATURE = 1, 2, 3, 4, 5, 6, 8
_NO_AUTO_START = 2  # a flag: who does not run is not started because we ask
_LONGEST = 1 << 20  # bytes of a message; the specification allows 128 MiB, and nobody we ask needs them


class Refused(Exception):
    """The other side answered with an error: its name, and what it says."""

    def __init__(self, name: str, words: str) -> None:
        super().__init__("%s: %s" % (name, words) if words else name)
        self.name = name


class Method(NamedTuple):
    """Which method of whom."""

    destination: str
    path: str
    interface: str
    member: str


_HELLO = Method("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello")


class Bus:
    """A connection; usable in ``with``. Everything raises ``OSError`` when the bus is not there, ends, or does not
    answer within ``timeout`` seconds."""

    def __init__(self, path: str = SYSTEM_BUS, *, timeout: float = 60.0) -> None:
        self._serial = 0
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._sock.settimeout(timeout)
            self._sock.connect(path)
            self._sock.sendall(b"\0AUTH EXTERNAL %s\r\n" % str(os.geteuid()).encode().hex().encode())
            if not self._line().startswith(b"OK "):
                raise OSError("the bus at %s does not let us in" % path)
            self._sock.sendall(b"BEGIN\r\n")
            self.call(_HELLO)
        except BaseException:
            self._sock.close()
            raise

    def __enter__(self) -> Bus:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], value: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._sock.close()

    def call(self, method: Method, *arguments: str) -> str:
        """The first value of the answer if it is a string, "" otherwise. ``Refused`` when it is an error."""
        self._serial += 1
        self._sock.sendall(message(method, self._serial, arguments))
        while True:
            kind, fields, body = self._read()
            if kind in (_RETURN, _ERROR) and fields.get(_REPLY_SERIAL) == str(self._serial):
                text = _string(body, 0)[0] if fields.get(_SIGNATURE, "")[:1] in ("s", "o") else ""
                if kind == _ERROR:
                    raise Refused(fields.get(_ERROR_NAME, "unknown error"), text)
                return text

    def _line(self) -> bytes:
        line = b""
        while not line.endswith(b"\r\n"):
            line += self._exactly(1)
            if len(line) > 1024:
                raise OSError("the bus does not speak D-Bus")
        return line

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self._sock.recv(size - len(data))
            if not more:
                raise OSError("the bus closed the connection")
            data += more
        return data

    def _read(self) -> tuple[int, dict[int, str], bytes]:
        start = self._exactly(16)
        order = "<" if start[:1] == b"l" else ">"
        size, _serial, fields = struct.unpack_from(order + "III", start, 4)
        if max(size, fields) > _LONGEST:
            raise OSError("the bus sent a message of %d bytes" % max(size, fields))
        header = self._exactly((fields + 7) & ~7)[:fields]
        body = self._exactly(size)
        if order == ">":  # nobody on this host has the other order
            raise OSError("the bus sent a message in another byte order")
        return start[1], _fields(header), body


def message(method: Method, serial: int, arguments: tuple[str, ...] = ()) -> bytes:
    """A method call, in this host's words (little endian)."""
    body = b""
    for text in arguments:
        body = _aligned(body, 4) + _text(text)
    fields = b""
    for code, kind, text in (
        (_PATH, "o", method.path),
        (_INTERFACE, "s", method.interface),
        (_MEMBER, "s", method.member),
        (_DESTINATION, "s", method.destination),
    ):
        fields = _aligned(fields, 8) + bytes([code]) + _signature(kind) + _text(text)
    if arguments:
        fields = _aligned(fields, 8) + bytes([_SIGNATURE]) + _signature("g") + _signature("s" * len(arguments))
    start = struct.pack("<cBBBIII", b"l", _CALL, _NO_AUTO_START, 1, len(body), serial, len(fields))
    return _aligned(start + fields, 8) + body


def _aligned(data: bytes, size: int) -> bytes:
    return data + b"\0" * (-len(data) % size)


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<I", len(data)) + data + b"\0"


def _signature(text: str) -> bytes:
    return bytes([len(text)]) + text.encode() + b"\0"


def _string(data: bytes, at: int) -> tuple[str, int]:
    """A string at ``at``, which is aligned, and where it ends."""
    size = struct.unpack_from("<I", data, at)[0]
    return data[at + 4 : at + 4 + size].decode(errors="replace"), at + 5 + size


def _fields(data: bytes) -> dict[int, str]:
    """``{code: value}``; numbers as text. An unknown type ends it: what we need comes in types we know."""
    found, at = {}, 0
    while at + 4 <= len(data):
        code, size = data[at], data[at + 1]
        kind = data[at + 2 : at + 2 + size]
        at += 3 + size
        if kind in (b"s", b"o"):
            found[code], at = _string(data, at + (-at % 4))
        elif kind == b"u":
            at += -at % 4
            found[code] = str(struct.unpack_from("<I", data, at)[0])
            at += 4
        elif kind == b"g":
            found[code] = data[at + 1 : at + 1 + data[at]].decode(errors="replace")
            at += 2 + data[at]
        else:
            break
        at += -at % 8
    return found
