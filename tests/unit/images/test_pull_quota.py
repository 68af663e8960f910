# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Disk or quota run out in every phase of a pull: it is told as that, nothing half-done shows, and the next completes.

The error is made at each call, one after the other, that would have taken space below the state directory. SQLite's own
writes are not among them (``tests/kernel/store/test_full_disk.py`` has a disk that is really full).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.fake_registry import FakeRegistry
from helpers.images import build_image, layer
from module_utils._engine.errors import DiskFull
from module_utils._engine.images import pull as pulling
from module_utils._engine.images import workshop
from module_utils._engine.images.reference import parse
from module_utils._engine.kernel.syscalls import Kernel
from module_utils._engine.paths import Paths
from module_utils._engine.registry.transport import Transport
from module_utils._engine.store.state import Store

WANTED = build_image([layer({"a%d" % n: b"%d" % n * 3000, "d/f": b"x"}) for n in range(2)])


class Quota:
    """Refuses the call with the number ``at`` (from 0), and all after it, that would take space below ``directory``."""

    def __init__(self, directory: str, number: int) -> None:
        self.directory = directory
        self.number = number
        self.at = 10**9
        self.seen: list[str] = []

    def below(self, place: Any) -> bool:
        path = os.readlink("/proc/self/fd/%d" % place) if isinstance(place, int) else os.fsdecode(place)
        return path.startswith(self.directory + "/")

    def take(self, what: str, place: Any) -> None:
        if not self.below(place):
            return
        self.seen.append(what)
        if len(self.seen) > self.at:
            raise OSError(self.number, os.strerror(self.number), place if isinstance(place, str) else None)

    def wrap(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        real = getattr(os, name)

        def call(place: Any, *rest: Any, **named: Any) -> Any:
            creates = name != "open" or (rest and rest[0] & os.O_CREAT and not os.path.lexists(place))
            if creates and named.get("dir_fd") is None:
                self.take(name, place)
            return real(place, *rest, **named)

        monkeypatch.setattr(os, name, call)


@pytest.fixture(params=[errno.EDQUOT, errno.ENOSPC], ids=["EDQUOT", "ENOSPC"])
def quota(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Quota]:
    monkeypatch.setattr(workshop, "WORTH_IT", 1 << 60)  # all of it in this process, where the error is made
    monkeypatch.setenv("WHARF_LAYER_FORM", "erofs")
    monkeypatch.setenv("HOME", "/nonexistent")
    quota = Quota(str(tmp_path / "state"), request.param)
    for name in ("write", "pwrite", "posix_fallocate", "mkdir", "open", "fdatasync", "fsync"):
        quota.wrap(monkeypatch, name)
    yield quota


def test_whatever_is_refused_the_pull_says_so_and_the_next_one_completes(
    tmp_path: Path, quota: Quota, registry: FakeRegistry
) -> None:
    name = registry.add("team/app", "1", WANTED)
    paths = Paths(quota.directory, str(tmp_path / "run"))

    def pull() -> str:
        return pulling.pull(store, Kernel(), parse(name), transport=Transport(timeout=30)).id

    refused = []
    with Store.open(paths) as store:
        while True:
            quota.seen, quota.at = [], len(refused)
            try:
                assert pull() == WANTED.id
                break
            except DiskFull as error:
                refused.append(quota.seen[-1])
                assert "no space" in error.msg.lower() or "quota" in error.msg.lower()
            quota.at = 10**9
            assert store.images.by_reference(name) is None
            assert not [entry for entry in os.listdir(paths.tmp) if not entry.startswith("ingest-")]
            assert pull() == WANTED.id
            store.images.remove(WANTED.id)
            store.collect()
        for one in store.images.list()[0].layers:
            assert os.path.isdir(store.paths.layer(one.chain_id))
    assert {"open", "write", "mkdir"} <= set(refused)
