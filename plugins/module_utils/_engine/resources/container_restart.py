# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ``container_restart`` module: stop what runs, start it; as ``restart`` of the ``container`` module does."""

from __future__ import annotations

from typing import Any

from ..reconcile.plan import Operation, Plan
from .container_actual import is_running, state
from .container_files import named
from .task import Task


def run(task: Task) -> dict[str, Any]:
    from . import container_inspect, container_run

    kill = bool(task.params["force_kill"])
    if task.params.get("kill_signal"):
        from .container_spec import signal_number

        signal_number("kill_signal", task.params["kill_signal"])  # bad input is told before anything is stopped
    record = named(task, task.params["container"])
    plan = Plan()
    with task.store.lock("container", record.name, shared=task.check_mode):
        record = named(task, record.id)
        facts = state(task, record)
        plan.before = {"status": facts["status"], "started_at": facts["started_at"]}
        plan.after = {"status": "running", "started_at": "(now)"}
        if is_running(facts):
            # Not remembered as a stop: it is to run, also when this is cut short, and auto_remove must not take it.
            plan.add(
                Operation(
                    "stop",
                    "container",
                    record.name,
                    lambda: container_run.stop(task, record, kill=kill, remember=False),
                )
            )
        plan.add(Operation("start", "container", record.name, lambda: container_run.start(task, record)))
        if not task.check_mode:
            plan.apply()
        return {**plan.result(), "container": container_inspect.inspect(task, record)}
