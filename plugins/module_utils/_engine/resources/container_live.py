# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Differences that the running container takes without being replaced."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Optional

from ..errors import NotFound
from ..reconcile.options import Difference
from ..reconcile.plan import Operation, Plan
from . import container_make as make
from .container_actual import LIMITS, MORE_LIMITS
from .task import Task

if TYPE_CHECKING:
    from ..store.records import ContainerRecord
    from .container_mounts import Change

_MONITOR = (
    "restart_policy", "restart_retries", "healthcheck", "stop_signal", "log_driver", "log_options", "auto_remove",
)  # fmt: skip
_FILES = ("links", "etc_hosts", "dns_servers", "dns_opts", "dns_search_domains")


class LiveUpdate:
    """Turns live differences of one container into operations that share one new spec.

    The new spec is stored by the last of them, so that a failure half-way leaves the old wish in the database and the
    next run sees what is left to do as drift.
    """

    def __init__(self, task: Task, record: ContainerRecord, spec: dict[str, Any], running: bool) -> None:
        self._task = task
        self._old = record
        self._new = record._replace(spec=spec)
        self._running = running
        self._mount_change: Optional[Change] = None

    def plan(self, plan: Plan, differences: list[Difference]) -> None:
        done: set[str] = set()
        for difference in differences:
            group = _group(difference.option)
            execute: Callable[[], Any] = (lambda: None) if group in done else self._execution(group, self._new)
            undo: Callable[[], Any] = (lambda: None) if group in done else self._execution(group, self._old)
            done.add(group)
            plan.add(
                Operation(
                    "live",
                    "container",
                    self._new.name,
                    execute,
                    undo=undo,
                    detail={"option": difference.option, "before": difference.before, "after": difference.after},
                    why=difference.why,
                )
            )

    def store(self) -> None:
        """Write the new wish down; not an operation of its own, it follows the last one."""
        fields = {"resolved": self._mount_change.resolved} if self._mount_change else {}
        self._task.store.containers.update(
            self._new.id, spec=self._new.spec, generation=self._old.generation + 1, **fields
        )
        record = self._task.store.containers.get(self._new.id)
        if record is not None:
            make.write_files(self._task, record)
            self._task.store.events.add("container", "update", record.id, {"name": record.name})

    def _execution(self, group: str, record: ContainerRecord) -> Callable[[], Any]:
        action = {
            "limits": self._limits,
            "monitor": self._monitor,
            "networks": self._networks,
            "ports": self._ports,
            "mounts": self._mounts,
            "files": self._files,
            "ulimits": self._ulimits,
            "labels": self._labels,
            "storage_opts": self._storage,
        }.get(group)
        return (lambda: None) if action is None else (lambda: action(record))

    def _limits(self, record: ContainerRecord) -> None:
        if not self._running:
            return
        from ..kernel.cgroups import Cgroup, Layout
        from ..kernel.cgroups.resources import from_options

        other = self._old if record is self._new else self._new
        group = Cgroup(Layout.detect(), make.cgroup_path(self._task, record))
        group.update(from_options(record.spec), from_options(other.spec))

    def _monitor(self, record: ContainerRecord) -> None:
        if not self._running:
            return
        image = self._task.store.images.get(record.image_id)
        if image is None:
            return
        settings = make.run_settings(self._task, record, image)
        changes = {key: settings[key] for key in ("restart", "healthcheck", "stop_signal", "log", "on_exit")}
        self._task.runtime.update(record.id, changes)

    def _labels(self, record: ContainerRecord) -> None:
        if "log_options" in record.spec:
            from .container_logging import depends_on_labels

            if depends_on_labels(record.spec):
                self._monitor(record)

    def _networks(self, record: ContainerRecord) -> None:
        """Leave networks no longer wanted, join the new ones; one where the container gets another interface is left
        and joined, one where it is only known by other names is not."""
        task, service = self._task, self._task.network
        wanted = {network["name"]: network for network in record.spec.get("networks", [])}
        other = self._old if record is self._new else self._new
        have = {network["name"]: network for network in other.spec.get("networks", [])}
        for name, network in have.items():
            if _place(wanted.get(name)) != _place(network):
                found = task.store.networks.get(name)
                if found is not None:
                    service.disconnect(record.id, found)
        for name, network in wanted.items():
            if have.get(name) != network:
                service.connect(record.id, network)
        if self._running and any(n.get("links") for n in (*wanted.values(), *have.values())):
            service.rewrite_files(record)

    def _mounts(self, record: ContainerRecord) -> None:
        if record is self._old:
            if self._mount_change is not None:
                self._mount_change.undo()
            return
        from .container_mounts import Change

        self._mount_change = Change(self._task, self._old, record.spec)
        self._mount_change.execute()

    def _files(self, record: ContainerRecord) -> None:
        """hosts and resolv.conf, in place: the container has them mounted."""
        if self._running and make.owns_network(record.spec):
            self._task.network.rewrite_files(record)

    def _ulimits(self, record: ContainerRecord) -> None:
        if self._running:
            from .container_ulimits import change

            other = self._old if record is self._new else self._new
            change(self._task, record, other)

    def _storage(self, record: ContainerRecord) -> None:
        from .container_quota import change

        change(self._task, record)

    def _ports(self, record: ContainerRecord) -> None:
        task = self._task
        if not any(r.spec.get(k) for r in (self._old, self._new) for k in ("published_ports", "publish_all_ports")):
            return  # exposed ports alone are a note
        with task.store.transaction():
            make.publish_ports(task, record)
        if self._running:
            task.network.publish(record.id)
            task.runtime.update(record.id, {"reserve": make.reserve_settings(task, record)})


