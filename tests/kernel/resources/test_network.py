# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The laws of the network module and of containers on networks."""

from __future__ import annotations

import socket
import urllib.request

import pytest
from helpers.engine import Engine
from module_utils._engine.errors import Conflict, InUse, UsageError, WharfError

SLEEP = ["sleep", "1000"]
HTTPD = ["httpd", "-f", "-p", "80", "-h", "/srv"]


def fetch(url: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=5) as answer:
        return str(answer.read().decode().strip())


def test_a_network_is_created_once_and_its_labels_change_in_place(shared: Engine) -> None:
    made = shared.run("network", name="labels", labels={"a": "1"})
    assert made["changed"] and made["network"]["IPAM"]["Config"][0]["Subnet"]
    assert not shared.run("network", name="labels", labels={"a": "1"})["changed"]
    changed = shared.run("network", name="labels", labels={"a": "2"})
    assert [action["how"] for action in changed["actions"]] == ["live"]
    assert changed["network"]["Id"] == made["network"]["Id"]
    assert shared.run("network", name="labels", state="absent")["changed"]
    assert not shared.run("network", name="labels", state="absent")["changed"]


def test_a_subnet_change_is_refused_under_members_and_done_when_forced(shared: Engine) -> None:
    one, two = [{"subnet": "10.123.1.0/24"}], [{"subnet": "10.123.2.0/24"}]
    shared.run("network", name="subnet", ipam_config=one)
    shared.container("member", command=SLEEP, networks=[{"name": "subnet"}])
    with pytest.raises(InUse, match="member"):
        shared.run("network", name="subnet", ipam_config=two)
    shared.run("network", name="subnet", ipam_config=two, force=True)
    assert shared.inspect("member")["NetworkSettings"]["Networks"]["subnet"]["IPAddress"].startswith("10.123.2.")
    assert "10.123.2." in shared.sh("member", "ip addr show eth0")


def test_overlapping_and_malformed_subnets_are_refused(shared: Engine) -> None:
    shared.run("network", name="base", ipam_config=[{"subnet": "10.124.0.0/16"}])
    with pytest.raises(WharfError, match="overlap"):
        shared.run("network", name="inner", ipam_config=[{"subnet": "10.124.5.0/24"}])
    with pytest.raises(UsageError, match="ipam_config"):
        shared.run("network", name="odd", ipam_config=[{"subnet": "10.124.5/24"}])
    assert shared.run("network_info", name="inner")["exists"] is False


def test_predefined_networks_are_left_alone(shared: Engine) -> None:
    for name in ("bridge", "host", "none"):
        with pytest.raises(UsageError, match="pre-defined"):
            shared.run("network", name=name, state="absent")


def test_members_find_each_other_by_name_and_alias_and_strangers_do_not(shared: Engine) -> None:
    shared.run("network", name="names")
    shared.run("network", name="strangers")
    shared.container("web", command=HTTPD, networks=[{"name": "names", "aliases": ["shop"]}])
    shared.container("client", command=SLEEP, networks=[{"name": "names"}])
    shared.container("other", command=SLEEP, networks=[{"name": "strangers"}])
    for name in ("web", "shop", "web.names"):
        assert shared.sh("client", "wget -q -O - http://%s/" % name) == "hello from the image"
    assert shared.exec("other", "wget", "-q", "-T", "2", "-O", "-", "http://web/")["rc"] != 0
    address = shared.inspect("web")["NetworkSettings"]["Networks"]["names"]["IPAddress"]
    assert shared.exec("other", "wget", "-q", "-T", "2", "-O", "-", "http://%s/" % address)["rc"] != 0


def test_a_published_port_answers_on_the_host_and_an_unpublished_one_does_not(shared: Engine) -> None:
    shared.container("pub", command=HTTPD, published_ports=["18081:80"])
    assert fetch("http://127.0.0.1:18081/") == "hello from the image"
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", 80), timeout=2):
        pass
    shared.run("container", name="pub", state="stopped", stop_timeout=1)
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", 18081), timeout=2):
        pass


