# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ``containers`` module: many containers in one run.

One look at everything, one plan; what needs work is done by a few workers at once (each item is the ``container``
module's own work), in the order of ``depends_on``. One that fails takes along
those that wait for it, and nobody else; the task fails when all the others are as they should be.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Optional

from ..errors import NotFound, TimedOut, UnhealthyError, UsageError, WharfError
from ..reconcile import values
from . import container, container_inspect
from .container_actual import is_recovering, is_running, state
from .containers_order import Graph
from .task import Task

if TYPE_CHECKING:
    from .image_choice import ImageChoice
    from .workers import Pool

_LOOK = 0.02  # seconds between two looks at health


class Item:
    """One entry: its own task, its result so far, and where it stands."""

    __slots__ = (
        "actions",
        "after",
        "before",
        "differences",
        "error",
        "index",
        "name",
        "since",
        "stage",
        "status",
        "task",
        "waits",
        "warnings",
    )

    def __init__(self, index: int, name: str, task: Task) -> None:
        self.index, self.name, self.task = index, name, task
        self.stage = "planned"  # planned → working → settling → done; failed; skipped: what it depends on has failed
        self.actions: list[dict[str, Any]] = []
        self.status = ""  # in which the plan has found it
        self.before: dict[str, Any] = {}
        self.after: dict[str, Any] = {}
        self.differences: list[dict[str, Any]] = []
        self.warnings: list[str] = []
        self.error: Optional[WharfError] = None
        self.since = 0.0
        self.waits = 0.0  # since when it waits for nothing but the health of others


def run(task: Task) -> dict[str, Any]:
    task.network  # noqa: B018  one for all the looks of this run
    items = _items(task)
    graph = Graph({item.name: item.task.params for item in items})
    for name in graph.outside:
        if task.store.containers.get(name) is None:
            raise NotFound("depends_on: No such container: %s" % name, step="validate", path="containers[].depends_on")
    choices = _images(task, items)
    promised = frozenset(item.name for item in items if item.task.params["state"] != "absent")
    with task.store.looking(), task.network.looking():
        todo = [item for item in items if _plan(item, choices, promised)]
        if not todo:
            return _result(task, items)  # inside: nothing is looked up anew
    if not task.check_mode:
        _apply(task, items, todo, graph)
    return _result(task, items)


def _items(task: Task) -> list[Item]:
    """The entries, each with what they have in common. Nothing of the host is looked at."""
    common = {key: value for key, value in task.params.items() if key != "containers"}
    items: list[Item] = []
    seen: set[str] = set()
    for index, entry in enumerate(task.params["containers"]):
        name = values.object_name("containers[%d].name" % index, entry["name"], "container name")
        if name in seen:
            raise UsageError("containers[%d].name: %s is given twice" % (index, name), path="containers[%d]" % index)
        seen.add(name)
        part = task.part({**common, **entry, "detach": True}, check_mode=True, whole=True)
        part.diff = False
        items.append(Item(index, name, part))
    return items


def _images(task: Task, items: list[Item]) -> dict[tuple[str, ...], ImageChoice]:
    """Every image once: pulls that are needed happen here, several at a time. In check mode the registry is asked."""
    from ..reconcile.plan import Plan
    from . import image_choice

    wanted: dict[tuple[str, ...], Item] = {}
    for item in items:
        if item.task.params.get("image") and item.task.params["state"] != "absent":
            wanted.setdefault(_key(item), item)
    choices: dict[tuple[str, ...], ImageChoice] = {}
    pulls: list[Item] = []
    for key, item in wanted.items():
        plan = Plan()
        with _telling(item):
            choices[key] = image_choice.choose(item.task, plan)
        if plan.operations:
            item.actions += [operation.describe() for operation in plan.operations]
            pulls.append(item)
    if pulls and not task.check_mode:
        _pull(pulls)
        for item in pulls:
            choices[_key(item)] = image_choice.choose(item.task.part({"pull": "missing"}), Plan())
    return choices


def _key(item: Item) -> tuple[str, ...]:
    """Two entries that want one image signed by different keys both get their wish."""
    params = item.task.params
    signed = params.get("verify") or {}
    return (
        params["image"],
        params.get("platform") or "",
        signed.get("key") or "",
        signed.get("identity") or "",
    )


def _pull(items: list[Item]) -> None:
    from .workers import Pool, Work

    def make() -> Work:
        from . import image_choice

        def pull(job: int) -> dict[str, Any]:
            with Task(items[job].task.params) as alone:
                _record, detail = image_choice.pull(alone, alone.params["image"])
                return {"detail": detail, "warnings": alone.warnings}

        return pull

    with Pool(min(len(items), 4), make) as pool:
        for job in range(len(items)):
            while not pool.has_room:
                _pulled(items, pool)
            pool.submit(job)
        while pool.busy:
            _pulled(items, pool)


def _pulled(items: list[Item], pool: Pool) -> None:
    for job, result, error in pool.results(1.0):
        if error is not None:
            raise _named(items[job], error)
        items[job].actions[-1]["detail"] = result["detail"]
        items[job].warnings += result["warnings"]


def _plan(item: Item, choices: dict[tuple[str, ...], ImageChoice], promised: frozenset[str]) -> bool:
    """Whether there is anything to do, by the container module's own plan, made as in check mode."""
    item.task.promised = promised
    with _telling(item):
        plan = container.preview(
            item.task, item.name, choices.get(_key(item)) if item.task.params.get("image") else None
        )
    item.before, item.after, item.differences = plan.before, plan.after, plan.differences
    item.status = plan.status
    item.actions += plan.describe()
    if plan.operations:
        return True
    record = item.task.store.containers.by_name(item.name)
    if item.task.params["state"] == "healthy" and record is not None and not _is_well(state(item.task, record)):
        item.stage = "settling"
        return True
    item.stage = "done"
    return False


def _is_well(facts: dict[str, Any]) -> bool:
    return is_running(facts) and (facts.get("health") or {"status": "healthy"})["status"] == "healthy"


# -- doing it ---------------------------------------------------------------------------------------------------


def _apply(task: Task, items: list[Item], todo: list[Item], graph: Graph) -> None:
    from .workers import Pool, Work

    by_name = {item.name: item for item in items}

    def make() -> Work:
        shared = Task(task.params)

        def work(job: int) -> dict[str, Any]:
            params = dict(items[job].task.params)
            if params["state"] == "healthy":
                params["state"] = "started"  # health is waited for outside: a waiting worker works nothing
            if params["pull"] == "always":
                params["pull"] = "missing"  # that was done
            part = shared.part(params)
            part.brief = True
            result = container.run(part)
            return {"actions": result["actions"], "diff": result["diff"], "warnings": part.warnings}

        return work

    size = min(len(todo), max(2, min(16, 2 * (os.cpu_count() or 1))))
    begin = time.monotonic()
    for item in todo:
        item.since = begin
    with Pool(size, make) as pool:
        while any(item.stage in ("planned", "working", "settling") for item in todo):
            _dispatch(task, todo, by_name, graph, pool)
            for job, result, error in pool.results(_LOOK if any(i.stage != "working" for i in todo) else 1.0):
                _take(items[job], result, error)
            for item in todo:
                if item.stage == "settling" and item.error is None:
                    _settle(task, item)
    failed = [item for item in todo if item.error is not None]
    if failed:
        raise _failure(task, items, failed)


def _failure(task: Task, items: list[Item], failed: list[Item]) -> WharfError:
    """The first one's, with a word about the others; what became of each entry in ``details.containers``."""
    first = failed[0]
    error = _named(first, first.error) if first.error is not None else WharfError("no error", step="containers")
    others = ", ".join(item.name for item in failed[1:])
    left = ", ".join(item.name for item in items if item.stage == "skipped")
    error.msg += "%s%s" % (
        "; also failed: %s" % others if others else "",
        "; left alone, because they depend on it: %s" % left if left else "",
    )
    error.args = (error.msg,)
    error.details["containers"] = [_shown(task, item) for item in items]
    return error


def _dispatch(task: Task, todo: list[Item], by_name: dict[str, Item], graph: Graph, pool: Pool) -> None:
    for item in todo:
        if item.stage != "planned":
            continue
        before = [(by_name.get(name), name, condition) for name, condition in graph.before(item.name)]
        if any(other is not None and other.stage in ("failed", "skipped") for other, _name, _condition in before):
            item.stage = "skipped"
            continue
        if not pool.has_room:
            continue
        try:
            ready = all(_holds(task, *one) for one in before) or _is_late(item, before)
        except WharfError as error:
            item.error, item.stage = error, "failed"
            continue
        if ready:
            item.stage = "working"
            pool.submit(item.index)


def _is_late(item: Item, before: list[tuple[Optional[Item], str, str]]) -> bool:
    """Raises ``TimedOut`` when all that it waits for is there but not healthy, for longer than the entry allows; False
    until then."""
    limit = float(item.task.params.get("healthy_wait_timeout") or 0)
    sick = [name for _other, name, condition in before if condition == "healthy"]
    if not sick or any(other is not None and other.stage != "done" for other, _name, _condition in before):
        item.waits = 0.0
    elif not item.waits:
        item.waits = time.monotonic()
    elif limit and time.monotonic() - item.waits > limit:
        raise TimedOut(
            "depends_on: %s was not healthy within %g seconds" % (", ".join(sick), limit),
            step="depends_on",
            subject="container %s" % item.name,
        )
    return False


def _take(item: Item, result: dict[str, Any], error: Optional[WharfError]) -> None:
    if error is not None:
        item.error, item.stage = error, "failed"
        return
    pulls = [action for action in item.actions if action["how"] == "pull"]
    item.actions = pulls + result["actions"]
    item.before, item.after = result["diff"]["before"], result["diff"]["after"]
    item.warnings += result["warnings"]
    item.stage = "settling" if item.task.params["state"] == "healthy" else "done"
    item.since = time.monotonic()


def _holds(task: Task, item: Optional[Item], name: str, condition: str) -> bool:
    """Whether a dependency is as far as its dependent wants. Raises when it will never be."""
    if item is not None and item.stage != "done":
        if item.stage != "settling":
            return False
        if condition == "healthy":
            return False  # it says itself when, or that it never will
    if condition == "ended":  # its dependent is gone
        return True
    record = task.store.containers.get(name)
    if record is None:
        return False
    facts = state(task, record)
    if condition == "completed":
        if is_running(facts) or facts["status"] == "created":
            return False
        if facts["exit_code"]:
            raise _never(name, "exited with code %d" % facts["exit_code"], facts)
        return True
    if is_recovering(facts):
        return False
    if not is_running(facts):
        raise _never(name, "does not run", facts)
    health = (facts.get("health") or {}).get("status")
    if condition == "healthy" and health == "unhealthy":
        raise _never(name, "is unhealthy", facts)
    return condition != "healthy" or health in (None, "healthy")


def _never(name: str, what: str, facts: dict[str, Any]) -> UnhealthyError:
    return UnhealthyError(
        "depends_on: container %s %s" % (name, what),
        step="depends_on",
        subject="container %s" % name,
        details={"exit_code": facts.get("exit_code"), "health": facts.get("health")},
    )


def _settle(task: Task, item: Item) -> None:
    """One look at the health of a container that is to be healthy; fails as soon as it never will be."""
    from . import container_run

    record = task.store.containers.by_name(item.name)
    limit = float(item.task.params.get("healthy_wait_timeout") or 0)
    try:
        if record is not None and container_run.is_well(task, record):
            item.stage = "done"
        elif limit and time.monotonic() - item.since > limit:
            raise TimedOut(
                "Container %s was not healthy within %g seconds" % (item.name, limit),
                step="wait_healthy",
                subject="container %s" % item.name,
            )
    except WharfError as error:
        item.error, item.stage = error, "failed"


# -- telling ----------------------------------------------------------------------------------------------------


class _telling:
    """An error inside says which entry it is about."""

    def __init__(self, item: Item) -> None:
        self._item = item

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: Optional[BaseException], _trace: object) -> None:
        if isinstance(error, WharfError):
            _named(self._item, error)


