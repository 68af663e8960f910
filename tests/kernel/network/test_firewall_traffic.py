# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What packets may do, with real packets: a host, containers on four networks, and a machine outside."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

import pytest
from kernel.network.netlab import Lab, Namespace
from module_utils._engine.network.firewall import Firewall, Network, Port
from module_utils._engine.paths import Paths

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

FAMILIES = pytest.mark.parametrize("v6", [False, True], ids=["ipv4", "ipv6"])
PROTOCOLS = pytest.mark.parametrize("protocol", ["tcp", "udp"])
HOST = {False: "192.0.2.1", True: "2001:db8::1"}
OUTSIDE = {False: "192.0.2.9", True: "2001:db8::9"}


def address(network: int, part: int, v6: bool) -> str:
    return "fd00:%d::%d" % (network, part) if v6 else "10.%d.0.%d" % (network, part)


def gateway(network: int, v6: bool) -> str:
    return address(network, 1, v6)


class World(Lab):
    """Networks 1 (a: two members), 2 (b), 3 (internal: two members), and a silent server outside on port 7000."""

    def __init__(self) -> None:
        super().__init__()
        for number in (1, 2, 3):
            self.bridge("wh%d" % number, number)
        self.a1 = self.container("wh1", 1, 2, 80)
        self.a2 = self.container("wh1", 1, 3, 80)
        self.b1 = self.container("wh2", 2, 2, 80)
        self.i1 = self.container("wh3", 3, 2, 80)
        self.i2 = self.container("wh3", 3, 3, 80)
        self.serve(self.outside, "outside", 7000)
        self.serve(self.host, "host", 7001)
        self.serve(self.host, "loopback", 7002, host="127.0.0.1")
        self.firewall = Firewall(Paths("/nonexistent/one", "/nonexistent/run"), netns_fd=self.host.fd)
        self.networks = [Network("wh1"), Network("wh2"), Network("wh3", internal=True)]
        ports = []
        for protocol in ("tcp", "udp"):
            for v6 in (False, True):
                ports.append(Port("", 8080, protocol, address(1, 2, v6), 80))
                ports.append(Port(HOST[v6], 8081, protocol, address(1, 3, v6), 80))
                ports.append(Port(gateway(2, v6), 8081, protocol, address(2, 2, v6), 80))
                ports.append(Port("", 8083, protocol, address(3, 2, v6), 80))
            ports.append(Port("127.0.0.1", 8082, protocol, address(1, 2, False), 80))
        self.ports = ports
        self.desired = Firewall.desired(self.networks, ports)
        self.firewall.sync(self.desired)

    def close(self) -> None:
        self.firewall.close()
        super().close()


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


@FAMILIES
@PROTOCOLS
def test_containers_leave_under_the_hosts_address(world: World, v6: bool, protocol: str) -> None:
    assert world.a1.ask(OUTSIDE[v6], 7000, protocol) == "outside " + HOST[v6]


@FAMILIES
@PROTOCOLS
def test_a_published_port_is_reached_from_outside_and_sees_the_client(world: World, v6: bool, protocol: str) -> None:
    assert world.outside.ask(HOST[v6], 8080, protocol) == "c1.2 " + OUTSIDE[v6]


@FAMILIES
@PROTOCOLS
def test_a_port_published_on_one_address_answers_only_there(world: World, v6: bool, protocol: str) -> None:
    assert world.outside.ask(HOST[v6], 8081, protocol) == "c1.3 " + OUTSIDE[v6]
    assert world.outside.ask(gateway(2, v6), 8081, protocol) == "c2.2 " + OUTSIDE[v6]
    assert world.outside.ask(gateway(1, v6), 8081, protocol) is None


@FAMILIES
@PROTOCOLS
def test_the_host_reaches_published_ports_at_its_own_addresses(world: World, v6: bool, protocol: str) -> None:
    assert world.host.ask(HOST[v6], 8080, protocol) == "c1.2 " + gateway(1, v6)
    assert world.host.ask(gateway(1, v6), 8080, protocol) == "c1.2 " + gateway(1, v6)
    assert world.host.ask(gateway(2, v6), 8080, protocol) == "c1.2 " + gateway(1, v6)


@PROTOCOLS
def test_localhost_reaches_published_ports(world: World, protocol: str) -> None:
    assert world.host.ask("127.0.0.1", 8080, protocol) == "c1.2 10.1.0.1"
    assert world.host.ask("127.0.0.1", 8082, protocol) == "c1.2 10.1.0.1"


