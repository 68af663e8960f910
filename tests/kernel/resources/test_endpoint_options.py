# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a container can ask of its place in one network: the default route, the interface's name, names of others."""

from __future__ import annotations

import re
from typing import Any

import pytest
from helpers.engine import Engine
from helpers.option_laws import SLEEP, proc
from module_utils._engine.errors import UsageError

IFNAME = "com.docker.network.endpoint.ifname"


@pytest.fixture(scope="module")
def nets(shared: Engine) -> Engine:
    for number, name in enumerate(("ep-a", "ep-b"), 1):
        shared.run("network", name=name, ipam_config=[{"subnet": "10.98.%d.0/24" % number}])
    return shared


def default_route(engine: Engine, name: str) -> str:
    """The interface and gateway of the route to everywhere, as the container's kernel has it."""
    for line in proc(engine, name, "net/route").splitlines()[1:]:
        words = line.split()
        if words[1] == "00000000":
            raw = bytes.fromhex(words[2])[::-1]
            return "%s %s" % (words[0], ".".join(str(byte) for byte in raw))
    return ""


def links(engine: Engine, name: str) -> dict[str, str]:
    """Interface → index: one that was made anew has another."""
    found = re.findall(r"^(\d+): ([\w.-]+)", engine.sh(name, "ip -o link"), re.M)
    return {label: number for number, label in found if label != "lo"}


def ways(result: dict[str, Any]) -> set[str]:
    return {action["how"] for action in result["actions"]}


def test_the_default_route_goes_where_the_priority_says_and_moves_while_the_container_runs(nets: Engine) -> None:
    def task(one: int, two: int) -> dict[str, Any]:
        networks = [{"name": "ep-a", "gw_priority": one}, {"name": "ep-b", "gw_priority": two}]
        return nets.container("ep-gw", command=SLEEP, networks=networks)

    task(0, 0)
    pid, before = nets.pid("ep-gw"), links(nets, "ep-gw")
    assert default_route(nets, "ep-gw") == "eth0 10.98.1.1"
    for one, two, wanted in ((0, 7, "eth1 10.98.2.1"), (8, 7, "eth0 10.98.1.1"), (-1, 0, "eth1 10.98.2.1")):
        assert ways(task(one, two)) == {"live"} and not task(one, two)["changed"]
        assert default_route(nets, "ep-gw") == wanted
    assert nets.inspect("ep-gw")["NetworkSettings"]["Networks"]["ep-a"]["GwPriority"] == -1
    assert ways(task(0, 0)) == {"live"} and default_route(nets, "ep-gw") == "eth0 10.98.1.1"
    assert nets.pid("ep-gw") == pid and links(nets, "ep-gw") == before, "an interface was made anew"


def test_published_ports_lead_to_the_network_of_the_default_route(nets: Engine) -> None:
    networks = [{"name": "ep-a"}, {"name": "ep-b", "gw_priority": 1}]
    command = ["httpd", "-f", "-p", "80", "-h", "/srv"]
    nets.container("ep-web", command=command, networks=networks, published_ports=["127.0.0.1:18301:80"])
    import subprocess

    ruleset = subprocess.run(["nft", "list", "ruleset"], check=True, capture_output=True, text=True).stdout
    address = nets.inspect("ep-web")["NetworkSettings"]["Networks"]["ep-b"]["IPAddress"]
    assert "18301 : %s . 80" % address in ruleset


def test_an_interface_has_the_name_that_is_asked_for(nets: Engine) -> None:
    def task(**options: Any) -> dict[str, Any]:
        networks = [{"name": "ep-a"}, {"name": "ep-b", **options}]
        return nets.container("ep-if", command=SLEEP, networks=networks)

    task(driver_opts={IFNAME: "eth0"})
    assert set(links(nets, "ep-if")) == {"eth0", "eth1"}
    pid = nets.pid("ep-if")
    assert ways(task(driver_opts={IFNAME: "lan7"})) == {"live"}
    assert "lan7" in links(nets, "ep-if") and not task(driver_opts={IFNAME: "lan7"})["changed"]
    assert ways(task()) == {"live"} and "lan7" not in links(nets, "ep-if") and nets.pid("ep-if") == pid
    for bad, words in (({IFNAME: "a/b"}, "not the name"), ({IFNAME: "x" * 16}, "not the name"), ({"x": "1"}, "known")):
        with pytest.raises(UsageError, match=words):
            task(driver_opts=bad)


def test_a_link_of_one_network_has_the_address_that_the_other_has_there(nets: Engine) -> None:
    nets.container("ep-db", command=SLEEP, networks=[{"name": "ep-a"}, {"name": "ep-b"}])
    there = nets.inspect("ep-db")["NetworkSettings"]["Networks"]

    def task(*wanted: str) -> dict[str, Any]:
        networks = [{"name": "ep-a"}, {"name": "ep-b", "links": list(wanted)}]
        return nets.container("ep-user", command=SLEEP, networks=networks)

    task("ep-db:base")
    pid, before = nets.pid("ep-user"), links(nets, "ep-user")
    hosts = nets.sh("ep-user", "cat /etc/hosts")
    assert re.search(r"^%s\s+base$" % re.escape(there["ep-b"]["IPAddress"]), hosts, re.M)
    assert ways(task("ep-db:other")) == {"live"} and not task("ep-db:other")["changed"]
    hosts = nets.sh("ep-user", "cat /etc/hosts")
    assert "other" in hosts.split() and "base" not in hosts.split()
    assert ways(task()) == {"live"} and "other" not in nets.sh("ep-user", "cat /etc/hosts").split()
    assert nets.pid("ep-user") == pid and links(nets, "ep-user") == before


def test_another_alias_leaves_the_interface_alone(nets: Engine) -> None:
    def task(*aliases: str) -> dict[str, Any]:
        return nets.container("ep-alias", command=SLEEP, networks=[{"name": "ep-a", "aliases": list(aliases)}])

    task("one")
    before = links(nets, "ep-alias")
    assert ways(task("two", "three")) == {"live"}
    assert links(nets, "ep-alias") == before
    assert "Address" in nets.sh("ep-alias", "nslookup three")
