# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ``container_commit`` module: a container becomes an image, once for the same content."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Optional

from ..errors import UsageError
from ..reconcile.plan import Operation, Plan
from . import container_files as files
from .container_actual import state
from .task import Task

if TYPE_CHECKING:
    from ..images.commit import Wish
    from ..store.records import ContainerRecord, ImageRecord

_KEPT = ("User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "StopSignal", "Shell")


def run(task: Task) -> dict[str, Any]:
    from ..images import reference

    name = reference.parse(task.params["name"])
    if name.digest:
        raise UsageError("name: a new image has no digest yet", step="validate", path="name")
    record, image = files.wanted(task)
    wish = _wish(task, record, image)
    before = task.store.images.by_reference(name.canonical())
    plan = Plan()
    plan.before = {"image": before.id if before else None}
    made: list[ImageRecord] = []
    why = _why(task, before, image, record, wish)
    if why:

        def execute() -> None:
            made.append(_commit(task, record, image, wish, name.canonical()))

        detail = {"container": record.name, **({"replaces": before.id} if before else {})}
        plan.add(Operation("commit", "image", name.canonical(), execute, why=why, detail=detail))
    if plan.changed and not task.check_mode:
        plan.apply()
        task.store.events.add("container", "commit", record.id, {"name": record.name, "imageID": made[0].id})
    after = made[0] if made else None if plan.changed else before
    plan.after = {"image": after.id if after else "(known after the commit)"}
    result = plan.result()
    from .image import inspect

    result["image"] = inspect(task, after) if after else None
    return result


def _why(task: Task, before: Optional[ImageRecord], image: ImageRecord, record: ContainerRecord, wish: Wish) -> str:
    """Why there is something to do, "" if the image of that name is just what a commit would make."""
    from ..images import commit

    if before is None:
        return "missing"
    layer = commit.diff_id(task.kernel, files.described(task, record, image))
    if commit.is_made_of(before, image, layer, wish):
        return ""
    if len(before.layers) == len(image.layers) + 1 and before.layers[-1].diff_id == layer:
        return "the configuration is another one"
    return "the container's files are different"


def _wish(task: Task, record: ContainerRecord, image: ImageRecord) -> Wish:
    """Docker's rules: the container's configuration, over it the changes."""
    from ..images import commit
    from .container_inspect import inspect

    shown = inspect(task, record)
    config = {key: shown["Config"].get(key) for key in _KEPT}
    config["Shell"] = (image.config.get("config") or {}).get("Shell")
    health = shown["Config"].get("Healthcheck")
    if health:
        config["Healthcheck"] = {key: value for key, value in health.items() if value}
    command = [shown["Path"], *shown["Args"]] if shown["Path"] else []
    return commit.Wish(
        commit.new_config(config, task.params.get("changes") or []),
        task.params.get("author") or "",
        task.params.get("comment") or "",
        " ".join(command),
    )


def _commit(task: Task, record: ContainerRecord, image: ImageRecord, wish: Wish, name: str) -> ImageRecord:
    from ..images import commit

    with task.store.lock("image", name), _still(task, record):
        container = files.described(task, record, image)
        return commit.commit(task.store, task.kernel, container, image, wish, name)


@contextmanager
def _still(task: Task, record: ContainerRecord) -> Iterator[None]:
    """The container frozen, if it runs and may be."""
    if not task.params.get("pause", True) or state(task, record)["status"] != "running":
        yield
        return
    with task.runtime.standstill(record.id):
        yield
