# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""``make fuzz`` finds what is there to be found, and what it found once stays away."""

from __future__ import annotations

import glob
import os
from pathlib import Path

import pytest
from fuzz import run as fuzzing
from fuzz.targets import TARGETS, Target

FOUND = sorted(glob.glob(os.path.join(os.path.dirname(fuzzing.__file__), "found", "*")))


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_the_seeds_of_a_target_do_not_break_it(name: str) -> None:
    for data in TARGETS[name].seeds:
        assert len(data) <= TARGETS[name].length
        TARGETS[name].run(data)


@pytest.mark.parametrize("path", FOUND, ids=[os.path.basename(path) for path in FOUND])
def test_what_broke_a_target_once_does_not_any_more(path: str) -> None:
    fuzzing.replay(path)


def _planted(data: bytes) -> None:
    if data[:3] == b"abc" and b"!" in data:
        raise KeyError("planted")


def test_a_planted_fault_is_found_and_its_input_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = Target(_planted, (b"abcdef",), (b"!",), 40)
    monkeypatch.setitem(TARGETS, "planted", target)
    outcome = fuzzing.searched("planted", target, str(tmp_path), 60, 1)
    assert "planted" in outcome.words and outcome.runs > 0
    with pytest.raises(KeyError, match="planted"):
        fuzzing.replay(outcome.fault)
    said: list[str] = []
    assert fuzzing.run(["planted"], str(tmp_path), 60, 1, said.append, "hypothesis") == 1
    assert any(outcome.fault in line for line in said)
