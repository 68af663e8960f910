# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ``image_load`` module: all images of an archive or OCI layout, under the names they have there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import Conflict, NotFound
from ..reconcile.plan import Operation, Plan
from .image import inspect
from .task import Task

if TYPE_CHECKING:
    from ..images.archive import Source
    from ..images.candidates import Candidate


def run(task: Task) -> dict[str, Any]:
    from ..images import archive, candidates, resolve

    params = task.params
    wanted = _wanted(params.get("names"))
    source = archive.open_source(params["path"], task.store.paths.tmp)
    try:
        found = candidates.survey(source, resolve.wanted_platform(params.get("platform"))[0])
        chosen = _chosen(source, found, wanted)
        plan = Plan()
        plan.before = {name: _now(task, name) for _one, names in chosen for name in names}
        plan.after = {name: one.id for one, names in chosen for name in names}
        for one, names in chosen:
            _plan(task, plan, source, one, names)
        if not task.check_mode:
            plan.apply()
    finally:
        source.close()
    records = (task.store.images.get(one.id) for one, _names in chosen)
    return {
        **plan.result(),
        "image_names": _familiar(plan.after),
        "images": [inspect(task, record) for record in records if record is not None],
    }


def _wanted(names: Any) -> Any:
    """Canonical names, in order; None for all. What is malformed is told before the file is opened."""
    from ..images import reference

    return None if names is None else list(dict.fromkeys(reference.parse(name).canonical() for name in names))


def _familiar(names: Any) -> list[str]:
    from ..images import reference

    return [reference.parse(name).familiar() for name in names]


def _now(task: Task, name: str) -> Any:
    record = task.store.images.by_reference(name)
    return record.id if record else None


def _chosen(source: Source, found: list[Candidate], wanted: Any) -> list[tuple[Candidate, list[str]]]:
    """Each image that is to come in, with its names. One without names comes in without one, as with Docker."""
    owners: dict[str, Candidate] = {}
    for one in found:
        for name in one.names:
            if owners.setdefault(name, one).id != one.id:
                raise Conflict("%s calls two images %s" % (source.path, _familiar([name])[0]), step="load", path="path")
    if wanted is None:
        return [(one, list(one.names)) for one in found]
    missing = [name for name in wanted if name not in owners]
    if missing:
        raise NotFound(
            "%s holds no image called %s" % (source.path, ", ".join(_familiar(missing))),
            step="load",
            path="names",
            hint="It holds: %s." % ("; ".join(sorted(one.shown() for one in found))[:1000] or "nothing"),
            details={"available": _familiar(sorted(owners))},
        )
    by_id: dict[str, tuple[Candidate, list[str]]] = {}
    for name in wanted:
        by_id.setdefault(owners[name].id, (owners[name], []))[1].append(name)
    return list(by_id.values())


def _plan(task: Task, plan: Plan, source: Source, one: Candidate, names: list[str]) -> None:
    """The image, and then each name that means something else by now; each says what it meant."""
    from ..images import load

    found = load.Found(source, one)
    here = task.store.images.get(one.id) is not None
    if not here:
        detail: dict[str, Any] = {"layers": len(one.parts), "layers_missing": len(load.missing(task.store, found))}

        def bring() -> None:
            load.load(task.store, task.kernel, found, None)
            task.store.events.add("image", "load", one.id, {"name": names[0] if names else one.id})

        plan.add(Operation("load", "image", one.id, bring, why="missing", detail=detail))
    for name in names:
        now = _now(task, name)
        if now == one.id:
            continue
        detail = {"image": one.id, **({"replaces": now} if now else {})}
        why = "%s names another image now, %s" % (_familiar([name])[0], now[:19]) if now else "missing"
        plan.add(Operation("tag", "image", name, _tag(task, name, one.id), why=why, detail=detail))


def _tag(task: Task, name: str, image_id: str) -> Any:
    def execute() -> None:
        with task.store.lock("image", name):
            task.store.images.tag(name, image_id)

    return execute
