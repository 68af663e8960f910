# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A transfer tells how far it is through a file of its own, and never fails because of it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from module_utils._engine.resources.progress import ProgressFile

TOKEN = "0123456789abcdef" * 2


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def event(done: int, total: int = 1000) -> dict[str, Any]:
    return {
        "subject": "app:1", "phase": "layers", "done": done, "total": total, "received": done, "layers_done": 0,
        "layers": 1, "blobs": [],
    }  # fmt: skip


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / "progress" / TOKEN).read_text().splitlines()]


def test_rate_and_time_left_come_from_the_last_seconds(tmp_path: Path) -> None:
    clock = Clock()
    file = ProgressFile(str(tmp_path), TOKEN, "pulling", clock)
    for second in range(5):
        clock.now = float(second)
        file.hook(event(second * 100))
    told = lines(tmp_path)
    assert told[0]["rate"] is None and told[0]["what"] == "pulling"
    assert told[-1]["rate"] == 100 and told[-1]["eta"] == 6
    assert os.stat(tmp_path / "progress" / TOKEN).st_mode & 0o777 == 0o600
    file.close()
    assert os.listdir(tmp_path / "progress") == []


@pytest.mark.parametrize("token", ["", "../../etc/cron.d/x", "x" * 32, TOKEN + "0"])
def test_a_token_is_32_hex_digits_or_nothing_is_written(token: str, tmp_path: Path) -> None:
    file = ProgressFile(str(tmp_path), token, "pulling")
    file.hook(event(1))
    file.close()
    assert os.listdir(tmp_path) == []


def test_a_file_or_link_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "progress").mkdir()
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "progress" / TOKEN).symlink_to(tmp_path / "victim")
    file = ProgressFile(str(tmp_path), TOKEN, "pulling")
    file.hook(event(1))
    file.close()
    assert (tmp_path / "victim").read_text() == "mine"


def test_no_place_to_write_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "progress").write_text("not a directory")
    file = ProgressFile(str(tmp_path), TOKEN, "pulling")
    for _n in range(2):
        file.hook(event(1))
    file.close()
