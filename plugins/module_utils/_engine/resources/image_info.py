# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ``image_info`` module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .task import Task


def run(task: Task) -> dict[str, Any]:
    """The images named (missing ones left out), or all; of these what the filters let through."""
    from ..images import inspect as inspecting
    from . import answer, sizes

    template = answer.check(task)
    filtered = None
    if task.params.get("filters"):
        from . import lists

        filtered = lists.image_filters(task)
    names = task.params.get("name")
    if names is None:
        records = task.store.images.list()
    else:
        from .image_choice import find

        records = [record for record in (find(task, name) for name in names) if record is not None]
    if filtered is not None:
        records = lists.images(task, records, filtered)
    weights = sizes.image_sizes(task, records)
    named = task.store.images.names()
    images = [
        {**inspecting.inspect(record, *named.get(record.id, ((), ()))), **weights[record.id]} for record in records
    ]
    if task.params.get("history"):
        from ..images.history import history

        for record, image in zip(records, images):
            image["History"] = history(task.store, record, image["RepoTags"])
    return {"changed": False, "images": answer.answer(task, template, images)}
