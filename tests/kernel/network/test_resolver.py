# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The resolver with real namespaces, sockets and processes. The "host" is a namespace of the test's own."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Optional

import pytest
from dnslib import QTYPE, RCODE, RR, A, DNSHeader, DNSQuestion, DNSRecord
from kernel.network.netlab import Namespace
from module_utils._engine.errors import KernelError
from module_utils._engine.network import dns, dns_server
from module_utils._engine.network.dns_messages import Names
from module_utils._engine.network.resolver import HostServers, Resolver, lock
from module_utils._engine.paths import Paths
from module_utils._engine.process import engine_command, spawn_daemon
from module_utils._engine.store.records import ContainerRecord, EndpointRecord, NetworkRecord
from module_utils._engine.store.state import Store

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


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


@pytest.fixture(scope="module")
def shared() -> Iterator[World]:
    made = World()
    yield made
    made.close()


@pytest.fixture
def world(shared: World) -> Iterator[World]:
    shared.servers("127.0.0.1")
    shared.resolver.server.seconds = 0.3
    shared.names.table.clear()
    shared.names.internal.clear()
    shared.names.own.clear()
    for name, namespace in (("one", shared.one), ("two", shared.two)):
        dns.register(shared.paths, name, namespace.path)
    yield shared
    shared.end_upstreams()


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


TRANSPORTS = pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])


@TRANSPORTS
def test_who_asks_is_known_by_the_namespace(world: World, tcp: bool) -> None:
    world.names.table = {("one", "web"): ["10.0.0.2"], ("two", "web"): ["10.9.0.2", "fd00::2"]}
    assert addresses(ask(world.one, "web", tcp=tcp)) == ["10.0.0.2"]
    assert addresses(ask(world.two, "web", tcp=tcp)) == ["10.9.0.2"]
    assert addresses(ask(world.two, "web", "AAAA", tcp=tcp)) == ["fd00::2"]


@TRANSPORTS
def test_other_names_are_asked_from_the_hosts_namespace(world: World, tcp: bool) -> None:
    world.upstream(world.host, "127.0.0.1", "192.0.2.80")
    assert addresses(ask(world.one, "example.com", tcp=tcp)) == ["192.0.2.80"]


@TRANSPORTS
def test_the_containers_own_servers_are_asked_from_inside(world: World, tcp: bool) -> None:
    world.upstream(world.host, "127.0.0.1", "192.0.2.1")
    world.upstream(world.one, "127.0.0.1", "192.0.2.2")
    world.names.own = {"one": ["127.0.0.1"]}
    assert addresses(ask(world.one, "example.com", tcp=tcp)) == ["192.0.2.2"]
    assert addresses(ask(world.two, "example.com", tcp=tcp)) == ["192.0.2.1"]


@TRANSPORTS
def test_servers_over_ipv6(world: World, tcp: bool) -> None:
    world.upstream(world.host, "::1", "192.0.2.6")
    world.servers("::1")
    assert addresses(ask(world.one, "example.com", tcp=tcp)) == ["192.0.2.6"]


@TRANSPORTS
@pytest.mark.parametrize("first", ["SERVFAIL", "REFUSED", "silent", "absent"])
def test_the_next_server_is_asked_after_a_failure(world: World, tcp: bool, first: str) -> None:
    if first != "absent":
        world.upstream(world.host, "127.0.0.2", "", first)
    world.upstream(world.host, "127.0.0.3", "192.0.2.3")
    world.servers("127.0.0.2", "127.0.0.3")
    assert addresses(ask(world.one, "example.com", tcp=tcp)) == ["192.0.2.3"]


@TRANSPORTS
def test_without_any_answer_it_is_a_failure_in_time(world: World, tcp: bool) -> None:
    world.upstream(world.host, "127.0.0.2", "", "silent")
    world.servers("127.0.0.2", "127.0.0.3")
    record = ask(world.one, "example.com", tcp=tcp)
    assert record is not None and record.header.rcode == RCODE.SERVFAIL


