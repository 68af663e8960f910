# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The resolver with real namespaces and sockets. The "host" is a namespace of the test's own."""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest
from dnslib import RCODE, DNSHeader, DNSQuestion, DNSRecord
from kernel.network.dnslab import World, addresses, ask, read_tcp, send
from kernel.network.netlab import Namespace
from module_utils._engine.errors import KernelError
from module_utils._engine.network import dns, dns_server
from module_utils._engine.network.resolver import HostServers

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


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
        assert time.monotonic() - started > 0.1


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