def test_published_ports_change_live_and_removed_ones_are_gone(shared: Engine) -> None:
    shared.container("ports", command=HTTPD, published_ports=["18082:80"])
    pid = shared.pid("ports")
    changed = shared.container("ports", command=HTTPD, published_ports=["18083:80"])
    assert [(a["how"], a["detail"]["option"]) for a in changed["actions"]] == [("live", "published_ports")]
    assert shared.pid("ports") == pid
    assert fetch("http://127.0.0.1:18083/") == "hello from the image"
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", 18082), timeout=2):
        pass
    assert shared.container("ports", command=HTTPD)["changed"]
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", 18083), timeout=2):
        pass


def test_networks_are_joined_and_left_live(shared: Engine) -> None:
    shared.run("network", name="join-a")
    shared.run("network", name="join-b")
    shared.container("joiner", command=SLEEP, networks=[{"name": "join-a"}])
    pid = shared.pid("joiner")
    both = shared.container("joiner", command=SLEEP, networks=[{"name": "join-a"}, {"name": "join-b"}])
    assert [action["how"] for action in both["actions"]] == ["live"] and shared.pid("joiner") == pid
    assert len([line for line in shared.sh("joiner", "ls /sys/class/net").split() if line.startswith("eth")]) == 2
    shared.container("joiner", command=SLEEP, networks=[{"name": "join-b"}])
    assert list(shared.inspect("joiner")["NetworkSettings"]["Networks"]) == ["join-b"]
    assert len([line for line in shared.sh("joiner", "ls /sys/class/net").split() if line.startswith("eth")]) == 1
    assert not shared.container("joiner", command=SLEEP, networks=[{"name": "join-b"}])["changed"]


def test_a_static_address_is_given_and_a_taken_one_refused(shared: Engine) -> None:
    shared.run("network", name="static", ipam_config=[{"subnet": "10.125.0.0/24"}])
    place = [{"name": "static", "ipv4_address": "10.125.0.77"}]
    shared.container("fixed", command=SLEEP, networks=place)
    assert "10.125.0.77/24" in shared.sh("fixed", "ip addr show eth0")
    with pytest.raises(Conflict, match=r"10\.125\.0\.77"):
        shared.container("late", command=SLEEP, networks=place)
    assert not shared.run("container_info", name="late")["exists"]


def test_a_network_with_running_members_is_not_removed_unless_forced(shared: Engine) -> None:
    shared.run("network", name="busy")
    shared.container("busy-member", command=SLEEP, networks=[{"name": "busy"}])
    with pytest.raises(InUse, match="busy-member"):
        shared.run("network", name="busy", state="absent")
    assert shared.run("network", name="busy", state="absent", force=True)["changed"]


def test_the_default_network_has_no_names_but_works_by_address(shared: Engine) -> None:
    shared.container("plain-web", command=HTTPD)
    shared.container("plain", command=SLEEP)
    address = shared.inspect("plain-web")["NetworkSettings"]["IPAddress"]
    assert shared.sh("plain", "wget -q -O - http://%s/" % address) == "hello from the image"
    assert shared.exec("plain", "wget", "-q", "-T", "2", "-O", "-", "http://plain-web/")["rc"] != 0


def test_a_flushed_firewall_is_repaired_by_the_network_task(shared: Engine) -> None:
    import subprocess

    shared.run("network", name="flush")
    shared.container("flushed", command=HTTPD, networks=[{"name": "flush"}], published_ports=["18084:80"])
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    repaired = shared.run("network", name="flush")
    assert repaired["changed"] and "drift" in repaired["actions"][0]["why"]
    assert fetch("http://127.0.0.1:18084/") == "hello from the image"
    assert not shared.run("network", name="flush")["changed"]
