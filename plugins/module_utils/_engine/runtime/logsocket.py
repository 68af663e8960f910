# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Logs that somebody else keeps: the drivers journald and syslog. Imported only where a container asks for one.

One message a line. ``put`` is as in ``logfile.LogFile``, but takes one line at a time, so that a monitor killed in
mid-stream has at most one line sent twice: a receiver cannot be asked what it has got.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from array import array
from collections.abc import Mapping
from typing import Any, Optional

from .logfile import LAST_PART

JOURNAL = "/run/systemd/journal/socket"
LOCAL_SYSLOG = ("/dev/log", "/var/run/syslog", "/var/run/log")
_CONNECT_TIMEOUT = 5.0
_INFO, _ERROR = 6, 3
FACILITIES = {
    "kern": 0, "user": 1, "mail": 2, "daemon": 3, "auth": 4, "syslog": 5, "lpr": 6, "news": 7, "uucp": 8, "cron": 9,
    "authpriv": 10, "ftp": 11, "local0": 16, "local1": 17, "local2": 18, "local3": 19, "local4": 20, "local5": 21,
    "local6": 22, "local7": 23,
}  # fmt: skip
FORMATS = ("", "rfc3164", "rfc5424", "rfc5424micro")


class SocketLog:
    """``ino`` and ``size`` have no meaning here; ``waits`` is polled for ``POLLOUT``."""

    ino = size = 0
    events = select.POLLOUT  # what to poll "waits" for
    bulk = False

    def __init__(self) -> None:
        self._socket: Optional[socket.socket] = None

    @property
    def waits(self) -> Optional[int]:
        return self._socket.fileno() if self._socket else None

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def sync(self) -> None:
        """The receiver's affair."""

    def hurry(self) -> None:
        """Nothing goes on beside."""

    def reap(self) -> None:
        """There are no children."""

    def flush(self) -> None:
        """What ``put`` has taken is with the receiver. Raises ``BlockingIOError`` while it does not take it."""

    def put(self, stream: int, data: bytes, stamp: int, part: int = 0, ident: str = "", ordinal: int = 0) -> int:
        """``data``: one line. ``ident``, ``ordinal``: of the long line that it is a part of. Raises ``OSError``."""
        self._send(stream, data[:-1] if data.endswith(b"\n") else data, stamp, part, ident, ordinal)
        return len(data)

    def _send(self, stream: int, line: bytes, stamp: int, part: int, ident: str, ordinal: int) -> None:
        raise NotImplementedError


class Journal(SocketLog):
    """systemd-journald's own protocol: ``NAME=value\\n``, or ``NAME\\n<u64 length>value\\n`` for a value of more
    lines; a message too large for a datagram goes as a sealed memory file."""

    def __init__(self, log: Mapping[str, Any]) -> None:
        super().__init__()
        self._address = log.get("address") or JOURNAL
        fields = list((log.get("fields") or {}).items())
        self._fixed = b"".join(_field(name, str(value).encode("utf-8", "surrogateescape")) for name, value in fields)
        self._connect()

    def _connect(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            made.setblocking(False)
            made.connect(self._address)
        except OSError:
            made.close()
            raise
        self._socket = made
        return made

    def _send(self, stream: int, line: bytes, stamp: int, part: int, ident: str, ordinal: int) -> None:
        said = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(stamp // 1_000_000_000))
        raw = b"%sPRIORITY=%d\nSYSLOG_TIMESTAMP=%s.%09dZ\n" % (
            self._fixed, _INFO if stream == 1 else _ERROR, said.encode(), stamp % 1_000_000_000,
        )  # fmt: skip
        if part:
            last = part == LAST_PART
            raw += b"CONTAINER_PARTIAL_ID=%s\nCONTAINER_PARTIAL_ORDINAL=%d\n" % (ident.encode(), ordinal)
            raw += b"CONTAINER_PARTIAL_LAST=%s\n" % (b"true" if last else b"false")
            raw += b"" if last else b"CONTAINER_PARTIAL_MESSAGE=true\n"
        raw += _field("MESSAGE", line)
        sock = self._socket or self._connect()
        try:
            sock.send(raw)
        except OSError as error:
            if error.errno in (errno.EMSGSIZE, errno.ENOBUFS):
                _send_file(sock, raw)
                return
            if error.errno in (errno.ECONNREFUSED, errno.ENOTCONN, errno.ECONNRESET):
                self.close()  # journald was restarted and has another socket by the same name now
                self._connect().send(raw)
                return
            raise


def _field(name: str, value: bytes) -> bytes:
    if b"\n" in value:
        return b"%s\n%s%s\n" % (name.encode(), len(value).to_bytes(8, "little"), value)
    return b"%s=%s\n" % (name.encode(), value)


def _send_file(sock: socket.socket, raw: bytes) -> None:
    """journald takes a descriptor instead; sealed, or it would have to fear that we change what it reads."""
    import fcntl

    fd = os.memfd_create("wharf-log", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(raw)
        while view:
            view = view[os.write(fd, view) :]
        every_seal = 0x0F  # F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE
        fcntl.fcntl(fd, 1033, every_seal)  # F_ADD_SEALS
        sock.sendmsg([], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [fd]))])
    finally:
        os.close(fd)


