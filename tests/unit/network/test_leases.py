# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Leases and ports as rows of a real store; no kernel object is touched."""

from __future__ import annotations

import os
import secrets
import socket

import pytest
from module_utils._engine.errors import Conflict, NotFound, Unsupported, UsageError
from module_utils._engine.network import definition, ipam, leases, ports
from module_utils._engine.paths import Paths
from module_utils._engine.store.records import ContainerRecord, PortRecord
from module_utils._engine.store.state import Store


@pytest.fixture
def store(tmp_path):
    with Store.open(Paths(str(tmp_path / "s"), str(tmp_path / "r"))) as opened:
        yield opened


class NoRoutes:
    def routes(self, family=0, table=254):
        return []


def network(store, name, **spec):
    return definition.create(store, NoRoutes(), name, spec)


def container(store, name):
    record = ContainerRecord(secrets.token_hex(32), name, "sha256:0", "x", {}, "running", 0.0, {}, 0)
    return store.containers.create(record).id


def plan(store, cid, *wanted):
    def find(name):
        record = store.networks.get(name)
        if record is None:
            raise NotFound(name)
        return record

    return leases.plan(store, cid, wanted, find)


def test_networks_made_one_after_another_get_different_subnets(store):
    subnets = [network(store, "n%d" % i, enable_ipv6=True).subnets for i in range(4)]
    nets = [ipam.parse(s["subnet"]) for pair in subnets for s in pair]
    assert not any(a.overlaps(b) for i, a in enumerate(nets) for b in nets[:i])
    assert len(nets) == 8


def test_an_ipv6_subnet_needs_no_switch_and_contradicts_the_switch_off(store):
    record = network(store, "six", ipam_config=[{"subnet": "fd00:9::/64"}])
    assert record.subnets[0]["subnet"] == "fd00:9::/64" and len(record.subnets) == 2
    with pytest.raises(UsageError, match="enable_ipv6"):
        network(store, "seven", ipam_config=[{"subnet": "fd00:8::/64"}], enable_ipv6=False)


@pytest.mark.parametrize("spec", [
    {"driver": "overlay"}, {"driver_options": {"com.docker.network.driver.mtu": "12"}},
    {"driver_options": {"com.docker.network.bridge.name": "much-too-long-a-name"}},
    {"driver_options": {"com.docker.network.bridge.name": "a/b"}},
    {"driver_options": {"com.docker.network.bridge.enable_icc": "maybe"}},
    {"ipam_config": [{"gateway": "10.0.0.1"}]},
])  # fmt: skip
def test_a_definition_that_cannot_work_stores_nothing(store, spec):
    with pytest.raises(UsageError):
        network(store, "bad", **spec)
    assert store.networks.list() == []


@pytest.mark.parametrize("option", ["bridge.gateway_mode_ipv4", "bridge.inhibit_ipv4", "bridge.enable_iccc"])
def test_docker_s_options_that_we_would_ignore_are_refused(store, option):
    with pytest.raises(Unsupported, match=option):
        network(store, "x", driver_options={"com.docker.network." + option: "true"})
    network(store, "x", driver_options={"org.example.note": "true"})


def test_interface_names_can_begin_otherwise(store):
    network(store, "a", driver_options={"com.docker.network.container_iface_prefix": "lan"})
    network(store, "b")
    records = plan(store, container(store, "c"), {"name": "a"}, {"name": "b"})
    assert [r.ifname for r in records] == ["lan0", "eth0"]


def test_names_and_bridges_are_unique(store):
    options = {"com.docker.network.bridge.name": "br-x"}
    network(store, "one", driver_options=options)
    with pytest.raises(Conflict, match="network with name one already exists"):
        network(store, "one")
    with pytest.raises(Conflict, match="networks have same bridge name"):
        network(store, "two", driver_options=options)


def test_interfaces_are_named_in_join_order(store):
    for name in ("zeta", "alpha"):
        network(store, name)
    records = plan(store, container(store, "c"), {"name": "zeta"}, {"name": "alpha"})
    assert [(r.ifname, r.position) for r in records] == [("eth0", 0), ("eth1", 1)]


def test_planning_again_keeps_addresses_and_forgets_what_is_no_longer_asked(store):
    for name in ("a", "b", "c"):
        network(store, name)
    cid = container(store, "c")
    first = plan(store, cid, {"name": "a"}, {"name": "b"})
    again = plan(store, cid, {"name": "b", "aliases": ["db"]}, {"name": "c"})
    assert again[0].ipv4 == first[1].ipv4 and again[0].ifname == "eth1" and again[0].aliases == ["db"]
    assert again[1].ifname == "eth0"
    assert {e.network_id for e in store.networks.endpoints(container_id=cid)} == {e.network_id for e in again}


def test_a_static_address_replaces_the_dynamic_one_and_is_refused_when_taken(store):
    network(store, "a", ipam_config=[{"subnet": "10.5.0.0/24"}])
    one, two = container(store, "one"), container(store, "two")
    plan(store, one, {"name": "a"})
    assert plan(store, one, {"name": "a", "ipv4_address": "10.5.0.9"})[0].mac == "02:42:0a:05:00:09"
    with pytest.raises(Conflict, match=r"Address already in use: 10\.5\.0\.9 belongs to container one"):
        plan(store, two, {"name": "a", "ipv4_address": "10.5.0.9"})
    assert store.networks.endpoints(container_id=two) == []


def test_a_given_mac_is_kept_and_its_absence_returns_to_the_derived_one(store):
    network(store, "a")
    cid = container(store, "c")
    assert plan(store, cid, {"name": "a", "mac_address": "92:D0:C6:0A:29:33"})[0].mac == "92:d0:c6:0a:29:33"
    assert plan(store, cid, {"name": "a"})[0].mac.startswith("02:42:")