def test_ipv6_localhost_refuses_at_once_so_that_clients_try_ipv4(world: World) -> None:
    with world.host.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
        sock.settimeout(0.4)
        with pytest.raises(ConnectionRefusedError):
            sock.connect(("::1", 8080))


@PROTOCOLS
def test_a_port_published_on_localhost_is_not_reached_otherwise(world: World, protocol: str) -> None:
    assert world.outside.ask("192.0.2.1", 8082, protocol) is None
    assert world.a2.ask("192.0.2.1", 8082, protocol) is None


@FAMILIES
@PROTOCOLS
@pytest.mark.parametrize("bridged", ["1", "0"], ids=["br_netfilter", "routed"])
def test_a_container_reaches_its_own_and_siblings_published_ports(
    world: World, v6: bool, protocol: str, bridged: str
) -> None:
    for name in ("iptables", "ip6tables"):
        world.host.sysctl("bridge/bridge-nf-call-" + name, bridged)
    assert world.a1.ask(HOST[v6], 8080, protocol) == "c1.2 " + gateway(1, v6)
    assert world.a2.ask(HOST[v6], 8080, protocol) == "c1.2 " + gateway(1, v6)
    assert world.a2.ask(gateway(1, v6), 8080, protocol) == "c1.2 " + gateway(1, v6)


@FAMILIES
@PROTOCOLS
def test_another_networks_container_reaches_published_ports_like_anybody(world: World, v6: bool, protocol: str) -> None:
    assert world.b1.ask(HOST[v6], 8080, protocol) == "c1.2 " + gateway(1, v6)


@FAMILIES
@PROTOCOLS
def test_members_of_a_network_talk_freely(world: World, v6: bool, protocol: str) -> None:
    assert world.a1.ask(address(1, 3, v6), 80, protocol) == "c1.3 " + address(1, 2, v6)
    assert world.i1.ask(address(3, 3, v6), 80, protocol) == "c3.3 " + address(3, 2, v6)


@FAMILIES
@PROTOCOLS
def test_networks_are_isolated_both_ways(world: World, v6: bool, protocol: str) -> None:
    assert world.a1.ask(address(2, 2, v6), 80, protocol) is None
    assert world.b1.ask(address(1, 2, v6), 80, protocol) is None


@FAMILIES
@PROTOCOLS
def test_internal_networks_have_no_outside(world: World, v6: bool, protocol: str) -> None:
    assert world.i1.ask(OUTSIDE[v6], 7000, protocol) is None
    assert world.i1.ask(address(1, 2, v6), 80, protocol) is None
    assert world.i1.ask(HOST[v6], 8080, protocol) is None, "a published port of another network"
    assert world.a1.ask(address(3, 2, v6), 80, protocol) is None
    assert world.outside.ask(address(3, 2, v6), 80, protocol) is None
    assert world.outside.ask(HOST[v6], 8083, protocol) is None


@FAMILIES
@PROTOCOLS
def test_container_ports_are_not_reached_directly_from_outside(world: World, v6: bool, protocol: str) -> None:
    assert world.outside.ask(address(1, 2, v6), 80, protocol) is None
    assert world.outside.ask(address(1, 3, v6), 80, protocol) is None


@FAMILIES
@PROTOCOLS
def test_the_host_reaches_containers_and_containers_the_host(world: World, v6: bool, protocol: str) -> None:
    assert world.host.ask(address(1, 2, v6), 80, protocol) == "c1.2 " + gateway(1, v6)
    assert world.host.ask(address(3, 2, v6), 80, protocol) == "c3.2 " + gateway(3, v6)
    assert world.a1.ask(gateway(1, v6), 7001, protocol) == "host " + address(1, 2, v6)


