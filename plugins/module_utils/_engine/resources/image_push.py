# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ``image_push`` module: what a reference names here, it names at its registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import NotFound, UsageError
from ..reconcile.plan import Operation, Plan
from . import image_choice
from .image import inspect
from .task import Task

if TYPE_CHECKING:
    from ..images.reference import Reference


def run(task: Task) -> dict[str, Any]:
    reference = _reference(task)
    name = reference.canonical()
    record = task.store.images.by_reference(name)
    if record is None:
        raise NotFound(
            "An image does not exist locally with the tag: %s" % reference.familiar(),
            step="push",
            subject="image %s" % reference.familiar(),
            path="name",
            hint="Pull, import or tag it first.",
        )
    answer = _pushing(task).check(task.store, image_choice.transport(task), reference, record)
    plan = Plan()
    plan.before = {"digest": answer.present or None}
    plan.after = {"digest": answer.digest or None}
    if answer.changed:
        if answer.replaces_index:
            task.warn(
                "%s names images for several platforms at the registry; after the push it names one of %s only"
                % (reference.familiar(), _platform(record.config))
            )
        plan.add(_operation(task, plan, reference, "the registry has %s" % (answer.present or "nothing")))
        if not task.check_mode:
            plan.apply()
            task.store.events.add("image", "push", record.id, {"name": name})
    after = task.store.images.get(record.id) or record
    return {**plan.result(), "digest": plan.after["digest"], "image": inspect(task, after)}


def _pushing(task: Task) -> Any:
    """What pushes: the image alone, or the index that it came from. Both have ``check`` and ``push_report``."""
    if task.params.get("all_platforms"):
        from ..images import push_index

        return push_index
    from ..images import push

    return push


def _reference(task: Task) -> Reference:
    from ..images import reference

    parsed = reference.parse(task.params["name"])
    if parsed.digest:
        raise UsageError(
            "name: %s has a digest, and what is pushed needs a tag to be found by" % task.params["name"],
            step="validate",
            path="name",
        )
    tag = task.params.get("tag")
    # The tag in the name comes first, as with community.docker; "host:5000/app" has none.
    if tag and ":" not in task.params["name"].rpartition("/")[2]:
        return reference.parse("%s:%s" % (parsed.name, tag))
    return parsed


def _platform(config: dict[str, Any]) -> str:
    return "%s/%s" % (config.get("os") or "linux", config.get("architecture") or "")


def _operation(task: Task, plan: Plan, reference: Reference, why: str) -> Operation:
    detail: dict[str, Any] = {}

    def execute() -> None:
        detail.update(_push(task, reference))
        plan.after["digest"] = detail["digest"]

    return Operation("push", "image", reference.canonical(), execute, why=why, detail=detail)


def _push(task: Task, reference: Reference) -> dict[str, Any]:
    """In a process of its own: uploads run in threads."""
    from ..process import isolated
    from ..store.state import Store

    def work() -> Any:
        with Store.open(task.paths) as store, image_choice.telling(task, "pushing") as hook:
            record = store.images.by_reference(reference.canonical())
            if record is None:
                raise NotFound("The image %s was removed meanwhile" % reference.familiar(), step="push")
            transport = image_choice.transport(task)
            report = _pushing(task).push_report(store, reference, record, transport=transport, progress=hook)
        out = report._asdict()
        out.pop("changed")
        out["seconds"] = out.pop("timings")
        return out

    told: dict[str, Any] = isolated(work)
    return told
