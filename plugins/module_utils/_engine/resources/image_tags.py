# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""``tags`` of the image module: further references to the image. What a task asked for is stored under its ``name``,
so that a reference removed from the task is removed from the host. One that meanwhile names another image is somebody
else's, and stays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional

from ..errors import UsageError
from ..reconcile.plan import Operation, Plan
from .task import Task

if TYPE_CHECKING:
    from ..store.records import ImageRecord


def asked(task: Task, name: str) -> list[str]:
    """The references in canonical form, without ``name`` itself. Raises ``UsageError``."""
    from ..images import reference

    found: list[str] = []
    for index, text in enumerate(task.params.get("tags") or []):
        parsed = reference.parse(text)
        if parsed.digest:
            raise UsageError(
                "tags[%d]: %s has a digest, and no image can be given one" % (index, text),
                step="validate",
                path="tags[%d]" % index,
            )
        if parsed.canonical() not in (*found, name):
            found.append(parsed.canonical())
    return found


def apply(task: Task, plan: Plan, name: str, before: Optional[ImageRecord], after: Optional[ImageRecord]) -> None:
    """Add to ``plan`` what makes ``tags`` true, and unless in check mode do it. ``plan`` itself has been applied.
    ``after`` is None where check mode does not know the image."""
    wanted = asked(task, name)
    if not wanted and not task.store.images.asked_tags(name):
        return
    with task.store.lock("image", name, shared=task.check_mode):
        more = Plan()
        known = task.store.images.asked_tags(name)
        _plan(task, more, wanted, known, before, after)
        plan.before["tags"] = _pointing(task, [*wanted, *known], before)
        plan.after["tags"] = sorted(wanted)
        if not task.check_mode:
            with task.store.transaction():
                more.apply()
                if set(wanted) != set(known):
                    task.store.images.ask_tags(name, wanted)
        plan.operations += more.operations


def _plan(
    task: Task,
    plan: Plan,
    wanted: list[str],
    known: list[str],
    before: Optional[ImageRecord],
    after: Optional[ImageRecord],
) -> None:
    images = task.store.images
    for tag in wanted:
        there = images.by_reference(tag)
        if after is not None and there is not None and there.id == after.id:
            continue
        why = "asked" if tag not in known else "drift" if before is not None and before == after else "the image"
        plan.add(_operation(task, tag, after, why, there))
    own = {record.id for record in (before, after) if record is not None}
    for tag in known:
        there = images.by_reference(tag)
        if tag not in wanted and there is not None and there.id in own:
            plan.add(untag(task, tag, there, "no longer asked"))


def _operation(task: Task, tag: str, image: Optional[ImageRecord], why: str, there: Optional[ImageRecord]) -> Operation:
    def execute() -> None:
        if image is not None:
            task.store.images.tag(tag, image.id)
            task.store.events.add("image", "tag", image.id, {"name": tag})

    detail = {"before": there.id if there else None, "after": image.id if image else None}
    return Operation("tag", "image", tag, execute, why=why, detail=detail)


def untag(task: Task, tag: str, image: ImageRecord, why: str) -> Operation:
    def execute() -> None:
        task.store.images.untag(tag)
        task.store.events.add("image", "untag", image.id, {"name": tag})

    return Operation("untag", "image", tag, execute, why=why)


def _pointing(task: Task, tags: list[str], image: Optional[ImageRecord]) -> list[str]:
    if image is None:
        return []
    return sorted(set(tags).intersection(task.store.images.references(image.id)))


def of_removed(task: Task, name: str, image: ImageRecord) -> list[str]:
    """References that go with ``name``: those its task asked for, as far as they name the same image."""
    return _pointing(task, task.store.images.asked_tags(name), image)
