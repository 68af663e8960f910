# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from module_utils._engine.errors import Conflict, UsageError
from module_utils._engine.network import ipam


def subnet(text, **more):
    return ipam.normalise(more, ipam.parse(text))


def test_default_pools_are_docker_s_in_docker_s_order():
    taken, order = [], []
    while True:
        try:
            net = ipam.choose_subnet(taken)
        except Conflict as error:
            assert error.msg == "all predefined address pools have been fully subnetted"
            break
        taken.append(net)
        order.append(str(net))
    assert order[:3] == ["172.17.0.0/16", "172.18.0.0/16", "172.19.0.0/16"]
    assert order[14:16] == ["172.31.0.0/16", "192.168.0.0/20"]
    assert len(order) == 15 + 16


def test_a_pool_that_overlaps_a_route_of_any_size_is_skipped():
    routes = [ipam.parse("172.17.5.0/24"), ipam.parse("172.18.0.0/15"), ipam.parse("172.20.9.9/32")]
    assert str(ipam.choose_subnet(routes)) == "172.21.0.0/16"


def test_ula_networks_come_from_one_prefix_and_never_overlap():
    first = ipam.choose_ula([], b"seed")
    second = ipam.choose_ula([first], b"seed")
    assert str(first).startswith("fd") and first.prefix == 64
    assert first.first >> 80 == second.first >> 80 and not first.overlaps(second)
    assert ipam.choose_ula([], b"seed") == first != ipam.choose_ula([], b"other")


@given(st.integers(0, 2**32 - 1), st.integers(0, 32))
def test_parsing_agrees_with_the_standard_library(number, prefix):
    text = "%s/%d" % (ipaddress.ip_address(number), prefix)
    net, expected = ipam.parse(text, strict=False), ipaddress.ip_network(text, strict=False)
    assert (str(net), net.first, net.last) == (
        str(expected),
        int(expected.network_address),
        int(expected.broadcast_address),
    )


@given(st.integers(0, 2**32 - 1), st.integers(8, 32), st.integers(0, 2**32 - 1), st.integers(8, 32))
def test_overlap_agrees_with_the_standard_library(a, pa, b, pb):
    one, two = ("%s/%d" % (ipaddress.ip_address(n), p) for n, p in ((a, pa), (b, pb)))
    expected = ipaddress.ip_network(one, strict=False).overlaps(ipaddress.ip_network(two, strict=False))
    assert ipam.parse(one, strict=False).overlaps(ipam.parse(two, strict=False)) == expected


MALFORMED = (
    "| 10.0.0.0| 10.0.0.0/33| 10.0.0.0/-1| 10.0.0.0/ 8| 300.0.0.0/8| fd00::/129| 010.0.0.0/8| 10.0.0/8| 10.0.0.0/8/8"
    "| 10.0.0.1/8"
)


@pytest.mark.parametrize("text", MALFORMED.split("| "))
def test_malformed_subnets_are_refused(text):
    with pytest.raises(UsageError):
        ipam.parse(text)


def test_the_gateway_comes_first_and_containers_follow():
    net = subnet("10.5.0.0/24")
    assert net["gateway"] == "10.5.0.1"
    assert ipam.allocate([net], set(), 32, "n") == "10.5.0.2"
    assert ipam.allocate([net], {"10.5.0.2", "10.5.0.4"}, 32, "n") == "10.5.0.3"


def test_auxiliary_addresses_are_given_to_nobody_not_even_the_gateway():
    net = subnet("10.5.0.0/24", aux_addresses={"router": "10.5.0.1", "printer": "10.5.0.3"})
    assert net["gateway"] == "10.5.0.2"
    assert ipam.allocate([net], set(), 32, "n") == "10.5.0.4"


def test_ip_range_bounds_what_is_given_out():
    net = subnet("10.5.0.0/16", iprange="10.5.7.0/30")
    got: set[str] = set()
    for _number in range(4):
        got.add(ipam.allocate([net], got, 32, "n"))
    assert got == {"10.5.7.0", "10.5.7.1", "10.5.7.2", "10.5.7.3"}
    with pytest.raises(Conflict, match="no available IPv4 addresses on this network's address pools: web"):
        ipam.allocate([net], got, 32, "web (1234)")
    assert ipam.check_static([net], "10.5.9.9", "ipv4_address", "n") == "10.5.9.9"


