# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Containers, images, networks, volumes, events: names, identities, and what excludes what."""

from __future__ import annotations

import os

import pytest
from helpers.store_kit import check_invariants, container, digest, hex_id, network, put_image
from module_utils._engine.errors import Conflict, DiskFull, InUse, NotFound, UsageError
from module_utils._engine.store import events
from module_utils._engine.store.records import EndpointRecord, ImageRecord, LayerRef, PortRecord, VolumeRecord


def _endpoint(name: str, ipv4: str | None, ipv6: str | None = None, net: str = "n") -> EndpointRecord:
    return EndpointRecord(container(name).id, hex_id("net " + net), ipv4, ipv6, "m", ["a", name], "eth0", 0, False)


def _port(name: str, ip: str, port: int, protocol: str = "tcp") -> PortRecord:
    return PortRecord(container(name).id, ip, port, protocol, 80)


# -- transactions -------------------------------------------------------------------------------------------------


def test_a_failed_transaction_leaves_neither_row_nor_directory(store):
    with pytest.raises(RuntimeError), store.transaction():
        store.containers.create(container("web"))
        raise RuntimeError
    assert store.containers.list() == []
    assert os.listdir(store.paths.containers) == []


def test_a_failed_inner_transaction_that_is_caught_undoes_only_itself(store):
    with store.transaction():
        store.containers.create(container("outer"))
        with pytest.raises(RuntimeError), store.transaction():
            store.containers.create(container("inner"))
            raise RuntimeError
    assert [record.name for record in store.containers.list()] == ["outer"]
    check_invariants(store)


def test_after_sqlite_rolled_back_by_itself_nothing_is_written_outside_of_the_transaction(store):
    with pytest.raises(DiskFull), store.transaction():
        store.containers.create(container("before"))
        with pytest.raises(RuntimeError), store.transaction():
            store.db.connect().execute("ROLLBACK")  # what SQLite may do by itself on a full disk
            raise RuntimeError
        store.containers.create(container("after"))
    assert store.containers.list() == []
    store.containers.create(container("again"))
    check_invariants(store)


def test_a_name_that_is_no_text_is_refused(store):
    with pytest.raises(UsageError):
        store.containers.create(container("x")._replace(name="\udc80"))


# -- containers ---------------------------------------------------------------------------------------------------


def test_a_container_is_found_by_id_name_and_unambiguous_prefix(store):
    record = container("web", spec={"env": {"A": "ä\udc80"}}, resolved={"volumes": ["v"]})
    store.containers.create(record)
    assert store.containers.get(record.id) == record
    assert store.containers.get("web") == record
    assert store.containers.get(record.id[:12]) == record
    assert store.containers.get("") is None
    assert store.containers.get("nothing") is None
    assert store.containers.by_name("web") == record


def test_an_ambiguous_prefix_is_a_conflict_and_a_name_comes_before_a_prefix(store):
    one, two = container("one", id="ab" + "0" * 62), container("two", id="ab" + "1" * 62)
    store.containers.create(one)
    store.containers.create(two)
    with pytest.raises(Conflict, match="More than one"):
        store.containers.get("ab")
    named = container("ab")
    store.containers.create(named)
    assert store.containers.get("ab") == named
    store.containers.create(container(one.id, id="c" * 64))
    assert store.containers.get(one.id) == one


def test_a_container_name_is_unique_and_the_error_names_the_owner(store):
    store.containers.create(container("web"))
    with pytest.raises(Conflict, match=container("web").id):
        store.containers.create(container("web", id="d" * 64))
    store.containers.create(container("db"))
    with pytest.raises(Conflict, match="already in use"):
        store.containers.rename(container("db").id, "web")
    assert store.containers.rename(container("db").id, "db").name == "db"
    assert store.containers.rename(container("db").id, "data").name == "data"


@pytest.mark.parametrize("bad", ["", "../x", "A" * 64, "a" * 63])
def test_what_is_no_container_id_never_becomes_a_path(bad, store):
    with pytest.raises(UsageError):
        store.containers.create(container("web", id=bad))


def test_updating_a_container_changes_only_what_was_said(store):
    record = store.containers.create(container("web"))
    changed = store.containers.update(record.id, desired="running", resolved={"a": 1}, generation=2)
    assert changed == record._replace(desired="running", resolved={"a": 1}, generation=2)
    assert store.containers.get("web") == changed
    with pytest.raises(NotFound):
        store.containers.update("0" * 64, desired="running")
    with pytest.raises(UsageError):
        store.containers.update(record.id, name="x")


def test_removing_a_container_takes_its_endpoints_ports_and_directory(store):
    store.containers.create(container("web"))
    store.networks.create(network("n"))
    store.networks.put_endpoint(_endpoint("web", "10.0.0.2"))
    store.networks.put_ports(container("web").id, [_port("web", "", 80)])
    with open(store.paths.container(container("web").id) + "/log", "w"):
        pass
    assert store.containers.remove(container("web").id)
    assert not store.containers.remove(container("web").id)
    assert store.networks.endpoints() == [] and store.networks.ports() == []
    check_invariants(store)


