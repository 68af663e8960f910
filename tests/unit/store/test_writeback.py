# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Large files go to the disk early; what goes wrong there is told, and nothing is left behind."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from pathlib import Path

import pytest
from helpers import tars
from module_utils._engine.errors import DiskFull, KernelError
from module_utils._engine.images.layers import LayerWriter
from module_utils._engine.store import writeback
from module_utils._engine.store.state import Store

DATA = b"x" * 5000


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writeback, "STEP", 4096)


def _failing(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def fail(_fd: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fdatasync", fail)


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "writeback"]


def test_a_blob_is_synced_while_it_grows_and_no_thread_outlives_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    sync = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda fd: (synced.append(os.fstat(fd).st_size), sync(fd)))
    with store.blobs.writer("sha256:" + hashlib.sha256(DATA * 4).hexdigest(), 20_000) as writer:
        for _n in range(4):
            writer.write(DATA)
        writer.commit()
    assert synced and synced[0] >= 5000 and _threads() == []


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.EIO, KernelError), (errno.ENOSPC, DiskFull), (errno.EDQUOT, DiskFull)]
)
def test_a_sync_that_fails_fails_the_blob(
    store: Store, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[KernelError]
) -> None:
    """The kernel tells of lost pages once: the sync at the end would find nothing wrong."""
    digest = "sha256:" + hashlib.sha256(DATA).hexdigest()
    _failing(monkeypatch, number)
    with store.blobs.writer(digest, len(DATA)) as writer:
        writer.write(DATA)
        with pytest.raises(kind, match="Cannot store blob"):
            writer.commit()
    assert not store.blobs.has(digest) and os.listdir(store.paths.tmp) == [] and _threads() == []


def test_a_sync_that_fails_leaves_no_partial_blob_to_be_resumed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    _failing(monkeypatch, errno.EIO)
    with store.blobs.writer("sha256:" + "0" * 64, 10**6) as writer:
        writer.write(DATA)
    assert os.listdir(store.paths.tmp) == [] and _threads() == []


def test_a_sync_that_fails_fails_the_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _failing(monkeypatch, errno.EIO)
    with LayerWriter(str(tmp_path), form="erofs") as writer:
        writer.write(tars.build([tars.file("a", DATA)]))
        with pytest.raises(KernelError, match="Cannot write a layer"):
            writer.finish()
    assert _threads() == []
