# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Layers built while they arrive are those that the pull builds by itself, to the last bit and in both forms."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from helpers import debian
from helpers.registry import Registry, available
from helpers.tars import snapshot
from module_utils._engine.images import pull as pulling
from module_utils._engine.images import workshop
from module_utils._engine.images.reference import parse
from module_utils._engine.kernel.syscalls import Kernel
from module_utils._engine.paths import Paths
from module_utils._engine.registry.transport import Transport
from module_utils._engine.store.state import Store

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not available(), reason="docker-registry and skopeo are needed"),
]


def layers(name: str, directory: Path) -> list[Any]:
    """Pull, and tell everything about each layer's directory."""
    with Store.open(Paths(str(directory / "state"), str(directory / "run"))) as store:
        image = pulling.pull_report(store, Kernel(), parse(name), transport=Transport(timeout=20)).image
        told: list[Any] = []
        for layer in image.layers:
            record = store.layers.get(layer.chain_id)
            assert record is not None
            path = store.paths.layer(layer.chain_id)
            files = dict.fromkeys(os.listdir(path), b"")
            for entry in ("tar", "index"):
                if entry in files:
                    files[entry] = Path(path, entry).read_bytes()
            tree = snapshot(path + "/tree") if "tree" in files else {}
            told.append((record, files, tree))
        assert os.listdir(store.paths.tmp) == []
        return told


@pytest.mark.parametrize("form", ["erofs", "tree"])
def test_layers_are_the_same_whoever_builds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WHARF_LAYER_FORM", form)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1, 2})
    debian.oci_layout(str(tmp_path / "layout"))
    with Registry(str(tmp_path)) as registry:
        registry.push_layout(str(tmp_path / "layout") + ":latest", "team/app:1")
        name = registry.host + "/team/app:1"
        beside = layers(name, tmp_path / "beside")
        monkeypatch.setattr(workshop, "WORTH_IT", 1 << 60)
        alone = layers(name, tmp_path / "alone")
    assert [layer[0] for layer in beside] == [layer[0] for layer in alone]
    assert [layer[0].form for layer in beside] == [form] * 3
    for one, other in zip(beside, alone):
        assert one[1] == other[1] and one[2] == other[2]
