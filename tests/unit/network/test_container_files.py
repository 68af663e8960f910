# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os

import pytest
from module_utils._engine.errors import UsageError
from module_utils._engine.network import container_files, files
from module_utils._engine.network.files import Resolver
from module_utils._engine.paths import Paths
from module_utils._engine.store.records import ContainerRecord, EndpointRecord, NetworkRecord

HOST = Resolver(("127.0.0.1", "192.0.2.53"), ("example.org",), ("timeout:1",))
CID = "ab" * 32


def container(**spec):
    return ContainerRecord(CID, "web", "sha256:0", "x", spec, "running", 0.0, {}, 0)


def member(name, ipv4, internal=False):
    network = NetworkRecord(name * 8, name, "bridge", {"internal": internal}, [], 0.0)
    return network, EndpointRecord(CID, network.id, ipv4, None, "02:42:00:00:00:01", [], "eth0", 0, False)


def test_hosts_is_docker_s_line_by_line():
    extra = {"db": "10.0.0.9", "gw": "host-gateway"}
    assert files.hosts_text("h1", ["172.17.0.2"], extra=extra, host_gateway="172.17.0.1").splitlines() == [
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "fe00::\tip6-localnet",
        "ff00::\tip6-mcastprefix",
        "ff02::1\tip6-allnodes",
        "ff02::2\tip6-allrouters",
        "10.0.0.9\tdb",
        "172.17.0.1\tgw",
        "172.17.0.2\th1",
    ]


def test_a_full_name_comes_with_its_short_form():
    assert files.endpoint_lines("h1", "example.org", ["10.0.0.2"]) == "10.0.0.2\th1.example.org h1\n"
    assert files.endpoint_lines("h1.example.org", "", ["10.0.0.2"]) == "10.0.0.2\th1.example.org h1\n"


def test_ipv6_names_go_where_ipv6_is_off():
    assert "::1" not in files.hosts_text("h", [], ipv6=False)


def test_host_gateway_needs_a_gateway():
    with pytest.raises(UsageError, match="host-gateway"):
        files.hosts_text("h", [], extra={"x": "host-gateway"})


def test_user_defined_networks_ask_the_internal_resolver():
    text = files.resolv_text(HOST, internal=True)
    assert text.splitlines()[1:] == ["nameserver 127.0.0.11", "search example.org", "options timeout:1 ndots:0"]


def test_a_given_ndots_stays():
    assert "options ndots:3\n" in files.resolv_text(HOST, internal=True, options=["ndots:3"])


def test_the_default_network_gets_the_host_s_servers_without_loopback_ones():
    assert "nameserver 192.0.2.53\nsearch" in files.resolv_text(HOST, internal=False)


def test_public_servers_are_the_last_resort():
    local = Resolver(("127.0.0.1",), (), ())
    assert "nameserver 8.8.8.8\nnameserver 8.8.4.4\n" in files.resolv_text(local, internal=False)
    assert files.upstreams(local) == ["127.0.0.1"] and files.upstreams(Resolver((), (), ()))[0] == "8.8.8.8"
    assert "nameserver 2001:4860:4860::8844\n" in files.resolv_text(local, internal=False, ipv6=True)


def test_a_dot_empties_the_search_list():
    assert "search" not in files.resolv_text(HOST, internal=False, search=["."])


def test_behind_the_systemd_stub_the_real_servers_are_found(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "run/systemd/resolve").mkdir(parents=True)
    (tmp_path / "etc/resolv.conf").write_text("# stub\nnameserver 127.0.0.53\nsearch lan\n")
    (tmp_path / "run/systemd/resolve/resolv.conf").write_text("nameserver 192.0.2.1\ndomain lan\n")
    assert files.host_resolver(str(tmp_path)) == Resolver(("192.0.2.1",), ("lan",), ())


def test_rewriting_keeps_the_inode_and_says_whether_anything_changed(tmp_path):
    path = str(tmp_path / "hosts")
    assert files.write_in_place(path, "long content\n")
    inode = os.stat(path).st_ino
    assert files.write_in_place(path, "short\n") and not files.write_in_place(path, "short\n")
    assert (os.stat(path).st_ino, open(path).read()) == (inode, "short\n")


def test_a_live_change_touches_only_our_lines(tmp_path):
    paths, record = Paths(str(tmp_path), "/nonexistent"), container(hostname="h1")
    before = [member("a", "10.0.0.2")]
    container_files.write(paths, record, before, "")
    target = container_files.directory(paths, CID)
    with open(target + "/hosts", "a") as file:
        file.write("192.0.2.7\tadded-inside\n")
    container_files.update(paths, record, before, [member("a", "10.0.0.2"), member("b", "10.1.0.2")])
    assert open(target + "/hosts").read().endswith("10.0.0.2\th1\n192.0.2.7\tadded-inside\n10.1.0.2\th1\n")
    container_files.update(paths, record, [*before, member("b", "10.1.0.2")], before)
    assert open(target + "/hosts").read().endswith("10.0.0.2\th1\n192.0.2.7\tadded-inside\n")


def test_resolv_conf_switches_with_the_first_user_defined_network(tmp_path):
    paths, record = Paths(str(tmp_path), "/nonexistent"), container()
    path = container_files.directory(paths, CID) + "/resolv.conf"
    container_files.write(paths, record, [member("bridge", "10.0.0.2")], "")
    assert files.INTERNAL_RESOLVER not in open(path).read()
    container_files.update(paths, record, [], [member("bridge", "10.0.0.2"), member("a", "10.1.0.2")])
    assert files.INTERNAL_RESOLVER in open(path).read()


def test_an_edited_file_is_told_from_one_as_made_and_written_anew_but_not_when_a_network_comes(tmp_path):
    paths, record = Paths(str(tmp_path), "/nonexistent"), container()
    path = container_files.directory(paths, CID)
    networks = [member("a", "10.0.0.2")]
    container_files.write(paths, record, networks, "")
    assert container_files.differences(paths, record, networks, "") == []
    for name in ("hosts", "hostname", "resolv.conf"):
        before = open("%s/%s" % (path, name)).read()
        with open("%s/%s" % (path, name), "w") as file:
            file.write("nameserver 192.0.2.99\n")
        assert container_files.differences(paths, record, networks, "") == ["/etc/%s is not as it was made" % name]
        if name == "resolv.conf":
            container_files.update(paths, record, networks, [*networks, member("b", "10.1.0.2")])
            assert open("%s/%s" % (path, name)).read() == "nameserver 192.0.2.99\n"
        container_files.write(paths, record, networks, "")
        assert open("%s/%s" % (path, name)).read() == before
        assert container_files.differences(paths, record, networks, "") == []
