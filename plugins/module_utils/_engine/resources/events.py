# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ``events_info`` module: what happened, in the shape of Docker's events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional

from ..errors import UsageError
from . import answer
from .filters import Filters, when
from .task import Task

if TYPE_CHECKING:
    from ..store.records import EventRecord

KNOWN = ("container", "event", "image", "label", "network", "scope", "type", "volume")
TYPES = ("container", "image", "network", "volume")


def run(task: Task) -> dict[str, Any]:
    params = task.params
    template = answer.check(task)
    filters = Filters(params.get("filters"), KNOWN)
    filters.choice("type", TYPES)
    filters.choice("scope", ("local",))
    since, until = (_moment(params, name) for name in ("since", "until"))
    limit = params.get("limit")
    if limit is not None and limit < 1:
        raise UsageError("limit: %d is not at least 1" % limit, step="validate", path="limit")
    if not task.check_mode:
        task.store.events.fold()
    found = [event for event in task.store.events.list(since, until) if _matches(event, filters)]
    events = [shown(event) for event in (found if limit is None else found[-limit:])]
    return {"changed": False, "events": answer.answer(task, template, events)}


def _moment(params: dict[str, Any], name: str) -> Optional[float]:
    return None if params.get(name) is None else when(str(params[name]), name)


def shown(event: EventRecord) -> dict[str, Any]:
    """``status``, ``id`` and ``from`` are those of Docker's old form, which only containers and images have."""
    attributes = {key: str(value) for key, value in event.attributes.items()}
    out: dict[str, Any] = {}
    if event.type == "image" and attributes.get("name"):
        attributes["name"] = _short(attributes["name"])
    if event.type in ("container", "image"):
        out.update(status=event.action, id=event.actor)
        if event.type == "container":
            out["from"] = attributes.get("image", "")
    return {
        **out,
        "Type": event.type,
        "Action": event.action,
        "Actor": {"ID": event.actor, "Attributes": attributes},
        "scope": "local",
        "time": int(event.time),
        "timeNano": int(event.time * 10**9),
    }


def _matches(event: EventRecord, filters: Filters) -> bool:
    """Docker's rules: names and IDs by their beginnings; an action with or without what follows its colon."""
    attributes = {key: str(value) for key, value in event.attributes.items()}
    if not filters.exact("type", [event.type]) or not filters.labels(attributes):
        return False
    if not filters.exact("event", [event.action, event.action.partition(":")[0]]):
        return False
    for kind in ("container", "network", "volume"):
        if kind not in filters:
            continue
        names = [event.actor, attributes.get("name", "")]
        if event.type != kind or not any(name.startswith(value) for value in filters.get(kind) for name in names):
            return False
    return "image" not in filters or filters.exact("image", _images(event, attributes))


def _images(event: EventRecord, attributes: dict[str, str]) -> set[str]:
    """What an image may be called in a filter: its ID, its name as it was written, and both short forms."""
    if event.type not in ("container", "image"):
        return set()
    names = {attributes.get("image" if event.type == "container" else "name", "")}
    if event.type == "image":
        names.add(event.actor)
    out = set()
    for name in names - {""}:
        short = _short(name)
        head, _colon, tag = short.rpartition(":")
        out |= {name, short, head if head and "/" not in tag else short}
    return out


def _short(name: str) -> str:
    """A reference as people write it."""
    for prefix in ("docker.io/library/", "docker.io/"):
        if name.startswith(prefix):
            return name[len(prefix) :]
    return name
