# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""``docker history``: how an image came about, newest first, with the size of each step's layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..store.records import ImageRecord
    from ..store.state import Store


def history(store: Store, record: ImageRecord, names: Sequence[str]) -> list[dict[str, Any]]:
    """``[{Id, Created, CreatedBy, Tags, Size, Comment}]`` as ``GET /images/x/history``, but for ``Created``, which is
    the time as the image has it. Steps are told apart from layers by ``empty_layer``; where that does not add up (some
    builders write no history), layers without a step get a line of their own."""
    sizes = []
    for layer in record.layers:
        found = store.layers.get(layer.chain_id)
        sizes.append(found.size if found is not None else 0)
    steps = [dict(step) for step in record.config.get("history") or []]
    with_layer = sum(not step.get("empty_layer") for step in steps)
    if with_layer < len(sizes):
        steps = [{} for _missing in range(len(sizes) - with_layer)] + steps
    rest = iter(sizes)
    rows: list[dict[str, Any]] = [
        {
            "Id": "<missing>",
            "Created": _text(step, "created") or "0001-01-01T00:00:00Z",
            "CreatedBy": _text(step, "created_by"),
            "Tags": None,
            "Size": 0 if step.get("empty_layer") else next(rest, 0),
            "Comment": _text(step, "comment"),
        }
        for step in steps
    ]
    rows.reverse()
    if rows:
        rows[0].update(Id=record.id, Tags=list(names) or None)
    return rows


def _text(step: dict[str, Any], key: str) -> str:
    value = step.get(key)
    return value if isinstance(value, str) else ""
