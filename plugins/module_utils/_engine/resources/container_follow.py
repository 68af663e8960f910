# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Containers in the namespaces of another (``network_mode``, ``ipc_mode``, ``pid_mode`` of ``container:NAME``).

A namespace belongs to the run of a container: when that is replaced or started again, whoever had joined sits in the
old namespace, cut off. A task that does this to the owner therefore restarts them afterwards; and one whose owner was
restarted by something else (its restart policy, an older engine) is found by its own task.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..errors import WharfError
from ..reconcile.plan import Operation, Plan
from .container_actual import is_running, state
from .container_options import shared_with
from .task import Task

if TYPE_CHECKING:
    from ..store.records import ContainerRecord

_KINDS = {"network_mode": "net", "ipc_mode": "ipc", "pid_mode": "pid"}


def plan(task: Task, plan: Plan, owner: ContainerRecord) -> None:
    """Operations on those who follow ``owner``, if what is planned for it gives it new namespaces. They are for after
    its lock: a follower's own task takes the follower's first."""
    fresh = {operation.how for operation in plan.operations if operation.name == owner.name}
    if not fresh & {"replace", "start", "restart"}:
        return
    seen = {owner.id}
    waiting = [owner]
    while waiting:
        one = waiting.pop(0)
        for follower, option in _followers(task, one):
            if follower.id in seen:
                continue
            seen.add(follower.id)
            waiting.append(follower)
            plan.later.append(_operation(task, follower, one, option))


def _followers(task: Task, owner: ContainerRecord) -> list[tuple[ContainerRecord, str]]:
    """Those that run now, each with the first option that says so."""
    found = []
    for record in task.store.containers.list():
        for option, name in shared_with(record.spec):
            if (name == owner.name or owner.id == name) and is_running(state(task, record)):
                found.append((record, option))
                break
    return found


def _operation(task: Task, follower: ContainerRecord, owner: ContainerRecord, option: str) -> Operation:
    why = "%s: shares a namespace of %s" % (option, owner.name)
    return Operation("restart", "container", follower.name, lambda: _restart(task, follower.name, why), why=why)


def _restart(task: Task, name: str, why: str) -> None:
    from . import container_run

    alone = task.part({"stop_timeout": None, "kill_signal": None})
    with task.store.lock("container", name):
        record = task.store.containers.by_name(name)
        if record is None or record.desired == "stopped":  # somebody was faster, and wants something else
            return
        try:
            if is_running(state(alone, record)):
                container_run.stop(alone, record, remember=False)
            container_run.start(alone, record)
        except WharfError as error:
            error.msg = "Container %s was not started again (%s): %s" % (name, why, error.msg)
            error.args = (error.msg,)
            error.subject = "container %s" % name
            raise


def strayed(task: Task, record: ContainerRecord, pid: int) -> str:
    """What is wrong with a running container that should be in another's namespaces and is not, or ""."""
    for option, name in shared_with(record.spec):
        owner = task.store.containers.get(name)
        there = state(task, owner).get("pid") if owner is not None else None
        if there and not _same(pid, there, _KINDS[option]):
            return "%s: it is not in the namespace that %s has now" % (option, name)
    return ""


def _same(one: int, other: int, kind: str) -> bool:
    try:
        here, there = (os.stat("/proc/%d/ns/%s" % (pid, kind)) for pid in (one, other))
    except OSError:  # one of them ended this instant: that is drift of another kind
        return True
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
