# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which names a container sees, out of a real store."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from typing import Any, Optional

import pytest
from module_utils._engine.network.dns_names import StoreNames
from module_utils._engine.paths import Paths
from module_utils._engine.store.records import ContainerRecord, EndpointRecord, NetworkRecord
from module_utils._engine.store.state import Store


class World:
    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        self.store = Store.open(paths)
        self.names = StoreNames(paths)
        self.networks: dict[str, str] = {}
        self.positions: dict[str, int] = {}

    def network(self, name: str, number: int, **spec: Any) -> None:
        ident = self.networks[name] = secrets.token_hex(32)
        subnets = [{"subnet": "10.%d.0.0/24" % number, "gateway": "10.%d.0.1" % number, "ip_range": "", "aux": {}}]
        self.store.networks.create(NetworkRecord(ident, name, "bridge", spec, subnets, time.time()))

    def container(self, name: str, *, running: bool = True, **spec: Any) -> str:
        ident = secrets.token_hex(32)
        self.store.containers.create(
            ContainerRecord(ident, name, "sha256:" + "0" * 64, "img", {"name": name, **spec}, "running", 0.0, {}, 1)
        )
        if running:
            open(self.paths.container_netns(ident), "w").close()
        return ident

    def join(self, ident: str, network: str, ipv4: Optional[str], *aliases: str, ipv6: Optional[str] = None) -> None:
        position = self.positions[ident] = self.positions.get(ident, -1) + 1
        self.store.networks.put_endpoint(
            EndpointRecord(
                ident, self.networks[network], ipv4, ipv6, "02:00:00:00:00:01", list(aliases), "eth0", position, False
            )
        )


@pytest.fixture
def world(tmp_path: Any) -> Iterator[World]:
    paths = Paths(str(tmp_path / "s"), str(tmp_path / "r"))
    paths.ensure()
    made = World(paths)
    made.network("bridge", 1)
    made.network("Back", 2)
    made.network("front", 3)
    made.network("vault", 4, internal=True)
    yield made
    made.store.close()


def test_name_alias_short_id_and_hostname_each_also_with_the_network(world: World) -> None:
    one, two = world.container("Web", hostname="shop"), world.container("db")
    world.join(one, "Back", "10.2.0.2", "alias", ipv6="fd00::2")
    world.join(two, "Back", "10.2.0.3")
    for name in ("web", "alias", "shop", one[:12], "web.back", "alias.back", one[:12] + ".back"):
        assert world.names.lookup(two, name) == ["10.2.0.2", "fd00::2"], name
    assert world.names.lookup(one, "web") == ["10.2.0.2", "fd00::2"]
    assert world.names.reverse(two, "10.2.0.2") == "Web.Back"
    assert world.names.reverse(two, "fd00::2") == "Web.Back"
    assert world.names.reverse(two, "10.2.0.77") == ""
    assert world.names.reverse(two, "192.0.2.1") is None


def test_only_networks_in_common_count(world: World) -> None:
    one, two, both = world.container("one"), world.container("two"), world.container("both")
    world.join(one, "Back", "10.2.0.2")
    world.join(two, "front", "10.3.0.2")
    world.join(both, "front", "10.3.0.3")
    world.join(both, "Back", "10.2.0.3")
    assert world.names.lookup(one, "two") is None
    assert world.names.reverse(one, "10.3.0.2") is None
    assert world.names.lookup(both, "one") == ["10.2.0.2"]
    assert world.names.lookup(both, "two") == ["10.3.0.2"]
    assert world.names.lookup(one, "both") == ["10.2.0.3"]
    assert world.names.lookup(both, "both") == ["10.3.0.3"], "the asker's first network wins"
    assert world.names.lookup("0" * 64, "one") is None


def test_the_default_network_has_no_names(world: World) -> None:
    one, two = world.container("one"), world.container("two")
    world.join(one, "bridge", "10.1.0.2", "alias")
    world.join(two, "bridge", "10.1.0.3")
    assert world.names.lookup(two, "one") is None
    assert world.names.lookup(two, "alias") is None
    assert world.names.reverse(two, "10.1.0.2") is None


def test_a_shared_alias_gives_all_addresses(world: World) -> None:
    idents = [world.container("w%d" % n) for n in range(3)]
    for n, ident in enumerate(idents):
        world.join(ident, "front", "10.3.0.%d" % (n + 2), "web")
    assert world.names.lookup(idents[0], "web") == ["10.3.0.2", "10.3.0.3", "10.3.0.4"]
    os.unlink(world.paths.container_netns(idents[1]))
    assert world.names.lookup(idents[0], "web") == ["10.3.0.2", "10.3.0.4"]


def test_a_stopped_containers_name_stays_ours_without_addresses(world: World) -> None:
    one, two = world.container("one"), world.container("two", running=False)
    world.join(one, "front", "10.3.0.2")
    world.join(two, "front", "10.3.0.3")
    assert world.names.lookup(one, "two") == []
    assert world.names.lookup(one, "two.front") == []
    assert world.names.reverse(one, "10.3.0.3") == ""


def test_names_and_networks_may_have_dots(world: World) -> None:
    world.network("a.b", 5)
    one = world.container("x.y")
    world.join(one, "a.b", "10.5.0.2")
    assert world.names.lookup(one, "x.y") == ["10.5.0.2"]
    assert world.names.lookup(one, "x.y.a.b") == ["10.5.0.2"]
    assert world.names.lookup(one, "x") is None


def test_changes_show_at_once(world: World) -> None:
    one, two = world.container("one"), world.container("two")
    world.join(one, "front", "10.3.0.2")
    assert world.names.lookup(one, "two") is None
    world.join(two, "front", "10.3.0.3")
    assert world.names.lookup(one, "two") == ["10.3.0.3"]
    world.store.containers.rename(two, "three")
    assert world.names.lookup(one, "two") is None
    assert world.names.lookup(one, "three") == ["10.3.0.3"]
    world.store.containers.remove(two)
    assert world.names.lookup(one, "three") is None


def test_only_internal_networks_means_no_outside(world: World) -> None:
    one, two = world.container("one"), world.container("two", dns_servers=["192.0.2.53"])
    world.join(one, "vault", "10.4.0.2")
    world.join(two, "vault", "10.4.0.3")
    world.join(two, "front", "10.3.0.3")
    assert not world.names.outside(one)
    assert world.names.outside(two)
    assert world.names.own_servers(two) == ["192.0.2.53"]
    assert world.names.own_servers(one) == []


def test_a_replaced_or_missing_database_is_survived(world: World, tmp_path: Any) -> None:
    one = world.container("one")
    world.join(one, "front", "10.3.0.2")
    assert world.names.lookup(one, "one") == ["10.3.0.2"]
    world.store.close()
    os.rename(world.paths.database, world.paths.database + ".aside")
    assert world.names.lookup(one, "one") == ["10.3.0.2"], "the last snapshot"
    assert not os.path.exists(world.paths.database)
    for suffix in ("-wal", "-shm"):
        if os.path.exists(world.paths.database + suffix):
            os.unlink(world.paths.database + suffix)
    world.store = Store.open(world.paths)
    assert world.names.lookup(one, "one") is None
