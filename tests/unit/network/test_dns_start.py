# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Starting the resolver: one at a time, however slow the host."""

from __future__ import annotations

import os

import pytest
from module_utils._engine.network import dns
from module_utils._engine.paths import Paths


@pytest.fixture
def children(monkeypatch):
    """Resolvers that were started: each lives as long as its descriptor is open."""
    started = []
    monkeypatch.setattr(
        "module_utils._engine.process.spawn_daemon",
        lambda _argv, *, keep, log, cgroups: started.append(os.dup(keep[0])),
    )
    monkeypatch.setattr("module_utils._engine.kernel.cgroups.Layout.detect", lambda: None)
    monkeypatch.setattr("module_utils._engine.kernel.cgroups.delegation.ensure", lambda _layout: [])
    return started


def test_none_is_started_beside_one_that_starts(tmp_path, children):
    paths = Paths(str(tmp_path), str(tmp_path))
    for _time in range(3):
        dns._spawn(paths)
    assert len(children) == 1
    os.close(children[0])  # it died
    dns._spawn(paths)
    assert len(children) == 2
    os.close(children[1])
