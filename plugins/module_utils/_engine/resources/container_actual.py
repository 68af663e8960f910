# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the kernel really has of a container: the third side of the comparison."""

from __future__ import annotations

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
    from ..runtime import statefile

    path = task.paths.container(record.id) + "/state.json"
    return statefile.present(statefile.read(path) or statefile.blank(record.id))


def is_running(facts: dict[str, Any]) -> bool:
    return facts["status"] in ("running", "paused", "restarting")


def observed(task: Task, record: ContainerRecord, facts: dict[str, Any]) -> dict[str, Any]:
    """Limits of a running container as its cgroup files have them. {} for one that does not run.

    What the kernel reports after rounding the wish counts as the wish; what somebody set by hand shows as it is.
    """
    if facts["status"] not in ("running", "paused"):
        return {}
    from ..kernel.cgroups import Cgroup, Layout

    layout = Layout.detect()
    group = Cgroup(layout, cgroup_path(task, record.id))
    if not group.exists():
        return {}
    drift = group.drift(record.spec)
    return {name: drift[name][1] if name in drift else record.spec.get(name) for name in LIMITS}
