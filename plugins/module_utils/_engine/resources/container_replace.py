# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Replacing a container without losing it.

Two orders. ``start_first`` where nothing forbids two of them at once: the new container starts (and, with a health
check, turns healthy) while the old one serves; then names and published ports move over, then the old one stops.
``stop_first`` where they would share what cannot be shared (writable volumes and binds, fixed addresses, the host's
network): the old one stops, the new one starts. In both, when the new one does not come up it is removed and the old
one runs on (or is started again), and the task says why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import container_make as make
from .container_run import remove, start, stop, wait_healthy
from .task import Task

if TYPE_CHECKING:
    from ..store.records import ContainerRecord, EndpointRecord, ImageRecord

_NEW, _OLD = ".wharf-new", ".wharf-old"  # names of the two while the replacement goes on


def order(old: ContainerRecord, spec: dict[str, Any], running: bool) -> str:
    """``start_first`` or ``stop_first``, and nothing touched."""
    if not running:
        return "stop_first"
    if spec.get("network_mode") or old.spec.get("network_mode") not in (None, "none"):
        return "stop_first"
    if any(network.get("ipv4_address") or network.get("ipv6_address") for network in spec.get("networks", [])):
        return "stop_first"
    shared = [mount for mount in old.resolved["mounts"] if mount["type"] != "tmpfs" and not mount.get("read_only")]
    return "stop_first" if shared else "start_first"


def replace(
    task: Task, old: ContainerRecord, spec: dict[str, Any], image: ImageRecord, *, running: bool, start_new: bool
) -> ContainerRecord:
    """Put a container made from ``spec`` in the place of ``old``. Returns the new record.

    On failure the old container is as it was, and the error says what the new one died of.
    """
    name = old.name
    first = order(old, spec, running and start_new) == "start_first"
    new = make.create(task, name + _NEW, spec, image, inherit=old, lease=first, publish=False)
    endpoints = task.store.networks.endpoints(container_id=old.id)
    try:
        if first:
            start(task, new)
            _settle(task, new)
        elif running:
            stop(task, old, remember=False)
        _take_over(task, old, new, lease=not first)
        if first:
            task.network.publish(new.id)
        elif start_new:
            start(task, _fresh(task, new))
            _settle(task, new)
    except BaseException:
        _roll_back(task, old, new, endpoints, running)
        raise
    remove(task, _fresh(task, old), keep_anonymous=True)
    if first:
        task.runtime.update(new.id, {"reserve": make.reserve_settings(task, new)})
    record = _fresh(task, new)
    task.store.events.add("container", "replace", record.id, {"name": name, "old": old.id})
    return record


def recover(task: Task, name: str) -> None:
    """Finish or take back a replacement of ``name`` that was cut short. Before the names changed hands the old
    container is the truth, from then on the new one; either way the one that ought to run runs again."""
    from .container_actual import is_running, state

    containers = task.store.containers
    new, old = containers.by_name(name + _NEW), containers.by_name(name + _OLD)
    if new is None and old is None:
        return
    current = containers.by_name(name)
    if new is not None:
        remove(task, new, keep_anonymous=True)
    wanted = current is not None and current.desired == "running"
    if old is not None:
        wanted = wanted or old.desired == "running"
        remove(task, old, keep_anonymous=True)
    if current is None:
        return
    if wanted and not is_running(state(task, current)):
        start(task, current)
    elif is_running(state(task, current)):
        task.network.publish(current.id)
        task.runtime.update(current.id, {"reserve": make.reserve_settings(task, current)})


def _settle(task: Task, record: ContainerRecord) -> None:
    """With a health check, wait for healthy: a replacement that is not well does not replace."""
    image = task.store.images.get(record.image_id)
    if image is not None and make.health_settings(record.spec, make.image_config(image)):
        wait_healthy(task, record, task.params.get("healthy_wait_timeout"))


def _take_over(task: Task, old: ContainerRecord, new: ContainerRecord, *, lease: bool) -> None:
    """Name, published ports and (``lease``) addresses change hands in one transaction: there is never a moment with
    two owners or none."""
    store = task.store
    with store.transaction():
        store.networks.put_ports(old.id, [])
        store.containers.rename(old.id, old.name + _OLD)
        store.containers.rename(new.id, old.name)
        if lease:
            for endpoint in store.networks.endpoints(container_id=old.id):
                store.networks.remove_endpoint(old.id, endpoint.network_id)
            if new.spec.get("networks"):
                task.network.plan_endpoints(new.id, new.spec["networks"])
        make.publish_ports(task, new)


def _roll_back(
    task: Task, old: ContainerRecord, new: ContainerRecord, endpoints: list[EndpointRecord], running: bool
) -> None:
    from .container_actual import is_running, state

    remove(task, _fresh(task, new), keep_anonymous=True)
    with task.store.transaction():
        if _fresh(task, old).name != old.name:
            task.store.containers.rename(old.id, old.name)
        have = {endpoint.network_id for endpoint in task.store.networks.endpoints(container_id=old.id)}
        for endpoint in endpoints:
            if endpoint.network_id not in have:
                task.store.networks.put_endpoint(endpoint)
        make.publish_ports(task, old)
    if running and not is_running(state(task, old)):
        start(task, _fresh(task, old))
    elif running:
        task.network.publish(old.id)


def _fresh(task: Task, record: ContainerRecord) -> ContainerRecord:
    return task.store.containers.get(record.id) or record
