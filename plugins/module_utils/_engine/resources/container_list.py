# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which containers ``docker ps --filter`` would list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import NotFound
from .container_actual import is_running, state
from .filters import Filters
from .task import Task

if TYPE_CHECKING:
    from ..store.records import ContainerRecord, ImageRecord

KNOWN = (
    "ancestor", "before", "exited", "expose", "health", "id", "is-task", "label", "name", "network", "publish", "since",
    "status", "volume",
)  # fmt: skip
STATES = ("created", "restarting", "running", "removing", "paused", "exited", "dead")
HEALTH = ("starting", "healthy", "unhealthy", "none")


def parse(task: Task) -> Filters:
    """Raises ``UsageError`` for what is malformed, before anything is looked at."""
    filters = Filters(task.params.get("filters"), KNOWN)
    filters.choice("status", STATES)
    filters.choice("health", HEALTH)
    filters.integers("exited")
    filters.flag("is-task")
    for name in ("id", "name"):
        filters.patterns(name)
    for name in ("publish", "expose"):
        for value in filters.get(name):
            _ports(filters, name, value)
    return filters


def chosen(task: Task, filters: Filters) -> list[ContainerRecord]:
    """Oldest first. Raises ``NotFound`` when ``before`` or ``since`` names none."""
    records = task.store.containers.list()
    if not filters:
        return records
    if filters.flag("is-task"):  # nothing here is one of Swarm's
        return []
    since = max([_created(task, "since", value) for value in filters.get("since")], default=None)
    before = min([_created(task, "before", value) for value in filters.get("before")], default=None)
    ancestors = _ancestors(task, filters)
    out = []
    for record in records:
        if (since is not None and record.created_at <= since) or (before is not None and record.created_at >= before):
            continue
        if "ancestor" in filters and record.image_id not in ancestors:
            continue
        if _by_record(task, record, filters) and _by_state(task, record, filters):
            out.append(record)
    return out


def _created(task: Task, name: str, key: str) -> float:
    record = task.store.containers.get(key.lstrip("/"))
    if record is None:
        raise NotFound("No such container: %s" % key, step="list", subject="container %s" % key, path="filters." + name)
    return record.created_at


def _ancestors(task: Task, filters: Filters) -> set[str]:
    """IDs of the images named, and of those made from them. A name that no image has matches nothing, as in Docker."""
    from . import image_choice

    out: set[str] = set()
    if "ancestor" not in filters:
        return out
    images = task.store.images.list()
    for value in filters.get("ancestor"):
        base = image_choice.find(task, value)
        if base is None:
            continue
        out.add(base.id)
        out |= {image.id for image in images if _descends(image, base)}
    return out


def _descends(image: ImageRecord, base: ImageRecord) -> bool:
    """Its layers begin with those of ``base``; when they are the same, its history does (it only changed settings)."""
    count = len(base.layers)
    if not count or [layer.chain_id for layer in image.layers[:count]] != [layer.chain_id for layer in base.layers]:
        return False
    if len(image.layers) > count:
        return True
    history, before = image.config.get("history") or [], base.config.get("history") or []
    return bool(before) and len(history) > len(before) and history[: len(before)] == before


def _by_record(task: Task, record: ContainerRecord, filters: Filters) -> bool:
    if not filters.text("id", [record.id]) or not filters.text("name", [record.name, "/" + record.name]):
        return False
    if "label" in filters and not filters.labels(labels(task, record)):
        return False
    if "volume" in filters:
        places = {mount[key] for mount in record.resolved["mounts"] for key in ("source", "target") if mount.get(key)}
        if not filters.exact("volume", places):
            return False
    if "network" in filters and not filters.exact("network", _networks(task, record)):
        return False
    return all(name not in filters or _has_port(task, record, filters, name) for name in ("publish", "expose"))


def labels(task: Task, record: ContainerRecord) -> dict[str, str]:
    """The image's and its own."""
    image = task.store.images.get(record.image_id)
    inherited = (image.config.get("config") or {}).get("Labels") if image is not None else None
    return {**(inherited or {}), **record.spec.get("labels", {})}


def _networks(task: Task, record: ContainerRecord) -> set[str]:
    """Names and IDs."""
    out = set()
    for endpoint in task.store.networks.endpoints(container_id=record.id):
        network = task.store.networks.get(endpoint.network_id)
        if network is not None:
            out |= {network.name, network.id}
    mode = record.spec.get("network_mode")
    return out | ({mode} if mode in ("host", "none") else set())


def _ports(filters: Filters, name: str, value: str) -> tuple[int, int, str]:
    """``port[-port][/protocol]``."""
    span, _slash, protocol = value.partition("/")
    low, _dash, high = span.partition("-")
    numbers = [text for text in (low, high or low) if text.isdecimal() and text.isascii() and len(text) < 6]
    if (
        len(numbers) != 2
        or protocol not in ("", "tcp", "udp", "sctp")
        or not int(numbers[0]) <= int(numbers[1]) <= 65535
    ):
        filters.refuse(name, value, "is no port such as 80, 80/udp or 8000-8080/tcp")
    return int(numbers[0]), int(numbers[1]), protocol or "tcp"


def _has_port(task: Task, record: ContainerRecord, filters: Filters, name: str) -> bool:
    have: set[tuple[int, str]] = set()
    if name == "publish":
        have = {(port.host_port, port.protocol) for port in task.store.networks.ports(record.id)}
    else:
        image = task.store.images.get(record.image_id)
        exposed = set((image.config.get("config") or {}).get("ExposedPorts") or {}) if image is not None else set()
        for text in exposed | set(record.spec.get("exposed_ports", [])):
            number, _slash, protocol = text.partition("/")
            have.add((int(number), protocol or "tcp"))
        have |= {(port["container_port"], port["protocol"]) for port in record.spec.get("published_ports", [])}
    for value in filters.get(name):
        low, high, protocol = _ports(filters, name, value)
        if any(low <= number <= high and kind == protocol for number, kind in have):
            return True
    return False


def _by_state(task: Task, record: ContainerRecord, filters: Filters) -> bool:
    if not any(name in filters for name in ("status", "exited", "health")):
        return True
    facts: dict[str, Any] = state(task, record)
    if not filters.exact("status", [facts["status"]]):
        return False
    if "health" in filters and not filters.exact("health", [(facts.get("health") or {}).get("status") or "none"]):
        return False
    if "exited" in filters:
        ended = not is_running(facts) and facts["status"] != "created"
        return ended and (facts.get("exit_code") or 0) in filters.integers("exited")
    return True
