# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which image a container task means, and whether it must be pulled first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional

from ..errors import NotFound
from ..reconcile.plan import Operation, Plan
from .task import Task

if TYPE_CHECKING:
    from ..images.pull import PullCheck
    from ..registry.transport import Transport
    from ..store.records import ImageRecord


class ImageChoice:
    """``record`` is the image now in the store, or None until the planned pull has run.

    ``new_id`` is the image ID after the plan, as far as it is known: the registry's answer in check mode.
    """

    __slots__ = ("new_id", "record", "reference")

    def __init__(self, reference: str, record: Optional[ImageRecord]) -> None:
        self.reference = reference
        self.record = record
        self.new_id = record.id if record else None


def choose(task: Task, plan: Plan) -> ImageChoice:
    """Resolve ``image`` by the pull policy; adds the pull to the plan when one is needed.

    Raises ``NotFound`` under ``pull: never``, ``UsageError`` for a malformed reference.
    """
    text, policy = task.params["image"], task.params.get("pull") or "missing"
    record = find(task, text)
    choice = ImageChoice(text, record)
    if record is not None and (policy != "always" or is_id(text)):
        return choice
    if policy == "never" or is_id(text):
        raise NotFound(
            "No such image: %s" % text, step="resolve_image", subject="image %s" % text, hint="pull or import it first"
        )
    answer = check(task, text)
    if record is not None and not answer.changed:
        return choice
    choice.new_id = answer.image_id

    def execute() -> None:
        choice.record = pull(task, text)
        choice.new_id = choice.record.id

    plan.add(
        Operation("pull", "image", text, execute, why="missing" if record is None else "the registry has a newer one")
    )
    return choice


def is_id(text: str) -> bool:
    """``sha256:<hex>`` names an image by its ID; anything else is a reference or an ID prefix."""
    return text.startswith("sha256:")


def find(task: Task, text: str) -> Optional[ImageRecord]:
    """By reference in Docker's normal form, by ID, or by a unique prefix of an ID."""
    from ..images import reference

    if is_id(text):
        return task.store.images.get(text) or task.store.images.find(text)
    parsed = reference.parse(text)
    if parsed.digest:  # also of an image that was pulled by tag: its digest is known
        return task.store.images.find(parsed.canonical())
    return task.store.images.by_reference(parsed.canonical()) or (
        task.store.images.find(text) if _maybe_prefix(text) else None
    )


def _maybe_prefix(text: str) -> bool:
    return 4 <= len(text) <= 64 and not set(text) - set("0123456789abcdef")


def transport(task: Task) -> Transport:
    from functools import partial

    from ..registry import credentials
    from ..registry.transport import Transport

    params = task.params
    return Transport(
        validate_certs=params.get("validate_certs", True) is not False,
        ca_path=params.get("ca_path"),
        timeout=params.get("timeout") or 60,
        credentials=partial(credentials.lookup, task.paths.auth),
    )


def check(task: Task, text: str) -> PullCheck:
    """Ask the registry, without pulling, what a pull would bring."""
    from ..images import pull as pulling
    from ..images import reference

    return pulling.check(task.store, transport(task), reference.parse(text), platform=task.params.get("platform"))


def pull(task: Task, text: str) -> ImageRecord:
    """Pull in a process of its own: downloads run in threads, and this process may fork later."""
    from ..images import pull as pulling
    from ..images import reference
    from ..process import isolated
    from ..store.state import Store

    def work() -> Any:
        with Store.open(task.paths) as store:
            record = pulling.pull(
                store,
                task.kernel,
                reference.parse(text),
                platform=task.params.get("platform"),
                transport=transport(task),
            )
            return record.id

    record = task.store.images.get(isolated(work))
    if record is None:
        raise NotFound("The image %s vanished right after it was pulled" % text, step="pull", subject="image %s" % text)
    return record
