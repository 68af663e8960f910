# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""``detach: false``: wait for the end of a container that this task started, and return its output and exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import StartError
from ..reconcile.plan import Plan
from .task import Task

if TYPE_CHECKING:
    from ..store.records import ContainerRecord

_STARTED = ("start", "replace")


def finish(task: Task, plan: Plan, record: ContainerRecord, result: dict[str, Any]) -> None:
    """Adds ``status`` and ``container.Output``. Raises ``StartError`` for an exit code other than 0, with the output
    in its details; ``cleanup`` and ``auto_remove`` remove the container either way."""
    if not any(operation.how in _STARTED for operation in plan.operations):
        return
    from ..runtime import logs
    from . import container_inspect, container_run

    facts = task.runtime.wait(record.id, "exited")
    output = "".join(entry["log"] for entry in logs.read(task.paths.container(record.id) + "/log"))
    if task.params["state"] == "started":
        # How a run that is waited for ends is nobody's failure to keep it running.
        task.store.containers.update(record.id, desired="stopped")
    record = task.store.containers.get(record.id) or record
    shown = container_inspect.inspect(task, record)
    shown["Output"] = output
    result["container"], result["status"] = shown, facts["exit_code"]
    if task.params.get("cleanup") or record.spec.get("auto_remove"):
        container_run.remove(task, record)
    if facts["exit_code"]:
        raise StartError(
            "Container %s exited with code %d: %s"
            % (record.name, facts["exit_code"], output[-2000:].strip() or "no output"),
            step="wait",
            subject="container %s" % record.name,
            details={"exit_code": facts["exit_code"], "status": facts["exit_code"], "output": output},
        )
