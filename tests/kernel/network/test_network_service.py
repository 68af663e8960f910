# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Networks and containers' places in them on a real kernel, inside a private "host"."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time

import pytest
from module_utils._engine.errors import Conflict, InUse, KernelError, NotFound, UsageError
from module_utils._engine.kernel.netlink import Netlink
from module_utils._engine.network import bridge, endpoint, sandbox
from module_utils._engine.store.records import PortRecord

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


def settled(condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def record_of(host, cid, number=0):
    return host.store.networks.endpoints(container_id=cid)[number]


# -- bridges ---------------------------------------------------------------------------------------------------


def test_a_network_is_a_bridge_with_its_gateway_address_and_the_uplink_s_mtu(host):
    record = host.service.create("web", {"enable_ipv6": True})
    seen = host.service.observe(record)
    assert (seen["link"], seen["up"], seen["mtu"], seen["drift"]) == ("wh" + record.id[:12], True, 1400, [])
    gateways = ["%s/%d" % pair for pair in bridge.gateways(record)]
    assert len(gateways) == 2 and set(gateways) <= set(seen["addresses"])
    assert sandbox.read_sysctl("ipv4/ip_forward") == sandbox.read_sysctl("ipv6/conf/all/forwarding") == "1"
    assert sandbox.read_sysctl("ipv4/conf/%s/route_localnet" % seen["link"]) == "1"
    assert sandbox.read_sysctl("ipv6/conf/%s/accept_ra" % seen["link"]) == "0"


def test_a_network_without_ipv6_has_no_ipv6_address_at_all(host):
    seen = host.service.observe(host.service.create("web", {}))
    assert not any(":" in address for address in seen["addresses"])


def test_forwarding_ipv6_does_not_cost_the_host_its_own_routes(host):
    sandbox.write_sysctl("ipv6/conf/up0/accept_ra", "1")
    host.service.create("web", {"enable_ipv6": True})
    assert sandbox.read_sysctl("ipv6/conf/up0/accept_ra") == "2"


def test_an_internal_network_does_not_make_the_host_a_router(host):
    host.service.create("inner", {"internal": True})
    assert sandbox.read_sysctl("ipv4/ip_forward") == "0"


def test_the_default_network_appears_when_it_is_named_and_only_once(host):
    first = host.service.ensure_default()
    assert host.service.find("default") == host.service.ensure_default() == first
    assert host.links() == ["wh" + first.id[:12]]


def test_mtu_and_bridge_name_can_be_chosen(host):
    options = {bridge.MTU_OPTION: "1280", bridge.NAME_OPTION: "br-web"}
    seen = host.service.observe(host.service.create("web", {"driver_options": options}))
    assert (seen["link"], seen["mtu"]) == ("br-web", 1280)


def test_a_bridge_of_the_host_is_used_and_outlives_the_network(host):
    host.netlink.add_link("br0", "bridge", mac="02:00:00:00:00:77")
    record = host.service.create("lan", {"driver_options": {bridge.NAME_OPTION: "br0"}})
    index = host.netlink.link("br0").ifindex
    assert [(a.address, a.prefix) for a in host.netlink.addresses(index)] == bridge.gateways(record)
    host.service.remove(record)
    assert host.netlink.link("br0").mac == "02:00:00:00:00:77" and host.netlink.addresses(index) == []


def test_a_link_of_another_kind_is_not_taken_and_nothing_is_left(host):
    with pytest.raises(Conflict, match="is not a bridge"):
        host.service.create("lan", {"driver_options": {bridge.NAME_OPTION: "lo"}})
    assert host.store.networks.list() == []


def test_the_subnet_of_an_interface_is_never_chosen_nor_accepted(host):
    index = host.netlink.link("up0").ifindex
    host.netlink.add_address(index, "172.17.9.9", 16)
    host.netlink.add_route("172.18.4.0", 24, gateway="192.0.2.7")
    assert host.service.create("a", {}).subnets[0]["subnet"] == "172.19.0.0/16"
    with pytest.raises(Conflict, match="the host has a route"):
        host.service.create("b", {"ipam_config": [{"subnet": "172.17.0.0/16"}]})
    with pytest.raises(Conflict, match="Pool overlaps"):
        host.service.create("c", {"ipam_config": [{"subnet": "172.19.4.0/24"}]})


def test_preview_promises_what_create_does_and_touches_nothing(host):
    preview = host.service.preview("a", {})
    assert host.links() == [] and host.store.networks.list() == []
    assert host.service.create("a", {}).subnets == preview.subnets


@pytest.mark.parametrize("name", ["bridge", "host", "none"])
def test_predefined_networks_are_neither_made_nor_removed(host, name):
    with pytest.raises(UsageError, match="operation is not permitted on predefined"):
        host.service.create(name, {})
    with pytest.raises(UsageError, match="pre-defined network and cannot be removed"):
        host.service.remove(host.service.ensure_default()._replace(name=name))


DAMAGE = {
    "deleted": lambda host, link: host.netlink.delete_link(link.ifindex),
    "down": lambda host, link: host.netlink.set_link(link.ifindex, up=False),
    "no address": lambda host, link: [
        host.netlink.delete_address(link.ifindex, a.address, a.prefix) for a in host.netlink.addresses(link.ifindex)
    ],
    "sysctl": lambda host, link: sandbox.write_sysctl("ipv4/conf/%s/route_localnet" % link.name, "0"),
    "no firewall": lambda host, link: os.system("nft flush ruleset"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_drift_is_seen_and_repaired_and_members_are_attached_again(host, damage):
    record = host.service.create("web", {})
    one, two = host.started("one", "web"), host.started("two", "web")
    DAMAGE[damage](host, host.netlink.link(bridge.link_name(host.paths, record)))
    assert host.service.observe(record)["drift"]
    assert host.service.repair(record)
    assert host.service.observe(record)["drift"] == [] == host.service.repair(record)
    assert host.service.check(one) == []
    with host.listen(two, 80):
        assert host.reaches(one, host.address(two), 80)


# -- sandboxes -------------------------------------------------------------------------------------------------


def test_a_sandbox_has_loopback_and_docker_s_sysctls(host):
    cid = host.started("c")
    assert host.within(cid, lambda: sandbox.read_sysctl("ipv4/ping_group_range")).split() == ["0", "2147483647"]
    assert host.within(cid, lambda: sandbox.read_sysctl("ipv4/ip_unprivileged_port_start")) == "0"
    with host.listen(cid, 80):
        assert host.reaches(cid, "127.0.0.1", 80)
    assert not host.reaches(cid, "192.0.2.1", 80, timeout=0.2)


def test_making_a_sandbox_brings_the_thread_home(host):
    before = os.stat("/proc/thread-self/ns/net").st_ino
    cid = host.started("c")
    assert os.stat("/proc/thread-self/ns/net").st_ino == before
    assert os.stat(host.paths.container_netns(cid)).st_ino != before


def test_a_sandbox_is_made_once(host):
    cid = host.started("c")
    inode = os.stat(host.paths.container_netns(cid)).st_ino
    host.service.start(cid)
    assert os.stat(host.paths.container_netns(cid)).st_ino == inode


def test_a_file_without_a_namespace_is_used_again(host):
    cid = host.container("c")
    path = host.paths.container_netns(cid)
    with open(path, "w"):
        pass
    assert not host.service.is_active(cid)
    host.service.start(cid)
    assert host.service.is_active(cid)


def test_a_symlink_in_the_place_of_a_sandbox_is_not_followed(host):
    cid = host.container("c")
    os.symlink("/proc/self/ns/net", host.paths.container_netns(cid))
    with pytest.raises(KernelError):
        host.service.start(cid)
    os.unlink(host.paths.container_netns(cid))


def test_a_sandbox_mounted_twice_is_removed_whole(host):
    cid = host.started("c")
    path = host.paths.container_netns(cid)
    host.service.kernel.mount(path, path, None, 4096)
    host.service.release(cid)
    assert not os.path.lexists(path)


# -- endpoints -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("v6", [False, True], ids=["ipv4", "ipv6"])
def test_containers_of_a_network_the_host_and_nobody_else_reach_each_other(host, v6):
    for name in ("red", "blue"):
        host.service.create(name, {"enable_ipv6": True})
    one, two, other = host.started("one", "red"), host.started("two", "red"), host.started("other", "blue")
    family = socket.AF_INET6 if v6 else socket.AF_INET
    with host.listen(two, 80, family):
        assert host.reaches(one, host.address(two, v6=v6), 80)
        assert host.reaches(None, host.address(two, v6=v6), 80)
        assert not host.reaches(other, host.address(two, v6=v6), 80, timeout=0.3)


def test_networks_are_separate_bridges(host):
    """Even without any firewall, a neighbour on another bridge does not answer ARP."""
    for name in ("red", "blue"):
        host.service.create(name, {"ipam_config": [{"subnet": "10.%d.0.0/16" % (5 if name == "red" else 6)}]})
    one, other = host.started("one", "red"), host.started("other", "blue")
    os.system("nft flush ruleset")
    sandbox.write_sysctl("ipv4/ip_forward", "0")

    def direct():
        with Netlink() as inner:
            inner.add_route("10.6.0.0", 16, index=inner.link("eth0").ifindex)

    host.within(one, direct)
    with host.listen(other, 80):
        assert not host.reaches(one, host.address(other), 80, timeout=0.3)


def test_the_veth_is_as_the_record_says(host):
    host.service.create("web", {})
    cid = host.started("c", {"name": "web", "mac_address": "92:d0:c6:0a:29:33"})
    record = record_of(host, cid)
    with endpoint.Sandbox(host.paths.container_netns(cid)) as box:
        link = box.inner.link("eth0")
        assert (link.mac, link.mtu, link.up) == ("92:d0:c6:0a:29:33", 1400, True)
        addresses = [a.address for a in box.inner.addresses(link.ifindex)]
        assert addresses == [record.ipv4]
    outer = host.netlink.link(endpoint.host_link(cid, record.network_id))
    assert outer.up and outer.master and host.netlink.addresses(outer.ifindex) == []


def default_gateways(host, cid):
    def look():
        with Netlink() as inner:
            return sorted(route.gateway for route in inner.routes() if not route.prefix)

    return host.within(cid, look)


def gateway(host, name):
    return host.store.networks.by_name(name).subnets[0]["gateway"]


def test_the_default_route_is_that_of_the_first_open_network_by_name(host):
    host.service.create("zeta", {})
    host.service.create("beta", {})
    host.service.create("alpha", {"internal": True})
    cid = host.started("c", "zeta", "beta", "alpha")
    assert default_gateways(host, cid) == [gateway(host, "beta")]
    host.service.disconnect(cid, host.service.find("beta"))
    assert default_gateways(host, cid) == [gateway(host, "zeta")]
    host.service.disconnect(cid, host.service.find("zeta"))
    assert default_gateways(host, cid) == []


def test_internal_networks_give_no_default_route(host):
    host.service.create("inner", {"internal": True})
    assert default_gateways(host, host.started("c", "inner")) == []


def test_a_container_s_own_default_route_stays(host):
    host.service.create("web", {})
    host.service.create("inner", {"internal": True})
    cid = host.started("c", "inner")
    own = host.address(cid).rsplit(".", 1)[0] + ".99"

    def route():
        with Netlink() as inner:
            inner.add_route("", 0, gateway=own, metric=500)

    host.within(cid, route)
    host.service.connect(cid, {"name": "web"})
    assert default_gateways(host, cid) == sorted([own, gateway(host, "web")])


def test_connect_and_disconnect_live_keep_kernel_files_and_store_together(host):
    host.service.create("web", {})
    host.service.create("db", {})
    one, two = host.started("one", "web"), host.started("two", "db")
    files = host.paths.container(one) + "/files"
    inode = os.stat(files + "/hosts").st_ino
    host.service.connect(one, {"name": "db", "aliases": ["client"]})
    assert host.service.check(one) == []
    with host.listen(two, 5432):
        assert host.reaches(one, host.address(two), 5432)
        assert "%s\t%s\n" % (host.address(one, 1), one[:12]) in open(files + "/hosts").read()
        host.service.disconnect(one, host.service.find("db"))
        assert not host.reaches(one, host.address(two), 5432, timeout=0.3)
    assert "172.18.0" not in open(files + "/hosts").read() and os.stat(files + "/hosts").st_ino == inode
    assert len(host.store.networks.endpoints(container_id=one)) == 1
    with pytest.raises(NotFound, match="is not connected to network db"):
        host.service.disconnect(one, host.service.find("db"))


def test_a_freed_interface_name_is_taken_by_the_next_network(host):
    for name in ("a", "b", "c"):
        host.service.create(name, {})
    cid = host.started("c", "a", "b")
    host.service.disconnect(cid, host.service.find("a"))
    assert host.service.connect(cid, {"name": "c"}).ifname == "eth0"
    assert host.service.check(cid) == []


def test_connecting_a_stopped_container_waits_for_its_start(host):
    host.service.create("web", {})
    cid = host.container("c")
    host.service.connect(cid, {"name": "web"})
    assert not host.service.is_active(cid)
    host.service.start(cid)
    assert host.service.check(cid) == []


@pytest.mark.parametrize("mode", ["host", "container:abc"])
def test_a_container_in_somebody_else_s_namespace_connects_to_nothing(host, mode):
    host.service.create("web", {})
    cid = host.container("c", network_mode=mode)
    with pytest.raises(UsageError, match="cannot be connected to any other network"):
        host.service.connect(cid, {"name": "web"})


# -- release, removal ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wait", [False, True])
def test_release_leaves_nothing_but_the_lease(host, wait):
    record = host.service.create("web", {})
    cid = host.started("c", "web")
    lease = record_of(host, cid)
    host.service.release(cid, wait=wait)
    host.service.release(cid)
    assert os.listdir(host.paths.netns) == [] and record_of(host, cid) == lease
    assert settled(lambda: host.links() == [bridge.link_name(host.paths, record)], 0 if wait else 5)


def test_a_start_at_once_after_a_release_does_not_stumble_over_the_dying_link(host):
    host.service.create("web", {})
    cid = host.started("c", "web")
    for _round in range(5):
        host.service.release(cid)
        host.service.start(cid)
        assert host.service.check(cid) == []


def test_release_of_what_never_was_is_fine(host):
    host.service.release("ab" * 32)


def test_a_network_in_use_stays_and_a_stopped_member_does_not_hold_it(host):
    record = host.service.create("web", {})
    cid = host.started("c1", "web")
    with pytest.raises(InUse, match=r"network web id %s has active endpoints \(c1\)" % record.id):
        host.service.remove(record)
    assert host.service.check(cid) == []
    host.service.release(cid)
    host.service.remove(record)
    assert host.store.networks.list() == [] == host.store.networks.endpoints()
    assert settled(lambda: host.links() == [])


# -- faults ----------------------------------------------------------------------------------------------------


def test_a_start_that_fails_leaves_nothing(host, monkeypatch):
    host.service.create("web", {})
    cid = host.container("c", "web")
    monkeypatch.setattr(
        "module_utils._engine.network.endpoint.set_default_routes",
        lambda *_args: (_n for _n in ()).throw(KernelError("no", step="x")),
    )
    with pytest.raises(KernelError):
        host.service.start(cid)
    assert os.listdir(host.paths.netns) == []
    assert settled(lambda: len(host.links()) == 1)


def test_a_repair_that_fails_does_not_tear_down_a_running_container(host, monkeypatch):
    host.service.create("web", {})
    cid = host.started("c", "web")
    with monkeypatch.context() as patch:
        patch.setattr(
            "module_utils._engine.network.endpoint.set_default_routes",
            lambda *_args: (_n for _n in ()).throw(KernelError("no", step="x")),
        )
        with pytest.raises(KernelError):
            host.service.start(cid)
    assert host.service.check(cid) == []


def crash_points(host, cid):
    """Run start() in a child that kills itself after its n-th change of the kernel; yields until it survives."""
    for number in range(1, 60):
        pid = os.fork()
        if pid == 0:
            try:
                _arm(number)
                host.service.start(cid)
            finally:
                os._exit(0)
        _pid, status = os.waitpid(pid, 0)
        yield number, os.WIFSIGNALED(status)


def _arm(limit):
    """Count requests that change something, sysctl writes, mounts and files; die by SIGKILL right after number n."""
    count = [0]

    def armed(function):
        def call(*args, **kwargs):
            result = function(*args, **kwargs)
            count[0] += 1
            if count[0] >= limit:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    from module_utils._engine.kernel import syscalls
    from module_utils._engine.network import bridge, endpoint, files

    for name in ("add_link", "add_veth", "set_link", "add_address", "add_route", "delete_link"):
        setattr(Netlink, name, armed(getattr(Netlink, name)))
    for module in (sandbox, bridge, endpoint):
        module.write_sysctl = armed(module.write_sysctl)
    sandbox._file = armed(sandbox._file)
    syscalls.Kernel.mount = armed(syscalls.Kernel.mount)
    files.write_in_place = armed(files.write_in_place)


def test_a_start_killed_anywhere_is_finished_by_the_next(host):
    record = host.service.create("web", {"enable_ipv6": True})
    cid = host.container("c", "web")
    host.store.networks.put_ports(cid, [PortRecord(cid, "", 8080, "tcp", 80)])
    host.service.close()
    kills = 0
    for _number, killed in crash_points(host, cid):
        if not killed:
            break
        kills += 1
        host.service.start(cid)
        assert host.service.check(cid) == [] == host.service.observe(record)["drift"]
        host.service.release(cid, wait=True)
        assert os.listdir(host.paths.netns) == [] and len(host.links()) == 1
        bridge.remove(host.service.netlink, host.paths, record)
        host.service.close()
    assert kills > 15


def test_check_says_what_is_wrong_and_start_puts_it_right(host):
    host.service.create("web", {})
    cid = host.started("c", "web")
    host.store.networks.put_ports(cid, [PortRecord(cid, "", 8080, "tcp", 80)])
    assert host.service.check(cid) == ["published port 8080/tcp is not in the firewall"]
    host.service.publish(cid)

    def damage():
        with Netlink() as inner:
            inner.set_link(inner.link("eth0").ifindex, up=False)

    host.within(cid, damage)
    assert host.service.check(cid) == [
        "interface eth0 is down",
        "the default route through %s is missing" % gateway(host, "web"),
    ]
    host.service.start(cid)
    assert host.service.check(cid) == []
    host.netlink.delete_link(endpoint.host_link(cid, record_of(host, cid).network_id))
    assert host.service.check(cid)[0] == "interface eth0 is missing"
    host.service.start(cid)
    assert host.service.check(cid) == []
    host.service.release(cid)
    assert host.service.check(cid) == ["its network namespace is missing"]


def test_a_link_of_a_network_the_container_has_left_goes_with_the_next_start(host):
    host.service.create("a", {})
    host.service.create("b", {})
    cid = host.started("c", "a", "b")
    host.store.networks.remove_endpoint(cid, host.service.find("a").id)
    host.service.start(cid)
    assert len([name for name in host.links() if name.startswith("whv")]) == 1
    assert host.service.check(cid) == []


# -- published ports -------------------------------------------------------------------------------------------


def publish(host, cid, *ports):
    host.store.networks.put_ports(cid, [PortRecord(cid, "", a, "tcp", b) for a, b in ports])


def test_a_published_port_answers_on_the_host_s_addresses(host):
    host.service.create("web", {})
    cid, peer = host.container("c", "web"), host.started("peer", "web")
    publish(host, cid, (8080, 80))
    host.service.start(cid)
    with host.listen(cid, 80):
        assert host.reaches(None, "192.0.2.1", 8080) and host.reaches(None, "127.0.0.1", 8080)
        assert host.reaches(peer, "192.0.2.1", 8080), "a neighbour"
        assert host.reaches(cid, "192.0.2.1", 8080), "itself"
        host.service.release(cid)
    assert not host.reaches(None, "192.0.2.1", 8080, timeout=0.2)


def test_ports_change_live(host):
    host.service.create("web", {})
    cid = host.started("c", "web")
    with host.listen(cid, 80):
        publish(host, cid, (8080, 80))
        assert host.service.publish(cid) and not host.service.publish(cid)
        assert host.reaches(None, "192.0.2.1", 8080)
        publish(host, cid, (8081, 80))
        host.service.publish(cid)
        assert not host.reaches(None, "192.0.2.1", 8080, timeout=0.2) and host.reaches(None, "192.0.2.1", 8081)


def test_ports_follow_the_gateway_network(host):
    host.service.create("a", {})
    host.service.create("b", {})
    cid = host.container("c", "a", "b")
    publish(host, cid, (8080, 80))
    host.service.start(cid)
    with host.listen(cid, 80):
        assert host.reaches(None, "192.0.2.1", 8080)
        host.service.disconnect(cid, host.service.find("a"))
        assert host.reaches(None, "192.0.2.1", 8080) and host.service.check(cid) == []


def test_a_flushed_table_comes_back_with_the_next_start(host):
    host.service.create("web", {})
    first, second = host.container("one", "web"), host.container("two", "web")
    publish(host, first, (8080, 80))
    publish(host, second, (8081, 80))
    host.service.start(first)
    os.system("nft flush ruleset")
    host.service.start(second)
    assert host.service.check(first) == host.service.check(second) == []


def test_ports_of_a_container_whose_row_is_gone_are_withdrawn(host):
    host.service.create("web", {})
    cid = host.container("c", "web")
    publish(host, cid, (8080, 80))
    host.service.start(cid)
    host.store.containers.remove(cid)
    host.service.release(cid, wait=True)
    assert host.service.publishing.firewall.observe()["ports"] == []
    assert settled(lambda: len(host.links()) == 1)


# -- several at once, hooks ------------------------------------------------------------------------------------


def in_children(host, actions):
    """Each action in a forked process of its own with its own store; returns exit statuses."""
    from module_utils._engine.network.service import NetworkService
    from module_utils._engine.store.state import Store

    host.service.close()
    pids = []
    for action in actions:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                with Store.open(host.paths, recover=False) as store, NetworkService(host.paths, store) as service:
                    action(service)
                code = 0
            finally:
                os._exit(code)
        pids.append(pid)
    return [os.waitpid(pid, 0)[1] for pid in pids]


def test_containers_started_at_once_share_one_bridge_and_one_table(host):
    record = host.service.create("web", {"enable_ipv6": True})
    ids = [host.container("c%d" % number, "web") for number in range(8)]
    for number, cid in enumerate(ids):
        publish(host, cid, (8000 + number, 80))
    bridge.remove(host.service.netlink, host.paths, record)  # as after a boot
    os.system("nft flush ruleset")
    assert in_children(host, [lambda service, cid=cid: service.start(cid) for cid in ids]) == [0] * 8
    assert [host.service.check(cid) for cid in ids] == [[]] * 8 and host.service.observe(record)["drift"] == []
    assert in_children(host, [lambda service, cid=cid: service.release(cid) for cid in ids]) == [0] * 8
    assert host.service.publishing.firewall.observe()["ports"] == []


def test_the_default_network_made_by_many_at_once_is_one(host):
    assert in_children(host, [lambda service: service.ensure_default() for _n in range(6)]) == [0] * 6
    assert len(host.store.networks.list()) == 1 and len(host.links()) == 1


def run_hook(host, cid):
    from module_utils._engine import process

    argv = process.engine_command("network.service", "release", host.paths.state, host.paths.run, cid)
    return process.run(argv, timeout=20)


def write_state(host, cid, **fields):
    import json

    from module_utils._engine.kernel import procfs

    state = {"status": "running", "boot_id": procfs.boot_id(), "pid": os.getpid(), **fields}
    state.setdefault("pid_start", procfs.start_time(os.getpid()))
    os.makedirs(host.paths.container(cid), exist_ok=True)
    with open(host.paths.container(cid) + "/state.json", "w") as file:
        json.dump(state, file)


def test_the_monitor_s_hook_takes_the_network_of_an_ended_container_down(host):
    host.service.create("web", {})
    cid = host.started("c", "web")
    write_state(host, cid, status="exited", pid=0, pid_start=0)
    assert run_hook(host, cid).returncode == 0
    assert not host.service.is_active(cid) and len(host.links()) == 1


def test_the_hook_leaves_a_container_alone_that_runs_again(host):
    host.service.create("web", {})
    cid = host.started("c", "web")
    write_state(host, cid)
    assert run_hook(host, cid).returncode == 0
    assert host.service.check(cid) == []
    write_state(host, cid, pid_start=1)  # the pid of somebody else
    run_hook(host, cid)
    assert not host.service.is_active(cid)


def processes_naming(text):
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open("/proc/%s/cmdline" % pid, "rb") as file:
            if text.encode() in file.read():
                found.append(pid)
    return found


def test_the_hook_does_not_wait_for_a_lock_whose_owner_waits_for_it(host):
    host.service.create("web", {})
    cid = host.started("c", "web")
    write_state(host, cid, status="exited")
    with host.store.lock("container", "c"):
        assert run_hook(host, cid).returncode == 0
        assert host.service.is_active(cid)
    assert settled(lambda: not host.service.is_active(cid), 10), "a process of its own does it later"
    assert settled(lambda: not processes_naming(host.paths.state), 10)


def test_the_hook_of_an_instance_that_is_gone_makes_nothing(host, tmp_path):
    from module_utils._engine import process

    argv = process.engine_command("network.service", "release", str(tmp_path / "s"), str(tmp_path / "r"), "ab" * 32)
    assert process.run(argv, timeout=20).returncode == 0
    assert os.listdir(tmp_path) == []


def test_a_lease_that_changes_under_a_running_container_moves(host):
    host.service.create("web", {"ipam_config": [{"subnet": "10.5.0.0/24"}]})
    cid = host.started("c", {"name": "web", "mac_address": "92:d0:c6:0a:29:33"})
    host.service.connect(cid, {"name": "web", "ipv4_address": "10.5.0.77", "mac_address": "92:d0:c6:0a:29:33"})

    def addresses():
        with Netlink() as inner:
            return [a.address for a in inner.addresses(inner.link("eth0").ifindex)]

    assert host.within(cid, addresses) == ["10.5.0.77"] and host.service.check(cid) == []


def test_a_port_that_a_monitor_is_about_to_hand_over_is_free(host):
    import json

    host.service.create("web", {})
    old, new = host.started("old", "web"), host.container("new", "web")
    with host.listen(None, 8080), open(host.paths.container(old) + "/run.json", "w") as file:
        json.dump({"reserve": [{"host_ip": "", "port": 8080, "protocol": "tcp"}]}, file)
        file.flush()
        host.service.check_ports([PortRecord(new, "", 8080, "tcp", 80)], new)
        host.service.release(old)
        with pytest.raises(Conflict, match="a process of the host is bound to it"):
            host.service.check_ports([PortRecord(new, "", 8080, "tcp", 80)], new)


# -- leavings and losses ---------------------------------------------------------------------------------------


def test_what_a_killed_removal_left_is_swept_away_and_nothing_else(host):
    kept, lost = host.service.create("kept", {}), host.service.create("lost", {})
    stays, orphan = host.started("stays", "kept"), host.started("orphan", "kept")
    host.store.containers.remove(orphan)
    host.store.networks.remove(lost.id)
    host.netlink.add_link("wh0123456789ab", "bridge")  # of another instance
    assert sorted(host.service.sweep()) == [
        "bridge " + bridge.link_name(host.paths, lost),
        "network namespace " + orphan,
    ]
    assert host.service.sweep() == [] and host.service.check(stays) == []
    assert {bridge.link_name(host.paths, kept), "wh0123456789ab"} <= set(host.links())
    assert host.service.create("lost", {}).subnets == lost.subnets


def test_a_running_container_whose_namespace_lost_its_name_gets_it_back(host):
    host.service.create("web", {})
    cid = host.started("c", "web")
    ready, told = os.pipe()
    fd = os.open(host.paths.container_netns(cid), os.O_RDONLY)
    pid = os.fork()
    if pid == 0:
        host.service.kernel.setns(fd)
        os.write(told, b"x")
        signal.pause()
        os._exit(0)
    os.close(fd)
    try:
        os.read(ready, 1)
        inode = os.stat(host.paths.container_netns(cid)).st_ino
        from module_utils._engine.kernel import procfs

        write_state(host, cid, pid=pid, pid_start=procfs.start_time(pid))
        sandbox.remove(host.service.kernel, host.paths, cid)
        assert host.service.check(cid) == ["its network namespace is missing"]
        host.service.start(cid)
        assert os.stat(host.paths.container_netns(cid)).st_ino == inode and host.service.check(cid) == []
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.mark.parametrize("v6", [False, True], ids=["ipv4", "ipv6"])
def test_an_address_that_moves_to_another_mac_is_reached_at_once(host, v6):
    """Neighbours have the old MAC in their tables; the newcomer's announcement corrects them."""
    host.service.create("web", {"ipam_config": [{"subnet": "10.5.0.0/24"}, {"subnet": "fd00:5::/64"}]})
    peer = host.started("peer", "web")
    address = "fd00:5::50" if v6 else "10.5.0.50"
    for number, mac in enumerate(("92:d0:c6:0a:29:33", "92:d0:c6:0a:29:34")):
        item = {"name": "web", "ipv4_address": "10.5.0.50", "ipv6_address": "fd00:5::50", "mac_address": mac}
        cid = host.started("c%d" % number, item)
        with host.listen(cid, 80, socket.AF_INET6 if v6 else socket.AF_INET):
            assert host.reaches(peer, address, 80, timeout=0.8) and host.reaches(None, address, 80, 0.8)
        host.service.release(cid)
        host.store.containers.remove(cid)


def test_an_address_given_to_the_next_container_at_once_is_his_alone(host):
    """The namespace of the former owner lives on for a moment: it must neither answer nor take packets."""
    host.service.create("web", {"enable_ipv6": True})
    peer = host.started("peer", "web")
    addresses = set()
    for number in range(12):
        v6 = bool(number % 2)
        cid = host.started("c", "web")
        addresses.add(host.address(cid))
        with host.listen(cid, 80, socket.AF_INET6 if v6 else socket.AF_INET):
            assert host.reaches(peer, host.address(cid, v6=v6), 80, timeout=0.8), number
        host.service.release(cid)
        host.store.containers.remove(cid)
    assert len(addresses) == 1


def test_a_release_killed_after_it_shut_the_port_is_undone_by_a_start(host):
    host.service.create("web", {})
    one, two = host.started("one", "web"), host.started("two", "web")
    endpoint.silence(host.netlink, two, record_of(host, two).network_id)
    with host.listen(two, 80):
        assert not host.reaches(one, host.address(two), 80, timeout=0.2)
        host.service.start(two)
        assert host.reaches(one, host.address(two), 80, timeout=2)


def test_the_namespace_of_a_run_that_ended_is_not_given_to_the_next(host):
    host.service.create("web", {})
    cid = host.started("c", "web")
    host.within(cid, lambda: sandbox.write_sysctl("ipv4/ip_unprivileged_port_start", "99"))
    write_state(host, cid)
    host.service.start(cid)
    assert host.within(cid, lambda: sandbox.read_sysctl("ipv4/ip_unprivileged_port_start")) == "99", "it runs"
    write_state(host, cid, pid_start=1)
    host.service.start(cid)
    assert host.within(cid, lambda: sandbox.read_sysctl("ipv4/ip_unprivileged_port_start")) == "0"
    assert host.service.check(cid) == []
