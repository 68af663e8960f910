# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Asking other servers, one after the other, until one has an answer.

Each try has a socket of its own (random source port) and a random id, so that a forged answer must guess both. UDP
questions go out over UDP and TCP ones over TCP: a truncated answer is passed on, and the asker comes back over TCP.
"""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Callable, Sequence
from typing import Optional

from . import dns_messages as dns
from .dns_loop import READ, WRITE, Loop, Timer

SECONDS = 4.0  # per server, as Docker
MAX_SERVERS = 3  # as resolv.conf(5)
_TRY_NEXT = (dns.SERVFAIL, dns.REFUSED, dns.NOTIMP)


class Server:
    """``netns_fd`` -1: asked from the resolver's own (the host's) network namespace."""

    __slots__ = ("address", "netns_fd")

    def __init__(self, address: str, netns_fd: int = -1) -> None:
        self.address = address
        self.netns_fd = netns_fd


class Forward:
    """One question on its way. ``done(reply)`` is called exactly once, later or at once; ``cancel`` prevents it."""

    def __init__(
        self,
        loop: Loop,
        query: dns.Query,
        data: bytes,
        servers: Sequence[Server],
        done: Callable[[bytes], None],
        *,
        tcp: bool,
        seconds: float = SECONDS,
    ) -> None:
        self._loop = loop
        self._query = query
        self._data = data
        self._servers = list(servers[:MAX_SERVERS])
        self._done: Optional[Callable[[bytes], None]] = done
        self._tcp = tcp
        self._seconds = seconds
        self._sock: Optional[socket.socket] = None
        self._timer: Optional[Timer] = None
        self._out = b""
        self._in = b""
        self._id = 0
        self._best: Optional[bytes] = None  # an error some server gave: better than one of our own

    def start(self) -> None:
        self._next()

    def cancel(self) -> None:
        self._done = None
        self._drop()

    def _finish(self, message: bytes) -> None:
        done, self._done = self._done, None
        self._drop()
        if done is not None:
            done(message)

    def _drop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._sock is not None:
            self._loop.forget(self._sock.fileno())
            self._sock.close()
            self._sock = None

    def _next(self) -> None:
        self._drop()
        while self._servers:
            if self._send(self._servers.pop(0)):
                self._timer = self._loop.after(self._seconds, self._next)
                return
        self._finish(self._best if self._best is not None else dns.failure(self._query))

    def _send(self, server: Server) -> bool:
        """False if it fails at once (no route, refused, namespace gone, no descriptors left)."""
        self._id = random.getrandbits(16)
        message = dns.with_id(self._data, self._id)
        try:
            self._sock = sock = self._open(server)
            if self._tcp:
                self._out, self._in = len(message).to_bytes(2, "big") + message, b""
                self._loop.watch(sock.fileno(), READ | WRITE, self._stream)
            else:
                sock.send(message)
                self._loop.watch(sock.fileno(), READ, self._datagram)
        except OSError:
            self._drop()
            return False
        return True

    def _open(self, server: Server) -> socket.socket:
        kind = socket.SOCK_STREAM if self._tcp else socket.SOCK_DGRAM
        family = socket.AF_INET6 if ":" in server.address else socket.AF_INET
        with _where(server.netns_fd):
            where = socket.getaddrinfo(server.address, dns_port(), family, kind, 0, socket.AI_NUMERICHOST)[0][4]
            sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            sock.connect(where)
        except BlockingIOError:
            pass
        except OSError:
            sock.close()
            raise
        return sock

    def _take(self, message: bytes) -> bool:
        """True if that ends this try: an answer was found, or the next server must be asked."""
        answer = dns.relayed(self._query, message, self._id)
        if answer is None:
            return False
        if dns.rcode(answer) in _TRY_NEXT:
            self._best = answer
            self._next()
        else:
            self._finish(answer)
        return True

    def _datagram(self, _events: int) -> None:
        sock = self._sock
        while sock is not None and sock is self._sock:
            try:
                message = sock.recv(65535)
            except BlockingIOError:
                return
            except OSError:  # an ICMP error: nobody listens there
                self._next()
                return
            if self._take(message):
                return

    def _stream(self, events: int) -> None:
        sock = self._sock
        if sock is None:
            return
        try:
            if self._out and events & ~READ:
                self._out = self._out[sock.send(self._out) :]
                if not self._out:
                    self._loop.watch(sock.fileno(), READ, self._stream)
            if events & ~WRITE:
                data = sock.recv(65535)
                if not data:
                    raise ConnectionResetError
                self._in += data
        except BlockingIOError:
            return
        except OSError:
            self._next()
            return
        if len(self._in) >= 2:
            size = int.from_bytes(self._in[:2], "big")
            if len(self._in) >= size + 2 and not self._take(self._in[2 : 2 + size]):
                self._next()


def dns_port() -> int:
    return 53


def _where(netns_fd: int) -> contextlib.AbstractContextManager[None]:
    if netns_fd < 0:
        return contextlib.nullcontext()
    from ..kernel.netns import inside

    return inside(netns_fd)
