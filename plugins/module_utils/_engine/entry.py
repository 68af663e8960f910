# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The door from Ansible modules into the engine: one noun, its parameters, one result."""

from __future__ import annotations

import gc
from importlib import import_module
from typing import Any

from .errors import UsageError

# noun → engine module below resources/ whose ``run(task)`` returns the module's result
_RESOURCES = {
    "container": "container",
    "container_commit": "container_commit",
    "container_copy": "container_copy",
    "container_exec": "container_exec",
    "container_export": "container_export",
    "container_info": "container_info",
    "container_kill": "container_kill",
    "container_logs": "container_logs",
    "container_pause": "container_pause",
    "container_rename": "container_rename",
    "container_restart": "container_restart",
    "container_wait": "container_wait",
    "containers": "containers",
    "events_info": "events",
    "host_info": "host",
    "image": "image",
    "image_export": "image_export",
    "image_info": "image_info",
    "image_load": "image_load_all",
    "image_push": "image_push",
    "network": "network",
    "network_info": "network_info",
    "prune": "prune",
    "registry": "registry",
    "registry_info": "registry_info",
    "volume": "volume",
    "volume_info": "volume_info",
}


_COLLECT_AFTER = 50_000  # objects, some 5 MB if all of them were garbage


def _let_the_collector_rest() -> None:
    """What a task imports and reads stays to its end. Python would look for cycles in all of it after every 700th new
    object, an eighth of what a task that changes nothing costs."""
    import gc

    first, *others = gc.get_threshold()
    if 0 < first < _COLLECT_AFTER:
        gc.set_threshold(_COLLECT_AFTER, *others)


def dispatch(
    noun: str, params: dict[str, Any], check_mode: bool = False, diff: bool = False, progress: str = ""
) -> dict[str, Any]:
    """Run one task of ``noun`` and return what the module hands to ``exit_json``. ``progress``: see ``Task``.

    Raises ``WharfError`` for everything foreseeable.
    """
    _spare_the_collector()
    name = _RESOURCES.get(noun)
    if name is None:
        raise UsageError("This engine has no resource called %r" % noun, step="dispatch")
    from .resources.task import Task

    _let_the_collector_rest()
    root = __name__.rpartition(".")[0]
    with Task(params, check_mode=check_mode, progress=progress, diff=diff) as task:
        result: dict[str, Any] = import_module("%s.resources.%s" % (root, name)).run(task)
    if task.warnings:
        result["warnings"] = result.get("warnings", []) + task.warnings
    if not diff:
        result.pop("diff", None)
    return result


def _spare_the_collector() -> None:
    """What Ansible brought along stays, and is not gone through again and again (a tenth of a short task). Once: what
    is garbage at a later task of the same interpreter must be found."""
    if not gc.get_freeze_count():
        gc.freeze()
        gc.set_threshold(10_000)
