# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What monitors saw is in the database exactly once, whoever is killed when, and in the order of time."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest
from helpers.store_kit import container
from module_utils._engine.store import journal
from module_utils._engine.store.state import Store


def seen(store: Any) -> list[tuple[str, str]]:
    return [(event.action, event.attributes.get("n", "")) for event in store.events.list()]


def files(store: Any) -> list[str]:
    directory = store.paths.events
    return sorted(os.listdir(directory)) if os.path.isdir(directory) else []


def test_what_a_monitor_saw_can_be_read_before_and_after_it_is_stored(store):
    journal.append(store.paths.events, "die", "c1", {"exitCode": 3, "name": "web"})
    before = store.events.list()
    assert [(e.type, e.action, e.actor, e.attributes) for e in before] == [
        ("container", "die", "c1", {"exitCode": "3", "name": "web"})
    ]
    assert files(store) == ["journal"]  # reading changed nothing
    store.events.fold()
    assert files(store) == []
    assert [(e.time, e.action, e.attributes) for e in store.events.list()] == [
        (e.time, e.action, e.attributes) for e in before
    ]


def test_events_of_tasks_and_monitors_are_in_the_order_of_time(store):
    store.events.add("container", "create", "c1", {"n": "1"})
    journal.append(store.paths.events, "die", "c1", {"n": "2"})
    time.sleep(0.001)
    store.events.add("container", "stop", "c1", {"n": "3"})
    journal.append(store.paths.events, "oom", "c1", {"n": "4"})
    assert seen(store) == [("create", "1"), ("die", "2"), ("stop", "3"), ("oom", "4")]
    store.events.fold()
    assert seen(store) == [("create", "1"), ("die", "2"), ("stop", "3"), ("oom", "4")]
    assert [event.attributes["n"] for event in store.events.list(limit=2)] == ["3", "4"]


def test_a_reader_killed_after_storing_and_before_deleting_stores_nothing_twice(store, monkeypatch):
    journal.append(store.paths.events, "die", "c1", {"n": "1"})
    with monkeypatch.context() as patch:
        patch.setattr(journal, "done", lambda _files: None)  # killed between the commit and this
        store.events.fold()
    assert len(files(store)) == 1 and seen(store) == [("die", "1")]
    store.events.fold()
    assert files(store) == [] and seen(store) == [("die", "1")]


def test_a_reader_whose_transaction_fails_loses_nothing(store):
    journal.append(store.paths.events, "die", "c1", {"n": "1"})
    with pytest.raises(RuntimeError), store.transaction():
        store.events.fold()
        raise RuntimeError("killed")
    assert seen(store) == [("die", "1")] and len(files(store)) == 1
    store.events.add("container", "stop", "c1", {"n": "2"})
    assert seen(store) == [("die", "1"), ("stop", "2")] and files(store) == []


def test_a_line_cut_off_by_a_full_file_system_takes_no_other_with_it(store):
    journal.append(store.paths.events, "start", "c1", {"n": "1"})
    with open(store.paths.events + "/journal", "a") as stream:
        stream.write('\n[1795485693, "x", "die"')
    journal.append(store.paths.events, "die", "c1", {"n": "2"})
    store.events.fold()
    assert seen(store) == [("start", "1"), ("die", "2")]


def test_a_journal_that_nobody_reads_does_not_grow_for_ever(store, monkeypatch):
    monkeypatch.setattr(journal, "LIMIT", 2000)
    for number in range(200):
        journal.append(store.paths.events, "die", "c1", {"n": number})
    assert files(store) in (["journal", "old"], ["old"])
    assert sum(os.path.getsize("%s/%s" % (store.paths.events, name)) for name in files(store)) < 5000
    kept = [number for _action, number in seen(store)]
    assert kept == [str(number) for number in range(200 - len(kept), 200)] and len(kept) > 10


def test_when_a_container_has_ended_for_good_it_left_its_volumes(store):
    mounts = [{"type": "volume", "source": "data", "target": "/data"}, {"type": "bind", "source": "/x", "target": "/y"}]
    record = container("web", spec={"labels": {"app": "shop"}}, resolved={"mounts": mounts, "volumes": ["data"]})
    store.containers.create(record)
    journal.append(store.paths.events, "die", record.id, {"exitCode": 0}, over=False)
    journal.append(store.paths.events, "die", record.id, {"exitCode": 1}, over=True)
    store.events.fold()
    found = store.events.list()
    assert [(e.type, e.action, e.actor) for e in found] == [
        ("container", "die", record.id), ("container", "die", record.id), ("volume", "unmount", "data"),
    ]  # fmt: skip
    assert found[1].attributes == {"exitCode": "1", "app": "shop", "name": "web", "image": record.image_ref}


def test_many_writers_and_killed_readers_lose_and_double_nothing(store):
    """Three writers of 200 lines each, and readers that are killed at moments nobody chose."""
    writers = []
    for writer in range(3):
        pid = os.fork()
        if not pid:
            for number in range(200):
                journal.append(store.paths.events, "die", "c%d" % writer, {"n": number})
            os._exit(0)
        writers.append(pid)
    left = set(writers)
    round_ = 0
    while left:
        reader = os.fork()
        if not reader:
            with Store.open(store.paths, recover=False) as mine:
                while True:
                    mine.events.fold()
        for _look in range(round_ % 7 + 1):
            left -= {pid for pid in left if os.waitpid(pid, os.WNOHANG)[0]}
            time.sleep(0.003)
        os.kill(reader, signal.SIGKILL)
        os.waitpid(reader, 0)
        round_ += 1
    store.events.fold()
    assert files(store) == []
    for writer in range(3):
        mine = [e.attributes["n"] for e in store.events.list() if e.actor == "c%d" % writer]
        assert mine == [str(number) for number in range(200)]
