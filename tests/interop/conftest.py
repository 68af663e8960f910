# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Two engines of ours and the real others, in a network namespace of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import real_engines
from helpers.engine import Engine, engine
from helpers.private_network import private_network


@pytest.fixture(scope="session", autouse=True)
def own_network() -> Iterator[None]:
    with private_network():
        yield


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[Engine]:
    (tmp_path / "one").mkdir()
    with engine(str(tmp_path / "one")) as instance:
        yield instance


@pytest.fixture
def second(tmp_path: Path) -> Iterator[Engine]:
    (tmp_path / "two").mkdir()
    with engine(str(tmp_path / "two")) as instance:
        yield instance


@pytest.fixture(scope="session")
def docker(own_network: None) -> Iterator[real_engines.Caller]:
    with real_engines.dockerd(name="wharf-interop") as caller:
        yield caller


@pytest.fixture
def podman(own_network: None) -> Iterator[real_engines.Caller]:
    with real_engines.podman() as caller:
        yield caller
