# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Serving the containers: who asks is known by the socket the question comes in on.

Everything a container sends is hostile until parsed, and each container has its own limits, so that one cannot take
the names of the others away.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, Optional

from . import dns_messages as dns
from .dns_forward import Forward, Server
from .dns_loop import READ, WRITE, Loop
from .dns_sockets import Listening, listen, redirected

FORWARDS_PER_MEMBER = 256
FORWARDS = 1024  # as Docker
CONNECTIONS_PER_MEMBER = 64
IDLE_SECONDS = 10.0  # of a TCP connection
_PIPELINE = 32  # unanswered questions of one TCP connection
_BURST = 32  # datagrams taken from one container before the others get their turn


class Member:
    """A container whose namespace we answer in. Owns ``netns_fd``."""

    def __init__(self, ident: str, netns: str, netns_fd: int, servers: Sequence[str], listening: Listening) -> None:
        self.id = ident
        self.netns = netns
        self.netns_fd = netns_fd
        self.servers = list(servers)
        self.listening = listening
        self.forwards: set[Forward] = set()
        self.connections: set[Connection] = set()

    def describe(self) -> dict[str, Any]:
        return {"id": self.id, "netns": self.netns, "servers": self.servers, "port": self.listening.port}

    def alive(self) -> bool:
        """The namespace is still what its path shows; if not, our sockets would be all that keeps it in being."""
        return same_namespace(self.netns, self.netns_fd)


def same_namespace(path: str, fd: int) -> bool:
    try:
        one, other = os.stat(path), os.fstat(fd)
    except OSError:
        return False
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


class NameServer:
    """All members. ``host_servers()`` gives the host's own name servers, as they are now."""

    def __init__(self, loop: Loop, names: dns.Names, host_servers: Callable[[], Sequence[str]]) -> None:
        self.loop = loop
        self.names = names
        self.members: dict[str, Member] = {}
        self.seconds = 4.0
        self._host_servers = host_servers
        self._forwards = 0

    # -- members -----------------------------------------------------------------------------------------------

    def register(self, ident: str, netns: str, servers: Sequence[str]) -> int:
        """Answer in that namespace from now on; returns our port there. Again for the same one: changes ``servers``,
        and puts the redirect back if it is gone. Raises ``OSError``."""
        member = self.members.get(ident)
        if member is not None:
            if same_namespace(netns, member.netns_fd) and redirected(member.netns_fd, member.listening.port):
                member.servers, member.netns = list(servers), netns
                return member.listening.port
            self.unregister(ident)
        fd = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            listening = listen(fd)
        except OSError:
            os.close(fd)
            raise
        member = self.members[ident] = Member(ident, netns, fd, servers, listening)
        self.loop.watch(listening.udp.fileno(), READ, lambda _events: self._datagrams(member))
        self.loop.watch(listening.tcp.fileno(), READ, lambda _events: self._accept(member))
        return listening.port

    def unregister(self, ident: str) -> bool:
        member = self.members.pop(ident, None)
        if member is None:
            return False
        for forward in list(member.forwards):
            self._ended(member, forward)
            forward.cancel()
        for connection in list(member.connections):
            connection.close()
        for sock in (member.listening.udp, member.listening.tcp):
            self.loop.forget(sock.fileno())
            sock.close()
        os.close(member.netns_fd)
        return True

    def sweep(self) -> None:
        """Let go of namespaces that were removed without a word."""
        for ident in [member.id for member in self.members.values() if not member.alive()]:
            self.unregister(ident)

    # -- questions ---------------------------------------------------------------------------------------------

    def ask(self, member: Member, data: bytes, respond: Callable[[bytes], None], *, tcp: bool) -> bool:
        """Answer one message now or later through ``respond``. False if it must stay without an answer."""
        query = dns.parse(data)
        if query is None:
            return False
        if isinstance(query, bytes):
            respond(query)
            return True
        known = dns.answer(query, self.names, member.id)
        if known is None:
            self._forward(member, query, data, respond, tcp=tcp)
        else:
            respond(known if tcp else dns.fit(query, known))
        return True

    def _forward(
        self, member: Member, query: dns.Query, data: bytes, respond: Callable[[bytes], None], *, tcp: bool
    ) -> None:
        servers = self._servers(member)
        if not servers:  # internal networks only: what is not ours does not exist
            respond(dns.reply(query, dns.NXDOMAIN, authoritative=False))
            return
        if len(member.forwards) >= FORWARDS_PER_MEMBER or self._forwards >= FORWARDS:
            respond(dns.failure(query))
            return

        def done(message: bytes) -> None:
            self._ended(member, forward)
            respond(message if tcp else dns.fit(query, message))

        forward = Forward(self.loop, query, data, servers, done, tcp=tcp, seconds=self.seconds)
        member.forwards.add(forward)
        self._forwards += 1
        forward.start()

    def _ended(self, member: Member, forward: Forward) -> None:
        if forward in member.forwards:
            member.forwards.discard(forward)
            self._forwards -= 1

    def _servers(self, member: Member) -> list[Server]:
        """The container's own servers are asked from its network, the host's from the host's network, and those not
        on behalf of containers that have no outside."""
        own = self.names.own_servers(member.id)
        servers = member.servers or own
        if not servers and self.names.outside(member.id):
            servers = list(self._host_servers())
        return [Server(address, member.netns_fd if address in own else -1) for address in servers]

    def _datagrams(self, member: Member) -> None:
        udp = member.listening.udp
        for _turn in range(_BURST):
            try:
                data, peer = udp.recvfrom(65535)
            except OSError:  # nothing more, or an ICMP error of an earlier reply
                return
            self.ask(member, data, _Datagram(udp, peer), tcp=False)

    def _accept(self, member: Member) -> None:
        try:
            sock, _peer = member.listening.tcp.accept()
        except OSError:  # gone again, or no descriptors left: the listener stays ready, others get their turn
            return
        if len(member.connections) >= CONNECTIONS_PER_MEMBER:
            sock.close()
            return
        sock.setblocking(False)
        Connection(self, member, sock)


