# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""After a boot: start again what should run. The systemd unit, or a line in cron or OpenRC, calls ``main``.

Docker's rule: ``always`` comes back; ``unless-stopped`` comes back unless somebody stopped it; ``on-failure`` comes
back when it was running, for the boot that took it down counts as a failure (exit code 255).
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Sequence

from .errors import WharfError

if TYPE_CHECKING:
    from .resources.task import Task
    from .store.records import ContainerRecord


def restore(params: dict[str, Any]) -> dict[str, list[str]]:
    """``{"started": [names], "failed": ["name: sentence"]}``. One container that cannot start stops no other."""
    from .resources.task import Task

    out: dict[str, list[str]] = {"started": [], "failed": []}
    with Task(params) as task:
        for record in _in_order(_wanted(task)):
            try:
                _start(task, record)
                out["started"].append(record.name)
            except WharfError as error:
                out["failed"].append("%s: %s" % (record.name, error.msg))
    return out


def _wanted(task: Task) -> list[ContainerRecord]:
    from .resources.container_actual import is_running, state
    from .runtime.restart import wanted_at_boot

    found = []
    for record in task.store.containers.list():
        facts = state(task, record)
        if is_running(facts) or record.desired == "created":
            continue
        policy = record.spec.get("restart_policy", "no")
        stopped = record.desired == "stopped"
        code = facts.get("exit_code") or (255 if record.desired == "running" else 0)
        if wanted_at_boot(policy, record.spec.get("restart_retries", 0), code, 0, stopped):
            found.append(record)
    return found


def _in_order(records: list[ContainerRecord]) -> list[ContainerRecord]:
    """Whose namespaces are shared comes before who shares them. Those in a circle come last, and say so."""
    from .resources.container_options import shared_with

    waiting, out = list(records), []
    while waiting:
        names = {record.name for record in waiting} | {record.id for record in waiting}
        free = [record for record in waiting if not any(name in names for _option, name in shared_with(record.spec))]
        out += free or waiting
        waiting = [record for record in waiting if free and record not in free]
    return out


def _start(task: Task, record: ContainerRecord) -> None:
    from .resources import container_run

    with task.store.lock("container", record.name):
        container_run.start(task, record)


def main(argv: Sequence[str]) -> None:
    """``main([state_dir, run_dir])``; one line per container on standard error (the journal)."""
    params = dict(zip(("state_dir", "run_dir"), argv))
    result = restore(params)
    for name in result["started"]:
        sys.stderr.write("wharf: started %s\n" % name)
    for sentence in result["failed"]:
        sys.stderr.write("wharf: could not start %s\n" % sentence)
    if result["failed"]:
        sys.stderr.flush()
        os._exit(1)
