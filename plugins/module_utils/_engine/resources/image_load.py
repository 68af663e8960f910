# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""``source: load`` and ``source: controller`` of the image module: an image out of an archive or OCI layout, on the
target or on the controller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional

from ..errors import LayersWanted, UsageError
from ..reconcile.plan import Operation, Plan
from .task import Task

if TYPE_CHECKING:
    from ..images.load import Found
    from ..images.reference import Reference
    from ..store.records import ImageRecord


def present(task: Task, plan: Plan, name: str, before: Optional[ImageRecord]) -> Optional[ImageRecord]:
    """The archive says by its config's digest which image it holds: the same one under ``name`` is no change."""
    from ..images import load, reference

    parsed = reference.parse(name)
    with _found(task, parsed) as found:
        image_id = found.candidate.id
        if before is not None and before.id == image_id:
            return before
        made: list[ImageRecord] = []
        plan.add(_operation(task, found, parsed, before, made))
        if task.check_mode:
            return None
        if task.params["source"] == "controller" and not task.params.get("_image_archive"):
            _want(load.missing(task.store, found), parsed)
        plan.apply()
    task.store.events.add("image", "load", image_id, {"name": name})
    return made[0]


def _found(task: Task, name: Reference) -> Found:
    """``_image_offer`` and ``_image_archive`` come from the action plugin: what the controller has, and the archive it
    sent of what was missing."""
    from ..images import load

    params = task.params
    if params["source"] == "controller" and not params.get("_image_archive"):
        if not params.get("_image_offer"):
            raise UsageError(
                "source=controller needs the collection's action plugin, which looks at the controller",
                step="validate",
                path="source",
            )
        from ..images.offer import OfferSource

        return load.choose(OfferSource(params["_image_offer"]), name, params.get("platform"))
    path = params.get("_image_archive") or params.get("path")
    if not path:
        raise UsageError("path is required for source=%s" % params["source"], step="validate", path="path")
    return load.find(task.store, path, name, params.get("platform"))


def _want(members: list[str], name: Reference) -> None:
    if members:
        raise LayersWanted(
            "The target lacks %d layers of %s" % (len(members), name.familiar()),
            step="load",
            subject="image %s" % name.familiar(),
            details={"wants": members},
        )


def _operation(
    task: Task, found: Found, name: Reference, before: Optional[ImageRecord], made: list[ImageRecord]
) -> Operation:
    from ..images import load

    def execute() -> None:
        with task.store.lock("image", name.canonical()):
            made.append(load.load(task.store, task.kernel, found, name))

    candidate = found.candidate
    detail: dict[str, Any] = {
        "image": candidate.id,
        "archive_names": [*candidate.names, *candidate.tags],
        "layers": len(candidate.parts),
        "layers_missing": len(load.missing(task.store, found)),
    }
    why = "missing"
    if before is not None:
        detail["replaces"] = before.id
        why = "%s names another image now, %s" % (name.familiar(), before.id[:19])
    here = task.store.images.get(candidate.id) is not None
    return Operation("tag" if here else "load", "image", name.canonical(), execute, why=why, detail=detail)
