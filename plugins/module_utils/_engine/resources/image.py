# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ``image`` module: present by pull, load or import, absent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Optional

from ..errors import InUse, UsageError
from ..reconcile.plan import Operation, Plan
from . import image_choice, image_tags
from .task import Task

if TYPE_CHECKING:
    from ..store.records import ImageRecord


def run(task: Task) -> dict[str, Any]:
    from ..images import reference

    params = task.params
    name = params["name"]
    if not image_choice.is_id(name):
        name = reference.parse(name).canonical()
    plan = Plan()
    before = image_choice.find(task, params["name"])
    plan.before = _shown(before)
    plan.after = dict(plan.before)
    result: dict[str, Any] = {}
    if params["state"] == "absent":
        with task.store.lock("image", name, shared=task.check_mode):
            _plan_absent(task, plan, name, before)
            if not task.check_mode:
                plan.apply()
                task.store.images.ask_tags(name, [])
        after = None if plan.changed else before
        plan.after = _shown(after)
    else:
        if image_choice.is_id(name):
            raise UsageError(
                "name: %s is an image ID, and only a reference can be pulled, loaded or imported" % name, path="name"
            )
        if params.get("verify") and params["source"] != "pull":
            raise UsageError(
                "verify: source=%s asks no registry, and signatures are kept there" % params["source"],
                step="validate",
                path="verify",
                hint="Compare the image ID of an archive that you trust, or pull the image.",
            )
        image_choice.trust_policy(task)
        image_tags.asked(task, name)  # what is wrong with them is told before anything is done
        after = _present(params["source"])(task, plan, name, before)
        plan.after = _shown(after) if after else {"present": True}
        image_tags.apply(task, plan, name, before, after)
    result = plan.result()
    result["image"] = inspect(task, after) if after else None
    return result


def _present(source: str) -> Callable[[Task, Plan, str, Optional[ImageRecord]], Optional[ImageRecord]]:
    if source in ("load", "controller"):
        from .image_load import present

        return present
    return _present_by_import if source == "import" else _present_by_pull


def _shown(record: Optional[ImageRecord]) -> dict[str, Any]:
    return {"present": True, "id": record.id, "digest": record.manifest_digest} if record else {"present": False}


def _present_by_pull(task: Task, plan: Plan, name: str, before: Optional[ImageRecord]) -> Optional[ImageRecord]:
    """``missing``: any image of that name will do. ``always``: ask the registry; pull when its digest differs."""
    if before is not None and task.params["pull"] == "missing" and not task.params.get("platform"):
        image_choice.verify_present(task, task.params["name"], before)
        return before
    answer = image_choice.check(task, name)
    if not answer.changed:
        return before
    made: list[ImageRecord] = []
    why = "missing" if before is None else "the registry has %s" % answer.digest
    plan.add(image_choice.pull_operation(task, name, why, made.append, answer.digest))
    if task.check_mode:
        return None
    plan.apply()
    task.store.events.add("image", "pull", made[0].id, {"name": name})
    if before is not None and before.id == made[0].id:
        # Another manifest of the same image (the index grew, say): what the reference leads to is the same.
        plan.operations.clear()
    return made[0]


def _present_by_import(task: Task, plan: Plan, name: str, before: Optional[ImageRecord]) -> Optional[ImageRecord]:
    """Import is content-addressed: the same tar with the same changes is the same image, and no change."""
    from ..images import importer, reference

    params = task.params
    if not params.get("path"):
        raise UsageError("path is required for source=import", step="validate", path="path")
    parsed = reference.parse(params["name"])
    changes = params.get("changes") or []
    expected = importer.image_id(params["path"], changes=changes, platform=params.get("platform"), store=task.store)
    if before is not None and before.id == expected:
        return before
    made: list[ImageRecord] = []
    plan.add(
        Operation(
            "import",
            "image",
            name,
            lambda: made.append(
                importer.import_tar(
                    task.store,
                    task.kernel,
                    params["path"],
                    ref=parsed,
                    changes=changes,
                    platform=params.get("platform"),
                )
            ),
            why="missing" if before is None else "the tar or the changes are different",
        )
    )
    if task.check_mode:
        return None
    plan.apply()
    task.store.events.add("image", "import", made[0].id, {"name": name})
    return made[0]


def _plan_absent(task: Task, plan: Plan, name: str, record: Optional[ImageRecord]) -> None:
    """Docker's rules: a name is untagged; the image goes with its last name, unless a container needs it."""
    if record is None:
        return
    by_id = image_choice.is_id(name)
    along = [] if by_id else image_tags.of_removed(task, name, record)
    names = [one for one in task.store.images.references(record.id) if one not in along]
    users = task.store.images.users(record.id)
    short = record.id.partition(":")[2][:12]
    last = by_id or names in ([], [name])
    if last and users:
        raise InUse(
            "conflict: unable to remove image %s - container %s is using its referenced image %s"
            % (task.params["name"], users[0].name, short),
            step="remove_image",
            subject="image %s" % task.params["name"],
            hint="remove the container first",
            details={"containers": [user.name for user in users]},
        )
    if by_id and len(names) > 1 and not task.params.get("force"):
        raise InUse(
            "conflict: unable to delete %s (must be forced) - image is referenced in multiple repositories" % short,
            step="remove_image",
            subject="image %s" % short,
            hint="use force: true, or remove the names one by one: %s" % ", ".join(names),
        )

    for tag in along:
        plan.add(image_tags.untag(task, tag, record, "not wanted"))

    def execute() -> None:
        if last:
            task.store.images.remove(record.id)
            task.runtime.forget_layers([task.paths.layer(layer.chain_id) for layer in record.layers])
            task.store.collect()
            task.store.events.add("image", "delete", record.id, {"name": name})
        else:
            task.store.images.untag(name)
            task.store.images.drop_repo_digest(name, record.id)  # "repository@digest" is a name, too
            task.store.events.add("image", "untag", record.id, {"name": name})

    plan.add(Operation("remove" if last else "untag", "image", name, execute, why="not wanted"))


def inspect(task: Task, record: ImageRecord) -> dict[str, Any]:
    from ..images import inspect as images

    shown: dict[str, Any] = images.inspect(
        record, task.store.images.references(record.id), task.store.images.repo_digests(record.id)
    )
    return shown
