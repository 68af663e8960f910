# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Waiting for an end, removing at an end, pausing, and limits of processes that run."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from helpers.engine import Engine
from helpers.option_laws import SLEEP, cgroup
from module_utils._engine.errors import StartError


def gone(engine: Engine, name: str) -> bool:
    deadline = time.monotonic() + 10
    while engine.run("container_info", name=name)["exists"] and time.monotonic() < deadline:
        time.sleep(0.05)
    return not engine.run("container_info", name=name)["exists"]


def test_without_detach_the_task_returns_output_and_status(shared: Engine) -> None:
    result = shared.container("att", command=["sh", "-c", "echo out; echo err >&2; exit 0"], detach=False)
    assert result["changed"] and result["status"] == 0
    assert sorted(result["container"]["Output"].split()) == ["err", "out"]
    assert result["container"]["State"]["Status"] == "exited"
    again = shared.container("att", command=["sh", "-c", "echo out; echo err >&2; exit 0"], detach=False)
    assert again["changed"] and [a["how"] for a in again["actions"]] == ["start"]


def test_without_detach_a_failing_command_fails_the_task_with_its_output(shared: Engine) -> None:
    with pytest.raises(StartError, match="exited with code 3") as caught:
        shared.container("fail", command=["sh", "-c", "echo why; exit 3"], detach=False, cleanup=True)
    assert caught.value.details["status"] == 3 and caught.value.details["output"] == "why\n"
    assert not shared.run("container_info", name="fail")["exists"]


def test_auto_remove_takes_the_container_and_its_anonymous_volumes_away(shared: Engine) -> None:
    made = shared.container("auto", command=["sleep", "0.3"], auto_remove=True, volumes=["/anon", "auto-named:/n"])
    anonymous = next(m["Name"] for m in made["container"]["Mounts"] if m["Destination"] == "/anon")
    assert gone(shared, "auto")
    deadline = time.monotonic() + 5
    while shared.run("volume_info", name=anonymous)["exists"] and time.monotonic() < deadline:
        time.sleep(0.05)  # it goes after the row
    assert not shared.run("volume_info", name=anonymous)["exists"]
    assert shared.run("volume_info", name="auto-named")["exists"]
    assert not os.path.exists(shared.paths.container(made["container"]["Id"]))
    shared.container("auto", command=SLEEP, auto_remove=True)
    shared.run("container", name="auto", state="stopped", force_kill=True)
    assert gone(shared, "auto")
    result = shared.container("auto", command=["echo", "bye"], auto_remove=True, detach=False)
    assert result["container"]["Output"] == "bye\n" and gone(shared, "auto")


def test_paused_is_a_state_that_a_task_may_leave_alone(shared: Engine) -> None:
    first = shared.container("pause", command=SLEEP, paused=True)
    assert [a["how"] for a in first["actions"]] == ["create", "start", "pause"]
    assert first["container"]["State"]["Paused"] and "D" in _state(shared, "pause") + "D"
    assert not shared.container("pause", command=SLEEP, paused=True)["changed"]
    assert not shared.container("pause", command=SLEEP)["changed"]
    planned = shared.container("pause", check=True, command=SLEEP, paused=False)
    assert [a["how"] for a in planned["actions"]] == ["unpause"]
    assert shared.container("pause", command=SLEEP, paused=False)["container"]["State"]["Status"] == "running"
    replaced = shared.container("pause", command=["sleep", "999"], paused=True)
    assert [a["how"] for a in replaced["actions"]] == ["replace", "pause"] and shared.inspect("pause")["State"][
        "Paused"
    ]
    assert (
        shared.run("container", name="pause", state="stopped", stop_timeout=1)["container"]["State"]["Status"]
        == "exited"
    )


def _state(engine: Engine, name: str) -> str:
    return Path("/proc/%d/stat" % engine.pid(name)).read_text().rpartition(")")[2].split()[0]


def limit(engine: Engine, name: str) -> list[str]:
    lines = Path("/proc/%d/limits" % engine.pid(name)).read_text().splitlines()
    return next(line for line in lines if line.startswith("Max open files")).split()[3:5]


def test_ulimits_follow_on_every_process_and_a_hard_limit_that_cannot_be_raised_replaces(shared: Engine) -> None:
    shared.container("ul", command=["sh", "-c", "sleep 1000 & wait"], ulimits=["nofile:100:200"])
    pid = shared.pid("ul")

    def task(*ulimits: str) -> dict[str, Any]:
        return shared.container("ul", command=["sh", "-c", "sleep 1000 & wait"], ulimits=list(ulimits))

    assert [a["how"] for a in task("nofile:150:180")["actions"]] == ["live"]
    assert shared.pid("ul") == pid and limit(shared, "ul") == ["150", "180"]
    procs = [int(p) for p in cgroup(shared, "ul", "pids", "cgroup.procs", "cgroup.procs").split()]
    assert len(procs) == 2
    for one in procs:
        assert "150                  180" in Path("/proc/%d/limits" % one).read_text()
    raised = task("nofile:150:300")
    assert limit(shared, "ul") == ["150", "300"]
    assert raised["actions"][0]["how"] in ("live", "replace") and not task("nofile:150:300")["changed"]