def test_nxdomain_is_an_answer(world: World) -> None:
    world.upstream(world.host, "127.0.0.2", "", "NXDOMAIN")
    second = world.upstream(world.host, "127.0.0.3", "192.0.2.3")
    world.servers("127.0.0.2", "127.0.0.3")
    record = ask(world.one, "example.com")
    assert record is not None and record.header.rcode == RCODE.NXDOMAIN
    assert second.asked == [0, 0]


def test_a_truncated_answer_is_passed_on_and_tcp_gives_the_whole(world: World) -> None:
    world.upstream(world.host, "127.0.0.1", "", "big")
    short, whole = ask(world.one, "example.com"), ask(world.one, "example.com", tcp=True)
    assert short is not None and short.header.tc and not short.rr
    assert whole is not None and len(whole.rr) == 100


def test_engine_names_are_never_asked_elsewhere(world: World) -> None:
    upstream = world.upstream(world.host, "127.0.0.1", "192.0.2.66")
    world.names.table = {("one", "web"): ["10.0.0.2"], ("one", "stopped"): []}
    for name, kind, code in (
        ("web", "AAAA", RCODE.NOERROR), ("web", "MX", RCODE.NOERROR), ("stopped", "A", RCODE.NXDOMAIN),
    ):  # fmt: skip
        record = ask(world.one, name, kind)
        assert record is not None and not record.rr and record.header.rcode == code
    assert upstream.asked == [0, 0]


def test_containers_without_an_outside_get_no_other_names(world: World) -> None:
    upstream = world.upstream(world.host, "127.0.0.1", "192.0.2.66")
    world.names.internal = {"one"}
    record = ask(world.one, "example.com")
    assert record is not None and record.header.rcode == RCODE.NXDOMAIN
    assert upstream.asked == [0, 0]


def test_a_container_may_bind_port_53_itself(world: World) -> None:
    world.names.table = {("one", "web"): ["10.0.0.2"]}
    with world.one.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        own.bind(("", 53))
        assert addresses(ask(world.one, "web")) == ["10.0.0.2"]


def test_registering_again_keeps_the_sockets_and_repairs_a_flushed_redirect(world: World) -> None:
    world.names.table = {("one", "web"): ["10.0.0.2"]}
    port = world.resolver.server.members["one"].listening.port
    dns.register(world.paths, "one", world.one.path)
    assert world.resolver.server.members["one"].listening.port == port
    world.one.nft("flush ruleset")
    assert ask(world.one, "web", timeout=0.2) is None
    dns.register(world.paths, "one", world.one.path)
    assert addresses(ask(world.one, "web")) == ["10.0.0.2"]
    assert world.host.listed() == "", "nothing of this is in the host's own namespace"


def test_malformed_packets_and_connections_do_no_harm(world: World) -> None:
    world.names.table = {("one", "web"): ["10.0.0.2"]}
    good = DNSRecord.question("web").pack()
    bad = [b"", b"\0", b"\xff" * 12, b"\0" * 512, good[:-1], good[:12], b"\xc0\x0c" * 30, os.urandom(300)]
    bad.append(struct.pack(">HHHHHH", 1, 0x100, 65535, 65535, 65535, 65535) + b"\xc0\x0c" * 5000)
    for message in bad:
        for tcp in (False, True):
            send(world.one, message, tcp=tcp, timeout=0.02)
    for raw in (b"\0", b"\xff\xff" + b"x" * 100, b"\0\0" * 50):
        with world.one.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.connect(("127.0.0.11", 53))
            sock.send(raw)
    assert addresses(ask(world.one, "web")) == ["10.0.0.2"]
    assert addresses(ask(world.one, "web", tcp=True)) == ["10.0.0.2"]


