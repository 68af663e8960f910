# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""``source: load`` of the image module: an image out of an archive or OCI layout on the target."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional

from ..errors import UsageError
from ..reconcile.plan import Operation, Plan
from .task import Task

if TYPE_CHECKING:
    from ..images.load import Found
    from ..images.reference import Reference
    from ..store.records import ImageRecord


def present(task: Task, plan: Plan, name: str, before: Optional[ImageRecord]) -> Optional[ImageRecord]:
    """The archive says by its config's digest which image it holds: the same one under ``name`` is no change."""
    from ..images import load, reference

    if not task.params.get("path"):
        raise UsageError("path is required for source=load", step="validate", path="path")
    parsed = reference.parse(name)
    with load.find(task.store, task.params["path"], parsed, task.params.get("platform")) as found:
        image_id = found.candidate.id
        if before is not None and before.id == image_id:
            return before
        made: list[ImageRecord] = []
        plan.add(_operation(task, found, parsed, before, made))
        if task.check_mode:
            return None
        plan.apply()
    task.store.events.add("image", "load", image_id, {"name": name})
    return made[0]


def _operation(
    task: Task, found: Found, name: Reference, before: Optional[ImageRecord], made: list[ImageRecord]
) -> Operation:
    from ..images import config as configs
    from ..images import load

    def execute() -> None:
        with task.store.lock("image", name.canonical()):
            made.append(load.load(task.store, task.kernel, found, name))

    candidate = found.candidate
    detail: dict[str, Any] = {"image": candidate.id, "archive_names": [*candidate.names, *candidate.tags]}
    chains = configs.chain_ids(found.config["rootfs"]["diff_ids"])
    detail["layers"] = len(chains)
    detail["layers_missing"] = sum(task.store.layers.get(chain) is None for chain in chains)
    why = "missing"
    if before is not None:
        detail["replaces"] = before.id
        why = "%s names another image now, %s" % (name.familiar(), before.id[:19])
    here = task.store.images.get(candidate.id) is not None
    return Operation("tag" if here else "load", "image", name.canonical(), execute, why=why, detail=detail)