class Syslog(SocketLog):
    """``address``: "" (the host's own), ``unix://`` (stream), ``unixgram://``, ``udp://`` or ``tcp://HOST[:PORT]``.

    Messages in the formats Docker sends: as the host's own daemon expects them, RFC 3164, RFC 5424. On a stream each
    ends in a newline.
    """

    def __init__(self, log: Mapping[str, Any]) -> None:
        super().__init__()
        self._address: str = log.get("address") or ""
        self._format: str = log.get("format") or ""
        facility = log.get("facility", "daemon")
        self._facility: int = FACILITIES[facility] if isinstance(facility, str) else facility
        self._tag = str(log.get("tag") or "").encode("utf-8", "replace")
        self._host = os.uname().nodename.encode() or b"-"
        self._rest = b""  # of a message that the stream has taken half of
        self._stream = False
        self._connect()

    def _connect(self) -> socket.socket:
        if not self._address:
            return self._connect_local()
        scheme, _colon, rest = self._address.partition("://")
        if scheme in ("unix", "unixgram"):
            kind = socket.SOCK_STREAM if scheme == "unix" else socket.SOCK_DGRAM
            return self._open(socket.AF_UNIX, kind, rest)
        host, port = split_address(rest)
        kind = socket.SOCK_STREAM if scheme == "tcp" else socket.SOCK_DGRAM
        failure: Optional[OSError] = None
        # As bytes: a name as str would bring the whole of IDNA into the monitor.
        for family, _kind, _protocol, _name, place in socket.getaddrinfo(host.encode("ascii"), port, type=kind):
            try:
                return self._open(family, kind, place)
            except OSError as error:
                failure = error
        raise failure or OSError(errno.EADDRNOTAVAIL, "the name has no address", host)

    def _connect_local(self) -> socket.socket:
        failure: Optional[OSError] = None
        for path in LOCAL_SYSLOG:
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                try:
                    return self._open(socket.AF_UNIX, kind, path)
                except OSError as error:
                    failure = failure or error
        raise failure or OSError(errno.ENOENT, "there is no /dev/log")

    def _open(self, family: int, kind: int, place: Any) -> socket.socket:
        made = socket.socket(family, kind)
        try:
            made.settimeout(_CONNECT_TIMEOUT)
            made.connect(place)
            made.setblocking(False)
        except OSError:
            made.close()
            raise
        self._socket, self._stream, self._rest = made, kind == socket.SOCK_STREAM, b""
        return made

    def flush(self) -> None:
        if not self._rest or self._socket is None:
            return
        try:
            self._rest = self._rest[self._socket.send(self._rest) :]
        except BlockingIOError:
            pass
        except OSError:
            self._rest = b""  # the next message finds out, and connects anew
        if self._rest:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), self._address)

    def close(self) -> None:
        if self._rest and self._socket is not None:
            self._finish_message(self._socket)
        super().close()

    def _finish_message(self, sock: socket.socket) -> None:
        """The rest of the last one, if the receiver takes it soon; what follows on another connection is whole."""
        try:
            sock.settimeout(1.0)
            sock.sendall(self._rest)
        except OSError:
            pass  # it was not taken: the connection is given up, and with it the half message
        self._rest = b""

    def _send(self, stream: int, line: bytes, stamp: int, part: int, ident: str, ordinal: int) -> None:
        message = self._message(_INFO if stream == 1 else _ERROR, line, stamp)
        sock = self._socket or self._connect()
        try:
            self._give(sock, message)
        except BlockingIOError:
            raise
        except OSError as error:
            self._rest = b""
            self.close()
            if error.errno == errno.EMSGSIZE:  # only a datagram socket says so: no line is that long, a tag may be
                raise
            self._give(self._connect(), message)

    def _give(self, sock: socket.socket, message: bytes) -> None:
        """Raises ``BlockingIOError`` when nothing of ``message`` was taken: it comes again."""
        if not self._stream:
            sock.send(message)
            return
        if _hung_up(sock):
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET), self._address)
        self.flush()
        self._rest = message[sock.send(message) :]

    def _message(self, severity: int, line: bytes, stamp: int) -> bytes:
        priority = self._facility * 8 + severity
        end = b"\n" if self._stream else b""
        pid = os.getpid()
        if self._format.startswith("rfc5424"):
            when = _rfc3339(stamp, self._format == "rfc5424micro")
            tag = self._tag or b"-"
            return b"<%d>1 %s %s %s %d %s - %s%s" % (priority, when, self._host, tag, pid, tag, line, end)
        local = time.localtime(stamp // 1_000_000_000)
        # Not strftime's %b and %d: names of months would follow the locale, and RFC 3164 pads the day with a space.
        month = b"JanFebMarAprMayJunJulAugSepOctNovDec"[3 * local.tm_mon - 3 : 3 * local.tm_mon]
        when = b"%s %2d %02d:%02d:%02d" % (month, local.tm_mday, local.tm_hour, local.tm_min, local.tm_sec)
        host = b" " + self._host if self._format == "rfc3164" else b""
        return b"<%d>%s%s %s[%d]: %s%s" % (priority, when, host, self._tag, pid, line, end)


def split_address(text: str) -> tuple[str, int]:
    """``HOST[:PORT]``, port 514 by default; an IPv6 address stands in brackets. Raises ``ValueError``."""
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            raise ValueError(text)
        port = port[1:]
    else:
        host, _colon, port = text.partition(":")
    number = int(port) if port else 514
    if not host or not 0 < number < 65536:
        raise ValueError(text)
    return host, number


def _hung_up(sock: socket.socket) -> bool:
    """A TCP peer that has closed would take one more message into nowhere before it says so."""
    poll = select.poll()
    poll.register(sock, select.POLLIN | select.POLLRDHUP)
    return bool(poll.poll(0)) and _at_end(sock)


def _at_end(sock: socket.socket) -> bool:
    try:
        return not sock.recv(4096)  # what a receiver says, if it says anything, is nothing to us
    except BlockingIOError:
        return False
    except OSError:
        return True


def _rfc3339(stamp: int, micro: bool) -> bytes:
    seconds, rest = divmod(stamp, 1_000_000_000)
    local = time.localtime(seconds)
    offset = local.tm_gmtoff // 60
    zone = "%s%02d:%02d" % ("-" if offset < 0 else "+", abs(offset) // 60, abs(offset) % 60)
    fraction = ".%06d" % (rest // 1000) if micro else ""
    return (time.strftime("%Y-%m-%dT%H:%M:%S", local) + fraction + ("Z" if not offset else zone)).encode()
