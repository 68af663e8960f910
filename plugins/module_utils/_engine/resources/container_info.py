# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ``container_info`` module: containers in the shape of ``docker inspect``, and what is asked for besides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional

from ..errors import UsageError
from . import answer, container_list
from .container_inspect import inspect
from .task import Task

if TYPE_CHECKING:
    from ..store.records import ContainerRecord


def run(task: Task) -> dict[str, Any]:
    """One by name or ID, or all that the filters let through."""
    template, filters = answer.check(task), container_list.parse(task)
    extras = _Extras(task)
    name = task.params.get("name")
    if name is not None:
        record = task.store.containers.get(name.lstrip("/"))
        container = extras.of([record])[0] if record else None
        shown = answer.answer(task, template, container, _view)
        return {"changed": False, "exists": record is not None, "container": shown}
    everything = extras.of(container_list.chosen(task, filters))
    return {"changed": False, "containers": answer.answer(task, template, everything, _view)}


class _Extras:
    """What is not there unless asked for, because it costs: walking files, reading /proc, waiting. What is wrong with
    how it is asked for is told before anything is looked at."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._columns: Optional[tuple[list[str], list[str]]] = None
        if task.params.get("top"):
            from .container_top import columns

            self._columns = columns(task.params.get("ps_args"))
        self._interval = task.params.get("stats_interval") or 0.0
        if not 0 <= self._interval <= 3600:
            raise UsageError(
                "stats_interval: %g is not between 0 and 3600 seconds" % self._interval, path="stats_interval"
            )

    def of(self, records: list[ContainerRecord]) -> list[dict[str, Any]]:
        task = self._task
        shown = [inspect(task, record) for record in records]
        for record, one in zip(records, shown):
            if task.params.get("size"):
                from .sizes import container_size

                one.update(container_size(task, record))
            if task.params.get("changes"):
                from .container_files import changes

                image = task.store.images.get(record.image_id)
                one["Changes"] = changes(task, record, image) if image is not None else None
            if self._columns is not None:
                from .container_top import top

                one["Top"] = top(task, record, self._columns)
        if task.params.get("stats"):
            from .container_stats import collect

            for one, stats in zip(shown, collect(task, records, self._interval)):
                one["Stats"] = stats
        return shown


def _view(container: dict[str, Any]) -> dict[str, Any]:
    """``{{.MacAddress}}``, which old instructions have, is the first network's; Docker refuses it nowadays."""
    networks = container["NetworkSettings"]["Networks"].values()
    return {**container, "MacAddress": next((one["MacAddress"] for one in networks), "")}
