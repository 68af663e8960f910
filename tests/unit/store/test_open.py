# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Opening: schema versions, damage, read-only file systems, and what opening costs."""

from __future__ import annotations

import _sqlite3
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time

import pytest
from helpers.store_kit import check_invariants, container, digest, fork_all, hex_id, put_image
from module_utils._engine.errors import StateError, TimedOut, WharfError
from module_utils._engine.paths import Paths
from module_utils._engine.store import schema
from module_utils._engine.store.state import Store

PLUGINS = os.path.join(os.path.dirname(__file__), "..", "..", "..", "plugins")


def test_a_new_state_directory_is_made_private(paths):
    Store.open(paths).close()
    assert os.stat(paths.state).st_mode & 0o777 == 0o710
    assert os.stat(paths.blobs).st_mode & 0o777 == 0o700
    assert os.stat(paths.database).st_mode & 0o777 == 0o600


def test_an_older_schema_is_migrated_step_by_step_and_keeps_its_rows(paths, monkeypatch):
    with Store.open(paths) as store:
        store.containers.create(container("web"))
    more = [["ALTER TABLE containers ADD COLUMN note TEXT DEFAULT 'x'"], ["CREATE TABLE extra (n INTEGER)"]]
    monkeypatch.setattr(schema, "MIGRATIONS", [*schema.MIGRATIONS, *more])
    with Store.open(paths) as store:
        assert store.db.version() == len(schema.MIGRATIONS)
        assert store.containers.by_name("web") is not None
        assert store.db.execute("SELECT note FROM containers") == [("x",)]


def test_a_migration_that_fails_changes_nothing(paths, monkeypatch):
    Store.open(paths).close()
    broken = ["CREATE TABLE extra (n INTEGER)", "INSERT INTO nowhere VALUES (1)"]
    monkeypatch.setattr(schema, "MIGRATIONS", [*schema.MIGRATIONS, broken])
    with pytest.raises(StateError):
        Store.open(paths)
    monkeypatch.undo()
    with Store.open(paths) as store:
        assert store.db.version() == len(schema.MIGRATIONS)
        assert store.db.execute("SELECT name FROM sqlite_master WHERE name = 'extra'") == []


def test_a_newer_schema_is_refused_untouched(paths):
    Store.open(paths).close()
    connection = sqlite3.connect(paths.database)
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with open(paths.database, "rb") as file:
        before = file.read()
    with pytest.raises(StateError) as caught:
        Store.open(paths)
    assert "99" in caught.value.msg and str(len(schema.MIGRATIONS)) in caught.value.msg
    with open(paths.database, "rb") as file:
        assert file.read() == before


def test_many_processes_may_make_the_database_at_once(paths):
    fork_all([lambda: Store.open(paths).close() for _n in range(8)])
    with Store.open(paths) as store:
        assert store.db.version() == len(schema.MIGRATIONS)


@pytest.mark.parametrize("damage", ["garbage", "header", "middle", "half", "directory", "no tables"])
def test_a_damaged_database_is_an_error_that_says_what_to_do(damage, paths):
    with Store.open(paths) as store:
        for number in range(60):
            store.containers.create(container("c%d" % number, spec={"text": "x" * 2000}))
    _damage(paths, damage)
    with pytest.raises(StateError) as caught, Store.open(paths) as store:
        store.containers.list()
    assert paths.database in caught.value.msg
    assert len(os.listdir(paths.containers)) == 60