def _raw_udp(sender: Namespace, source: str, destination: str, port: int) -> None:
    """A datagram with addresses of the sender's choice (an attacker with CAP_NET_RAW), through eth0's gateway."""
    data = b"attack"
    udp = struct.pack(">HHHH", 4444, port, 8 + len(data), 0) + data
    header = struct.pack(
        ">BBHHHBBH4s4s",
        0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, socket.inet_aton(source), socket.inet_aton(destination),
    )  # fmt: skip
    total = sum(struct.unpack(">10H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    header = header[:10] + struct.pack(">H", ~total & 0xFFFF) + header[12:]
    neighbours = sender.ip("neigh show dev eth0")
    mac = next(line.split()[2] for line in neighbours.splitlines() if line.startswith("10.1.0.1 "))
    own = sender.ip("link show eth0").split("link/ether ")[1].split()[0]
    frame = bytes.fromhex(mac.replace(":", "")) + bytes.fromhex(own.replace(":", "")) + b"\x08\x00" + header + udp
    with sender.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind(("eth0", 0))
        sock.send(frame)


@pytest.mark.parametrize(
    ("source", "destination"), [("10.1.0.2", "127.0.0.1"), ("127.0.0.1", "10.1.0.1")], ids=["to", "from"]
)
def test_loopback_services_are_safe_from_containers_although_route_localnet_is_on(
    world: World, source: str, destination: str
) -> None:
    world.a1.ask("10.1.0.1", 7001)  # learns the bridge's MAC
    with world.host.socket(socket.AF_INET, socket.SOCK_DGRAM) as victim:
        victim.bind((destination, 7100))
        victim.settimeout(0.3)
        _raw_udp(world.a1, "10.1.0.2", "10.1.0.1", 7100)
        if destination != "127.0.0.1":
            assert victim.recv(100) == b"attack", "the test's own packets work"
        _raw_udp(world.a1, source, destination, 7100)
        with pytest.raises(TimeoutError):
            victim.recv(100)


def test_established_connections_survive_a_rebuild(world: World) -> None:
    with world.a2.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("", 90))
        listener.listen(1)
        world.firewall.add_ports([Port("", 9090, "tcp", "10.1.0.3", 90)])
        with world.outside.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
            client.settimeout(1)
            client.connect(("192.0.2.1", 9090))
            server, _peer = listener.accept()
            with server:
                server.settimeout(1)
                world.host.nft("flush ruleset")
                assert world.firewall.sync(world.desired)
                client.send(b"still")
                assert server.recv(10) == b"still"
                server.send(b"here")
                assert client.recv(10) == b"here"
        assert world.outside.ask("192.0.2.1", 9090) is None, "the rebuilt table knows nothing of the extra port"


@FAMILIES
@PROTOCOLS
def test_a_switch_repoints_a_published_port(world: World, v6: bool, protocol: str) -> None:
    old = [Port("", 9100, protocol, address(1, 2, v6), 80)]
    new = [Port("", 9100, protocol, address(1, 3, v6), 80)]
    world.firewall.add_ports(old)
    assert world.outside.ask(HOST[v6], 9100, protocol) == "c1.2 " + OUTSIDE[v6]
    assert world.firewall.switch(old, new)
    assert world.outside.ask(HOST[v6], 9100, protocol) == "c1.3 " + OUTSIDE[v6]
    assert not world.firewall.remove_ports(old), "the old container's clean-up does not close the new one's port"
    assert world.outside.ask(HOST[v6], 9100, protocol) == "c1.3 " + OUTSIDE[v6]
    assert world.firewall.remove_ports(new)
    assert world.outside.ask(HOST[v6], 9100, protocol) is None


def test_two_instances_on_one_host_do_not_disturb_each_other(world: World) -> None:
    world.bridge("wx4", 4)
    other = world.container("wx4", 4, 2, 80)
    second = Firewall(Paths("/nonexistent/two", "/nonexistent/run2"), netns_fd=world.host.fd)
    try:
        second.sync(Firewall.desired([Network("wx4")], [Port("", 8400, "tcp", "10.4.0.2", 80)]))
        assert world.outside.ask("192.0.2.1", 8400) == "c4.2 192.0.2.9"
        assert world.outside.ask("192.0.2.1", 8080) == "c1.2 192.0.2.9"
        assert world.host.ask("127.0.0.1", 8400) == "c4.2 10.4.0.1"
        assert world.host.ask("127.0.0.1", 8080) == "c1.2 10.1.0.1"
        assert other.ask("192.0.2.9", 7000) == "outside 192.0.2.1"
        assert other.ask("10.1.0.2", 80) is None
        assert world.a1.ask("10.4.0.2", 80) is None
        assert other.ask("192.0.2.1", 8080) == "c1.2 10.1.0.1"
        assert world.a1.ask("192.0.2.1", 8400) is not None
        assert second.remove()
        assert not world.firewall.differences(world.desired)
        assert world.outside.ask("192.0.2.1", 8080) == "c1.2 192.0.2.9"
    finally:
        second.close()


def test_a_network_without_member_traffic_or_masquerade(world: World) -> None:
    world.firewall.add_network(Network("wh2", masquerade=False))
    world.outside.ip("route replace 10.2.0.0/24 via 192.0.2.1")
    try:
        assert world.b1.ask("192.0.2.9", 7000) == "outside 10.2.0.2"
    finally:
        world.firewall.add_network(Network("wh2"))
    assert world.b1.ask("192.0.2.9", 7000) == "outside 192.0.2.1"


class Talk:
    """A UDP client that keeps its port, so that all its datagrams are one flow to the kernel."""

    def __init__(self, namespace: Namespace, target: str, port: int) -> None:
        self.sock = namespace.socket(socket.AF_INET6 if ":" in target else socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.settimeout(0.3)
        self.target = (target, port)

    def say(self) -> str:
        self.sock.sendto(b"hello", self.target)
        try:
            return self.sock.recv(100).decode().partition(" ")[0]
        except OSError:
            return ""


@FAMILIES
def test_a_steady_udp_client_follows_the_published_port(world: World, v6: bool) -> None:
    first = [Port("", 9200, "udp", address(1, 2, v6), 80)]
    second = [Port("", 9200, "udp", address(1, 3, v6), 80)]
    outside, local = Talk(world.outside, HOST[v6], 9200), Talk(world.host, HOST[v6], 9200)
    try:
        assert (outside.say(), local.say()) == ("", ""), "decided: to the host itself"
        world.firewall.add_ports(first)
        assert (outside.say(), local.say()) == ("c1.2", "c1.2")
        world.firewall.switch(first, second)
        assert (outside.say(), local.say()) == ("c1.3", "c1.3")
        world.firewall.remove_ports(second)
        assert (outside.say(), local.say()) == ("", "")
        world.firewall.sync(world.desired._replace(ports=(*world.ports, *first)))
        assert (outside.say(), local.say()) == ("c1.2", "c1.2")
        world.host.nft("flush ruleset")
        world.firewall.sync(world.desired._replace(ports=(*world.ports, *second)))
        assert (outside.say(), local.say()) == ("c1.3", "c1.3")
    finally:
        outside.sock.close()
        local.sock.close()
        world.firewall.sync(world.desired)


def test_many_steady_udp_clients_follow_at_once(world: World) -> None:
    ports = [Port("192.0.2.1", 9400 + n, "udp", "10.1.0.2", 80) for n in range(20)]
    moved = [port._replace(address="10.1.0.3") for port in ports]
    talks = [Talk(world.outside, "192.0.2.1", port.host_port) for port in ports]
    try:
        for talk in talks:
            talk.sock.sendto(b"hello", talk.target)
        world.firewall.add_ports(ports)
        for talk in talks:
            talk.sock.settimeout(1)
        assert {talk.say() for talk in talks} == {"c1.2"}
        world.firewall.switch(ports, moved)
        assert {talk.say() for talk in talks} == {"c1.3"}
    finally:
        for talk in talks:
            talk.sock.close()
        world.firewall.remove_ports(moved)


@FAMILIES
def test_publishing_a_port_leaves_containers_own_talks_on_that_port_alone(world: World, v6: bool) -> None:
    """Publishing 53/udp must not cut DNS queries of other containers off."""
    talk = Talk(world.b1, OUTSIDE[v6], 7000)
    port = [Port("", 7000, "udp", address(1, 2, v6), 80)]
    try:
        talk.sock.sendto(b"hello", talk.target)
        world.firewall.add_ports(port)
        assert talk.sock.recv(100).startswith(b"outside"), "the answer found its way back"
    finally:
        talk.sock.close()
        world.firewall.remove_ports(port)


def _crc32c(data: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _bit in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def _sctp_init(source_port: int, port: int) -> bytes:
    """An association's first packet; connection tracking looks at the checksum and the chunk."""
    chunk = struct.pack(">BBHIIHHI", 1, 0, 20, 0x1234, 65536, 1, 1, 1)
    head = struct.pack(">HHI", source_port, port, 0)
    return head + struct.pack("<I", _crc32c(head + b"\0" * 4 + chunk)) + chunk


@FAMILIES
def test_sctp_is_published_too(world: World, v6: bool) -> None:
    """With raw sockets: not every kernel can speak SCTP itself."""
    port = [Port("", 9300, "sctp", address(1, 2, v6), 90)]
    family = socket.AF_INET6 if v6 else socket.AF_INET
    with (
        world.a1.socket(family, socket.SOCK_RAW, 132) as seen,
        world.outside.socket(family, socket.SOCK_RAW, 132) as sender,
    ):
        seen.settimeout(0.3)
        sender.sendto(_sctp_init(1000, 9300), (HOST[v6], 0))
        with pytest.raises(TimeoutError):
            seen.recv(200)
        world.firewall.add_ports(port)
        sender.sendto(_sctp_init(1001, 9300), (HOST[v6], 0))
        packet = seen.recv(200)
        assert struct.unpack_from(">HH", packet, 0 if v6 else 20) == (1001, 90)
        world.firewall.remove_ports(port)
