# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.engine import Engine, engine
from helpers.private_network import private_network


@pytest.fixture(scope="package", autouse=True)
def own_network() -> Iterator[None]:
    with private_network():
        yield


@pytest.fixture(scope="module")
def shared(own_network: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """One engine with a base image for all tests of a module; each test uses names of its own."""
    with engine(str(tmp_path_factory.mktemp("engine"))) as instance:
        instance.busybox()
        yield instance


@pytest.fixture
def fresh(own_network: None, tmp_path: Path) -> Iterator[Engine]:
    """An engine of the test's own."""
    with engine(str(tmp_path)) as instance:
        instance.busybox()
        yield instance
