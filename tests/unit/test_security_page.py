# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""docs/security.md says which test stands for which hole: each of them has to be there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = re.findall(r"`([\w/]+\.py)::(\w+)`", (ROOT / "docs/security.md").read_text())


def test_the_page_names_tests() -> None:
    assert len(NAMED) > 30


@pytest.mark.parametrize(("file", "function"), sorted(set(NAMED)))
def test_a_test_that_the_page_names_exists(file: str, function: str) -> None:
    assert "def %s(" % function in (ROOT / "tests" / file).read_text()


def test_every_hole_that_a_test_of_a_container_names_is_on_the_page() -> None:
    page = (ROOT / "docs/security.md").read_text()
    for path in [*ROOT.glob("tests/kernel/runtime/*.py"), *ROOT.glob("tests/kernel/resources/*.py")]:
        for number in re.findall(r"CVE-\d{4}-\d+", path.read_text()):
            assert number in page, "%s names %s" % (path.name, number)