def _damage(paths: Paths, damage: str) -> None:
    size = os.path.getsize(paths.database)
    if damage == "directory":
        os.unlink(paths.database)
        os.mkdir(paths.database)
        return
    if damage == "no tables":
        os.unlink(paths.database)
        connection = sqlite3.connect(paths.database)
        connection.execute("PRAGMA user_version=%d" % len(schema.MIGRATIONS))
        connection.close()
        return
    with open(paths.database, "r+b") as file:
        if damage == "garbage":
            file.write(b"not a database " * 1000)
        elif damage == "header":
            file.write(b"\0" * 100)
        elif damage == "middle":
            file.seek(4096)
            file.write(b"\xff" * (size - 4096))
        elif damage == "half":
            file.truncate(size // 2)


@pytest.mark.parametrize("loss", ["deleted", "emptied"])
def test_a_lost_database_costs_no_data(loss, paths):
    with Store.open(paths) as store:
        store.containers.create(container("web"))
        os.makedirs(paths.volume_data("data"))
        with open(paths.container(container("web").id) + "/upper", "w") as file:
            file.write("precious")
    if loss == "deleted":
        os.unlink(paths.database)
    else:
        os.truncate(paths.database, 0)
    os.unlink(paths.run + "/boot_id")
    with Store.open(paths) as store:
        assert store.containers.list() == []
        assert [volume.name for volume in store.volumes.list()] == ["data"]
    (name,) = os.listdir(paths.state + "/lost")
    assert name.startswith(container("web").id)
    with open("%s/lost/%s/upper" % (paths.state, name)) as file:
        assert file.read() == "precious"


def test_an_old_copy_of_the_database_costs_no_data(paths):
    Store.open(paths).close()
    with open(paths.database, "rb") as file:
        old = file.read()
    with Store.open(paths) as store:
        store.containers.create(container("web"))
        with open(paths.container(container("web").id) + "/upper", "w") as file:
            file.write("precious")
    with open(paths.database, "wb") as file:
        file.write(old)
    with Store.open(paths) as store:
        assert store.containers.list() == []
    (name,) = os.listdir(paths.state + "/lost")
    with open("%s/lost/%s/upper" % (paths.state, name)) as file:
        assert file.read() == "precious"


def test_one_damaged_record_does_not_hide_the_others(store):
    store.containers.create(container("good"))
    store.containers.create(container("bad"))
    store.db.execute("UPDATE containers SET spec = '{' WHERE name = 'bad'")
    assert [record.name for record in store.containers.list()] == ["good"]
    (sentence,) = store.damaged()
    assert "container bad" in sentence
    with pytest.raises(StateError, match="container bad"):
        store.containers.get("bad")
    assert store.containers.remove(container("bad").id)


def test_a_closed_store_is_not_used_by_mistake(paths):
    store = Store.open(paths)
    store.close()
    store.close()
    with pytest.raises(WharfError, match="closed"):
        store.containers.list()


def test_a_forked_child_gets_a_connection_of_its_own(store):
    store.containers.create(container("parent"))

    def child() -> None:
        store.containers.create(container("child"))

    fork_all([child])
    assert {record.name for record in store.containers.list()} == {"parent", "child"}


def test_opening_repairs_nothing_that_is_whole(paths):
    Store.open(paths).close()
    with Store.open(paths, recover=False) as store:
        store.containers.create(container("web"))
        assert store.recover() == []


def test_a_container_directory_that_vanished_is_made_again(paths):
    with Store.open(paths) as store:
        store.containers.create(container("web"))
    os.rmdir(paths.container(container("web").id))
    with Store.open(paths, recover=False) as store:
        assert len(store.recover()) == 1
        assert os.path.isdir(paths.container(container("web").id))


@pytest.mark.parametrize("used", [False, True])
def test_an_image_whose_layer_vanished_is_forgotten_and_comes_back_with_a_pull(used, paths):
    with Store.open(paths) as store:
        image = put_image(store, "a", ["base", "top"], ["a:1"])
        put_image(store, "b", ["base"], ["b:1"])
        if used:
            store.containers.create(container("web", image.id))
    shutil.rmtree(paths.layer(image.layers[1].chain_id))
    with Store.open(paths) as store:
        assert store.images.by_reference("a:1") is None
        assert [left.config["name"] for left in store.images.list()] == ["b"]
        assert (store.containers.by_name("web") is not None) == used
        put_image(store, "a", ["base", "top"], ["a:1"])
        assert store.images.by_reference("a:1") == image
        check_invariants(store)


def test_a_layer_directory_without_row_is_removed(paths):
    Store.open(paths).close()
    os.makedirs(paths.layer(digest("x")) + "/tree")
    with Store.open(paths) as store:
        check_invariants(store)
        assert os.listdir(paths.layers) == []


def test_a_leftover_that_cannot_be_removed_stops_nobody(paths, monkeypatch):
    Store.open(paths).close()
    os.makedirs(paths.container(hex_id("stuck")) + "/.removed")
    from module_utils._engine.store import scratch

    def busy(tmp: str, path: str) -> None:
        raise scratch.KernelError("Cannot remove %s: Device or resource busy" % path)

    monkeypatch.setattr(scratch, "trash", busy)
    with Store.open(paths, recover=False) as store:
        (sentence,) = store.recover()
        assert "busy" in sentence


_LOOK = """
import json, sys
sys.path.insert(0, sys.argv[1])
from module_utils._engine.paths import Paths
from module_utils._engine.store.state import Store
import fcntl, sqlite3, module_utils._engine.store.recovery
with Store.open(Paths(sys.argv[2], sys.argv[3])) as store:
    statements = []
    store.db.connect().set_trace_callback(statements.append)
    store.recover()
    assert store.containers.get("c77").name == "c77"
print(json.dumps({"statements": len(statements), "modules": sorted(sys.modules)}))
"""


def test_opening_asks_as_little_with_200_containers_as_with_one_and_imports_nothing_heavy(paths):
    with Store.open(paths) as store, store.transaction():
        for number in range(200):
            env = {"NAME%d" % n: "value" for n in range(30)}
            store.containers.create(container("c%d" % number, spec={"env": env}))
    answer = json.loads(subprocess.check_output([sys.executable, "-c", _LOOK, PLUGINS, paths.state, paths.run]))
    assert answer["statements"] <= 4
    heavy = {"ctypes", "shutil", "tempfile", "pathlib", "logging", "asyncio", "dataclasses", "subprocess", "urllib3"}
    assert not heavy & set(answer["modules"])


class Losing:
    """A connection that loses the race for a transaction so many times."""

    def __init__(self, real, times):
        self.real, self.times = real, times

    def execute(self, *args):
        if self.times:
            self.times -= 1
            raise sqlite3.OperationalError("locking protocol")
        return self.real.execute(*args)

    def __getattr__(self, name):
        return getattr(self.real, name)


def test_a_transaction_that_others_are_faster_to_begin_is_tried_again(paths, monkeypatch):
    """SQLITE_PROTOCOL says nothing about the database."""
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    with Store.open(paths) as store:
        store.db._connection = Losing(store.db.connect(), 3)
        assert store.containers.list() == [] and len(pauses) == 3
        store.db._connection = Losing(store.db._connection, 10**6)
        with pytest.raises(TimedOut, match="stayed locked by another process"):
            store.containers.list()
        store.db._connection = store.db._connection.real


def test_a_store_that_others_are_faster_to_open_is_tried_again(paths, monkeypatch):
    Store.open(paths).close()
    real, left = sqlite3.connect, [2]

    def connect(*args, **more):
        connection = real(*args, **more)
        left[0] -= 1
        return Losing(connection, 1) if left[0] >= 0 else connection

    monkeypatch.setattr(_sqlite3, "connect", connect)
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    with Store.open(paths) as store:
        assert store.containers.list() == [] and left[0] == -1