# -- images -------------------------------------------------------------------------------------------------------


def test_an_image_is_found_by_id_reference_repository_digest_and_prefix(store):
    image = put_image(store, "a", ["l1", "l2"], ["docker.io/library/a:1"])
    for text in (image.id, image.id[:20], image.id[7:19], "docker.io/library/a:1", "repo@" + image.manifest_digest):
        assert store.images.find(text) == image
    assert store.images.find("nothing") is None
    assert store.images.references(image.id) == ["docker.io/library/a:1"]
    assert store.images.repo_digests(image.id) == ["repo@" + image.manifest_digest]


def test_an_ambiguous_image_prefix_is_a_conflict(store):
    for last in "01":
        store.images.put(ImageRecord("sha256:" + "a" * 63 + last, digest("m"), "m", {}, 0, 1.0, ()))
    with pytest.raises(Conflict):
        store.images.find("aaaa")


def test_a_reference_points_to_one_image_at_a_time(store):
    one, two = put_image(store, "one", [], ["x:1"]), put_image(store, "two", [], ["y:1"])
    store.images.tag("x:1", two.id)
    assert store.images.references(one.id) == []
    assert store.images.references(two.id) == ["x:1", "y:1"]
    assert store.images.untag("x:1") and not store.images.untag("x:1")
    with pytest.raises(NotFound):
        store.images.tag("x:1", digest("nothing"))


def test_a_container_is_not_made_from_an_image_that_went_away(store):
    image = put_image(store, "a", [], ["a:1"])
    store.containers.create(container("web", image.id), need_image=True)
    with pytest.raises(NotFound, match="removed while"):
        store.containers.create(container("db", digest("gone")), need_image=True)
    assert store.containers.by_name("db") is None


def test_an_image_without_its_layers_is_not_stored(store):
    layer = LayerRef(digest("d"), digest("c"), "", 0, "")
    with pytest.raises(NotFound, match="Layer"):
        store.images.put(ImageRecord(digest("i"), digest("m"), "m", {}, 0, 1.0, (layer,)), ["x:1"])
    assert store.images.list() == [] and store.images.by_reference("x:1") is None


def test_the_same_layer_twice_in_an_image_is_fine(store):
    image = put_image(store, "a", ["same", "same"], [])
    assert len(image.layers) == 2
    assert store.images.get(image.id) == image


def test_putting_an_image_again_refreshes_it(store):
    image = put_image(store, "a", ["l"], ["x:1"])
    again = image._replace(manifest_type="other")
    store.images.put(again, ["x:2"])
    assert store.images.get(image.id) == again
    assert store.images.references(image.id) == ["x:1", "x:2"]


def test_an_image_with_containers_is_removed_by_force_with_the_last_of_them(store):
    image = put_image(store, "a", ["l"], ["x:1"])
    store.containers.create(container("web", image.id))
    assert [user.name for user in store.images.users(image.id)] == ["web"]
    with pytest.raises(InUse, match="web"):
        store.images.remove(image.id)
    assert store.images.remove(image.id, force=True)
    assert store.images.list() == [] and store.images.find("x:1") is None
    assert store.images.get(image.id) == image
    assert store.collect()["layers"] == []
    store.containers.remove(container("web").id)
    assert store.collect()["layers"] == [image.layers[0].chain_id]
    assert store.images.get(image.id) is None


def test_a_doomed_image_that_is_tagged_or_pulled_again_is_back(store):
    image = put_image(store, "a", ["l"], ["x:1"])
    store.containers.create(container("web", image.id))
    store.images.remove(image.id, force=True)
    store.images.tag("y:1", image.id)
    assert store.images.list() == [image]


# -- networks -----------------------------------------------------------------------------------------------------


def test_a_network_is_found_changed_and_removed(store):
    record = network("n")._replace(subnets=[{"subnet": "10.0.0.0/24", "gateway": "10.0.0.1"}])
    store.networks.create(record)
    assert store.networks.get("n") == store.networks.get(record.id[:8]) == store.networks.by_name("n") == record
    with pytest.raises(Conflict):
        store.networks.create(network("n")._replace(id="e" * 64))
    assert store.networks.update(record.id, spec={"a": 1}).spec == {"a": 1}
    store.networks.create(network("m"))
    with pytest.raises(Conflict):
        store.networks.update(record.id, name="m")
    assert store.networks.remove(record.id) and not store.networks.remove(record.id)


def test_a_network_with_endpoints_is_not_removed_and_the_error_names_them(store):
    store.networks.create(network("n"))
    store.containers.create(container("web"))
    store.networks.put_endpoint(_endpoint("web", "10.0.0.2"))
    with pytest.raises(InUse, match="web"):
        store.networks.remove(network("n").id)
    assert store.networks.remove_endpoint(container("web").id, network("n").id)
    assert store.networks.remove(network("n").id)


