# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ``container_rename`` module. The name is a column of the container's row, and names on networks are looked up
there when somebody asks, so a running container is found under its new name at once."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Optional

from ..errors import Conflict, InUse
from ..reconcile import values
from ..reconcile.plan import Operation, Plan
from . import container_make
from .container_actual import is_running, state
from .container_files import named
from .task import Task

if TYPE_CHECKING:
    from ..store.records import ContainerRecord


def run(task: Task) -> dict[str, Any]:
    old = task.params["container"]
    new = values.object_name("name", task.params["name"], "container name")
    plan = Plan()
    with ExitStack() as held:
        record = _wanted(task, old, new)
        for name in sorted({record.name, new}):  # in this order, or two renames could wait for each other
            held.enter_context(task.store.lock("container", name, shared=task.check_mode))
        record = _wanted(task, record.id, new)
        plan.before, plan.after = {"name": record.name}, {"name": new}
        if record.name != new:
            _check(task, record, new)
            plan.add(
                Operation("rename", "container", record.name, lambda: _rename(task, record, new), detail={"name": new})
            )
            if not task.check_mode:
                plan.apply()
    return {**plan.result(), "name": new, "id": record.id}


def _wanted(task: Task, old: str, new: str) -> ContainerRecord:
    """The container to rename, or the one that has been renamed already. Raises ``NotFound``."""
    if task.store.containers.get(old) is None:
        done = task.store.containers.by_name(new)
        if done is not None:
            return done
    return named(task, old)


def _check(task: Task, record: ContainerRecord, new: str) -> None:
    other = task.store.containers.by_name(new)
    if other is not None:
        raise Conflict(
            "The container name %s is already in use by container %s" % (new, other.id),
            step="name_container",
            subject="container %s" % new,
            path="name",
            hint="Remove or rename that container.",
        )
    for user in task.store.containers.list():
        option = None if user.id == record.id else _mention(user, record.name)
        if option:
            raise InUse(
                "Cannot rename container %s: container %s refers to it by that name (%s)"
                % (record.name, user.name, option),
                step="name_container",
                subject="container %s" % record.name,
                path="name",
                hint="Its next start would not find it. Change or remove that container first.",
            )


def _mention(user: ContainerRecord, name: str) -> Optional[str]:
    """The option through which ``user`` depends on the name, or None."""
    for option in ("network_mode", "ipc_mode", "pid_mode", "uts"):
        if user.spec.get(option) == "container:" + name:
            return option
    if any(link["name"] == name for link in user.spec.get("links") or ()):
        return "links"
    return None


def _rename(task: Task, record: ContainerRecord, new: str) -> None:
    task.store.events.fold()  # under the name it had when it happened
    task.store.containers.rename(record.id, new)
    task.store.events.add("container", "rename", record.id, {"name": new, "oldName": record.name})
    if is_running(state(task, record)):  # its monitor's copy, for automatic restarts; a start writes all of it anew
        changes: dict[str, Any] = {"name": new}
        if "log_driver" in record.spec or "log_options" in record.spec:  # a tag may tell the name
            image = task.store.images.get(record.image_id)
            config = container_make.image_config(image) if image else {}
            changes["log"] = container_make.log_settings(
                record._replace(name=new), config, task.paths.container(record.id)
            )
        task.runtime.update(record.id, changes)
