# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A kill -9 at any instruction leaves the state before or the state after; the next task repairs what it finds."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable
from typing import Any

import pytest
from helpers.engine import Engine

SLEEP = ["sleep", "1000"]
ROUNDS = 15  # for each of the four operations: 60 kill points


def killed_within(work: Callable[[], Any], delay: float) -> bool:
    """Run ``work`` in a child and SIGKILL it after ``delay`` seconds. Whether the kill came before the end."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    time.sleep(delay)
    os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def duration(work: Callable[[], Any]) -> float:
    begin = time.monotonic()
    work()
    return time.monotonic() - begin


def check_invariants(engine: Engine) -> None:
    """What exists on the host is what the store says, and nothing else."""
    paths = engine.paths
    with sqlite3.connect(paths.database) as db:
        assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        ids = {row[0] for row in db.execute("SELECT id FROM containers")}
        assert not db.execute(
            "SELECT 1 FROM endpoints WHERE container_id NOT IN (SELECT id FROM containers)"
        ).fetchall()
        assert not db.execute("SELECT 1 FROM ports WHERE container_id NOT IN (SELECT id FROM containers)").fetchall()
    assert set(os.listdir(paths.containers)) == ids
    assert set(os.listdir(paths.netns)) <= ids
    assert set(os.listdir(paths.run + "/containers")) <= ids
    for hierarchy in os.listdir("/sys/fs/cgroup"):
        group = "/sys/fs/cgroup/%s/%s" % (hierarchy, paths.cgroup)
        if os.path.isdir(group):
            found = {name for name in os.listdir(group) if os.path.isdir("%s/%s" % (group, name))}
            assert found <= ids, (hierarchy, found - ids)


@pytest.mark.parametrize("seed", [20261124])
def test_a_kill_at_any_point_of_create_start_stop_and_remove_is_repaired_by_the_next_task(
    fresh: Engine, seed: int
) -> None:
    rng = random.Random(seed)
    fresh.run("network", name="crash")
    params: dict[str, Any] = {
        "command": SLEEP,
        "networks": [{"name": "crash"}],
        "volumes": ["crash-data:/data"],
        "published_ports": ["18090:80"],
        "restart_policy": "always",
    }

    def create() -> None:
        fresh.container("victim", **params)

    def stop() -> None:
        fresh.run("container", name="victim", state="stopped", stop_timeout=0)

    def remove() -> None:
        fresh.run("container", name="victim", state="absent", force_kill=True)

    def replace() -> None:
        fresh.container("victim", env={"ROUND": str(rng.random())}, **params)

    create()
    fresh.sh("victim", "echo precious > /data/f")
    remove()
    length = duration(create)
    remove()
    kills = 0
    for _n in range(ROUNDS):
        kills += killed_within(create, rng.uniform(0, length * 1.2))
        create()
        assert fresh.sh("victim", "cat /data/f") == "precious"
        assert not fresh.container("victim", **params)["changed"]
        check_invariants(fresh)
        kills += killed_within(replace, rng.uniform(0, length * 2))
        create()
        assert fresh.sh("victim", "cat /data/f") == "precious"
        check_invariants(fresh)
        assert [c["Name"] for c in fresh.run("container_info")["containers"]] == ["/victim"]
        kills += killed_within(stop, rng.uniform(0, length))
        stop()
        assert fresh.inspect("victim")["State"]["Status"] == "exited"
        check_invariants(fresh)
        create()
        kills += killed_within(remove, rng.uniform(0, length))
        remove()
        assert not fresh.run("container_info")["containers"]
        check_invariants(fresh)
    assert kills >= ROUNDS * 2, "the kills came too late to prove anything: %d" % kills


@pytest.mark.parametrize("seed", [20261124])
def test_a_kill_at_any_point_of_an_import_is_completed_by_the_next(fresh: Engine, seed: int) -> None:
    rng = random.Random(seed)
    path = os.path.dirname(fresh.paths.state) + "/busybox.tar"

    def bring() -> None:
        fresh.run("image", name="imported:1", source="import", path=path, changes=["CMD sh", "LABEL a=b"])

    def drop() -> None:
        fresh.run("image", name="imported:1", state="absent")

    length = duration(bring)
    want = fresh.run("image_info", name=["imported:1"])["images"][0]["Id"]
    kills = 0
    for _n in range(ROUNDS):
        drop()
        kills += killed_within(bring, rng.uniform(0, length))
        bring()
        assert fresh.run("image_info", name=["imported:1"])["images"][0]["Id"] == want
        kills += killed_within(drop, rng.uniform(0, length / 4))
        bring()
        assert fresh.run("image_info", name=["imported:1"])["images"][0]["Id"] == want
    drop()
    left = [name for name in os.listdir(fresh.paths.tmp) if not name.startswith("ingest-")]
    assert not left
    assert kills >= ROUNDS // 2


def test_a_removal_of_a_volume_that_was_cut_short_is_finished_by_the_same_task(fresh: Engine) -> None:
    """Otherwise the next boot would take the data for a volume whose row was lost."""
    fresh.run("volume", name="going")
    with sqlite3.connect(fresh.paths.database) as db:  # where a kill leaves it: the row goes first
        db.execute("DELETE FROM volumes WHERE name = 'going'")
    db.close()
    assert fresh.run("volume", name="going", state="absent", check=True)["changed"]
    assert os.path.isdir(fresh.paths.volume("going"))
    assert fresh.run("volume", name="going", state="absent")["changed"]
    assert not os.path.exists(fresh.paths.volume("going"))
    assert not fresh.run("volume", name="going", state="absent")["changed"]
