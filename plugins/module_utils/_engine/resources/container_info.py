# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ``container_info`` module: containers in the shape of ``docker inspect``, and what is asked for besides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import answer, container_list
from .container_inspect import inspect
from .task import Task

if TYPE_CHECKING:
    from ..store.records import ContainerRecord


def run(task: Task) -> dict[str, Any]:
    """One by name or ID, or all that the filters let through."""
    template, filters = answer.check(task), container_list.parse(task)
    name = task.params.get("name")
    if name is not None:
        record = task.store.containers.get(name.lstrip("/"))
        container = _asked(task, record) if record else None
        shown = answer.answer(task, template, container, _view)
        return {"changed": False, "exists": record is not None, "container": shown}
    everything = [_asked(task, record) for record in container_list.chosen(task, filters)]
    return {"changed": False, "containers": answer.answer(task, template, everything, _view)}


def _asked(task: Task, record: ContainerRecord) -> dict[str, Any]:
    """With ``SizeRw`` and ``SizeRootFs``, and ``Changes``, for who asked for them: both walk files."""
    shown = inspect(task, record)
    if task.params.get("size"):
        from .sizes import container_size

        shown.update(container_size(task, record))
    if task.params.get("changes"):
        from .container_files import changes

        image = task.store.images.get(record.image_id)
        shown["Changes"] = changes(task, record, image) if image is not None else None
    return shown


def _view(container: dict[str, Any]) -> dict[str, Any]:
    """``{{.MacAddress}}``, which old instructions have, is the first network's; Docker refuses it nowadays."""
    networks = container["NetworkSettings"]["Networks"].values()
    return {**container, "MacAddress": next((one["MacAddress"] for one in networks), "")}
