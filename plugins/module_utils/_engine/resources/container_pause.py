# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ``container_pause`` module: every process of a container stands still, or goes on."""

from __future__ import annotations

from typing import Any

from ..errors import Conflict
from ..reconcile.plan import Operation, Plan
from .container_actual import state
from .container_files import named
from .task import Task


def run(task: Task) -> dict[str, Any]:
    record = named(task, task.params["container"])
    wanted = bool(task.params["paused"])
    plan = Plan()
    with task.store.lock("container", record.name, shared=task.check_mode):
        record = named(task, record.id)
        status = state(task, record)["status"]
        if status not in ("running", "paused"):
            if wanted:
                raise Conflict(
                    "Cannot pause container %s: it is %s, not running" % (record.name, status),
                    step="pause",
                    subject="container %s" % record.name,
                    hint="start it with wharf.engine.container, which takes paused, too",
                )
            status = "running"  # what does not run is not paused: nothing to do
        how = "pause" if wanted else "unpause"

        def execute() -> None:
            (task.runtime.pause if wanted else task.runtime.unpause)(record.id)
            task.store.events.add("container", how, record.id, {"name": record.name})

        plan.before, plan.after = {"paused": status == "paused"}, {"paused": wanted}
        if wanted != (status == "paused"):
            plan.add(Operation(how, "container", record.name, execute, why="is %s" % status))
            if not task.check_mode:
                plan.apply()
    return plan.result()
