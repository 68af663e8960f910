# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""kill -9 at every watched instruction of every kind of work: the next open repairs, and the work can be done again."""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator

import pytest
from helpers.store_kit import (
    check_invariants,
    container,
    digest,
    hex_id,
    network,
    put_image,
    put_layer,
    run_and_die,
)
from module_utils._engine.errors import Conflict
from module_utils._engine.paths import Paths
from module_utils._engine.store.records import EndpointRecord, PortRecord
from module_utils._engine.store.state import Store


def _prepare(paths: Paths) -> None:
    with Store.open(paths) as store:
        kept = put_image(store, "kept", ["base", "kept"], ["kept:1"])
        gone = put_image(store, "gone", ["base", "gone"], ["gone:1"])
        store.containers.create(container("old", kept.id))
        store.networks.create(network("n"))
        store.networks.put_ports(container("old").id, [PortRecord("", "", 80, "tcp", 80)])
        with open(paths.container(container("old").id) + "/upper", "w") as file:
            file.write("data")
        store.images.remove(gone.id)


@pytest.fixture
def home() -> Iterator[str]:
    """In memory where possible: these tests sync thousands of times, and none of them cuts the power."""
    directory = tempfile.mkdtemp(prefix="wharf-store-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    yield directory
    shutil.rmtree(directory)


def _copy(template: Paths, home: str, number: int) -> Paths:
    paths = Paths("%s/%d/s" % (home, number), "%s/%d/r" % (home, number))
    shutil.copytree(template.state, paths.state, symlinks=True)
    shutil.copytree(template.run, paths.run)
    return paths


def write_blob(store: Store) -> None:
    data = b"x" * 3000
    with store.blobs.writer(digest("x" * 3000), 3000) as writer:
        while not writer.complete and writer.offset < 3000:
            writer.write(data[writer.offset : writer.offset + 1000])
        writer.commit()
    assert store.blobs.read(digest("x" * 3000)) == data


def commit_layer(store: Store) -> None:
    put_layer(store, "new layer")
    assert store.layers.get(digest("chain new layer")) is not None


def put_new_image(store: Store) -> None:
    image = put_image(store, "new", ["base", "new"], ["new:1", "kept:1"])
    found = store.images.by_reference("kept:1")
    assert found is not None and found.id == image.id


def create_container(store: Store) -> None:
    record = container("fresh", digest("config kept"))
    try:
        with store.transaction():
            store.containers.create(record)
            store.networks.put_endpoint(
                EndpointRecord(record.id, hex_id("net n"), "10.0.0.2", None, "02:00:00:00:00:01", [], "eth0", 0, False)
            )
            store.networks.put_ports(record.id, [PortRecord("", "", 81, "tcp", 80)])
    except Conflict:
        assert store.containers.by_name("fresh") == record
    # All of it or nothing of it.
    assert len(store.networks.endpoints(container_id=record.id)) == 1
    assert len(store.networks.ports(record.id)) == 1


def remove_container(store: Store) -> None:
    store.containers.remove(container("old").id)
    assert store.networks.ports() == []


def collect(store: Store) -> None:
    store.collect()
    assert store.layers.get(digest("chain gone")) is None
    assert not store.blobs.has(digest("config gone"))


@pytest.mark.parametrize(
    "work",
    [write_blob, commit_layer, put_new_image, create_container, remove_container, collect],
    ids=lambda work: work.__name__,
)
def test_killed_anywhere_the_next_open_repairs(work, home):
    template = Paths(home + "/s", home + "/r")
    _prepare(template)
    points = 0
    for fuse in range(2000):
        paths = _copy(template, home, fuse)

        def child(paths: Paths = paths) -> None:
            with Store.open(paths) as store:
                work(store)

        if not run_and_die(child, fuse):
            break
        points += 1
        with Store.open(paths) as store:
            check_invariants(store)
            _nothing_lost(store, work)
            work(store)
            check_invariants(store)
    assert points >= 25


def _nothing_lost(store: Store, work) -> None:
    kept = store.images.by_reference("kept:1")
    assert kept is not None and len(kept.layers) == 2
    old = store.containers.by_name("old")
    assert not os.path.exists(store.paths.state + "/lost"), "what was to be removed was set aside"
    if work is remove_container and old is None:
        return
    assert old is not None
    assert len(store.networks.ports(old.id)) == 1
    with open(store.paths.container(old.id) + "/upper") as file:
        assert file.read() == "data"
    fresh = store.containers.by_name("fresh")
    assert fresh is None or store.networks.endpoints(container_id=fresh.id)


def test_killed_while_repairing_the_next_open_goes_on(home):
    template = Paths(home + "/s", home + "/r")
    _prepare(template)
    for fuse in range(2000):
        paths = _copy(template, home, fuse)
        os.mkdir(paths.container(hex_id("half removed")))
        os.close(os.open(paths.container(hex_id("half removed")) + "/.removed", os.O_CREAT))
        os.mkdir(paths.container(hex_id("unknown")))
        os.makedirs(paths.layer(digest("half committed")) + "/tree")
        os.makedirs(paths.tmp + "/layer-1234/tree/deep/er")
        os.makedirs(paths.volume_data("found"))
        os.unlink(paths.run + "/boot_id")
        if not run_and_die(lambda paths=paths: Store.open(paths).close(), fuse):
            break
        with Store.open(paths) as store:
            check_invariants(store)
            assert store.volumes.get("found") is not None
            assert len(os.listdir(paths.state + "/lost")) == 1
            assert store.containers.by_name("old") is not None
    assert fuse >= 50


def test_killed_while_a_database_is_made_containers_are_still_set_aside(home):
    for fuse in range(2000):
        paths = Paths("%s/%d/s" % (home, fuse), "%s/%d/r" % (home, fuse))
        paths.ensure()
        os.mkdir(paths.container(hex_id("orphan")))
        with open(paths.container(hex_id("orphan")) + "/data", "w") as file:
            file.write("precious")
        died = run_and_die(lambda paths=paths: Store.open(paths).close(), fuse * 3)
        with Store.open(paths) as store:
            check_invariants(store)
        (name,) = os.listdir(paths.state + "/lost")
        with open("%s/lost/%s/data" % (paths.state, name)) as file:
            assert file.read() == "precious"
        if not died:
            break
    assert fuse >= 20


@pytest.mark.parametrize("seed", range(12))
def test_killed_at_a_random_time(seed, paths):
    """The watched calls don't include SQLite's own system calls; a clock does."""
    chance = random.Random(seed)
    _prepare(paths)
    pid = os.fork()
    if pid == 0:
        try:
            _busy(paths, random.Random(seed + 100))
        finally:
            os._exit(0)
    time.sleep(0.02 + chance.random() * 0.2)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with Store.open(paths) as store:
        check_invariants(store)
        store.collect()
        check_invariants(store)


def _busy(paths: Paths, chance: random.Random) -> None:
    with Store.open(paths) as store:
        while True:
            name = str(chance.randrange(4))
            what = chance.randrange(5)
            if what == 0:
                put_image(store, name, ["base", name], ["ref:" + name])
            elif what == 1:
                store.images.remove(digest("config " + name))
            elif what == 2 and not store.containers.by_name(name):
                store.containers.create(container(name))
            elif what == 3:
                store.containers.remove(container(name).id)
            elif what == 4:
                store.collect()


def test_a_power_cut_takes_only_what_was_not_promised(paths, tmp_path, monkeypatch):
    """The WAL is cut back to what had been synced: durable commits are all there, and nothing is broken."""
    wal = paths.database + "-wal"
    synced = {"size": 0}
    _prepare(paths)
    with Store.open(paths) as store:
        real = store.db.sync

        def sync() -> None:
            real()
            synced["size"] = os.path.getsize(wal)

        monkeypatch.setattr(store.db, "sync", sync)
        image = put_image(store, "durable", ["base", "durable"], ["durable:1"])
        store.containers.create(container("durable", image.id))
        for number in range(50):
            store.events.add("container", "noise", str(number))
        os.makedirs(tmp_path / "after")
        copy = Paths(str(tmp_path / "after" / "s"), str(tmp_path / "after" / "r"))
        shutil.copytree(paths.state, copy.state)
        assert os.path.getsize(copy.database + "-wal") > synced["size"]
        os.truncate(copy.database + "-wal", synced["size"])
        os.unlink(copy.database + "-shm")
    with Store.open(copy) as store:
        check_invariants(store)
        assert store.containers.by_name("durable") is not None
        assert store.images.by_reference("durable:1") is not None
        assert store.events.list() == []
