# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ``volume`` module: named directories that outlive containers. Data is never deleted for metadata's sake."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Optional

from ..._args.volume import CONFIG as VOLUME
from ..errors import InUse
from ..reconcile import options, values
from ..reconcile.plan import Operation, Plan
from .task import Task

if TYPE_CHECKING:
    from ..store.records import VolumeRecord


def run(task: Task) -> dict[str, Any]:
    name = values.volume_name("name", task.params["name"])
    with task.store.lock("volume", name, shared=task.check_mode):
        plan = _plan(task, name)
        if not task.check_mode:
            plan.apply()
        result = plan.result()
        result["volume"] = inspect(task, name)
    return result


def _plan(task: Task, name: str) -> Plan:
    plan = Plan()
    record = task.store.volumes.get(name)
    if task.params["state"] == "absent":
        _plan_absent(task, plan, name, record)
        return plan
    spec = options.normalise(VOLUME, task.params)
    plan.after = spec
    if record is None:
        plan.add(Operation("create", "volume", name, lambda: create(task, name, spec), why="missing"))
        return plan
    plan.before = record.spec
    for difference in options.differences(VOLUME, record.spec, spec, {}):
        plan.add(
            Operation(
                difference.change,
                "volume",
                name,
                lambda: task.store.volumes.update(name, spec=spec, labels=spec.get("labels", {})),
                detail={"option": difference.option, "before": difference.before, "after": difference.after},
                why=difference.why,
            )
        )
    return plan


def _plan_absent(task: Task, plan: Plan, name: str, record: Optional[VolumeRecord]) -> None:
    if record is None:
        _plan_leftover(task, plan, name)
        return
    users = task.store.volumes.users(record.name)
    if users:
        raise InUse(
            "remove %s: volume is in use - [%s]" % (record.name, ", ".join(user.name for user in users)),
            step="remove_volume",
            subject="volume %s" % record.name,
            hint="remove the containers first",
        )
    plan.before = record.spec
    plan.add(Operation("remove", "volume", record.name, lambda: remove(task, record.name), why="not wanted"))


def _plan_leftover(task: Task, plan: Plan, name: str) -> None:
    """Data of which no row is left, because a removal or a creation was cut short: the next boot would make it a volume
    again."""
    from ..storage import volumes

    if os.path.isdir(task.paths.volume(name)):
        work = Operation("remove", "volume", name, lambda: volumes.remove(task.paths, name), why="not wanted")
        plan.add(work)


def create(task: Task, name: str, spec: dict[str, Any], *, anonymous: bool = False) -> None:
    """Directory first, row second: a row always has its data directory."""
    from ..storage import volumes
    from ..store.records import VolumeRecord

    volumes.create(task.paths, name)
    labels = dict(spec.get("labels", {}))
    task.store.volumes.create(VolumeRecord(name, "local", labels, anonymous, spec, time.time()))
    task.store.events.add("volume", "create", name, {"driver": "local"})


def remove(task: Task, name: str) -> None:
    """Row first: what has no row is litter that the next recovery may take, what has one must have its data."""
    from ..storage import volumes

    task.store.volumes.remove(name)
    volumes.remove(task.paths, name)
    task.store.events.add("volume", "destroy", name, {"driver": "local"})


def inspect(task: Task, name: str) -> Optional[dict[str, Any]]:
    """Docker's volume-inspect shape; None when there is none."""
    record = task.store.volumes.get(name)
    if record is None:
        return None
    from ..timestamps import rfc3339

    return {
        "CreatedAt": rfc3339(record.created_at),
        "Driver": record.driver,
        "Labels": {**record.labels, **({"com.docker.volume.anonymous": ""} if record.anonymous else {})},
        "Mountpoint": task.paths.volume_data(name),
        "Name": name,
        "Options": {},
        "Scope": "local",
    }


def _asked(task: Task, name: str) -> Optional[dict[str, Any]]:
    """With ``UsageData`` for who asked for it: it walks all files."""
    shown = inspect(task, name)
    if shown is not None and task.params.get("size"):
        from ..storage import usage

        size = usage.on_disk(task.paths.volume_data(name), task.kernel)
        shown["UsageData"] = {"RefCount": len(task.store.volumes.users(name)), "Size": size}
    return shown


def info(task: Task) -> dict[str, Any]:
    """``volume_info``: one by name, or all that the filters let through."""
    from . import answer, lists

    template, filters = answer.check(task), lists.volume_filters(task)
    name = task.params.get("name")
    if name is not None:
        volume = _asked(task, name)
        return {"changed": False, "exists": volume is not None, "volume": answer.answer(task, template, volume)}
    everything = [_asked(task, record.name) for record in lists.volumes(task, filters)]
    return {"changed": False, "volumes": answer.answer(task, template, everything)}