@pytest.mark.parametrize("text", ["10.5.0.0/30", "10.5.0.0/31", "10.5.0.0/29"])
def test_a_subnet_gives_each_address_once_and_no_edge(text):
    net = subnet(text)
    got: list[str] = []
    while True:
        try:
            got.append(ipam.allocate([net], set(got), 32, "n"))
        except Conflict:
            break
    hosts = {str(host) for host in ipaddress.ip_network(text).hosts()}
    assert set(got) == hosts - {net["gateway"]} and len(got) == len(set(got))


def test_a_subnet_without_room_for_a_gateway_is_refused():
    with pytest.raises(UsageError, match="no room"):
        subnet("10.5.0.0/32", aux_addresses={"x": "10.5.0.0"})


def test_families_are_allocated_apart():
    nets = [subnet("10.5.0.0/24"), subnet("fd00:5::/64")]
    assert nets[1]["gateway"] == "fd00:5::1"
    assert ipam.allocate(nets, set(), 128, "n") == "fd00:5::2"
    assert ipam.allocate(nets[:1], set(), 128, "n") is None


def test_the_last_ipv6_address_is_an_ordinary_one():
    assert ipam.check_static([subnet("fd00:5::/64")], "fd00:5::ffff:ffff:ffff:ffff", "ipv6_address", "n")


@pytest.mark.parametrize("address", ["10.5.0.1", "10.5.0.0", "10.5.0.255", "10.5.0.77"])
def test_a_static_address_must_not_be_reserved(address):
    net = subnet("10.5.0.0/24", aux_addresses={"x": "10.5.0.77"})
    with pytest.raises(Conflict, match="Address already in use"):
        ipam.check_static([net], address, "ipv4_address", "n")


@pytest.mark.parametrize(("address", "option"), [("10.6.0.2", "ipv4_address"), ("fd00::2", "ipv4_address"),
                                                 ("10.5.0.2", "ipv6_address"), ("x", "ipv4_address")])  # fmt: skip
def test_a_static_address_must_lie_in_the_network(address, option):
    with pytest.raises(UsageError):
        ipam.check_static([subnet("10.5.0.0/24")], address, option, "n")


def test_an_overlap_with_another_network_is_refused_in_docker_s_words():
    with pytest.raises(Conflict, match="Pool overlaps with other one on this address space"):
        ipam.check_subnet(ipam.parse("10.5.1.0/24"), {"other": [ipam.parse("10.5.0.0/16")]}, [])


def test_a_subnet_the_host_is_in_is_refused_but_not_one_behind_a_wider_route():
    wanted = ipam.parse("10.5.0.0/16")
    with pytest.raises(Conflict, match="the host has a route"):
        ipam.check_subnet(wanted, {}, [ipam.parse("10.5.3.0/24")])
    ipam.check_subnet(wanted, {}, [ipam.parse("10.0.0.0/8"), ipam.Net(32, 0, 0)])


OUTSIDE = (
    {"gateway": "10.6.0.1"},
    {"iprange": "10.6.0.0/24"},
    {"iprange": "10.5.0.0/16"},
    {"aux_addresses": {"x": "10.6.0.1"}},
    {"gateway": "10.5.0.9", "aux_addresses": {"x": "10.5.0.9"}},
)


@pytest.mark.parametrize("more", OUTSIDE)
def test_parts_outside_their_subnet_are_refused(more):
    with pytest.raises(UsageError):
        subnet("10.5.0.0/24", **more)


def test_macs_follow_the_address_and_given_ones_are_checked():
    assert ipam.mac_for("172.17.0.2", None) == "02:42:ac:11:00:02"
    assert ipam.mac_for(None, "fd00::2").startswith("02:42:")
    assert ipam.check_mac("92-D0-C6-A:29:33".replace("A:", "0A:")) == "92:d0:c6:0a:29:33"
    for bad in ("01:00:00:00:00:01", "00:00:00:00:00:00", "02:42", "02:42:ac:11:00:zz", "02:42:ac:11:00:002"):
        with pytest.raises(UsageError):
            ipam.check_mac(bad)
