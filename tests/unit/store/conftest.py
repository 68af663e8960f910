# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Iterator

import pytest
from module_utils._engine.paths import Paths
from module_utils._engine.store.state import Store


@pytest.fixture
def paths(tmp_path) -> Paths:
    return Paths(str(tmp_path / "state"), str(tmp_path / "run"))


@pytest.fixture
def store(paths: Paths) -> Iterator[Store]:
    with Store.open(paths) as opened:
        yield opened
