# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ``container_export`` module: a container's root file system as one flat archive (``docker export``)."""

from __future__ import annotations

import os
from typing import Any

from ..reconcile.plan import Operation, Plan
from . import container_files as files
from .container_userns import owners
from .task import Task


def run(task: Task) -> dict[str, Any]:
    from ..images import diff, exportfile

    path = task.params["path"]
    record, image = files.wanted(task)
    exportfile.check_target(path, "tar archive")
    root = files.merged(task, record, image)
    try:
        produce: exportfile.Produce = lambda write: diff.write_tree(  # noqa: E731
            task.kernel, root, write, owners(record)
        )
        exists = os.path.lexists(path)
        plan = Plan()
        plan.before = {"path": path, "present": exists}
        plan.after = {"path": path, "present": True, "container": record.name}
        if exists and exportfile.same_file(path, produce):
            plan.before = plan.after
        else:
            why = "the file holds something else" if exists else "missing"
            plan.add(
                Operation("export", "container", record.name, lambda: exportfile.write_file(path, produce), why=why)
            )
            if not task.check_mode:
                plan.apply()
                task.store.events.add("container", "export", record.id, {"name": record.name, "path": path})
    finally:
        os.close(root)
    return {**plan.result(), "path": path}
