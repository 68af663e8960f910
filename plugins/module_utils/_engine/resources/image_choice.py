# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which image a container task means, and whether it must be pulled first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Optional

from ..errors import NotFound, UsageError
from ..reconcile.plan import Operation, Plan
from .task import Task

if TYPE_CHECKING:
    from ..images.progress import Hook
    from ..images.pull import PullCheck
    from ..images.trust.policy import Policy
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
    if record is not None and not _suits(record, task.params.get("platform")):
        record = None
    choice = ImageChoice(text, record)
    if record is not None and (policy != "always" or is_id(text)):
        verify_present(task, text, record)
        return choice
    if policy == "never" or is_id(text):
        raise NotFound(
            "No such image: %s" % text, step="resolve_image", subject="image %s" % text, hint="pull or import it first"
        )
    answer = check(task, text)
    if record is not None and not answer.changed:
        return choice
    choice.new_id = answer.image_id

    def took(image: ImageRecord) -> None:
        choice.record = image
        choice.new_id = image.id

    why = "missing" if record is None else "the registry has a newer one"
    plan.add(pull_operation(task, text, why, took, answer.digest))
    return choice


def _suits(record: ImageRecord, platform: Optional[str]) -> bool:
    """Whether an image in the store is for the platform that was asked for, if any."""
    if not platform:
        return True
    from ..images import platform as platforms

    config = record.config
    have = platforms.normalise(
        str(config.get("os") or "linux"), str(config.get("architecture") or ""), str(config.get("variant") or "")
    )
    wanted = platforms.parse(platform)
    return have[:2] == wanted[:2] and (not wanted.variant or have.variant == wanted.variant)


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

    from ..registry import credentials, mirrors
    from ..registry.transport import Transport

    params = task.params
    return Transport(
        validate_certs=params.get("validate_certs", True) is not False,
        ca_path=params.get("ca_path"),
        timeout=params.get("timeout") or 60,
        credentials=partial(credentials.lookup, task.paths.auth),
        mirrors=partial(mirrors.locations, task.paths.mirrors),
    )


def check(task: Task, text: str) -> PullCheck:
    """Ask the registry, without pulling, what a pull would bring."""
    from ..images import pull as pulling
    from ..images import reference

    return pulling.check(
        task.store,
        transport(task),
        reference.parse(text),
        platform=task.params.get("platform"),
        policy=trust_policy(task),
    )


def trust_policy(task: Task) -> Optional[Policy]:
    """What ``verify`` asks for, read once. Raises ``UsageError``, ``NotFound`` when its key is no use."""
    option = task.params.get("verify")
    if option and task.trust is None:
        from ..images.trust import policy

        task.trust = policy.of(option, task.paths, remember=task.remember)
    return task.trust


def verify_present(task: Task, text: str, record: ImageRecord) -> None:
    """``verify`` holds for an image that is here, too: otherwise it would depend on who pulled it."""
    wanted = trust_policy(task)
    if wanted is None:
        return
    from ..images import pull as pulling
    from ..images import reference

    if is_id(text):
        raise UsageError(
            "verify: %s is an image ID; what is signed is a reference" % text, step="validate", path="verify"
        )
    pulling.require_present(task.store, transport(task), reference.parse(text), record, wanted)


def pull_operation(
    task: Task, text: str, why: str, took: Callable[[ImageRecord], object], digest: Optional[str] = None
) -> Operation:
    """The pull of what ``check`` found, as a step of a plan. ``took`` gets the image; the step's detail tells what it
    took: ``digest``, ``received`` (bytes), ``layers_reused``, ``seconds`` per phase, and with ``verify`` what it was
    ``verified`` by."""
    detail: dict[str, Any] = {}

    def execute() -> None:
        record, report = pull(task, text, digest)
        detail.update(report)
        took(record)

    return Operation("pull", "image", text, execute, why=why, detail=detail)


def pull(task: Task, text: str, digest: Optional[str] = None) -> tuple[ImageRecord, dict[str, Any]]:
    """Pull in a process of its own: downloads run in threads, and this process may fork later."""
    from ..images import pull as pulling
    from ..images import reference
    from ..process import isolated
    from ..store.state import Store

    policy = trust_policy(task)

    def work() -> Any:
        with Store.open(task.paths) as store, telling(task, "pulling") as hook:
            report = pulling.pull_report(
                store,
                task.kernel,
                reference.parse(text),
                platform=task.params.get("platform"),
                transport=transport(task),
                progress=hook,
                policy=policy,
                digest=digest,
            )
        told: dict[str, Any] = {
            "digest": report.digest,
            "received": report.received,
            "layers_reused": report.layers_reused,
        }
        if policy is not None and policy.verified is not None:
            told["verified"] = policy.verified
        return report.image.id, {**told, "seconds": report.timings}, report.warnings

    image_id, told_by_pull, warnings = isolated(work)
    for sentence in warnings:
        task.warn(sentence)
    record = task.store.images.get(image_id)
    if record is None:
        raise NotFound("The image %s vanished right after it was pulled" % text, step="pull", subject="image %s" % text)
    return record, told_by_pull


@contextmanager
def telling(task: Task, what: str) -> Iterator[Optional[Hook]]:
    """The hook for a transfer's progress, if anybody listens."""
    if not task.progress:
        yield None
        return
    from .progress import ProgressFile

    file = ProgressFile(task.paths.run, task.progress, what)
    try:
        yield file.hook
    finally:
        file.close()
