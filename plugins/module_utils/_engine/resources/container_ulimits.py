# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Resource limits of processes that run: prlimit(2) on every process of the container."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import KernelError
from .container_actual import is_running, state
from .container_make import cgroup_path
from .task import Task

if TYPE_CHECKING:
    from ..store.records import ContainerRecord

Limits = dict[int, tuple[int, int]]


def _wanted(ulimits: Sequence[dict[str, Any]]) -> Limits:
    """Resource number → (soft, hard), cut down to what the engine may give, as at a start."""
    import resource

    from ..runtime import spec as oci

    infinity = (1 << 64) - 1
    return {
        getattr(resource, limit["type"]): (
            resource.RLIM_INFINITY if limit["soft"] == infinity else limit["soft"],
            resource.RLIM_INFINITY if limit["hard"] == infinity else limit["hard"],
        )
        for limit in oci.rlimits(ulimits)
    }


def _target(
    task: Task, record: ContainerRecord, ulimits: Sequence[dict[str, Any]], before: Sequence[dict[str, Any]]
) -> Limits:
    """What is to be set now: the new ones, and for those taken back what the monitor has and a new container would
    inherit."""
    import resource

    wanted = _wanted(ulimits)
    monitor = state(task, record).get("monitor_pid") or 0
    for number in _wanted(before):
        wanted.setdefault(number, resource.prlimit(monitor, number))
    return wanted


def obstacle(task: Task, record: ContainerRecord, spec: dict[str, Any]) -> str:
    """Why the running container cannot follow, or "": a hard limit can only be raised with CAP_SYS_RESOURCE."""
    facts = state(task, record)
    if not is_running(facts) or not facts.get("pid"):
        return ""
    import resource

    from ..kernel import capabilities

    if "CAP_SYS_RESOURCE" in capabilities.available():
        return ""
    try:
        for number, (_soft, hard) in _target(
            task, record, spec.get("ulimits", []), record.spec.get("ulimits", [])
        ).items():
            have = resource.prlimit(facts["pid"], number)[1]
            if _above(hard, have):
                return "raising a hard limit needs CAP_SYS_RESOURCE, which the engine lacks here"
    except (OSError, ValueError):  # a process ended meanwhile
        return "its processes cannot be looked at"
    return ""


def _above(one: int, other: int) -> bool:
    import resource

    if other == resource.RLIM_INFINITY:
        return False
    return one == resource.RLIM_INFINITY or one > other


def change(task: Task, record: ContainerRecord, before: ContainerRecord) -> None:
    """From ``before``'s limits to ``record``'s on all processes. New ones inherit them; one that is forked in between
    is met by the second round."""
    import resource

    from ..kernel.cgroups import Cgroup, Layout

    wanted = _target(task, record, record.spec.get("ulimits", []), before.spec.get("ulimits", []))
    group = Cgroup(Layout.detect(), cgroup_path(task, record))
    done: set[int] = set()
    for _round in range(8):
        fresh = set(group.processes()) - done
        if not fresh:
            return
        for pid in fresh:
            for number, limits in wanted.items():
                try:
                    resource.prlimit(pid, number, limits)
                except ProcessLookupError:  # ended meanwhile
                    break
                except (OSError, ValueError) as error:
                    raise KernelError(
                        "Cannot change the ulimits of the running container: %s" % error,
                        step="prlimit",
                        subject="container %s" % record.name,
                        path="ulimits",
                        errno=getattr(error, "errno", None),
                    ) from None
        done |= fresh
