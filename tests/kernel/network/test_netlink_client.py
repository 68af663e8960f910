# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Our netlink client sees and makes what pyroute2 sees and makes."""

from __future__ import annotations

import os
import socket
import subprocess

import pytest
from module_utils._engine.kernel.netlink import Netlink

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.usefixtures("privately"),
]


@pytest.fixture
def netlink():
    with Netlink() as made:
        made.set_link(1, up=True)
        yield made


@pytest.fixture
def oracle():
    pyroute2 = pytest.importorskip("pyroute2")
    with pyroute2.IPRoute() as made:
        yield made


def populate(netlink):
    netlink.add_link("br0", "bridge", mtu=1400, mac="02:42:00:00:00:01")
    netlink.add_link("d0", "bridge")
    for name in ("br0", "d0"):
        netlink.set_link(netlink.link(name).ifindex, up=True)
    bridge, dummy = netlink.link("br0"), netlink.link("d0")
    fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    netlink.add_veth("v0", "v1", fd, master=bridge.ifindex, mtu=1400, peer_mac="02:42:0a:00:00:02")
    os.close(fd)
    netlink.add_address(bridge.ifindex, "10.9.0.1", 24)
    netlink.add_address(bridge.ifindex, "fd00:9::1", 64)
    netlink.add_address(dummy.ifindex, "10.8.0.5", 31)
    netlink.add_route("", 0, gateway="10.9.0.254")
    netlink.add_route("", 0, gateway="fd00:9::fe")
    netlink.add_route("10.77.0.0", 16, index=dummy.ifindex, metric=50, source="10.8.0.5")
    return bridge


def test_links_agree(netlink, oracle):
    populate(netlink)
    ours = {link.ifindex: link for link in netlink.links()}
    theirs = {m["index"]: m for m in oracle.get_links()}
    assert ours.keys() == theirs.keys() and len(ours) >= 5
    for index, message in theirs.items():
        link, info = ours[index], message.get_attr("IFLA_LINKINFO")
        assert link.name == message.get_attr("IFLA_IFNAME")
        assert link.mtu == message.get_attr("IFLA_MTU")
        assert link.mac == (message.get_attr("IFLA_ADDRESS") or "")
        assert link.master == (message.get_attr("IFLA_MASTER") or 0)
        assert link.up == bool(message["flags"] & 1)
        assert link.kind == (info.get_attr("IFLA_INFO_KIND") if info else "")
        assert netlink.link(index) == netlink.link(link.name) == link


def test_addresses_agree(netlink, oracle):
    bridge = populate(netlink)
    theirs = sorted((m["index"], m.get_attr("IFA_ADDRESS"), m["prefixlen"]) for m in oracle.get_addr())
    assert sorted(netlink.addresses()) == theirs
    assert [a for a in netlink.addresses() if a.ifindex == bridge.ifindex] == netlink.addresses(bridge.ifindex)
    broadcasts = {m.get_attr("IFA_LOCAL"): m.get_attr("IFA_BROADCAST") for m in oracle.get_addr(family=socket.AF_INET)}
    assert broadcasts["10.9.0.1"] == "10.9.0.255" and broadcasts["10.8.0.5"] is None


def test_routes_agree(netlink, oracle):
    populate(netlink)
    for family in (socket.AF_INET, socket.AF_INET6):
        theirs = sorted(
            (m.get_attr("RTA_DST") or "", m["dst_len"], m.get_attr("RTA_GATEWAY") or "", m.get_attr("RTA_OIF") or 0)
            for m in oracle.get_routes(family=family, table=254)
        )
        ours = sorted((r.destination, r.prefix, r.gateway, r.ifindex) for r in netlink.routes(family))
        assert ours == theirs and any(not prefix and gateway for _d, prefix, gateway, _i in ours)


def test_what_pyroute2_makes_we_see_and_remove(netlink, oracle):
    oracle.link("add", ifname="theirs", kind="bridge")
    index = oracle.link_lookup(ifname="theirs")[0]
    oracle.addr("add", index=index, address="10.4.0.1", prefixlen=24)
    oracle.link("set", index=index, state="up")
    link = netlink.link("theirs")
    assert (link.kind, link.up) == ("bridge", True) and netlink.addresses(index)[0].address == "10.4.0.1"
    netlink.delete_address(index, "10.4.0.1", 24)
    assert not any(m["family"] == 2 for m in oracle.get_addr(index=index))
    assert netlink.delete_link(index) and not netlink.delete_link(index)
    assert netlink.link("theirs") is None and netlink.link(index) is None


def test_multipath_routes_have_one_entry_per_hop(netlink):
    bridge = populate(netlink)
    hops = " ".join("nexthop via 10.9.0.%d dev br0" % n for n in (7, 8))
    assert os.system("ip route add 10.55.0.0/16 " + hops) == 0
    found = [(r.gateway, r.ifindex) for r in netlink.routes() if r.destination == "10.55.0.0"]
    assert sorted(found) == [("10.9.0.7", bridge.ifindex), ("10.9.0.8", bridge.ifindex)]


def test_a_bridge_keeps_its_mac_whatever_joins_it(netlink):
    populate(netlink)
    fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    netlink.add_veth("low", "other", fd, mac="02:00:00:00:00:01")
    os.close(fd)
    netlink.set_link(netlink.link("low").ifindex, master=netlink.link("br0").ifindex, up=True)
    assert netlink.link("br0").mac == "02:42:00:00:00:01"
    netlink.set_link(netlink.link("low").ifindex, master=0)
    assert netlink.link("low").master == 0


def test_hairpin_is_what_iproute2_shows(netlink):
    populate(netlink)
    netlink.set_bridge_port(netlink.link("v0").ifindex, hairpin=True)
    shown = subprocess.run(["bridge", "-d", "link", "show", "dev", "v0"], capture_output=True, text=True, check=True)
    assert "hairpin on" in shown.stdout


def test_doing_it_twice_is_told_apart_from_doing_it(netlink):
    bridge = populate(netlink)
    assert netlink.add_address(bridge.ifindex, "10.9.0.9", 24) and not netlink.add_address(
        bridge.ifindex, "10.9.0.9", 24
    )
    assert netlink.add_route("10.3.0.0", 16, gateway="10.9.0.3")
    assert not netlink.add_route("10.3.0.0", 16, gateway="10.9.0.3")
    assert netlink.delete_route("10.3.0.0", 16, gateway="10.9.0.3")
    assert not netlink.delete_route("10.3.0.0", 16, gateway="10.9.0.3")


def test_failures_carry_number_subject_and_the_kernel_s_words(netlink):
    with pytest.raises(OSError) as caught:
        netlink.add_link("nope", "no-such-kind")
    assert caught.value.errno == 95 and caught.value.filename == "nope"
    assert "Unknown device type" in caught.value.strerror
    with pytest.raises(OSError) as caught:
        netlink.add_route("10.1.0.0", 16, gateway="192.0.2.77")
    assert "Nexthop has invalid gateway" in caught.value.strerror
    assert netlink.link("lo") is not None  # the socket is in step after an error


def test_a_dump_of_many_links_is_complete(netlink):
    for number in range(300):
        netlink.add_link("m%d" % number, "bridge")
    assert len(netlink.links()) == 301 or len([x for x in netlink.links() if x.name.startswith("m")]) == 300
