# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Secrets that somebody changed behind the engine's back: where they are kept, or in the container that reads them."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any, Optional

from ..reconcile.plan import Operation, Plan
from . import container_options
from .task import Task

if TYPE_CHECKING:
    from ..store.records import ContainerRecord

_LIMIT = 1 << 20


def plan(task: Task, plan: Plan, record: ContainerRecord, pid: Optional[int]) -> bool:
    """Operations that put back what this task knows the content of. ``pid``: of the container, if it runs. Whether one
    of them is a new start: what is on its memory file system is written when it is made, and read-only from then on.
    """
    kept, seen = [], []
    for secret in record.spec.get("secrets", []):
        content = task.secrets.get(secret["name"])
        if content is None:
            continue
        stored = _stored(task, record, secret["name"])
        if stored is not None and stored != content:  # one that is missing is written without a word, as at first
            kept.append(secret["name"])
        if pid and _inside(task, pid, secret["target"]) != content:
            seen.append(secret["name"])
    if kept:
        plan.add(_operation(record, "live", ["secret %s is not as it was stored" % name for name in kept]))
        plan.operations[-1].then(lambda: _store(task, record, kept))
    if seen:
        plan.add(_operation(record, "restart", ["secret %s is not as it was placed" % name for name in seen]))
        plan.operations[-1].then(lambda: _restart(task, record))
    return bool(seen)


def _operation(record: ContainerRecord, how: str, before: list[str]) -> Operation:
    detail: dict[str, Any] = {"option": "secrets", "before": before}
    return Operation(how, "container", record.name, lambda: None, detail=detail, why="drift")


def _stored(task: Task, record: ContainerRecord, name: str) -> Optional[bytes]:
    try:
        with open("%s/secrets/%s" % (task.paths.container(record.id), name), "rb") as stream:
            return stream.read(_LIMIT + 1)
    except FileNotFoundError:
        return None


def _inside(task: Task, pid: int, target: str) -> Optional[bytes]:
    """What the container reads there; resolved in its root, so that no link of its making leads to the host's files."""
    try:
        root = os.open("/proc/%d/root" % pid, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:  # it ended this instant: the start that follows places them again
        return None
    try:
        # A named pipe in its place must not keep us waiting.
        fd = task.kernel.open_in_root(root, target, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as stream:
            return stream.read(_LIMIT + 1) if stat.S_ISREG(os.fstat(fd).st_mode) else None
    except OSError:
        return None
    finally:
        os.close(root)


def _store(task: Task, record: ContainerRecord, names: list[str]) -> None:
    for name in names:
        os.unlink("%s/secrets/%s" % (task.paths.container(record.id), name))
    container_options.store_secrets(task, record)


def _restart(task: Task, record: ContainerRecord) -> None:
    from . import container_run

    container_run.stop(task, record, remember=False)
    container_run.start(task, record)
