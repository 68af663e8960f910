# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Beside Docker and ufw, whose iptables chain FORWARD drops what none of its rules decided: with iptables itself."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from kernel.network.netlab import Lab
from module_utils._engine.network.firewall import Firewall, Network, Port
from module_utils._engine.paths import Paths

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("iptables-nft"), reason="needs root and iptables"),
]

HOST, OUTSIDE = "192.0.2.1", "192.0.2.9"
PORTS = [Port("", 8080, "tcp", "10.1.0.2", 80), Port("", 8080, "tcp", "fd00:1::2", 80)]
NETWORKS = [Network("wh1"), Network("wh2", internal=True)]
DESIRED = Firewall.desired(NETWORKS, PORTS)
# What dockerd 20.10 makes when it starts (Debian 12), less its address translation.
DOCKER = """*filter
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-P FORWARD DROP
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 81 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
COMMIT
"""
UFW = "*filter\n:ufw-forward - [0:0]\n-P FORWARD DROP\n-A FORWARD -j ufw-forward\nCOMMIT\n"
OURS = ["-o wh1 -j ACCEPT", "-i wh1 -j ACCEPT"]
OURS_BY_DOCKER = ["-o wh1 -j ACCEPT", "-i wh1 -o docker+ -j RETURN", "-i wh1 -o br-+ -j RETURN", "-i wh1 -j ACCEPT"]
FAMILIES = pytest.mark.parametrize("v6", [False, True], ids=["ipv4", "ipv6"])


class World(Lab):
    """Networks 1 and 2 (internal) of ours; docker0 with a container of Docker's that listens at ports 80 and 81."""

    def __init__(self) -> None:
        super().__init__()
        self.bridge("wh1", 1)
        self.bridge("wh2", 2)
        self.ours = self.container("wh1", 1, 2, 80, 81)
        self.internal = self.container("wh2", 2, 2, 80)
        self.host.ip("link add docker0 type bridge")
        self.host.ip("link set docker0 up")
        self.host.ip("addr add 172.17.0.1/16 dev docker0")
        self.theirs = self.namespace()
        self.host.ip("link add theirs type veth peer name eth0 netns " + self.theirs.path)
        self.host.ip("link set theirs master docker0 up")
        self.theirs.ip("link set eth0 up")
        self.theirs.ip("addr add 172.17.0.2/16 dev eth0")
        self.theirs.ip("route add default via 172.17.0.1")
        self.serve(self.theirs, "theirs", 80, 81)
        self.serve(self.outside, "outside", 7000)
        self.firewall = Firewall(Paths("/nonexistent/one", "/nonexistent/run"), netns_fd=self.host.fd)

    def close(self) -> None:
        self.firewall.close()
        super().close()

    def restore(self, text: str) -> None:
        self.host.run("iptables-nft-restore", "--noflush", stdin=text)
        self.host.run("ip6tables-nft-restore", "--noflush", stdin=text.replace("172.17.0.2/32", "fd00:17::2/128"))

    def forward(self, program: str = "iptables-nft") -> list[str]:
        """The rules of FORWARD as iptables lists them, without comments."""
        lines = self.host.run(program, "-S", "FORWARD").splitlines()[1:]
        return [" ".join(_without_comment(line.split()[2:])) for line in lines]


def _without_comment(words: list[str]) -> list[str]:
    text = " ".join(words)
    if "--comment" in text:
        before, _found, rest = text.partition(" -m comment --comment ")
        text = before + rest[rest.index('"', 1) + 1 :]
    return text.split()


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


@FAMILIES
@pytest.mark.parametrize("rules", [DOCKER, UFW], ids=["docker", "ufw"])
def test_containers_reach_out_and_published_ports_answer_beside_others(world: World, rules: str, v6: bool) -> None:
    host, outside = ("2001:db8::1", "2001:db8::9") if v6 else (HOST, OUTSIDE)
    world.firewall.sync(DESIRED)
    world.restore(rules)
    assert world.ours.ask(outside, 7000) is None and world.outside.ask(host, 8080) is None
    assert world.firewall.differences(DESIRED)
    assert world.firewall.sync(DESIRED)
    assert world.ours.ask(outside, 7000) == "outside " + host
    assert world.outside.ask(host, 8080) == "c1.2 " + outside
    assert not world.firewall.sync(DESIRED) and world.firewall.differences(DESIRED) == []


def test_what_our_own_table_forbids_stays_forbidden_beside_docker(world: World) -> None:
    world.restore(DOCKER)
    world.firewall.sync(DESIRED)
    assert world.outside.ask("10.1.0.2", 81) is None
    assert world.theirs.ask("10.1.0.2", 80) is None
    assert world.internal.ask(OUTSIDE, 7000) is None


def test_what_docker_forbids_stays_forbidden_and_what_it_publishes_is_reached(world: World) -> None:
    """A container of ours must not get where the policy of Docker's chain kept everybody out."""
    world.restore(DOCKER)
    world.firewall.sync(DESIRED)
    assert world.ours.ask("172.17.0.2", 80) is None
    assert world.ours.ask("172.17.0.2", 81) == "theirs 172.17.0.1"
    assert world.outside.ask("172.17.0.2", 80) is None
    assert world.theirs.ask(HOST, 8080) == "c1.2 172.17.0.2"


