# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The firewall's tables: what ``nft`` says about them, and that every kind of damage is noticed and repaired."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from kernel.network.netlab import Namespace
from module_utils._engine.errors import KernelError, UsageError
from module_utils._engine.kernel.nfnetlink import AF_INET, Batch, Nfnetlink, open_socket, parse
from module_utils._engine.kernel.nftables import expressions as x
from module_utils._engine.kernel.nftables import objects
from module_utils._engine.network import dns_sockets
from module_utils._engine.network import firewall as module
from module_utils._engine.network.firewall import Desired, Firewall, Network, Port, ports_for
from module_utils._engine.paths import Paths

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("nft"), reason="needs root and nft as an oracle"),
]

DESIRED = Firewall.desired(
    [Network("wh1"), Network("wh2", internal=True), Network("wh3", members_talk=False, masquerade=False)],
    [
        Port("", 8080, "tcp", "10.1.0.2", 80),
        Port("192.0.2.1", 53, "udp", "10.1.0.3", 5353),
        Port("", 9000, "sctp", "fd00:1::2", 9001),
        Port("2001:db8::1", 443, "tcp", "fd00:1::2", 8443),
    ],
)


@pytest.fixture
def host() -> Iterator[Namespace]:
    made = Namespace()
    yield made
    made.close()


@pytest.fixture
def firewall(host: Namespace) -> Iterator[Firewall]:
    made = Firewall(Paths(), netns_fd=host.fd)
    yield made
    made.close()


def chain_text(host: Namespace, family: str, chain: str) -> list[str]:
    lines = host.run("nft", "list", "chain", family, "wharf", chain).splitlines()
    return [line.strip().partition(" comment ")[0] for line in lines[2:-2]]


def test_nft_reads_the_rules_as_they_are_meant(host: Namespace, firewall: Firewall) -> None:
    firewall.sync(DESIRED)
    assert chain_text(host, "ip", "raw") == [
        "type filter hook prerouting priority raw; policy accept;",
        'iifname != "lo" ip daddr 127.0.0.0/8 drop',
        'iifname != "lo" ip saddr 127.0.0.0/8 drop',
    ]
    for family in ("ip", "ip6"):
        assert chain_text(host, family, "published") == [
            "dnat %s to %s daddr . meta l4proto . th dport map @addressed" % (family, family),
            "dnat %s to meta l4proto . th dport map @ports" % family,
        ]
        assert chain_text(host, family, "prerouting") == [
            "type nat hook prerouting priority dstnat; policy accept;",
            "fib daddr type local jump published",
        ]
        assert chain_text(host, family, "output") == [
            "type nat hook output priority -100; policy accept;",
            ("ip6 daddr != ::1 " if family == "ip6" else "") + "fib daddr type local jump published",
        ]
        assert chain_text(host, family, "postrouting") == [
            "type nat hook postrouting priority srcnat; policy accept;",
            "iifname @masked oifname != @links masquerade",
            "iifname @links oifname @links ct status dnat masquerade",
            "iif 0 oifname @links ct status dnat masquerade",
            "oifname @links fib saddr type local masquerade",
        ]
        assert chain_text(host, family, "forward") == [
            "type filter hook forward priority filter; policy accept;",
            "iifname . oifname @same accept",
            "iifname @internal drop",
            "oifname @internal drop",
            "oifname @links ct state established,related accept",
            "oifname @links ct status dnat accept",
            "iifname @links ct state invalid drop",
            "oifname @links drop",
        ]


def elements(host: Namespace) -> dict[tuple[str, str], Any]:
    listed = json.loads(host.run("nft", "-j", "list", "ruleset"))["nftables"]
    found = {}
    for item in listed:
        for kind in ("set", "map"):
            if kind in item:
                found[(item[kind]["family"], item[kind]["name"])] = item[kind].get("elem", [])
    return found


def test_nft_reads_the_elements_as_they_are_meant(host: Namespace, firewall: Firewall) -> None:
    firewall.sync(DESIRED)
    found = elements(host)
    for family in ("ip", "ip6"):
        assert sorted(found[(family, "links")]) == ["wh1", "wh2", "wh3"]
        assert sorted(e["concat"] for e in found[(family, "same")]) == [["wh1", "wh1"], ["wh2", "wh2"]]
        assert found[(family, "internal")] == ["wh2"]
        assert found[(family, "masked")] == ["wh1"]
    assert found[("ip", "ports")] == [[{"concat": ["tcp", 8080]}, {"concat": ["10.1.0.2", 80]}]]
    assert found[("ip", "addressed")] == [[{"concat": ["192.0.2.1", "udp", 53]}, {"concat": ["10.1.0.3", 5353]}]]
    assert found[("ip6", "ports")] == [[{"concat": ["sctp", 9000]}, {"concat": ["fd00:1::2", 9001]}]]
    assert found[("ip6", "addressed")] == [[{"concat": ["2001:db8::1", "tcp", 443]}, {"concat": ["fd00:1::2", 8443]}]]


