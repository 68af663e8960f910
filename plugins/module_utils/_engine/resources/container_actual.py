# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the kernel really has of a container: the third side of the comparison."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from .container_make import cgroup_path
from .task import Task

if TYPE_CHECKING:
    from ..store.records import ContainerRecord

LIMITS = (
    "memory", "memory_swap", "memory_reservation", "cpus", "cpu_shares", "cpuset_cpus", "cpuset_mems", "pids_limit",
)  # fmt: skip


def state(task: Task, record: ContainerRecord) -> dict[str, Any]:
    """The monitor's facts (``status``, ``pid``, ``exit_code`` ...), believed as far as the kernel confirms them."""
    from ..runtime.state import read_state

    return read_state(task.paths, record.id)


def is_running(facts: dict[str, Any]) -> bool:
    return facts["status"] in ("running", "paused", "restarting")


def observed(task: Task, record: ContainerRecord, facts: dict[str, Any]) -> dict[str, Any]:
    """Limits of a running container as its cgroup files have them. {} for one that does not run.

    Only what was asked for is compared (plus what somebody set by hand): an option nobody asked for reads as the
    kernel's default, which is reported as None.
    """
    if facts["status"] not in ("running", "paused"):
        return {}
    from ..kernel.cgroups import Cgroup, Layout

    group = Cgroup(Layout.detect(), cgroup_path(task, record.id))
    if not group.exists():
        return {}
    has = group.read()
    return {name: _comparable(name, has.get(name), record.spec) for name in LIMITS if name in has}


def _comparable(name: str, value: Any, spec: dict[str, Any]) -> Any:
    """The kernel rounds: a page for memory, a microsecond of quota for cpus. What rounds to the wish is the wish."""
    want = spec.get(name)
    if value is None or want is None:
        # memory_swap follows memory when it was not asked for (Docker: twice the memory)
        return None if want is None and name in ("memory_swap", "cpuset_cpus", "cpuset_mems") else value
    if name in ("memory", "memory_swap", "memory_reservation"):
        page = os.sysconf("SC_PAGE_SIZE")
        return want if want != -1 and value // page == want // page else value
    if name == "cpus":
        return want if abs(value - want) < 0.0001 else value
    return value
