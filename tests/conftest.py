# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""For every test run: whatever the tests made on this host is gone afterwards."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator

import pytest
from helpers import clean_host
from hypothesis import HealthCheck, settings

# A slow machine is no reason to fail: what a test takes says something about the machine, not about the code.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

GRACE_SECONDS = 5.0


@pytest.fixture(scope="session", autouse=True)
def host_is_left_as_it_was() -> Iterator[None]:
    """Fails the run when it leaves mounts, links, network namespaces, cgroups, nft tables, run directories or
    processes behind. While another run goes on, nobody can say whose they are: then it only warns."""
    if os.environ.get("PYTEST_XDIST_WORKER"):
        yield  # workers see each other's things
        return
    sessions = clean_host.Sessions()
    before = clean_host.snapshot()
    yield
    left = clean_host.wait_for_clean(before, GRACE_SECONDS if sessions.alone() else 0.5)
    alone = sessions.alone()
    sessions.close()
    if not left:
        return
    text = "The tests left something on this host:\n  " + "\n  ".join(left)
    if alone:
        pytest.fail(text, pytrace=False)
    warnings.warn(text + "\n(or another test run did, which was going on)", stacklevel=1)
