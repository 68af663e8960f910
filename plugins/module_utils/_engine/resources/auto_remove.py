# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""``auto_remove``: what a monitor runs when its container has ended for good.

The monitor waits for its hooks and holds on to the container until they are done, so the removal happens in a process
of its own, which waits for the container's lock: a task that waits for the container's end reads its output first.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from ..paths import Paths

_PATIENCE = 3600.0


def main(argv: Sequence[str]) -> None:
    """``soon|now <state> <run> <container id>``."""
    from .. import process

    verb, state, run, container_id = argv
    if verb == "soon":
        process.spawn_daemon(process.engine_command("resources.auto_remove", "now", state, run, container_id))
        return
    paths = Paths(state, run)
    if os.path.exists(paths.database):
        _remove(paths, container_id)


def _remove(paths: Paths, container_id: str) -> None:
    from . import container_run
    from .container_actual import is_running
    from .container_actual import state as facts
    from .task import Task

    with Task({"state_dir": paths.state, "run_dir": paths.run}) as task:
        record = task.store.containers.get(container_id)
        if record is None:
            return
        with task.store.lock("container", record.name, timeout=_PATIENCE):
            record = task.store.containers.get(container_id)
            if record is not None and record.spec.get("auto_remove") and not is_running(facts(task, record)):
                container_run.remove(task, record)
