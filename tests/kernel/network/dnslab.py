# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A resolver in a thread whose "host" is a private namespace, name servers that misbehave, and questions to it."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import tempfile
import threading
import time
from typing import Optional

from dnslib import QTYPE, RCODE, RR, A, DNSHeader, DNSQuestion, DNSRecord
from kernel.network.netlab import Namespace
from module_utils._engine.network import dns
from module_utils._engine.network.dns_messages import Names
from module_utils._engine.network.resolver import Resolver, lock
from module_utils._engine.paths import Paths


class Fake(Names):
    def __init__(self) -> None:
        self.table: dict[tuple[str, str], list[str]] = {}
        self.internal: set[str] = set()
        self.own: dict[str, list[str]] = {}

    def lookup(self, asker: str, name: str) -> Optional[list[str]]:
        return self.table.get((asker, name))

    def outside(self, asker: str) -> bool:
        return asker not in self.internal

    def own_servers(self, asker: str) -> list[str]:
        return self.own.get(asker, [])


class Upstream:
    """A name server on port 53 of an address in a namespace. ``behave``: "answer", "silent", or an RCODE name."""

    def __init__(self, namespace: Namespace, address: str, answer: str, behave: str = "answer") -> None:
        self.answer, self.behave, self.asked = answer, behave, [0, 0]
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.udp = namespace.socket(family, socket.SOCK_DGRAM)
        self.tcp = namespace.socket(family, socket.SOCK_STREAM)
        for sock in (self.udp, self.tcp):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address, 53))
        self.tcp.listen(8)
        self.threads = [threading.Thread(target=work, daemon=True) for work in (self._udp, self._tcp)]
        for thread in self.threads:
            thread.start()

    def reply(self, data: bytes) -> Optional[bytes]:
        if self.behave == "silent":
            return None
        query = DNSRecord.parse(data)
        reply = query.reply()
        if self.behave == "answer":
            reply.add_answer(RR(query.q.qname, QTYPE.A, rdata=A(self.answer), ttl=5))
        elif self.behave == "big":
            for n in range(100):
                reply.add_answer(RR(query.q.qname, QTYPE.A, rdata=A("192.0.2.%d" % n), ttl=5))
        else:
            reply.header.rcode = getattr(RCODE, self.behave)
        packed: bytes = reply.pack()
        return packed

    def _udp(self) -> None:
        while True:
            try:
                data, peer = self.udp.recvfrom(4096)
            except OSError:
                return
            if not data:  # shut down
                return
            self.asked[0] += 1
            reply = self.reply(data)
            if reply is not None:
                self.udp.sendto(b"\0\0" + reply[2:], peer)  # a forger who does not know the id comes first
                if self.behave == "big":
                    parsed = DNSRecord.parse(reply)
                    reply = parsed.truncate().pack()
                self.udp.sendto(reply, peer)

    def _tcp(self) -> None:
        while True:
            try:
                sock, _peer = self.tcp.accept()
            except OSError:
                return
            self.asked[1] += 1
            with sock:
                try:
                    size = int.from_bytes(sock.recv(2), "big")
                    reply = self.reply(sock.recv(size))
                    if reply is not None:
                        for part in (len(reply).to_bytes(2, "big"), reply[:20], reply[20:]):
                            sock.send(part)
                            time.sleep(0.005)
                except OSError:
                    continue

    def close(self) -> None:
        for sock in (self.udp, self.tcp):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            sock.close()


class World:
    """A resolver in a thread whose "host" is namespace ``host``; containers ``one`` and ``two``."""

    def __init__(self) -> None:
        self.run = tempfile.mkdtemp(prefix="wt", dir="/run")
        self.paths = Paths(self.run + "/s", self.run + "/r")
        self.paths.ensure()
        self.host, self.one, self.two = Namespace(), Namespace(), Namespace()
        self.names = Fake()
        self.resolv = self.run + "/resolv.conf"
        self.servers("127.0.0.1")
        self.upstreams: list[Upstream] = []
        self.lock = lock(self.paths, 0)
        self.resolver = Resolver(self.paths, self.names, self.resolv)
        self.resolver.server.seconds = 0.3
        self.thread = threading.Thread(target=self.host.do, args=(self.resolver.serve,), daemon=True)
        self.thread.start()
        while not os.path.exists(self.paths.resolver_socket):
            time.sleep(0.001)
        dns.register(self.paths, "one", self.one.path)
        dns.register(self.paths, "two", self.two.path)

    def servers(self, *addresses: str) -> None:
        with open(self.resolv + ".new", "w") as file:
            file.writelines("nameserver %s\n" % address for address in addresses)
        os.rename(self.resolv + ".new", self.resolv)

    def upstream(self, namespace: Namespace, address: str, answer: str, behave: str = "answer") -> Upstream:
        made = Upstream(namespace, address, answer, behave)
        self.upstreams.append(made)
        return made

    def end_upstreams(self) -> None:
        for upstream in self.upstreams:
            upstream.close()
        self.upstreams = []

    def close(self) -> None:
        self.end_upstreams()
        dns.stop(self.paths)
        self.thread.join(10)
        os.close(self.lock)
        assert not self.thread.is_alive()
        for namespace in (self.host, self.one, self.two):
            namespace.close()
        shutil.rmtree(self.run)


def ask(
    namespace: Namespace, name: str, kind: str = "A", *, tcp: bool = False, timeout: float = 3.0
) -> Optional[DNSRecord]:
    query = DNSRecord(DNSHeader(id=secrets.randbelow(65536), rd=1), q=DNSQuestion(name, getattr(QTYPE, kind))).pack()
    reply = send(namespace, query, tcp=tcp, timeout=timeout)
    if reply is None:
        return None
    parsed = DNSRecord.parse(reply)
    assert reply[:2] == query[:2]
    return parsed


def send(namespace: Namespace, query: bytes, *, tcp: bool = False, timeout: float = 3.0) -> Optional[bytes]:
    with namespace.socket(socket.AF_INET, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM) as sock:
        sock.settimeout(timeout)
        try:
            sock.connect(("127.0.0.11", 53))
            if not tcp:
                sock.send(query)
                return sock.recv(65535)
            sock.sendall(len(query).to_bytes(2, "big") + query)
            return read_tcp(sock)
        except OSError:
            return None


def read_tcp(sock: socket.socket) -> bytes:
    def exactly(size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = sock.recv(size - len(data))
            if not more:
                raise ConnectionResetError
            data += more
        return data

    return exactly(int.from_bytes(exactly(2), "big"))


def addresses(record: Optional[DNSRecord]) -> list[str]:
    assert record is not None
    return sorted(str(rr.rdata) for rr in record.rr)