@pytest.mark.parametrize("addresses", [("10.0.0.2", None), (None, "fd00::2")])
def test_an_address_has_one_owner_per_network(addresses, store):
    for name in ("n", "m"):
        store.networks.create(network(name))
    for name in ("web", "db"):
        store.containers.create(container(name))
    first = store.networks.put_endpoint(_endpoint("web", *addresses))
    with pytest.raises(Conflict, match=r"Address already in use.*web"):
        store.networks.put_endpoint(_endpoint("db", *addresses))
    store.networks.put_endpoint(_endpoint("db", *addresses, net="m"))
    assert store.networks.put_endpoint(first._replace(mac="other")).mac == "other"
    assert store.networks.endpoints(network("n").id) == [first._replace(mac="other")]
    assert len(store.networks.endpoints(container_id=container("db").id)) == 1


def test_many_endpoints_may_have_no_address(store):
    store.networks.create(network("n"))
    for name in ("web", "db"):
        store.containers.create(container(name))
        store.networks.put_endpoint(_endpoint(name, None))
    assert len(store.networks.endpoints()) == 2


def test_an_endpoint_needs_its_container_and_network(store):
    with pytest.raises(NotFound):
        store.networks.put_endpoint(_endpoint("web", "10.0.0.2"))


@pytest.mark.parametrize(
    ("one", "two", "collide"),
    [
        ("", "", True),
        ("", "127.0.0.1", True),
        ("127.0.0.1", "", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("0.0.0.0", "10.0.0.1", True),
        ("0.0.0.0", "::", False),
        ("::", "fd00::1", True),
        ("::1", "127.0.0.1", False),
        ("", "::1", True),
    ],
)
def test_published_ports_collide_as_sockets_do(one, two, collide, store):
    for name in ("web", "db"):
        store.containers.create(container(name))
    store.networks.put_ports(container("web").id, [_port("web", one, 80)])
    store.networks.put_ports(container("db").id, [_port("db", two, 80, "udp"), _port("db", two, 81)])
    if not collide:
        store.networks.put_ports(container("db").id, [_port("db", two, 80)])
        return
    with pytest.raises(Conflict, match="already allocated to container web"):
        store.networks.put_ports(container("db").id, [_port("db", two, 82), _port("db", two, 80)])
    # All or none: the set before is still there.
    assert {(port.host_port, port.protocol) for port in store.networks.ports(container("db").id)} == {
        (80, "udp"),
        (81, "tcp"),
    }


def test_a_container_may_replace_its_own_ports_but_not_publish_one_twice(store):
    store.containers.create(container("web"))
    for _n in range(2):
        store.networks.put_ports(container("web").id, [_port("web", "", 80)])
    with pytest.raises(Conflict, match="twice"):
        store.networks.put_ports(container("web").id, [_port("web", "", 80), _port("web", "127.0.0.1", 80)])
    store.networks.put_ports(container("web").id, [])
    assert store.networks.ports() == []
    with pytest.raises(NotFound):
        store.networks.put_ports("0" * 64, [_port("web", "", 80)])


# -- volumes and events -------------------------------------------------------------------------------------------


def test_users_of_a_volume_are_derived_from_the_containers(store):
    record = VolumeRecord("data", "local", {"a": "b"}, False, {}, 1.0)
    store.volumes.create(record)
    assert store.volumes.get("data") == record and store.volumes.list() == [record]
    with pytest.raises(Conflict):
        store.volumes.create(record)
    store.containers.create(container("a", resolved={"volumes": ["data"]}))
    store.containers.create(container("b", spec={"mounts": [{"type": "volume", "source": "data"}]}))
    store.containers.create(
        container("c", spec={"mounts": [{"type": "bind", "source": "data"}], "labels": {"data": ""}})
    )
    assert [user.name for user in store.volumes.users("data")] == ["a", "b"]
    with pytest.raises(InUse, match="a, b"):
        store.volumes.remove("data")
    assert store.volumes.update("data", labels={}).labels == {}
    store.containers.remove(container("a").id)
    store.containers.remove(container("b").id)
    assert store.volumes.remove("data") and not store.volumes.remove("data")
    with pytest.raises(NotFound):
        store.volumes.update("data", labels={})


def test_events_are_kept_in_order_and_pruned_to_the_newest(store, monkeypatch):
    monkeypatch.setattr(events, "KEEP", 5)
    for number in range(8):
        store.events.add("container", "start", "web", {"n": number})
    kept = store.events.list()
    assert [event.attributes["n"] for event in kept] == [3, 4, 5, 6, 7]
    assert [event.attributes["n"] for event in store.events.list(limit=2)] == [6, 7]
    assert store.events.list(since=kept[-1].time + 1) == []
    assert store.events.list(until=kept[0].time - 1) == []
