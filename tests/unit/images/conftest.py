# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.fake_registry import FakeRegistry
from module_utils._engine.images import workshop
from module_utils._engine.paths import Paths
from module_utils._engine.store.state import Store


@pytest.fixture(params=[0, 1 << 60], ids=["builders", "alone"])
def pulling_either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers are unpacked by processes beside the pull while blobs come in, as those of large images are, or by the
    pull itself, as those of small ones."""
    monkeypatch.setattr(workshop, "WORTH_IT", request.param)
    monkeypatch.setenv("WHARF_LAYER_FORM", "erofs")  # needs no root: nothing is mounted or extracted
    monkeypatch.setenv("HOME", "/nonexistent")


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with FakeRegistry() as registry:
        yield registry


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(Paths(str(tmp_path / "state"), str(tmp_path / "run"))) as store:
        yield store
