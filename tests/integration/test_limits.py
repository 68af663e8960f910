# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Limits that a playbook asks for hold against a load, and change without a restart."""

from __future__ import annotations

from pathlib import Path

from helpers.engine import busybox_tar
from helpers.playbook import Host, Task, task
from helpers.target import TARGET

MEMORY = "busybox dd if=/dev/zero of=/dev/null bs=%dM count=1"
# The shell, the loop, and the sleeps that may be: one more is one too many.
PROCESSES = "for n in 1 2 3 4 5 6 7 8; do sleep 30 & done; wait"


def load(title: str, script: str) -> Task:
    return {**task(title, "container_exec", container="small", argv=["sh", "-c", script]), "failed_when": False}


def test_limits_hold_and_change_without_a_restart(fresh: Host, tmp_path: Path) -> None:
    busybox_tar(str(tmp_path / "busybox.tar"))
    TARGET.put(tmp_path / "busybox.tar")
    small = {
        "name": "small",
        "image": "bb:1",
        "command": ["sleep", "10000"],
        "init": True,
        "stop_timeout": 1,
        "memory": "32m",
        "memory_swap": "32m",
        "pids_limit": 6,
        "cpus": 0.5,
        "network_mode": "none",
    }
    wide = {**small, "memory": "128m", "memory_swap": "128m", "pids_limit": 64}
    run = fresh.play(
        [
            task("base", "image", name="bb:1", source="import", path=str(tmp_path / "busybox.tar"), changes=["CMD sh"]),
            task("made", "container", **small),
            task("made again", "container", **small),
            load("too much memory", MEMORY % 64),
            load("too many processes", PROCESSES),
            {**task("foreseen", "container", **wide), "check_mode": True},
            task("still small", "container", **small),
            task("wider", "container", **wide),
            task("wider again", "container", **wide),
            load("enough memory", MEMORY % 64),
            load("enough processes", PROCESSES.replace("30", "1")),
        ],
        "--diff",
    )
    assert run.ok
    assert [name for name in run.changed if not name.startswith(("too", "enough"))] == [
        "base",
        "made",
        "foreseen",
        "wider",
    ]
    assert run["too much memory"]["rc"] == 137
    assert run["too many processes"]["rc"] != 0 and "fork" in run["too many processes"]["stderr"]
    assert run["foreseen"]["actions"] == run["wider"]["actions"]
    assert run["wider"]["actions"][0]["how"] == "live", run["wider"]["actions"]
    assert run["wider"]["container"]["State"]["Pid"] == run["made"]["container"]["State"]["Pid"]
    assert run["enough memory"]["rc"] == run["enough processes"]["rc"] == 0
