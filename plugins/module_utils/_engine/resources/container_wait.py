# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ``container_wait`` module: until a container has got somewhere. Looks at the state as everybody sees it, so that
it waits for containers that others start, restart and remove meanwhile."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Optional

from ..errors import NotFound, TimedOut
from ..reconcile.values import bad
from . import container_run
from .container_actual import is_running, is_starting, state
from .container_files import named
from .task import Task

if TYPE_CHECKING:
    from ..store.records import ContainerRecord

_INTERVAL = 0.05
_WORDS = {
    "not-running": "did not end",
    "next-exit": "did not exit",
    "removed": "was not removed",
    "healthy": "did not turn healthy",
    "running": "was not running",
}


def run(task: Task) -> dict[str, Any]:
    params = task.params
    if params["timeout"] < 0:
        raise bad("timeout", params["timeout"], "is no time to wait", "0 means without end")
    if task.check_mode:
        return _pretend(task)
    if params["condition"] == "removed" and task.store.containers.get(params["container"]) is None:
        return _answer(None)
    record = named(task, params["container"])
    deadline = time.monotonic() + params["timeout"] if params["timeout"] else None
    first = last = state(task, record)
    while True:
        facts = state(task, record)
        if task.store.containers.get(record.id) is None:
            if params["condition"] == "removed":
                return _answer(last)
            raise NotFound(
                "Container %s was removed while it was waited for" % record.name,
                step="wait",
                subject="container %s" % record.name,
            )
        last = facts
        if _reached(task, record, first, facts):
            return _answer(facts, ended=params["condition"] == "next-exit")
        if deadline is not None and time.monotonic() >= deadline:
            raise TimedOut(
                "Container %s %s within %g seconds; it is %s"
                % (record.name, _WORDS[params["condition"]], params["timeout"], facts["status"]),
                step="wait",
                subject="container %s" % record.name,
                path="timeout",
                details={"status": facts["status"], "health": facts.get("health")},
            )
        time.sleep(_INTERVAL)


def _reached(task: Task, record: ContainerRecord, first: dict[str, Any], facts: dict[str, Any]) -> bool:
    condition = task.params["condition"]
    if condition == "healthy":
        return container_run.is_well(task, record)  # raises when it will not be
    if condition == "running":
        return bool(facts["status"] == "running")
    if condition == "not-running":
        return not is_running(facts) and not is_starting(facts)
    if condition == "next-exit":  # of any run, also of one that a restart policy follows with another
        return bool(facts["finished_at"] != first["finished_at"])
    return False


def _pretend(task: Task) -> dict[str, Any]:
    """Nothing is waited for in check mode: what the tasks before would have started does not run."""
    record = task.store.containers.get(task.params["container"])
    answer = _answer(None if record is None else state(task, record))
    return {**answer, "skipped_reason": "check mode: nothing was waited for"}


def _answer(facts: Optional[dict[str, Any]], *, ended: bool = False) -> dict[str, Any]:
    """Waiting changes nothing. The exit code is that of the last run, None when that goes on or there was none;
    ``ended``: one has ended, even if the next runs already."""
    ended = ended or (facts is not None and facts["status"] not in ("created", "running", "paused"))
    return {
        "changed": False,
        "exit_code": facts["exit_code"] if facts and ended else None,
        "status": facts["status"] if facts else "absent",
        "oom_killed": bool(facts and facts["oom_killed"]),
        "reason": (facts["error"] or None) if facts else None,
    }
