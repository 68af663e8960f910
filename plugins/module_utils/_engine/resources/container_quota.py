# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""``storage_opts``: how much a container may write to its root file system."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional

from ..reconcile.values import bad
from ..storage import quota
from .task import Task

if TYPE_CHECKING:
    from ..store.records import ContainerRecord


def check(spec: dict[str, Any], task: Task) -> None:
    """Raises ``UsageError`` where the file system cannot: a limit that nobody keeps would be none."""
    if not quota.is_possible(task.kernel, task.paths.state):
        raise bad(
            "storage_opts.size",
            spec["storage_opts"]["size"],
            "cannot be kept: the file system of %s has no project quotas in force" % task.paths.state,
            "mount it with pquota (xfs) or, with the features quota and project, with prjquota (ext4)",
        )


def give(task: Task, record: ContainerRecord) -> None:
    """To a new container's writable layer, which is empty yet."""
    directory = task.paths.container(record.id)
    wanted = _size(record.spec)
    quota.give(task.kernel, [directory + "/upper", directory + "/work"], record.id, wanted)


def observed(task: Task, record: ContainerRecord) -> dict[str, Any]:
    """In the form of the option: what the file system has."""
    return {"size": quota.limit(task.kernel, _upper(task, record)) or 0}


def obstacle(task: Task, record: ContainerRecord, spec: dict[str, Any]) -> str:
    """Why the container cannot follow as it is, or ""."""
    if not _size(spec) or quota.limit(task.kernel, _upper(task, record)) is not None:
        return ""
    return "what it has written so far was not counted"


def change(task: Task, record: ContainerRecord) -> None:
    quota.change(task.kernel, _upper(task, record), _size(record.spec))


def release(task: Task, record: ContainerRecord) -> None:
    """Before the directory goes: the file system keeps a limit when nothing is left that it is about."""
    import os

    if os.path.isdir(_upper(task, record)):
        quota.change(task.kernel, _upper(task, record), 0)


def _size(spec: dict[str, Any]) -> int:
    wanted: Optional[dict[str, Any]] = spec.get("storage_opts")
    return int(wanted["size"]) if wanted else 0


def _upper(task: Task, record: ContainerRecord) -> str:
    return task.paths.container(record.id) + "/upper"