def _named(item: Item, error: WharfError) -> WharfError:
    where = "containers[%d]" % item.index
    error.msg = "%s (%s): %s" % (where, item.name, error.msg)
    error.args = (error.msg,)
    error.subject = error.subject or "container %s" % item.name
    error.path = "%s.%s" % (where, error.path) if error.path and not error.path.startswith("/") else error.path
    return error


def _shown(task: Task, item: Item) -> dict[str, Any]:
    done = item.stage == "done"
    out: dict[str, Any] = {"name": item.name, "changed": done and bool(item.actions), "actions": item.actions}
    record = task.store.containers.by_name(item.name)
    out["id"] = record.id if record else None
    if done and record and not item.actions and item.status:  # looked at for the plan, which found nothing to do
        out["status"] = item.status
    else:
        out["status"] = state(task, record)["status"] if record else "absent"
    if task.params.get("inspect"):
        out["container"] = container_inspect.inspect(task, record) if record else None
    if item.differences:
        out["differences"] = item.differences
    if item.error is not None:
        out["failed"], out["msg"] = True, item.error.msg
    elif not done:
        out["skipped"] = True
    return out


def _result(task: Task, items: list[Item]) -> dict[str, Any]:
    if task.check_mode:
        for item in items:
            item.stage = "done"
    for item in items:
        for sentence in [*item.task.warnings, *item.warnings]:
            task.warn("%s: %s" % (item.name, sentence))
    changed = [item for item in items if item.actions]
    return {
        "changed": bool(changed),
        "containers": [_shown(task, item) for item in items],
        "actions": [action for item in items for action in item.actions],
        "diff": {
            "before": {item.name: item.before for item in changed},
            "after": {item.name: item.after for item in changed},
        },
    }
