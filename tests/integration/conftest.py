# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Playbooks against engines of the tests' own, in a network of the tests' own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.playbook import Host, install_tree
from helpers.private_network import private_network


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working tree where Ansible finds collections."""
    return install_tree(tmp_path_factory.mktemp("collections"))


@pytest.fixture(scope="module")
def own_network() -> Iterator[None]:
    with private_network():
        yield


@pytest.fixture
def fresh(own_network: None, tree: Path, tmp_path: Path) -> Iterator[Host]:
    """A host that no task has seen yet."""
    host = Host(tree, tmp_path)
    try:
        yield host
    finally:
        host.close()
