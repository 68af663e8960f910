# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the kernel really has of a container: the third side of the comparison."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from .container_make import cgroup_path, owns_network, source_stat
from .task import Task

if TYPE_CHECKING:
    from ..store.records import ContainerRecord

LIMITS = (
    "memory", "memory_swap", "memory_reservation", "cpus", "cpu_shares", "cpuset_cpus", "cpuset_mems", "pids_limit",
)  # fmt: skip

MORE_LIMITS = (
    "cpu_period", "cpu_quota", "blkio_weight", "memory_swappiness", "oom_killer",
    "device_read_bps", "device_write_bps", "device_read_iops", "device_write_iops",
)  # fmt: skip
_MORE = frozenset(MORE_LIMITS)

_CHANCES = 3  # restarts in which a container that somebody waits for may come to itself


def state(task: Task, record: ContainerRecord) -> dict[str, Any]:
    """The monitor's facts (``status``, ``pid``, ``exit_code`` ...), believed as far as the kernel confirms them."""
    # through the runtime, which waits for a monitor that is about to write down how its container ended
    return task.runtime.state(record.id)


def looked_at(task: Task, record: ContainerRecord) -> tuple[dict[str, Any], bool]:
    """``state``, and whether what is running is surely watched by its monitor (False: ask ``is_unwatched``)."""
    return task.runtime.look(record.id)


def is_running(facts: dict[str, Any]) -> bool:
    return facts["status"] in ("running", "paused", "restarting")


def is_unwatched(facts: dict[str, Any]) -> bool:
    """Whether a container runs whose monitor was killed, and the spawner with it: nobody would see it end."""
    if facts["status"] not in ("running", "paused"):
        return False
    from ..runtime import statefile

    return not statefile.monitor_alive(facts)


def is_starting(facts: dict[str, Any]) -> bool:
    """Between two looks at what runs: its monitor is about to start it, perhaps not for the first time."""
    return bool(facts["status"] == "restarting" or (facts["status"] == "created" and facts["pid"]))


def is_recovering(facts: dict[str, Any]) -> bool:
    """It has ended, and its monitor starts it again; and nothing says that it will end in the same way: it was healthy
    until then, or this is one of the first times. Until it runs its health is that of the run before."""
    if not is_starting(facts):
        return False
    log = (facts.get("health") or {}).get("log") or []
    return facts["restart_count"] < _CHANCES or bool(log and log[-1]["exit_code"] == 0)


def observed(task: Task, record: ContainerRecord, facts: dict[str, Any]) -> dict[str, Any]:
    """Limits of a running container that are not as they were set: what its cgroup files have. {} for one that does
    not run.

    What the kernel reports after rounding the wish counts as the wish; what somebody set by hand shows as it is.
    """
    if facts["status"] not in ("running", "paused"):
        return {}
    from ..kernel.cgroups import Cgroup

    group = Cgroup(task.layout, cgroup_path(task, record))
    drift = group.changed(record.spec)
    if drift is None:
        return {}
    found = {name: pair[1] for name, pair in drift.items()}
    if not _MORE.isdisjoint(record.spec):
        from ..kernel.cgroups import exact

        if "cpu_quota" in record.spec:  # the same file: what is found there is told once
            found.pop("cpus", None)
        found.update(exact.changed(group, record.spec))
    if "storage_opts" in record.spec:
        from . import container_quota

        found["storage_opts"] = container_quota.observed(task, record)
    return found


def network_drift(task: Task, record: ContainerRecord, facts: dict[str, Any]) -> list[str]:
    """Sentences about what somebody broke in a running container's network, or in the one it shares."""
    if facts["status"] not in ("running", "paused") or not facts.get("pid"):
        return []
    if not owns_network(record.spec):
        from . import container_etc

        return container_etc.drift(task, record)
    return task.network.glance(record.id, facts["pid"], remember=task.remember)


def missing_mounts(task: Task, record: ContainerRecord, facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Mounts of ``resolved`` that a running container has lost (a lazy unmount inside it).

    Compared as text first; a target whose path has links in the image ends elsewhere and is looked up.
    """
    if facts["status"] not in ("running", "paused") or not facts.get("pid") or not record.resolved["mounts"]:
        return []
    targets = mounted_targets(facts["pid"])
    lost = [mount for mount in record.resolved["mounts"] if mount["target"] not in targets]
    return [mount for mount in lost if not _elsewhere(task, facts["pid"], mount)]


def mounted_targets(pid: int) -> set[str]:
    from ..kernel import procfs

    try:
        return procfs.mounted("/proc/%d/mountinfo" % pid)
    except (FileNotFoundError, ProcessLookupError):  # it ended this instant: that is drift of another kind
        return set()


def _elsewhere(task: Task, pid: int, mount: dict[str, Any]) -> bool:
    """Whether the target leads, through links of the image, to what was mounted on it."""
    try:
        root = os.open("/proc/%d/root" % pid, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:  # ended
        return True
    try:
        there = _stat(task, root, mount["target"])
        if mount["type"] in ("tmpfs", "image"):  # file systems of their own
            return there[0] != _stat(task, root, mount["target"] + "/..")[0]
        here = source_stat(task, mount)
        return there == (here.st_dev, here.st_ino)
    except OSError:  # target or source is gone
        return False
    finally:
        os.close(root)


def _stat(task: Task, root: int, path: str) -> tuple[int, int]:
    fd = task.kernel.open_in_root(root, path, os.O_PATH)
    try:
        info = os.fstat(fd)
        return info.st_dev, info.st_ino
    finally:
        os.close(fd)
