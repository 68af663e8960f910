# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""After a boot: start again what should run. The systemd unit, or a line in cron or OpenRC, calls ``main``.

Docker's rule: ``always`` comes back; ``unless-stopped`` comes back unless somebody stopped it; ``on-failure`` comes
back when it was running, for the boot that took it down counts as a failure (exit code 255).
"""

from __future__ import annotations

import os
import sys
from typing import Any, Sequence

from .errors import WharfError


def restore(params: dict[str, Any]) -> dict[str, list[str]]:
    """``{"started": [names], "failed": ["name: sentence"]}``. One container that cannot start stops no other."""
    from .resources import container_run
    from .resources.container_actual import is_running, state
    from .resources.task import Task
    from .runtime.restart import wanted_at_boot

    out: dict[str, list[str]] = {"started": [], "failed": []}
    with Task(params) as task:
        for record in task.store.containers.list():
            facts = state(task, record)
            if is_running(facts) or record.desired == "created":
                continue
            policy = record.spec.get("restart_policy", "no")
            stopped = record.desired == "stopped"
            code = facts.get("exit_code") or (255 if record.desired == "running" else 0)
            if not wanted_at_boot(policy, record.spec.get("restart_retries", 0), code, 0, stopped):
                continue
            try:
                with task.store.lock("container", record.name):
                    container_run.start(task, record)
                out["started"].append(record.name)
            except WharfError as error:
                out["failed"].append("%s: %s" % (record.name, error.msg))
    return out


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
