# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from module_utils._engine.images import workshop


@pytest.fixture(params=[0, 1 << 60], ids=["builders", "alone"])
def pulling_either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers are unpacked by processes beside the pull while blobs come in, as those of large images are, or by the
    pull itself, as those of small ones."""
    monkeypatch.setattr(workshop, "WORTH_IT", request.param)
    monkeypatch.setenv("WHARF_LAYER_FORM", "erofs")  # needs no root: nothing is mounted or extracted
    monkeypatch.setenv("HOME", "/nonexistent")
