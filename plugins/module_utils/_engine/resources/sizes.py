# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What images, containers and volumes weigh, and what could be had back (``docker ps -s``, ``docker system df``).

Sizes of images are those of the files in their layers, a layer that several images have counted once wherever bytes
are added up. ``disk`` is what the file system has given away for it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from .task import Task

if TYPE_CHECKING:
    from ..store.records import ContainerRecord, ImageRecord


def image_sizes(task: Task, images: list[ImageRecord]) -> dict[str, dict[str, int]]:
    """By image ID ``{"SharedSize", "UniqueSize"}``: bytes of layers that other images have too, and of its own."""
    sizes = task.store.layers.sizes()
    owners = task.store.images.layer_owners()
    out = {}
    for image in images:
        chains = {layer.chain_id for layer in image.layers}
        shared = sum(sizes.get(chain, 0) for chain in chains if owners.get(chain, 0) > 1)
        total = sum(sizes.get(chain, 0) for chain in chains)
        out[image.id] = {"SharedSize": shared, "UniqueSize": total - shared}
    return out


def container_size(task: Task, record: ContainerRecord) -> dict[str, int]:
    """``{"SizeRw", "SizeRootFs"}``: the writable layer, and that with the image's layers."""
    from ..storage import usage

    written = usage.writable(task.paths.container(record.id) + "/upper", task.kernel)
    image = task.store.images.get(record.image_id)
    return {"SizeRw": written, "SizeRootFs": written + (image.size if image is not None else 0)}


def disk_usage(task: Task) -> dict[str, Any]:
    """Of the whole host by kind: ``{images, containers, volumes, engine, total}``. Walks everything that is not an
    indexed layer, so it takes its time on hosts with much data."""
    parts = {
        "images": _images(task),
        "containers": _containers(task),
        "volumes": _volumes(task),
        "engine": {"disk": _disk(task, task.paths.engine)},
    }
    return {**parts, "total": sum(part["disk"] for part in parts.values())}


def _disk(task: Task, path: str) -> int:
    from ..storage import usage

    return usage.on_disk(path, task.kernel)


def _images(task: Task) -> dict[str, int]:
    records = task.store.images.list()
    used = {record.id for record in records if task.store.images.users(record.id)}
    sizes = task.store.layers.sizes()
    held = {layer.chain_id for record in records if record.id in used for layer in record.layers}
    return {
        "count": len(records),
        "active": len(used),
        "size": sum(sizes.values()),
        "reclaimable": sum(size for chain, size in sizes.items() if chain not in held),
        "disk": _disk(task, task.paths.layers) + _disk(task, os.path.dirname(task.paths.blobs)),
    }


def _containers(task: Task) -> dict[str, int]:
    from .container_actual import is_running, state

    out = {"count": 0, "active": 0, "size": 0, "reclaimable": 0, "disk": _disk(task, task.paths.containers)}
    for record in task.store.containers.list():
        size = container_size(task, record)["SizeRw"]
        running = is_running(state(task, record))
        out["count"] += 1
        out["active"] += running
        out["size"] += size
        out["reclaimable"] += 0 if running else size
    return out


def _volumes(task: Task) -> dict[str, int]:
    out = {"count": 0, "active": 0, "size": 0, "reclaimable": 0}
    for record in task.store.volumes.list():
        size = _disk(task, task.paths.volume_data(record.name))
        used = bool(task.store.volumes.users(record.name))
        out["count"] += 1
        out["active"] += used
        out["size"] += size
        out["reclaimable"] += 0 if used else size
    out["disk"] = _disk(task, task.paths.volumes)
    return out