def test_one_connection_may_ask_many_questions_at_once(world: World) -> None:
    world.names.table = {("one", "n%d" % n): ["10.0.0.%d" % n] for n in range(200)}
    world.upstream(world.host, "127.0.0.1", "192.0.2.80")
    world.resolver.server.seconds = 4.0
    with world.one.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.settimeout(5)
        sock.connect(("127.0.0.11", 53))
        for n in range(200):
            query = DNSRecord(DNSHeader(id=n, rd=1), q=DNSQuestion("n%d" % n if n % 10 else "example%d.com" % n)).pack()
            sock.sendall(len(query).to_bytes(2, "big") + query)
        sock.shutdown(socket.SHUT_WR)
        seen = {}
        for _n in range(200):
            record = DNSRecord.parse(read_tcp(sock))
            seen[record.header.id] = str(record.rr[0].rdata)
        assert sock.recv(10) == b""
    assert seen == {n: "10.0.0.%d" % n if n % 10 else "192.0.2.80" for n in range(200)}


def test_one_container_cannot_take_the_forwards_of_the_others(world: World) -> None:
    world.upstream(world.host, "127.0.0.1", "", "silent")
    world.upstream(world.two, "127.0.0.1", "192.0.2.7")
    world.names.own = {"two": ["127.0.0.1"]}
    with world.one.socket(socket.AF_INET, socket.SOCK_DGRAM) as flood:
        flood.connect(("127.0.0.11", 53))
        for n in range(2 * dns_server.FORWARDS_PER_MEMBER):
            flood.send(DNSRecord.question("n%d.example" % n).pack())
        assert addresses(ask(world.two, "example.com")) == ["192.0.2.7"]
        assert len(world.resolver.server.members["one"].forwards) <= dns_server.FORWARDS_PER_MEMBER
    time.sleep(0.5)
    assert not world.resolver.server.members["one"].forwards


def test_connections_per_container_are_limited(world: World) -> None:
    world.names.table = {("two", "web"): ["10.0.0.2"]}
    hoard = [
        world.one.socket(socket.AF_INET, socket.SOCK_STREAM) for _n in range(dns_server.CONNECTIONS_PER_MEMBER + 20)
    ]
    try:
        for sock in hoard:
            sock.connect(("127.0.0.11", 53))
        assert addresses(ask(world.two, "web", tcp=True)) == ["10.0.0.2"]
        assert len(world.resolver.server.members["one"].connections) <= dns_server.CONNECTIONS_PER_MEMBER
    finally:
        for sock in hoard:
            sock.close()


def test_an_error_of_ours_costs_one_question_not_the_process(
    world: World, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    world.names.table = {("one", "web"): ["10.0.0.2"], ("one", "bad"): ["no address"]}
    failures = world.resolver.loop.failures
    for tcp in (False, True):
        assert ask(world.one, "bad", tcp=tcp, timeout=0.2) is None
        assert addresses(ask(world.one, "web", tcp=tcp)) == ["10.0.0.2"]
    assert world.resolver.loop.failures == failures + 2
    assert "OSError" in capfd.readouterr().err


def test_silent_connections_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_server, "IDLE_SECONDS", 0.3)
    world.names.table = {("one", "web"): ["10.0.0.2"]}
    query = DNSRecord.question("web").pack()
    with world.one.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.settimeout(2)
        sock.connect(("127.0.0.11", 53))
        for _turn in range(4):
            time.sleep(0.2)
            sock.sendall(len(query).to_bytes(2, "big") + query)
            assert DNSRecord.parse(read_tcp(sock)).rr
        started = time.monotonic()
        assert sock.recv(1) == b""
        assert 0.1 < time.monotonic() - started < 1.5


def test_a_removed_namespace_is_let_go(world: World) -> None:
    namespace = Namespace()
    dns.register(world.paths, "gone", namespace.path)
    fds = len(os.listdir("/proc/self/fd"))
    namespace.close()
    world.resolver.loop.after(0, world.resolver.server.sweep)
    dns.members(world.paths)
    dns.members(world.paths)
    assert "gone" not in world.resolver.server.members
    assert len(os.listdir("/proc/self/fd")) < fds - 2


