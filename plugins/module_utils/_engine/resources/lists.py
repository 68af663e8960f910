# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which images, networks and volumes Docker's ``ls --filter`` would list (containers: ``container_list``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import NotFound
from .filters import Filters, glob, parse_time
from .task import Task

if TYPE_CHECKING:
    from ..store.records import ImageRecord, NetworkRecord, VolumeRecord

IMAGES = ("before", "dangling", "label", "reference", "since", "until")
NETWORKS = ("dangling", "driver", "id", "label", "name", "scope", "type")
VOLUMES = ("dangling", "driver", "label", "name")
PREDEFINED = ("bridge", "host", "none")


def image_filters(task: Task) -> Filters:
    """Raises ``UsageError``, before anything is looked at."""
    filters = Filters(task.params.get("filters"), IMAGES)
    filters.flag("dangling")
    filters.moment("until")
    for value in filters.get("reference"):
        try:
            glob(value)
        except ValueError as error:
            filters.refuse("reference", value, str(error))
    return filters


def images(task: Task, records: list[ImageRecord], filters: Filters) -> list[ImageRecord]:
    """Raises ``NotFound`` when ``before`` or ``since`` names no image."""
    if not filters:
        return records
    since = max([_image_created(task, "since", value) for value in filters.get("since")], default=None)
    before = min([_image_created(task, "before", value) for value in filters.get("before")], default=None)
    until, dangling = filters.moment("until"), filters.flag("dangling")
    out = []
    for record in records:
        names = task.store.images.references(record.id)
        created = image_created(record)
        if dangling is not None and dangling == bool(names):
            continue
        if (since is not None and created <= since) or (before is not None and created >= before):
            continue
        if (until is not None and created >= until) or not filters.labels(image_labels(record)):
            continue
        if "reference" not in filters or _named(filters.get("reference"), names):
            out.append(record)
    return out


def image_labels(record: ImageRecord) -> dict[str, str]:
    return (record.config.get("config") or {}).get("Labels") or {}


def image_created(record: ImageRecord) -> float:
    """As its config says; otherwise when it came here."""
    return parse_time(record.config.get("created") or "") or record.created_at


def _image_created(task: Task, name: str, text: str) -> float:
    from . import image_choice

    record = image_choice.find(task, text)
    if record is None:
        raise NotFound("No such image: %s" % text, step="list", subject="image %s" % text, path="filters." + name)
    return image_created(record)


def _named(patterns: list[str], names: list[str]) -> bool:
    """A pattern is of the whole familiar reference, or of its name without tag and digest."""
    from ..images import reference

    for name in names:
        parsed = reference.parse(name)
        for pattern in patterns:
            expression = glob(pattern)
            if expression.fullmatch(parsed.familiar()) or expression.fullmatch(parsed.familiar_name):
                return True
    return False


def network_filters(task: Task) -> Filters:
    filters = Filters(task.params.get("filters"), NETWORKS)
    filters.choice("type", ("builtin", "custom"))
    filters.choice("scope", ("local", "global", "swarm"))
    filters.flag("dangling")
    filters.patterns("name")
    filters.patterns("id")
    return filters


def networks(task: Task, filters: Filters) -> list[NetworkRecord]:
    """``dangling``: no container is in it, and it can be removed."""
    dangling = filters.flag("dangling")
    out = []
    for record in task.store.networks.list():
        builtin = record.name in PREDEFINED
        if not filters.exact("type", ["builtin" if builtin else "custom"]) or not filters.exact("scope", ["local"]):
            continue
        if not filters.exact("driver", [record.driver]) or not filters.labels(record.spec.get("labels", {})):
            continue
        if not filters.text("name", [record.name]) or not filters.text("id", [record.id]):
            continue
        if dangling is not None:
            idle = not builtin and not task.store.networks.endpoints(network_id=record.id)
            if idle != dangling:
                continue
        out.append(record)
    return out


def volume_filters(task: Task) -> Filters:
    filters = Filters(task.params.get("filters"), VOLUMES)
    filters.flag("dangling")
    filters.patterns("name")
    return filters


def volumes(task: Task, filters: Filters) -> list[VolumeRecord]:
    dangling = filters.flag("dangling")
    out = []
    for record in task.store.volumes.list():
        if not filters.exact("driver", [record.driver]) or not filters.text("name", [record.name]):
            continue
        if filters.labels(record.labels) and (
            dangling is None or dangling == (not task.store.volumes.users(record.name))
        ):
            out.append(record)
    return out
