# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Playbooks against engines of the tests' own, in a network of the tests' own: on this machine, or on another one over
ssh when ``helpers.target`` is told so."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import clean_host
from helpers.playbook import Host, install_tree
from helpers.target import TARGET

GRACE_SECONDS = 120.0  # the spawner ends half a minute after its last container


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items if TARGET.far else ():
        for mark in item.iter_markers("near"):
            item.add_marker(pytest.mark.skip(reason="only on the machine that the tests run on: " + mark.args[0]))


@pytest.fixture(scope="session", autouse=True)
def the_far_host_is_left_as_it_was() -> Iterator[None]:
    """What ``host_is_left_as_it_was`` is for this machine. Nobody else uses the other one."""
    if not TARGET.far:
        yield
        return
    try:
        before = _far_snapshot()
        yield
        deadline = time.monotonic() + GRACE_SECONDS
        while (left := clean_host.leftovers(before, _far_snapshot())) and time.monotonic() < deadline:
            time.sleep(5)
    finally:
        TARGET.close()
    if left:
        pytest.fail("The tests left something on the target:\n  " + "\n  ".join(left), pytrace=False)


def _far_snapshot() -> clean_host.Snapshot:
    return {kind: set(names) for kind, names in TARGET.call("snapshot", module="clean_host").items()}


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working tree where Ansible finds collections."""
    return install_tree(tmp_path_factory.mktemp("collections"))


@pytest.fixture(scope="module")
def own_network() -> Iterator[None]:
    with TARGET.network():
        yield


@pytest.fixture
def fresh(own_network: None, tree: Path, tmp_path: Path) -> Iterator[Host]:
    """A host that no task has seen yet."""
    host = Host(tree, tmp_path)
    try:
        yield host
    finally:
        host.close()