def test_registration_errors_come_back_as_errors(world: World) -> None:
    with pytest.raises(KernelError, match=r"cannot serve container nowhere .*No such file"):
        dns.register(world.paths, "nowhere", "/nonexistent/netns")
    with pytest.raises(KernelError, match="cannot serve container file"):
        dns.register(world.paths, "file", world.resolv)
    assert sorted(m.container_id for m in dns.members(world.paths)) == ["one", "two"]


def test_nonsense_on_the_control_socket_does_no_harm(world: World) -> None:
    for message in (b"x", b"[]", b"{}", b'{"do":"explode"}', b'{"do":"register"}', b"\xff" * 60000, b"[" * 60000):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.settimeout(2)
            sock.connect(world.paths.resolver_socket)
            sock.send(message)
            assert "error" in json.loads(sock.recv(65536))
    assert len(dns.members(world.paths)) == 2


def test_strangers_are_not_talked_to(world: World) -> None:
    """A host user who reaches the socket (were its mode changed) still gets nothing."""
    os.chmod(world.paths.resolver_socket, 0o666)
    os.chmod(world.run, 0o755)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setuid(65534)
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            sock.settimeout(2)
            sock.connect(world.paths.resolver_socket)
            try:
                sock.send(b'{"do":"list"}')
                os.write(write, b"got %d" % len(sock.recv(1000)))
            except (ConnectionResetError, BrokenPipeError):
                os.write(write, b"got 0")
        except BaseException as error:
            os.write(write, repr(error).encode())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(read, 1000) == b"got 0"
    for fd in (read, write):
        os.close(fd)


def test_the_hosts_servers_follow_its_resolv_conf(tmp_path: Any) -> None:
    path = str(tmp_path / "resolv.conf")
    servers = HostServers(path)
    assert list(servers()) == ["8.8.8.8", "8.8.4.4"]
    for address in ("192.0.2.1", "192.0.2.2"):
        with open(path + ".new", "w") as file:
            file.write("search x\nnameserver %s\n" % address)
        os.rename(path + ".new", path)
        assert list(servers()) == [address]


# -- as a process ---------------------------------------------------------------------------------------------------


@pytest.fixture
def paths() -> Iterator[Paths]:
    run = tempfile.mkdtemp(prefix="wt", dir="/run")
    made = Paths(run + "/s", run + "/r")
    made.ensure()
    yield made
    wait_for(lambda: (dns.stop(made), free(made))[1])  # one that lost the race to start may come late
    shutil.rmtree(run)


def wait_for(condition: Callable[[], Any], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.01)


def free(paths: Paths) -> bool:
    fd = lock(paths, 0)
    if fd >= 0:
        os.close(fd)
    return fd >= 0


def resolver_pid(paths: Paths) -> int:
    answer = dns._try(paths, {"do": "hello"})
    return int(answer["ok"]["pid"]) if answer else 0


def in_store(paths: Paths, namespace: Namespace) -> str:
    """A container of the store that answers to ``web`` and is itself reachable at ``path``."""
    ident, network = secrets.token_hex(32), secrets.token_hex(32)
    with Store.open(paths) as store:
        store.networks.create(NetworkRecord(network, "net", "bridge", {}, [{"subnet": "10.7.0.0/24"}], 0.0))
        store.containers.create(
            ContainerRecord(ident, "web", "sha256:" + "0" * 64, "i", {"name": "web"}, "running", 0.0, {}, 1)
        )
        store.networks.put_endpoint(
            EndpointRecord(ident, network, "10.7.0.2", None, "02:00:00:00:00:01", ["alias"], "eth0", 0, False)
        )
    open(paths.container_netns(ident), "w").close()
    return ident