def test_a_rule_that_somebody_wrote_comes_first(world: World) -> None:
    world.restore(UFW)
    world.firewall.sync(DESIRED)
    world.host.run("iptables-nft", "-A", "ufw-forward", "-d", OUTSIDE, "-j", "DROP")
    assert world.ours.ask(OUTSIDE, 7000) is None


def test_iptables_lists_our_rules_and_they_stand_at_the_end(world: World) -> None:
    world.restore(DOCKER)
    theirs = world.forward()
    world.firewall.sync(Firewall.desired(NETWORKS[:1], PORTS))
    for program in ("iptables-nft", "ip6tables-nft"):
        assert world.forward(program) == theirs + OURS_BY_DOCKER
    assert "wharf" in world.host.run("iptables-nft", "-L", "FORWARD")


def test_without_docker_its_bridges_are_no_exception(world: World) -> None:
    world.restore(UFW)
    world.firewall.sync(Firewall.desired(NETWORKS[:1], PORTS))
    assert world.forward() == ["-j ufw-forward", *OURS]
    world.restore(DOCKER)
    world.firewall.sync(Firewall.desired(NETWORKS[:1], PORTS))
    assert world.forward()[-4:] == OURS_BY_DOCKER and world.forward()[0] == "-j ufw-forward"


def test_networks_come_and_go_with_their_rules(world: World) -> None:
    world.restore(DOCKER)
    theirs = world.forward()
    world.firewall.sync(Firewall.desired([], []))
    assert world.forward() == theirs
    world.firewall.add_network(NETWORKS[1])
    world.firewall.add_network(NETWORKS[0])
    assert not world.firewall.add_network(NETWORKS[0])
    assert world.forward() == theirs + [rule.replace("wh1", "wh2") for rule in OURS_BY_DOCKER] + OURS_BY_DOCKER
    assert world.firewall.differences(Firewall.desired(NETWORKS, [])) == []
    world.firewall.remove_network("wh2")
    assert world.forward() == theirs + OURS_BY_DOCKER
    world.firewall.remove()
    assert world.forward() == theirs


@pytest.mark.parametrize("family", ["iptables-nft", "ip6tables-nft"])
@pytest.mark.parametrize(
    "damage",
    [["-D", "FORWARD", "7"], ["-F", "FORWARD"], ["-A", "FORWARD", "-j", "DOCKER-USER"]],
    ids=["one-deleted", "flushed", "not-the-last"],
)
def test_damage_is_seen_and_repaired(world: World, family: str, damage: list[str]) -> None:
    world.restore(DOCKER)
    world.firewall.sync(DESIRED)
    world.host.run(family, *damage)
    assert len(world.firewall.differences(DESIRED)) == 1
    assert world.firewall.observe()["present"] is False
    assert world.firewall.sync(DESIRED)
    assert world.firewall.differences(DESIRED) == [] and world.firewall.observe()["present"] is True
    assert world.forward(family)[-8:-4] == OURS_BY_DOCKER


def test_where_the_policy_accepts_nothing_of_ours_is_left(world: World) -> None:
    world.restore(DOCKER)
    world.firewall.sync(DESIRED)
    world.host.run("iptables-nft", "-P", "FORWARD", "ACCEPT")
    assert world.firewall.sync(DESIRED)
    assert not any("wh" in rule for rule in world.forward())
    assert any("wh1" in rule for rule in world.forward("ip6tables-nft"))


def test_two_instances_keep_their_own_rules_apart(world: World) -> None:
    other = Firewall(Paths("/nonexistent/two", "/nonexistent/run2"), netns_fd=world.host.fd)
    world.restore(UFW)
    world.firewall.sync(Firewall.desired(NETWORKS[:1], []))
    other.sync(Firewall.desired([Network("wh2")], []))
    for _round in range(2):
        # Whose come last is not worth a fight: each is content as long as nobody else's are behind.
        assert other.differences(Firewall.desired([Network("wh2")], [])) == []
        assert world.firewall.differences(Firewall.desired(NETWORKS[:1], [])) == []
    other.remove()
    other.close()
    assert world.forward() == ["-j ufw-forward", *OURS]


def test_saved_and_restored_by_iptables_they_still_let_our_packets_pass(world: World) -> None:
    world.restore(DOCKER)
    world.firewall.sync(DESIRED)
    saved = world.host.run("iptables-nft-save", "-t", "filter")
    world.host.run("iptables-nft-restore", stdin=saved)
    assert world.ours.ask(OUTSIDE, 7000) == "outside " + HOST
    world.firewall.sync(DESIRED)
    assert world.ours.ask(OUTSIDE, 7000) == "outside " + HOST


def test_an_administrators_own_chain_is_told_and_left_alone(world: World) -> None:
    world.host.nft("add table inet fw; add chain inet fw through { type filter hook forward priority 0; policy drop; }")
    world.firewall.sync(DESIRED)
    assert world.ours.ask(OUTSIDE, 7000) is None
    (sentence,) = world.firewall.obstacles()
    assert sentence.startswith("Chain through of table inet fw drops forwarded packets by default")
    # What it says to do is what helps.
    for rule in sentence.split("'")[1::2]:
        world.host.nft("add rule inet fw through " + rule)
    assert world.ours.ask(OUTSIDE, 7000) == "outside " + HOST
    assert world.outside.ask(HOST, 8080) == "c1.2 " + OUTSIDE


def test_a_host_with_neither_has_no_rules_of_ours_elsewhere(world: World) -> None:
    world.firewall.sync(DESIRED)
    assert "table ip filter" not in world.host.listed()
