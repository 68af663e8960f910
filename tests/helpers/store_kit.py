# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Records for store tests, a process that dies at a chosen instruction, and what must hold afterwards."""

from __future__ import annotations

import fcntl
import hashlib
import os
import signal
import time
import traceback
from typing import Any, Callable

from module_utils._engine.paths import Paths
from module_utils._engine.store.db import Database
from module_utils._engine.store.records import (
    ContainerRecord,
    ImageRecord,
    LayerRecord,
    LayerRef,
    NetworkRecord,
)
from module_utils._engine.store.state import Store


def digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def hex_id(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def container(name: str, image_id: str = "", **fields: Any) -> ContainerRecord:
    base = ContainerRecord(hex_id("id of " + name), name, image_id, "img", {"name": name}, "created", 1.0, {}, 1)
    return base._replace(**fields)


def network(name: str) -> NetworkRecord:
    return NetworkRecord(hex_id("net " + name), name, "bridge", {}, [], 1.0)


def put_layer(store: Store, text: str, form: str = "tree") -> LayerRef:
    """A layer whose content is ``text``, and the blob it came from."""
    chain = digest("chain " + text)
    with store.layers.stage() as stage:
        os.mkdir(stage.path + "/tree")
        with open(stage.path + "/tree/content", "w") as file:
            file.write(text)
        store.layers.commit(stage, LayerRecord(chain, digest(text), "", form, len(text)))
    blob = store.blobs.put_bytes(("blob " + text).encode())
    return LayerRef(digest(text), chain, blob, 5 + len(text), "tar")


def put_image(store: Store, name: str, layers: list[str], references: list[str]) -> ImageRecord:
    refs = tuple(put_layer(store, text) for text in layers)
    config = store.blobs.put_bytes(("config " + name).encode())
    manifest = store.blobs.put_bytes(("manifest " + name).encode())
    record = ImageRecord(config, manifest, "m", {"name": name}, 1, 1.0, refs)
    store.images.put(record, references, ["repo@" + manifest])
    return record


# -- dying ---------------------------------------------------------------------------------------------------

_CALLS = ("open", "close", "mkdir", "makedirs", "rename", "link", "unlink", "rmdir", "fsync", "write", "listdir")


class _Bomb:
    """Kills this process before or after the n-th watched call."""

    def __init__(self, fuse: int) -> None:
        self.fuse = fuse

    def tick(self) -> None:
        if self.fuse == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.fuse -= 1

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **named: Any) -> Any:
            self.tick()
            result = function(*args, **named)
            self.tick()
            return result

        return watched


def run_and_die(work: Callable[[], None], fuse: int) -> bool:
    """Run ``work`` in a child that is killed at point ``fuse``. True if it died, False if it came to its end."""
    pid = os.fork()
    if pid == 0:
        try:
            bomb = _Bomb(fuse)
            for name in _CALLS:
                setattr(os, name, bomb.around(getattr(os, name)))
            fcntl.flock = bomb.around(fcntl.flock)
            Database.execute = bomb.around(Database.execute)  # type: ignore[method-assign]
            Database.changed = bomb.around(Database.changed)  # type: ignore[method-assign]
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    _pid, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return True
    assert os.WEXITSTATUS(status) == 0, "the child failed instead of dying"
    return False


def fork_all(works: list[Callable[[], None]], timeout: float = 60.0) -> None:
    """Run every work in a process of its own; all must end well within ``timeout`` (a deadlock does not)."""
    pids = []
    for work in works:
        pid = os.fork()
        if pid == 0:
            try:
                signal.alarm(int(timeout))
                work()
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        pids.append(pid)
    statuses = [os.waitpid(pid, 0)[1] for pid in pids]
    assert statuses == [0] * len(works), "a worker failed, or waited for ever"


# -- what must hold --------------------------------------------------------------------------------------------


def check_invariants(store: Store, *, litter: bool = False) -> None:
    """Everything that is true of a store that nobody is working on; with ``litter``, except for tmp/."""
    paths: Paths = store.paths
    assert store.db.execute("PRAGMA integrity_check") == [("ok",)]
    assert store.db.execute("PRAGMA foreign_key_check") == []
    assert {record.id for record in store.containers.list()} == set(os.listdir(paths.containers))
    layers = {layer.chain_id: layer for layer in store.layers.list()}
    assert {paths.layer(chain) for chain in layers} == {paths.layers + "/" + name for name in os.listdir(paths.layers)}
    for chain in layers:
        with open(paths.layer(chain) + "/tree/content") as file:
            assert digest("chain " + file.read()) == chain
    for blob in store.blobs.list():
        store.blobs.read(blob)
    for image in store.images.list():
        for digest_ in (image.id, image.manifest_digest, *(layer.blob_digest for layer in image.layers)):
            assert store.blobs.has(digest_), "image lost a blob"
        for layer in image.layers:
            assert layer.chain_id in layers, "image lost a layer"
    if not litter:
        left = [name for name in os.listdir(paths.tmp) if not (name.startswith("ingest-") and len(name) == 71)]
        assert left == []


def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.005)