def test_what_nft_saves_nft_loads_and_means_the_same(host: Namespace, firewall: Firewall) -> None:
    firewall.sync(DESIRED)
    saved = host.listed()
    host.nft("flush ruleset\n" + saved)
    assert host.listed() == saved


def test_observe_gives_back_what_was_wished(host: Namespace, firewall: Firewall) -> None:
    assert firewall.observe() == {"present": False, "networks": [], "ports": []}
    firewall.sync(DESIRED)
    seen = firewall.observe()
    assert seen["present"]
    assert sorted(seen["ports"]) == sorted(DESIRED.ports)
    assert [n.link for n in seen["networks"]] == ["wh1", "wh2", "wh3"]
    assert seen["networks"] == list(DESIRED.networks)


def test_a_second_sync_changes_nothing(host: Namespace, firewall: Firewall) -> None:
    assert firewall.sync(DESIRED)
    with Nfnetlink.at(host.fd) as nl:
        before = nl.generation()
        assert not firewall.sync(DESIRED)
        assert firewall.differences(DESIRED) == []
        assert nl.generation() == before


DAMAGE = [
    "flush ruleset",
    "delete table ip6 wharf",
    "flush chain ip wharf forward",
    "insert rule ip wharf forward accept",
    "add rule ip wharf raw counter",
    "add chain ip wharf extra",
    "add set ip wharf extra { type ipv4_addr; }",
    "add table ip wharf { flags dormant; }",
    "chain ip wharf forward { type filter hook forward priority 0; policy drop; }",
    'delete element ip wharf links { "wh1" }',
    "flush set ip wharf same",
    'add element ip6 wharf internal { "wh9" }',
    "delete element ip wharf ports { tcp . 8080 }",
    "add element ip wharf ports { tcp . 22 : 10.1.0.2 . 22 }",
    "delete element ip wharf ports { tcp . 8080 }; add element ip wharf ports { tcp . 8080 : 10.1.0.9 . 80 }",
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_noticed_and_repaired(host: Namespace, firewall: Firewall, damage: str) -> None:
    firewall.sync(DESIRED)
    whole = elements(host), [chain_text(host, "ip", "forward"), chain_text(host, "ip", "raw")]
    host.nft(damage)
    assert firewall.differences(DESIRED)
    assert firewall.sync(DESIRED)
    assert firewall.differences(DESIRED) == []
    after = elements(host), [chain_text(host, "ip", "forward"), chain_text(host, "ip", "raw")]
    assert {k: sorted(map(str, v)) for k, v in after[0].items()} == {
        k: sorted(map(str, v)) for k, v in whole[0].items()
    }
    assert after[1] == whole[1]


def test_every_deleted_rule_is_noticed(host: Namespace, firewall: Firewall) -> None:
    firewall.sync(DESIRED)
    count = sum("rule" in item for item in json.loads(host.run("nft", "-j", "list", "ruleset"))["nftables"])
    for number in range(count):
        rules = [i["rule"] for i in json.loads(host.run("nft", "-j", "list", "ruleset"))["nftables"] if "rule" in i]
        rule = rules[number]
        host.nft("delete rule %s wharf %s handle %d" % (rule["family"], rule["chain"], rule["handle"]))
        assert firewall.sync(DESIRED), rule


def test_other_peoples_tables_are_not_touched(host: Namespace, firewall: Firewall) -> None:
    host.nft("add table ip mine; add chain ip mine c { type filter hook input priority 0; }")
    host.nft("add rule ip mine c tcp dport 22 accept")
    host.nft("add table inet wharf; add chain inet wharf forward; add rule inet wharf forward counter")
    before = host.run("nft", "list", "table", "ip", "mine") + host.run("nft", "list", "table", "inet", "wharf")
    firewall.sync(DESIRED)
    firewall.sync(Desired((), ()))
    assert firewall.remove()
    assert not firewall.remove()
    assert before == host.run("nft", "list", "table", "ip", "mine") + host.run("nft", "list", "table", "inet", "wharf")


def test_publishing_one_more_port_is_one_message_whatever_is_published(
    firewall: Firewall, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = [Port("", 10000 + n, "tcp", "10.1.%d.%d" % (n // 200, n % 200 + 2), 80) for n in range(1000)]
    firewall.sync(Firewall.desired([Network("wh1")], ports))
    sent: list[int] = []
    original = Nfnetlink.commit

    def commit(self: Nfnetlink, batch: Batch, generation: Any = None) -> None:
        sent.append(len(batch))
        assert sum(len(message.body) for message in batch.messages) < 200
        original(self, batch, generation)

    def no_dump(*_args: Any) -> None:
        raise AssertionError("reads everything to add one")

    monkeypatch.setattr(Nfnetlink, "commit", commit)
    monkeypatch.setattr(Nfnetlink, "dump", no_dump)
    assert firewall.add_ports([Port("", 20000, "tcp", "10.1.0.2", 80)])
    assert sent == [1]
    assert not firewall.add_ports([Port("", 20000, "tcp", "10.1.0.2", 80)])
    assert firewall.remove_ports([Port("", 20000, "tcp", "10.1.0.2", 80)])
    assert sent == [1, 1]
    monkeypatch.undo()
    assert len(firewall.observe()["ports"]) == 1000


def test_many_thousand_ports_fit_one_transaction(firewall: Firewall) -> None:
    ports = [Port("2001:db8::%x" % (n % 7), 1024 + n, "udp", "fd00::2", n + 1) for n in range(20000)]
    wish = Firewall.desired([Network("wh1")], ports)
    assert firewall.sync(wish)
    assert not firewall.sync(wish)


def test_a_transaction_is_all_or_nothing(host: Namespace, firewall: Firewall) -> None:
    firewall.sync(DESIRED)
    before = host.listed()
    batch = Batch()
    objects.add_elements(batch, AF_INET, "wharf", objects.Set("links", (objects.IFNAME,)), {b"x" * 16: b""})
    objects.add_rule(batch, AF_INET, "wharf", objects.Rule("nowhere", x.verdict(x.DROP), "bad"))
    with Nfnetlink.at(host.fd) as nl, pytest.raises(OSError) as failed:
        nl.commit(batch)
    assert failed.value.errno == errno.ENOENT
    assert failed.value.filename == "add rule 'bad' to chain nowhere"
    assert host.listed() == before


def test_a_plan_made_on_an_older_ruleset_is_refused(host: Namespace) -> None:
    with Nfnetlink.at(host.fd) as nl:
        generation = nl.generation()
        host.nft("add table ip other")
        batch = Batch()
        objects.add_table(batch, AF_INET, "mine")
        with pytest.raises(OSError) as failed:
            nl.commit(batch, generation)
        assert failed.value.errno == errno.ERESTART
        nl.commit(batch, nl.generation())


def test_writers_in_each_others_way_all_succeed(host: Namespace, firewall: Firewall) -> None:
    firewall.sync(Desired((Network("wh1"),), ()))
    failures: list[BaseException] = []

    def work(base: int) -> None:
        mine = Firewall(Paths(), netns_fd=host.fd)
        try:
            for n in range(15):
                mine.add_ports([Port("", base + n, "tcp", "10.1.0.2", 80)])
        except BaseException as error:
            failures.append(error)
        finally:
            mine.close()

    threads = [threading.Thread(target=work, args=(base,)) for base in (1000, 2000, 3000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(firewall.observe()["ports"]) == 45


def test_adding_to_a_flushed_table_fails_or_rebuilds(host: Namespace, firewall: Firewall) -> None:
    port = Port("", 8080, "tcp", "10.1.0.2", 80)
    with pytest.raises(KernelError) as failed:
        firewall.add_ports([port])
    assert failed.value.errno == errno.ENOENT
    assert not firewall.remove_network("wh1")
    assert firewall.add_ports([port], rebuild=lambda: DESIRED)
    assert firewall.differences(DESIRED) == []


def test_networks_come_and_go_in_one_transaction_each(firewall: Firewall) -> None:
    firewall.sync(Desired((), ()))
    assert firewall.add_network(Network("wh1", internal=True))
    assert not firewall.add_network(Network("wh1", internal=True))
    assert firewall.add_network(Network("wh1"))
    assert firewall.observe()["networks"] == [Network("wh1")]
    assert firewall.remove_network("wh1")
    assert not firewall.remove_network("wh1")
    assert firewall.differences(Desired((), ())) == []


def test_a_stale_target_of_a_port_is_replaced(firewall: Firewall) -> None:
    firewall.sync(Desired((), (Port("", 8080, "tcp", "10.1.0.2", 80),)))
    assert firewall.add_ports([Port("", 8080, "tcp", "10.1.0.7", 80)])
    assert firewall.observe()["ports"] == [Port("", 8080, "tcp", "10.1.0.7", 80)]


def test_a_kernel_without_ipv6_gets_one_table(host: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.os.path, "exists", lambda path: False)
    firewall = Firewall(Paths(), netns_fd=host.fd)
    assert firewall.sync(DESIRED)
    assert firewall.observe()["present"]
    assert "ip6 wharf" not in host.listed()
    firewall.close()


def test_one_published_port_of_a_container_becomes_one_element_per_family() -> None:
    assert ports_for("", 80, "tcp", 8080, "10.0.0.2", "fd00::2") == [
        Port("", 80, "tcp", "10.0.0.2", 8080),
        Port("", 80, "tcp", "fd00::2", 8080),
    ]
    assert ports_for("0.0.0.0", 80, "tcp", 8080, "10.0.0.2", "fd00::2") == [Port("", 80, "tcp", "10.0.0.2", 8080)]
    assert ports_for("::", 80, "tcp", 8080, "10.0.0.2", None) == []
    assert ports_for("127.0.0.1", 80, "tcp", 8080, "10.0.0.2", "fd00::2") == [
        Port("127.0.0.1", 80, "tcp", "10.0.0.2", 8080)
    ]


@pytest.mark.parametrize(
    "port",
    [
        Port("", 80, "icmp", "10.0.0.2", 80),
        Port("nonsense", 80, "tcp", "10.0.0.2", 80),
        Port("::1", 80, "tcp", "10.0.0.2", 80),
        Port("", 80, "tcp", "10.0.0.2.5", 80),
    ],
)
def test_impossible_ports_are_refused_before_anything_happens(firewall: Firewall, port: Port) -> None:
    with pytest.raises(UsageError):
        firewall.add_ports([port])


def test_verdict_maps_read_as_meant(host: Namespace) -> None:
    jumps = objects.Set("jumps", (objects.IFNAME,), (objects.VERDICT,))
    batch = Batch()
    objects.replace_table(
        batch,
        objects.Ruleset(
            AF_INET,
            "t",
            (objects.Chain("own"), objects.Chain("pre", "filter", objects.PREROUTING, 5)),
            (jumps,),
            (
                objects.Rule("pre", x.meta(x.META_IIFNAME, 1) + x.lookup("jumps", 1, into=0), "vmap"),
                objects.Rule("own", x.counter() + x.verdict(x.RETURN), "count"),
            ),
            {
                "jumps": {
                    x.interface_name("a"): x.verdict_data(x.JUMP, "own"),
                    x.interface_name("b"): x.verdict_data(x.DROP),
                }
            },
        ),
    )
    with Nfnetlink.at(host.fd) as nl:
        nl.commit(batch)
        found = objects.read_elements(nl, AF_INET, "t", jumps)
    assert set(found) == {x.interface_name("a"), x.interface_name("b")}
    text = host.listed()
    assert "iifname vmap @jumps" in text
    assert '"a" : jump own' in text and '"b" : drop' in text


def raw_rules(host: Namespace) -> list[tuple[int, bytes, bytes]]:
    """Family, chain and instructions of every rule, as the kernel gives them out."""
    with Nfnetlink.at(host.fd) as nl:
        found = nl.dump(objects.GETRULE, 0, b"", "rules")
    return [(family, parse(data)[2], parse(data)[4]) for family, data in found]


def test_our_rules_are_byte_for_byte_what_nft_makes_of_their_text(host: Namespace, firewall: Firewall) -> None:
    firewall.sync(DESIRED)
    ours = raw_rules(host)
    host.nft("flush ruleset\n" + host.listed())
    assert len(ours) > 20
    assert raw_rules(host) == ours


def test_the_resolvers_redirect_is_byte_for_byte_what_nft_makes_of_its_text(host: Namespace) -> None:
    sock = host.do(open_socket)
    dns_sockets.redirect(sock, 4000)
    dns_sockets.redirect(sock, 4053)
    ours, text = raw_rules(host), host.listed()
    for protocol in ("udp", "tcp"):
        assert "ip daddr 127.0.0.11 %s dport 53 dnat to 127.0.0.11:4053" % protocol in text
    host.nft("flush ruleset\n" + text)
    assert raw_rules(host) == ours
    sock.close()
