# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pulls that meet each other, and pulls that die: one download, and never half an image."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest
from helpers.fake_registry import FakeRegistry
from helpers.images import build_image, layer
from module_utils._engine.images import pull as pulling
from module_utils._engine.images.reference import parse
from module_utils._engine.kernel.syscalls import Kernel
from module_utils._engine.paths import Paths
from module_utils._engine.registry.transport import Transport
from module_utils._engine.store.records import ImageRecord
from module_utils._engine.store.state import Store

noise = random.Random(9).randbytes


pytestmark = pytest.mark.usefixtures("pulling_either_way")


def pull(store: Store, text: str) -> ImageRecord:
    return pulling.pull(store, Kernel(), parse(text), transport=Transport(timeout=10))


def tar_of(store: Store, chain_id: str) -> str:
    with open(store.paths.layer(chain_id) + "/tar", "rb") as stream:
        return "sha256:" + hashlib.sha256(stream.read()).hexdigest()


def _child(paths: Paths, name: str) -> int:
    """Pull in a child process; its exit status is 0 when that went well."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            with Store.open(paths) as store:
                pull(store, name)
            status = 0
        finally:
            os._exit(status)
    return pid


def test_two_pulls_at_once_are_one_download(tmp_path: Path, registry: FakeRegistry) -> None:
    paths = Paths(str(tmp_path / "state"), str(tmp_path / "run"))
    Store.open(paths).close()
    wanted = build_image([layer({"a%d" % n: noise(500_000)}) for n in range(3)])
    name = registry.add("team/app", "1", wanted)
    pids = [_child(paths, name) for _n in range(3)]
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0, 0, 0]
    assert len(registry.seen("/blobs/")) == 4
    with Store.open(paths) as store:
        assert store.images.by_reference(name).id == wanted.id  # type: ignore[union-attr]


@pytest.mark.parametrize("again", [True, False])
def test_an_image_that_is_deleted_while_it_is_pulled_comes_in_whole(
    tmp_path: Path, registry: FakeRegistry, again: bool
) -> None:
    """Its layers are here already (``again``), or belong to the image that its name meant before: either is taken away
    and collected while the pull waits for its last blob."""
    base = layer({"base": noise(60_000)})
    before = build_image([base, layer({"old": b"old"})])
    wanted = build_image([base, layer({"new": noise(60_000)})])
    paths = Paths(str(tmp_path / "state"), str(tmp_path / "run"))
    name = registry.add("team/app", "1", before)
    with Store.open(paths) as store:
        pull(store, name)
        if again:
            registry.add("team/app", "2", wanted)
            pull(store, name[:-1] + "2")
            store.images.remove(wanted.id)
            os.unlink(store.blobs.path(wanted.id))  # so that there is something to wait for
    registry.add("team/app", "1", wanted)
    asked, go_on = threading.Event(), threading.Event()
    last = wanted.id if again else json.loads(wanted.manifests[wanted.top][0])["layers"][1]["digest"]

    def hold(_handler: object, _path: str) -> bool:
        asked.set()
        return not go_on.wait(60)

    registry.script("/blobs/" + last, hold)
    pid = _child(paths, name)
    assert asked.wait(60)
    with Store.open(paths) as store:
        assert store.images.remove(before.id)
        store.collect()
    go_on.set()
    assert os.waitpid(pid, 0)[1] == 0
    with Store.open(paths) as store:
        record = store.images.by_reference(name)
        assert record is not None and record.id == wanted.id and store.images.get(before.id) is None
        assert [tar_of(store, one.chain_id) for one in record.layers] == wanted.diff_ids


def test_killed_anywhere_the_next_pull_completes(tmp_path: Path, registry: FakeRegistry) -> None:
    wanted = build_image([layer({"a%d" % n: noise(400_000)}) for n in range(4)])
    name = registry.add("team/app", "1", wanted)
    moments = random.Random(5)
    paths = Paths(str(tmp_path / "state"), str(tmp_path / "run"))
    killed = 0
    for _n in range(25):
        pid = _child(paths, name)
        time.sleep(moments.uniform(0.005, 0.25))
        os.kill(pid, signal.SIGKILL)
        killed += os.WIFSIGNALED(os.waitpid(pid, 0)[1])
        with Store.open(paths) as store:
            record = store.images.by_reference(name)
            if record is not None:  # visible means complete
                assert [tar_of(store, one.chain_id) for one in record.layers] == wanted.diff_ids
                store.images.remove(record.id)
                store.collect()
    assert killed > 5
    with Store.open(paths) as store:
        assert pull(store, name).id == wanted.id
        assert [tar_of(store, one.chain_id) for one in store.images.list()[0].layers] == wanted.diff_ids
        store.collect()
        assert [entry for entry in os.listdir(paths.tmp) if not entry.startswith("ingest-")] == []