class _Datagram:
    """Where a UDP reply goes, maybe seconds later, when the member may be gone."""

    __slots__ = ("_peer", "_udp")

    def __init__(self, udp: socket.socket, peer: Any) -> None:
        self._udp = udp
        self._peer = peer

    def __call__(self, message: bytes) -> None:
        try:
            self._udp.sendto(message, self._peer)
        except OSError:
            pass  # the asker is gone, or its queue is full: as if lost on the way, it will ask again


class Connection:
    """A container's TCP connection: messages with two bytes of length before them, answered in any order."""

    def __init__(self, server: NameServer, member: Member, sock: socket.socket) -> None:
        self._server = server
        self._member = member
        self._sock: Optional[socket.socket] = sock
        self._in = b""
        self._out = b""
        self._waiting = 0
        self._finished = False
        self._active = time.monotonic()
        self._timer = server.loop.after(IDLE_SECONDS, self._idle)
        member.connections.add(self)
        self._watch()

    def close(self) -> None:
        self._timer.cancel()
        if self._sock is not None:
            self._server.loop.forget(self._sock.fileno())
            self._sock.close()
            self._sock = None
        self._member.connections.discard(self)

    def _idle(self) -> None:
        """One timer per connection, however much is said on it."""
        left = self._active + IDLE_SECONDS - time.monotonic()
        if left > 0:
            self._timer = self._server.loop.after(left, self._idle)
        else:
            self.close()

    def _watch(self) -> None:
        """Read only as long as there are not too many open questions; the kernel's buffer does the rest."""
        if self._sock is None:
            return
        if self._finished and not self._waiting and not self._out:
            self.close()
            return
        mask = WRITE if self._out else 0
        if not self._finished and self._waiting < _PIPELINE and len(self._out) < 65536:
            mask |= READ
        self._server.loop.watch(self._sock.fileno(), mask, self._ready)

    def _ready(self, events: int) -> None:
        if self._sock is None:
            return
        try:
            if events & ~READ and self._out:
                self._out = self._out[self._sock.send(self._out) :]
                self._active = time.monotonic()
            if events & ~WRITE:
                data = self._sock.recv(65536)
                self._finished = self._finished or not data
                self._in += data
                if data:
                    self._active = time.monotonic()
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        self._messages()
        self._watch()

    def _messages(self) -> None:
        while self._waiting < _PIPELINE and len(self._in) >= 2:
            size = int.from_bytes(self._in[:2], "big")
            if len(self._in) < size + 2:
                return
            message, self._in = self._in[2 : 2 + size], self._in[2 + size :]
            self._waiting += 1
            if not self._server.ask(self._member, message, self._respond, tcp=True):
                self.close()
                return

    def _respond(self, message: bytes) -> None:
        self._waiting -= 1
        if self._sock is None:
            return
        self._out += len(message).to_bytes(2, "big") + message
        self._server.loop.after(0, self._resume)

    def _resume(self) -> None:
        """Outside of whatever callback produced the answer: it may be our own."""
        self._messages()
        self._watch()