def _place(network: Optional[dict[str, Any]]) -> Any:
    """What of an entry of ``networks`` the interface is made of."""
    if network is None:
        return None
    return [network.get(key) for key in ("ipv4_address", "ipv6_address", "mac_address", "driver_opts")]


def refine(task: Task, record: ContainerRecord, spec: dict[str, Any], found: list[Difference]) -> list[Difference]:
    """Differences whose way depends on the container at hand: mounts change live unless something forbids it."""
    return [_refined(task, record, spec, difference) for difference in found]


def _refined(task: Task, record: ContainerRecord, spec: dict[str, Any], difference: Difference) -> Difference:
    obstacle = ""
    if difference.option == "mounts":
        from .container_mounts import Change

        obstacle = Change(task, record, spec).obstacle
    elif difference.option == "ulimits":
        from . import container_ulimits

        obstacle = container_ulimits.obstacle(task, record, spec)
    elif difference.option == "storage_opts":
        from . import container_quota

        obstacle = container_quota.obstacle(task, record, spec)
    if not obstacle:
        return difference
    return difference._replace(change="replace", why="%s; %s" % (difference.why, obstacle))


def repair(task: Task, plan: Plan, record: ContainerRecord, sentences: list[str], mounts: list[dict[str, Any]]) -> None:
    """Operations that undo what somebody did to a running container's network and mounts, and nothing else."""
    name = record.name

    def mend(kind: str, before: list[str], execute: Callable[[], Any]) -> None:
        plan.add(Operation("live", "container", name, execute, detail={"option": kind, "before": before}, why="drift"))

    if sentences and make.owns_network(record.spec):
        mend("network", sentences, lambda: task.network.mend(record.id))
    elif sentences:
        from . import container_etc

        mend("network", sentences, container_etc.mender(task, record))
    if mounts:
        from .container_mounts import remount

        lost = ["%s is not mounted" % mount["target"] for mount in mounts]
        mend("mounts", lost, lambda: remount(task, record, mounts))


def watch(task: Task, plan: Plan, record: ContainerRecord) -> None:
    """A new monitor for a container that runs without one."""

    def adopt() -> None:
        try:
            task.runtime.adopt(record.id)
        except NotFound:  # it ended meanwhile: the next task sees that
            task.warn("Container %s ended before it got a new monitor" % record.name)

    detail = {"option": "monitor", "before": ["its monitor was killed"]}
    plan.add(Operation("live", "container", record.name, adopt, detail=detail, why="drift"))


def _group(option: str) -> str:
    if option in LIMITS or option in MORE_LIMITS:
        return "limits"
    if option in _MONITOR:
        return "monitor"
    if option in ("published_ports", "publish_all_ports", "exposed_ports"):
        return "ports"
    if option in _FILES:
        return "files"
    return option if option in ("networks", "mounts", "ulimits", "labels", "storage_opts") else "row"
