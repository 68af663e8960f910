# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The laws that every container option keeps, and ways to see an option's effect without asking the engine."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

from helpers.engine import Engine

SLEEP = ["sleep", "1000"]
See = Callable[[Engine, str], Any]


def hold(
    engine: Engine, option: str, before: Any, after: Any, how: str, see: See, base: Optional[dict[str, Any]] = None
) -> None:
    """Create / same again / change / back / remove from the task: ``changed``, the plan, the effect ``see`` reports.

    ``how`` is how the change is made: live, replace, or "live|replace" where that depends on the kernel.
    ``base``: further options of every task.
    """
    name = "opt-" + option.replace("_", "-")

    def task(value: Any, check: bool = False) -> dict[str, Any]:
        params: dict[str, Any] = {
            "command": SLEEP,
            "stop_timeout": 0,
            **(base or {}),
            **({} if value is None else {option: value}),
        }
        return engine.container(name, check=check, **params)

    assert task(before)["changed"]
    first = see(engine, name)
    assert not task(before)["changed"]
    planned, applied = task(after, check=True), task(after)
    assert [a["how"] for a in planned["actions"]] == [a["how"] for a in applied["actions"]]
    assert {a["how"] for a in applied["actions"]} <= set(how.split("|"))
    second = see(engine, name)
    assert second != first
    assert not task(after)["changed"]
    assert task(before)["changed"] and see(engine, name) == first
    assert task(None)["changed"]
    bare = see(engine, name)
    assert bare != first
    assert not task(None)["changed"]
    engine.run("container", name=name, state="absent", force_kill=True)


def proc(engine: Engine, name: str, file: str) -> str:
    return Path("/proc/%d/%s" % (engine.pid(name), file)).read_text()


def status(engine: Engine, name: str, field: str) -> str:
    return next(line for line in proc(engine, name, "status").splitlines() if line.startswith(field + ":"))


def cgroup(engine: Engine, name: str, controller: str, v1: str, v2: str) -> str:
    """A limit as the kernel has it."""
    lines = proc(engine, name, "cgroup").splitlines()
    for line in lines:
        _number, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return Path("/sys/fs/cgroup/%s%s/%s" % (controller, path, v1)).read_text().strip()
    top = "/sys/fs/cgroup/unified" if os.path.isdir("/sys/fs/cgroup/unified") else "/sys/fs/cgroup"
    path = next(line.split(":", 2)[2] for line in lines if line.startswith("0:"))
    return Path("%s%s/%s" % (top, path, v2)).read_text().strip()


def mounts(engine: Engine, name: str, target: str) -> list[str]:
    """Root and options of what is mounted at ``target`` in the container."""
    found = []
    for line in proc(engine, name, "mountinfo").splitlines():
        fields = line.split()
        if fields[4] == target:
            found.append("%s %s" % (fields[3], fields[5]))
    return found
