# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ``image_export`` module: images of the target into an archive or OCI layout there."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ..errors import NotFound, UsageError
from ..reconcile.plan import Operation, Plan
from . import image_choice
from .image import inspect
from .task import Task

if TYPE_CHECKING:
    from ..images.export import Selected


def run(task: Task) -> dict[str, Any]:
    from ..images import exportfile

    path, form = task.params["path"], task.params["format"]
    exportfile.check_target(path, form)
    selection = _select(task)
    plan = Plan()
    plan.before = {"path": path, "present": os.path.lexists(path)}
    plan.after = {"path": path, "present": True, "format": form, "images": _shown(selection)}
    records = [one.record for one in selection]
    for record in records:  # nothing is collected while it is written
        for layer in record.layers:
            task.store.layers.pin(layer.chain_id)
            if layer.blob_digest:
                task.store.blobs.pin(layer.blob_digest)
    (_layout if form == "oci-layout" else _archive)(task, plan, path, selection)
    if not plan.changed:
        plan.before = plan.after
    elif not task.check_mode:
        plan.apply()
        for record in records:
            task.store.events.add("image", "save", record.id, {"path": path})
    result = plan.result()
    result["images"] = [inspect(task, record) for record in records]
    result["path"] = path
    return result


def _shown(selection: list[Selected]) -> list[dict[str, Any]]:
    return [{"id": one.record.id, "names": [name.familiar() for name in one.names]} for one in selection]


def _select(task: Task) -> list[Selected]:
    """In a canonical order, each image once with all names it was asked for by."""
    from ..images import reference
    from ..images.export import Selected

    found: dict[str, Selected] = {}
    for text in task.params["names"]:
        record = image_choice.find(task, text)
        if record is None:
            raise NotFound("No such image: %s" % text, step="resolve_image", subject="image %s" % text, path="names")
        one = found.setdefault(record.id, Selected(record, ()))
        name = None if image_choice.is_id(text) else reference.parse(text)
        if name is not None and name.tag and not name.digest and task.store.images.by_reference(name.canonical()):
            names = sorted({*one.names, name}, key=str)
            found[record.id] = one._replace(names=tuple(names))
    if not found:
        raise UsageError("names: there is nothing to export", step="validate", path="names")
    return sorted(found.values(), key=lambda one: ([str(name) for name in one.names], one.record.id))


def _archive(task: Task, plan: Plan, path: str, selection: list[Selected]) -> None:
    from ..images import export, exportfile, seen

    form = task.params["format"]
    key = export.fingerprint(selection, form)
    if seen.exported(task.paths, path) == key:
        return
    prepared = export.prepare(task.store, selection, form)
    exists = os.path.lexists(path)
    if exists:
        info = exportfile.stat_of(path)
        if exportfile.same_archive(prepared, path):
            if not task.check_mode and seen.stamp(exportfile.stat_of(path)) == seen.stamp(info):
                seen.remember_export(task.paths, path, info, key)
            return
    why = "the file holds something else" if exists else "missing"
    plan.add(Operation("export", "image", path, lambda: exportfile.write_archive(prepared, path), why=why))


def _layout(task: Task, plan: Plan, path: str, selection: list[Selected]) -> None:
    from ..images import export, exportfile

    prepared = export.prepare(task.store, selection, "oci-layout")
    index, same = exportfile.merged_index(prepared, path)
    if same and exportfile.same_blobs(prepared, path):
        return
    why = (
        "a blob is missing or damaged"
        if same
        else "the layout names something else"
        if plan.before["present"]
        else "missing"
    )
    plan.add(Operation("export", "image", path, lambda: exportfile.write_layout(prepared, path, index), why=why))
