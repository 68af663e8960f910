# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A container's file system seen from outside: what it changed, and the whole of it."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from ..errors import NotFound
from . import container_make as make
from .container_userns import owners
from .task import Task

if TYPE_CHECKING:
    from ..images.commit import Container
    from ..store.records import ContainerRecord, ImageRecord

KINDS = ("modified", "added", "deleted")


def named(task: Task, name: str) -> ContainerRecord:
    """By name, id, or the beginning of an id. Raises ``NotFound``, ``Conflict``."""
    record = task.store.containers.get(name)
    if record is None:
        raise NotFound("No such container: %s" % name, step="find_container", subject="container %s" % name)
    return record


def wanted(task: Task) -> tuple[ContainerRecord, ImageRecord]:
    """The container that the task names, and its image. Raises ``NotFound``."""
    record = named(task, task.params["container"])
    image = task.store.images.get(record.image_id)
    if image is None:
        raise NotFound(
            "Image %s of container %s is missing from the store" % (record.image_id, record.name),
            step="find_image",
            subject="container %s" % record.name,
            hint="Pull or import the image again.",
        )
    return record, image


def described(task: Task, record: ContainerRecord, image: ImageRecord) -> Container:
    from ..images.commit import Container

    directory = task.paths.container(record.id)
    layers = make.layer_paths(task, image)
    return Container(layers, directory + "/upper", _mounted(record, directory), owners(record))


def _mounted(record: ContainerRecord, directory: str) -> list[str]:
    """Where the engine mounts something: the task's mounts, ``/proc`` and its like, the files of ``/etc``."""
    targets = {mount["target"] for mount in record.resolved["mounts"]}
    try:
        with open(directory + "/config.json", "rb") as stream:
            targets.update(mount["destination"] for mount in json.load(stream)["mounts"])
    except FileNotFoundError:  # it never started
        pass
    return sorted(targets)


def changes(task: Task, record: ContainerRecord, image: ImageRecord) -> list[dict[str, Any]]:
    """``docker diff``: ``[{"Path", "Kind"}]`` with Docker's numbers (0 modified, 1 added, 2 deleted)."""
    from ..images import commit

    with commit.opened(task.kernel, described(task, record, image)) as (_upper, walk):
        found = [(change.path, change.kind) for change in walk if change.path != b"."]
    return [{"Path": "/" + os.fsdecode(path), "Kind": kind} for path, kind in sorted(found)]


def merged(task: Task, record: ContainerRecord, image: ImageRecord) -> int:
    """The container's root, read-only, as a detached mount of its own: without what is mounted in it. Also of a
    running container (overlay allows its upper as a lower; what is written meanwhile may or may not be seen)."""
    from ..storage.overlay import mount_rootfs

    layers = [*make.layer_paths(task, image), (task.paths.container(record.id) + "/upper", "upper")]
    return mount_rootfs(task.kernel, layers)