def test_the_default_network_takes_neither_static_addresses_nor_aliases(store):
    network(store, "bridge")
    cid = container(store, "c")
    with pytest.raises(UsageError, match="user specified IP address is supported on user defined networks only"):
        plan(store, cid, {"name": "bridge", "ipv4_address": "172.17.0.9"})
    with pytest.raises(UsageError, match="network-scoped alias"):
        plan(store, cid, {"name": "bridge", "aliases": ["x"]})


def test_exhaustion_says_which_network_and_stores_nothing(store):
    network(store, "tiny", ipam_config=[{"subnet": "10.5.0.0/30"}])
    plan(store, container(store, "one"), {"name": "tiny"})
    two = container(store, "two")
    with pytest.raises(Conflict, match="no available IPv4 addresses on this network's address pools: tiny"):
        plan(store, two, {"name": "tiny"})
    assert store.networks.endpoints(container_id=two) == []


def test_fifty_processes_allocating_at_once_never_collide(store):
    network(store, "a", enable_ipv6=True)
    ids = [container(store, "c%d" % i) for i in range(50)]
    store.close()
    pids = []
    for cid in ids:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                with Store.open(store.paths, recover=False) as own:
                    plan(own, cid, {"name": "a"})
                code = 0
            finally:
                os._exit(code)
        pids.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * 50
    with Store.open(store.paths) as again:
        records = again.networks.endpoints()
    assert len({r.ipv4 for r in records}) == len({r.ipv6 for r in records}) == len({r.mac for r in records}) == 50


def test_a_dynamic_address_that_somebody_took_first_is_chosen_again(store):
    record = network(store, "a", ipam_config=[{"subnet": "10.5.0.0/24"}])
    one, two = container(store, "one"), container(store, "two")
    real, stale = store.networks.endpoints, []

    def old_news(**query):  # the view of a process that looked before the other one wrote
        if not stale and "network_id" in query:
            stale.append(1)
            leases.put(store, two, record, leases.check(record, {}), position=0, ifname="eth0")
            return []
        return real(**query)

    store.networks.endpoints = old_news
    got = leases.put(store, one, record, leases.check(record, {}), position=0, ifname="eth0")
    assert got.ipv4 == "10.5.0.3"


# -- ports -----------------------------------------------------------------------------------------------------


def taken_port():
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    return sock, sock.getsockname()[1]


def test_a_port_of_another_container_is_refused_in_docker_s_words(store):
    one, two = container(store, "one"), container(store, "two")
    store.networks.put_ports(one, [PortRecord(one, "127.0.0.1", 40001, "tcp", 80)])
    with pytest.raises(Conflict, match=r"Bind for 0\.0\.0\.0:40001 failed: port is already allocated .*container one"):
        ports.check(store, [PortRecord(two, "", 40001, "tcp", 80)], two, running=False)
    ports.check(store, [PortRecord(two, "127.0.0.2", 40001, "tcp", 80)], two, running=False)


def test_a_port_a_host_process_listens_on_is_refused(store):
    cid = container(store, "c")
    sock, port = taken_port()
    with sock, pytest.raises(Conflict, match="address already in use"):
        ports.check(store, [PortRecord(cid, "", port, "tcp", 80)], cid, running=False)


def test_the_reservation_of_our_own_monitor_is_no_conflict(store):
    cid = container(store, "c")
    sock, port = taken_port()
    record = PortRecord(cid, "", port, "tcp", 80)
    store.networks.put_ports(cid, [record])
    with sock:
        ports.check(store, [record], cid, running=True)
        with pytest.raises(Conflict):
            ports.check(store, [record], cid, running=False)


def test_a_port_with_connections_in_time_wait_is_free(store):
    sock, port = taken_port()
    with sock:
        client = socket.create_connection(("127.0.0.1", port))
        server, _peer = sock.accept()
        server.close()  # the side that closes first keeps TIME_WAIT
        client.recv(1)
        client.close()
    assert ports.is_free("127.0.0.1", port, "tcp")


def test_chosen_ports_are_kept_and_never_collide_with_asked_ones(store):
    cid = container(store, "c")
    wanted = [{"container_port": 80, "host_port": 0, "protocol": "tcp", "host_ip": ""},
              {"container_port": 81, "host_port": 0, "protocol": "udp", "host_ip": "127.0.0.1"}]  # fmt: skip
    first = ports.resolve(store, cid, wanted)
    assert all(32768 <= p.host_port <= 60999 for p in first)
    store.networks.put_ports(cid, first)
    assert ports.resolve(store, cid, wanted) == first
    clash = [*wanted, {"container_port": 9, "host_port": first[0].host_port, "protocol": "tcp", "host_ip": ""}]
    assert len({(p.host_port, p.protocol) for p in ports.resolve(store, cid, clash)}) == 3


def test_a_network_can_say_where_ports_are_published(store):
    cid = container(store, "c")
    wanted = [{"container_port": 80, "host_port": 40003}, {"container_port": 81, "host_port": 40004, "host_ip": "::"}]
    assert [p.host_ip for p in ports.resolve(store, cid, wanted, host_ip="127.0.0.1")] == ["127.0.0.1", "::"]


def test_one_request_cannot_ask_twice_for_a_port(store):
    cid = container(store, "c")
    pair = [PortRecord(cid, ip, 40002, "tcp", n) for ip, n in (("", 80), ("127.0.0.1", 81))]
    with pytest.raises(Conflict, match="asked for twice"):
        ports.check(store, pair, cid, running=False)
