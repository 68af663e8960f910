# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the action prints while a module transfers an image."""

from __future__ import annotations

import importlib.util
import json
import os
from typing import Any

import pytest

PATH = os.path.join(os.path.dirname(__file__), "../../../plugins/plugin_utils/_progress.py")
SPEC = importlib.util.spec_from_file_location("wharf_progress", PATH)
progress: Any = importlib.util.module_from_spec(SPEC)  # type: ignore[arg-type]
SPEC.loader.exec_module(progress)  # type: ignore[union-attr]

EVENT = {
    "what": "pulling", "subject": "nginx:1", "done": 34_000_000, "total": 120_000_000, "layers_done": 3, "layers": 7,
    "rate": 11_200_000, "eta": 8,
}  # fmt: skip


def test_a_line_becomes_a_sentence() -> None:
    text = progress.sentence(json.dumps(EVENT))
    assert text == "pulling nginx:1: 34.0 MB of 120 MB, 3 of 7 layers, 11.2 MB/s, 8 s left"
    assert progress.sentence(json.dumps({**EVENT, "total": 0})) == "pulling nginx:1: asking the registry"
    assert progress.sentence(json.dumps({**EVENT, "rate": None})).endswith("3 of 7 layers")


@pytest.mark.parametrize("line", ["", "sudo: a password is required", "[]", "{}", '{"what": 1}', "nul"])
def test_anything_else_is_nothing(line: str) -> None:
    assert progress.sentence(line) == ""


def test_no_control_character_reaches_the_terminal() -> None:
    assert "\x1b" not in progress.sentence(json.dumps({**EVENT, "subject": "\x1b[2Jx"}))


class Connection:
    transport = "local"


class Mitogen(Connection):
    __module__ = "ansible_mitogen.plugins.connection.mitogen_local"


class Strange(Connection):
    transport = "winrm"


def test_only_connections_that_can_do_two_things_at_once_are_used() -> None:
    assert progress.works(Connection())
    assert not progress.works(Mitogen()) and not progress.works(Strange())


class Action:
    """An action whose connection answers as told."""

    def __init__(self, answer: Any) -> None:
        self._connection = Connection()
        self.answer = answer

    def _low_level_execute_command(self, command: str) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_a_connection_that_fails_makes_it_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "QUIET", 0.0)
    monkeypatch.setattr(progress, "INTERVAL", 0.01)
    for answer in (OSError("busy"), {"rc": 1}, {"rc": 0, "stdout": json.dumps(EVENT)}):
        shown: list[str] = []
        with progress.Tail(Action(answer), "/run/x", shown.append) as token:
            assert len(token) == 32
            if isinstance(answer, dict) and not answer["rc"]:
                while not shown:
                    pass
        assert len(shown) == (1 if isinstance(answer, dict) and not answer["rc"] else 0)