def test_started_on_demand_killed_and_registered_again(paths: Paths) -> None:
    namespace = Namespace()
    try:
        ident = in_store(paths, namespace)
        member = dns.Member(ident, namespace.path)
        assert dns.members(paths) == [] and not dns.unregister(paths, ident), "asking starts nothing"
        assert not os.path.exists(paths.resolver_socket)
        assert dns.ensure(paths, [member]) == [ident]
        assert dns.ensure(paths, [member]) == []
        for name in ("web", "alias", ident[:12], "web.net"):
            assert addresses(ask(namespace, name)) == ["10.7.0.2"]
        assert addresses(ask(namespace, "2.0.7.10.in-addr.arpa", "PTR")) == ["web.net."]
        pid = resolver_pid(paths)
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: free(paths))
        assert ask(namespace, "web", timeout=0.2) is None
        assert dns.missing(paths, [member]) == [member]
        assert dns.ensure(paths, [member]) == [ident]
        assert resolver_pid(paths) != pid
        assert addresses(ask(namespace, "web")) == ["10.7.0.2"]
        assert addresses(ask(namespace, "web", tcp=True)) == ["10.7.0.2"]
        assert dns.unregister(paths, ident)
        assert ask(namespace, "web", timeout=0.2) is None
        assert os.path.getsize(paths.run + "/resolver.log") == 0, open(paths.run + "/resolver.log").read()
    finally:
        namespace.close()


def test_many_at_once_start_one_resolver(paths: Paths) -> None:
    namespaces = [Namespace() for _n in range(6)]
    pids = []
    for n, namespace in enumerate(namespaces):
        pid = os.fork()
        if pid == 0:
            try:
                dns.register(paths, "c%d" % n, namespace.path)
                os._exit(0)
            finally:
                os._exit(1)
        pids.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * 6
    assert len(dns.members(paths)) == 6
    for namespace in namespaces:
        namespace.close()


def test_a_second_resolver_gives_up(paths: Paths) -> None:
    namespace = Namespace()
    dns.register(paths, "c", namespace.path)
    pid = resolver_pid(paths)
    spawn_daemon(engine_command("network.resolver", paths.state, paths.run), log=paths.run + "/resolver.log")
    time.sleep(1.5)
    assert resolver_pid(paths) == pid
    assert len(dns.members(paths)) == 1
    namespace.close()


def test_idle_means_the_end(paths: Paths) -> None:
    held = lock(paths, 0)
    resolver = Resolver(paths, Names())
    resolver.idle_seconds = 0.3
    thread = threading.Thread(target=resolver.serve, daemon=True)
    thread.start()
    wait_for(lambda: os.path.exists(paths.resolver_socket))
    namespace = Namespace()
    dns.register(paths, "c", namespace.path)
    time.sleep(0.6)
    assert thread.is_alive()
    assert dns.unregister(paths, "c")
    thread.join(3)
    assert not thread.is_alive()
    assert not os.path.exists(paths.resolver_socket)
    os.close(held)
    namespace.close()


def test_another_releases_resolver_hands_its_members_over(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Namespace(), Namespace()
    dns.register(paths, "first", first.path, ["192.0.2.53"])
    pid = resolver_pid(paths)
    monkeypatch.setattr(dns, "PACKAGE", "/another/engine")
    dns.ensure(paths, [dns.Member("second", second.path)])
    assert resolver_pid(paths) != pid
    assert sorted(dns.members(paths)) == [
        dns.Member("first", first.path, ("192.0.2.53",)),
        dns.Member("second", second.path),
    ]
    for namespace in (first, second):
        namespace.close()


def test_the_resolver_stays_small(paths: Paths) -> None:
    namespace = Namespace()
    ident = in_store(paths, namespace)
    dns.register(paths, ident, namespace.path)
    assert addresses(ask(namespace, "web")) == ["10.7.0.2"]
    with open("/proc/%d/smaps_rollup" % resolver_pid(paths)) as file:
        rollup = dict(line.split()[:2] for line in file.readlines()[1:])
    assert int(rollup["Pss:"]) < 16000, "KiB"
    namespace.close()
