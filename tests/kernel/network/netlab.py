# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Private network namespaces for tests: hosts, containers and wires that vanish with the test process.

Nothing is named and nothing touches the machine's own network namespace: namespaces are held by descriptors only.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import threading
from collections.abc import Callable
from typing import Any, Optional

from module_utils._engine.kernel.netns import inside
from module_utils._engine.kernel.syscalls import CLONE_NEWNET, Kernel

KERNEL = Kernel()


class Namespace:
    """One network namespace with ``lo`` up."""

    def __init__(self) -> None:
        self.fd = -1
        thread = threading.Thread(target=self._make)
        thread.start()
        thread.join()
        self.ip("link set lo up")

    def _make(self) -> None:
        KERNEL.unshare(CLONE_NEWNET)
        self.fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    @property
    def path(self) -> str:
        return "/proc/%d/fd/%d" % (os.getpid(), self.fd)

    def close(self) -> None:
        os.close(self.fd)

    def do(self, action: Callable[[], Any]) -> Any:
        with inside(self.fd):
            return action()

    def run(self, *argv: str, stdin: str = "") -> str:
        done = subprocess.run(
            ["nsenter", "--net=" + self.path, *argv], input=stdin, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise AssertionError("%r: %s" % (argv, done.stderr))
        return done.stdout

    def ip(self, line: str) -> str:
        return self.run("ip", *line.split())

    def nft(self, line: str) -> str:
        return self.run("nft", "-f", "-", stdin=line)

    def listed(self) -> str:
        return self.run("nft", "list", "ruleset")

    def sysctl(self, name: str, value: str) -> None:
        def write() -> None:
            with open("/proc/sys/net/" + name, "w") as file:
                file.write(value)

        self.do(write)

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        sock: socket.socket = self.do(lambda: socket.socket(family, kind, protocol))
        return sock

    def ask(
        self, address: str, port: int, protocol: str = "tcp", timeout: float = 0.4, source: str = ""
    ) -> Optional[str]:
        """What the server at address:port says ("<tag> <the client's address as it sees it>"), None without answer."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with self.socket(family, socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM) as sock:
            sock.settimeout(timeout)
            if source:
                sock.bind((source, 0))
            try:
                sock.connect((address, port))
                if protocol == "udp":
                    sock.send(b"hello")
                return sock.recv(200).decode() or None
            except OSError:
                return None


class Server:
    """Answers TCP connections and UDP datagrams on some ports of a namespace with its tag and the peer's address."""

    def __init__(self, namespace: Namespace, tag: str, *ports: int, host: str = "") -> None:
        self.tag = tag
        self.sockets: list[socket.socket] = []
        for port in ports:
            for family in (socket.AF_INET, socket.AF_INET6):
                if host and (":" in host) != (family == socket.AF_INET6):
                    continue
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    sock = namespace.socket(family, kind)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    if family == socket.AF_INET6:
                        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                    sock.bind((host, port))
                    if kind == socket.SOCK_STREAM:
                        sock.listen(16)
                    self.sockets.append(sock)
        self._wake, self._stop = os.pipe()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            ready, _w, _x = select.select([*self.sockets, self._wake], [], [])
            for sock in ready:
                if sock == self._wake:
                    return
                if sock.type == socket.SOCK_STREAM:
                    connection, peer = sock.accept()
                    with connection:
                        connection.send(("%s %s" % (self.tag, peer[0])).encode())
                else:
                    _data, peer = sock.recvfrom(200)
                    sock.sendto(("%s %s" % (self.tag, peer[0])).encode(), peer)

    def close(self) -> None:
        os.close(self._stop)
        self.thread.join()
        os.close(self._wake)
        for sock in self.sockets:
            sock.close()


class Lab:
    """A host with bridges, containers behind them, and an outside machine on a wire.

    host: ``eth0`` 192.0.2.1/24, 2001:db8::1/64; outside: 192.0.2.9, 2001:db8::9, with the host as its default route,
    so that it can also try container addresses directly.
    """

    def __init__(self) -> None:
        self.namespaces: list[Namespace] = []
        self.servers: list[Server] = []
        self.host = self.namespace()
        self.outside = self.namespace()
        self.wire(self.host, "eth0", self.outside, "eth0")
        for machine, number in ((self.host, 1), (self.outside, 9)):
            machine.ip("addr add 192.0.2.%d/24 dev eth0" % number)
            machine.ip("addr add 2001:db8::%d/64 dev eth0 nodad" % number)
        self.outside.ip("route add default via 192.0.2.1")
        self.outside.ip("route add default via 2001:db8::1")
        self.host.sysctl("ipv4/ip_forward", "1")
        self.host.sysctl("ipv6/conf/all/forwarding", "1")

    def namespace(self) -> Namespace:
        made = Namespace()
        self.namespaces.append(made)
        return made

    def wire(self, one: Namespace, one_name: str, other: Namespace, other_name: str) -> None:
        one.ip("link add %s type veth peer name %s netns %s" % (one_name, other_name, other.path))
        for namespace, name in ((one, one_name), (other, other_name)):
            namespace.ip("link set %s up" % name)

    def bridge(self, link: str, number: int) -> None:
        """10.<number>.0.1/24 and fd00:<number>::1/64, set up as the engine's bridges are."""
        self.host.ip("link add %s type bridge" % link)
        self.host.sysctl("ipv6/conf/%s/accept_dad" % link, "0")
        self.host.ip("link set %s up" % link)
        self.host.ip("addr add 10.%d.0.1/24 dev %s" % (number, link))
        self.host.ip("addr add fd00:%d::1/64 dev %s nodad" % (number, link))
        self.host.sysctl("ipv4/conf/%s/route_localnet" % link, "1")

    def container(self, link: str, number: int, host_part: int, *ports: int, default: bool = True) -> Namespace:
        made = self.namespace()
        wire = "v%s%d" % (link, host_part)
        self.host.ip("link add %s type veth peer name eth0 netns %s" % (wire, made.path))
        self.host.ip("link set %s master %s up" % (wire, link))
        self.host.run("bridge", "link", "set", "dev", wire, "hairpin", "on")
        made.ip("link set eth0 up")
        made.ip("addr add 10.%d.0.%d/24 dev eth0" % (number, host_part))
        made.ip("addr add fd00:%d::%d/64 dev eth0 nodad" % (number, host_part))
        if default:
            made.ip("route add default via 10.%d.0.1" % number)
            made.ip("route add default via fd00:%d::1" % number)
        if ports:
            self.serve(made, "c%d.%d" % (number, host_part), *ports)
        return made

    def serve(self, namespace: Namespace, tag: str, *ports: int, host: str = "") -> Server:
        server = Server(namespace, tag, *ports, host=host)
        self.servers.append(server)
        return server

    def close(self) -> None:
        for server in self.servers:
            server.close()
        for namespace in self.namespaces:
            namespace.close()
