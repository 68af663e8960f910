# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The whole room together: containers with names and published ports, a host, and a machine outside on a wire."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
import time

import pytest
from kernel.network.conftest import KERNEL, Host, private_network
from kernel.network.netlab import Namespace
from module_utils._engine.kernel.syscalls import MNT_DETACH
from module_utils._engine.network import dns
from module_utils._engine.store.records import PortRecord

dnslib = pytest.importorskip("dnslib")
pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
def world():
    directory = tempfile.mkdtemp(prefix="wt", dir="/run")
    try:
        with private_network():
            made, outside = Host(directory), Namespace()
            try:
                made.netlink.add_veth("wire0", "eth0", outside.fd)
                index = made.netlink.link("wire0").ifindex
                made.netlink.add_address(index, "198.51.100.1", 24)
                made.netlink.add_address(index, "2001:db8:51::1", 64)
                outside.ip("addr add 198.51.100.9/24 dev eth0")
                outside.ip("addr add 2001:db8:51::9/64 dev eth0 nodad")
                outside.ip("link set eth0 up")
                outside.ip("route add default via 198.51.100.1")
                outside.ip("route add default via 2001:db8:51::1")
                made.outside = outside
                yield made
            finally:
                dns.stop(made.paths)
                made.close()
                outside.close()
    finally:
        for name in os.listdir(directory + "/r/netns"):
            with contextlib.suppress(OSError):
                KERNEL.umount2("%s/r/netns/%s" % (directory, name), MNT_DETACH)
        shutil.rmtree(directory)


def from_outside(world, address, port, timeout=1.0):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with world.outside.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(timeout)
        try:
            sock.connect((address, port))
        except OSError:
            return False
        return True


def resolve(world, cid, name, kind="A"):
    """Addresses, or the reply code's name."""
    sock = world.within(cid, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with sock:
        sock.settimeout(5)
        sock.sendto(dnslib.DNSRecord.question(name, kind).pack(), ("127.0.0.11", 53))
        reply = dnslib.DNSRecord.parse(sock.recv(4096))
    return sorted(str(answer.rdata) for answer in reply.rr) or dnslib.RCODE[reply.header.rcode]


def test_names_ports_and_walls(world):
    world.service.create("web", {"enable_ipv6": True})
    world.service.create("other", {})
    app = world.container("app", {"name": "web", "aliases": ["www"]})
    world.store.networks.put_ports(app, [PortRecord(app, "", 8080, "tcp", 80)])
    world.service.start(app)
    client, stranger = world.started("client", "web"), world.started("stranger", "other")

    assert resolve(world, client, "app") == resolve(world, client, "www") == [world.address(app)]
    assert resolve(world, client, "app", "AAAA") == [world.address(app, v6=True)]
    assert resolve(world, stranger, "app") != [world.address(app)]
    assert "nameserver 127.0.0.11" in open(world.paths.container(client) + "/files/resolv.conf").read()

    with world.listen(app, 80), world.listen(app, 81), world.listen(app, 80, socket.AF_INET6):
        assert from_outside(world, "198.51.100.1", 8080) and from_outside(world, "2001:db8:51::1", 8080)
        assert not from_outside(world, world.address(app), 80, 0.3), "past the published port"
        assert not from_outside(world, world.address(app), 81, 0.3), "an unpublished port"
        assert world.reaches(client, world.address(app), 81) and not world.reaches(
            stranger, world.address(app), 81, 0.3
        )
        assert world.reaches(stranger, "198.51.100.1", 8080), "through the host like anybody else"

    for cid in (app, client, stranger):
        assert world.service.check(cid) == []
        world.service.release(cid, wait=True)
    assert dns.members(world.paths) == [] and len(world.links()) == 2
    assert not from_outside(world, "198.51.100.1", 8080, 0.3)


def test_containers_reach_the_outside_under_the_host_s_address(world):
    world.service.create("web", {"enable_ipv6": True})
    cid = world.started("c", "web")
    for family, address, expected in (
        (socket.AF_INET, "198.51.100.9", "198.51.100.1"),
        (socket.AF_INET6, "2001:db8:51::9", "2001:db8:51::1"),
    ):
        with world.outside.socket(family, socket.SOCK_STREAM) as server:
            server.bind((address, 7000))
            server.listen()
            server.settimeout(2)
            assert world.reaches(cid, address, 7000)
            assert server.accept()[1][0] == expected


def test_a_live_connect_brings_names_and_a_live_disconnect_takes_them(world):
    world.service.create("web", {})
    app, client = world.started("app", "web"), world.started("client", "bridge")
    resolv = world.paths.container(client) + "/files/resolv.conf"
    assert "127.0.0.11" not in open(resolv).read()
    world.service.connect(client, {"name": "web"})
    assert "127.0.0.11" in open(resolv).read() and resolve(world, client, "app") == [world.address(app)]
    world.service.disconnect(client, world.service.find("web"))
    assert "127.0.0.11" not in open(resolv).read()
    assert world.service.check(client) == [] and [m.container_id for m in dns.members(world.paths)] == [app]


def test_a_resolver_that_died_is_noticed_and_started_again(world):
    world.service.create("web", {})
    app = world.started("app", "web")
    dns.stop(world.paths)
    assert world.service.check(app) == ["nobody answers names at 127.0.0.11"]
    world.service.start(app)
    assert world.service.check(app) == [] and resolve(world, app, "app") == [world.address(app)]


def test_a_namespace_is_gone_soon_after_its_release_whoever_looked_into_it(world):
    """The resolver's sockets inside would keep it, and with it the veth and the address on the bridge."""
    world.service.create("web", {})
    cid = world.started("app", "web")
    resolve(world, cid, "app")
    world.service.release(cid)
    deadline = time.monotonic() + 5
    while len(world.links()) > 1 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(world.links()) == 1


@pytest.mark.parametrize("v6", [False, True], ids=["ipv4", "ipv6"])
def test_a_client_that_never_stops_sending_reaches_whoever_has_the_udp_port_now(world, v6):
    """NAT decides once per flow, and each datagram keeps the flow alive: it has to be forgotten."""
    world.service.create("web", {"enable_ipv6": True})
    family = socket.AF_INET6 if v6 else socket.AF_INET

    def server():
        sock = socket.socket(family, socket.SOCK_DGRAM)
        sock.bind(("::" if v6 else "", 53))
        sock.settimeout(0.5)
        return sock

    with world.outside.socket(family, socket.SOCK_DGRAM) as client:
        client.bind(("2001:db8:51::9" if v6 else "198.51.100.9", 5353))
        client.connect(("2001:db8:51::1" if v6 else "198.51.100.1", 8053))

        def send():
            with contextlib.suppress(ConnectionRefusedError):
                client.send(b"hello")

        for number in range(2):  # nobody has the port; then another container had it
            send()
            send()
            cid = world.container("c%d" % number, "web")
            world.store.networks.put_ports(cid, [PortRecord(cid, "", 8053, "udp", 53)])
            world.service.start(cid)
            with world.within(cid, server) as sock:
                send()
                send()
                assert sock.recv(16) == b"hello", number
            world.service.release(cid)
            world.store.networks.put_ports(cid, [])
