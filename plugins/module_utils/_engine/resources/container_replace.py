# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Replacing a container without losing it.

Two orders. ``start_first`` where nothing forbids two of them at once: the new container starts (and, with a health
check, turns healthy) while the old one serves; then names and published ports move over, then the old one stops.
``stop_first`` where they would share what cannot be shared (writable volumes and binds, fixed addresses, the host's
network): the old one stops, the new one starts. Clients of published TCP ports are kept waiting in between (see
``runtime/hush``): their ports open once the new one serves. In both, when the new one does not come up it is removed
and the old one runs on (or is started again), and the task says why.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Optional

from ..errors import StartError, UsageError, WharfError
from . import container_make as make
from .container_actual import is_running, state
from .container_run import last_lines, remove, start, stop, wait_healthy
from .task import Task

if TYPE_CHECKING:
    import socket

    from ..store.records import ContainerRecord, ImageRecord

_LISTEN = 10  # seconds for the new one to listen where the old one does
_LOOPBACK = ("0100007F", "7F000001", "00000000000000000000000001000000", "00000000000000000000000000000001")
_NEW, _OLD = ".wharf-new", ".wharf-old"  # names of the two while the replacement goes on


def order(old: ContainerRecord, spec: dict[str, Any], running: bool, asked: str = "") -> tuple[str, str]:
    """``start_first`` or ``stop_first``, why, and nothing touched. ``asked``: what the task says, "" for what suits.

    Raises ``UsageError`` when start_first is asked for and cannot be.
    """
    if not running:
        return "stop_first", "it does not run"
    fixed, shared = _exclusive(spec), _shared(old, spec)
    if asked == "start_first" and fixed:
        raise UsageError(
            "update: the new container cannot start before the old one stops: %s" % fixed,
            step="plan_replace",
            path="update",
            hint="leave update out, or say stop_first",
        )
    if asked:
        return asked, "update says so"
    why = fixed or shared
    return ("stop_first", why) if why else ("start_first", "nothing forbids two of them at once")


def _exclusive(spec: dict[str, Any]) -> str:
    """What two containers cannot have at once, or ""."""
    for network in spec.get("networks", []):
        for option in ("ipv4_address", "ipv6_address", "mac_address"):
            if network.get(option):
                return "%s %s in network %s is fixed" % (option, network[option], network["name"])
    return ""


def _shared(old: ContainerRecord, spec: dict[str, Any]) -> str:
    """What two containers had better not have at once, or ""."""
    for mode in (spec.get("network_mode") or "", old.spec.get("network_mode") or ""):
        if mode not in ("", "none"):
            return "both would be in the network of %s" % ("the host" if mode == "host" else mode)
    for mount in old.resolved["mounts"]:
        if mount["type"] != "tmpfs" and not mount.get("read_only"):
            return "both would write to %s" % mount["target"]
    return ""


def replace(
    task: Task, old: ContainerRecord, spec: dict[str, Any], image: ImageRecord, *, running: bool, start_new: bool
) -> ContainerRecord:
    """Put a container made from ``spec`` in the place of ``old``. Returns the new record.

    On failure the old container is as it was, and the error says what the new one died of.
    """
    name = old.name
    first = order(old, spec, running and start_new, task.params.get("update") or "")[0] == "start_first"
    new = make.create(task, name + _NEW, spec, image, inherit=old, lease=first, publish=False)
    before = _Before(task, old)
    waiting = not first and running and start_new and bool(before.ports)
    pause: Optional[_Pause] = None
    try:
        served = _listening(task, old)
        if first:
            start(task, new)
            _settle(task, new)
            _serves(task, old, new, served)
        elif waiting:
            pause = _Pause(task, old)
            stop(task, old, remember=False)
        elif running:
            stop(task, old, remember=False)
        _take_over(task, old, new, lease=not first, ports=not waiting)
        if first:
            _switch(task, old, new)
        elif start_new:
            start(task, _fresh(task, new))
            _settle(task, new)
        if pause is not None:
            _serves(task, old, new, served)
            _take_ports(task, old, new)
            pause.end(new)
    except BaseException as error:
        if pause is not None:
            pause.give_up()
        _roll_back(task, old, new, before, running=running)
        if isinstance(error, WharfError):
            _explain(error, name, new, running)
        raise
    _retire(task, old)
    record = _fresh(task, new)
    task.store.events.add("container", "replace", record.id, {"name": name, "old": old.id})
    return record


def _switch(task: Task, old: ContainerRecord, new: ContainerRecord) -> None:
    """The store says by now whose the ports are: the firewall follows in one transaction, no packet finds them
    closed; and the new monitor holds the very sockets that reserved them before the old one lets go of them."""
    task.network.publish(new.id)
    reserve = make.reserve_settings(task, new)
    if not reserve:
        return
    try:
        task.runtime.share_ports(old.id, new.id)
    except UsageError:  # a monitor that has been running since an earlier version: the ports are free for an instant
        task.runtime.update(old.id, {"reserve": []})
    task.runtime.update(new.id, {"reserve": reserve})


class _Pause:
    """While nobody serves: the old one's ports are closed, and who comes is kept waiting."""

    def __init__(self, task: Task, old: ContainerRecord) -> None:
        from ..runtime import hush

        self._task = task
        self._sockets: list[socket.socket] = []
        self._held: list[tuple[str, int, str, list[int]]] = []
        try:
            self._held = task.runtime.reservations(old.id)
        except UsageError:  # a monitor of an earlier version: clients are refused meanwhile
            return
        try:
            self._sockets = hush.hush([os.dup(fd) for *_key, fds in self._held for fd in fds])
            task.network.withdraw(old.id)
        except BaseException:
            self.give_up()
            raise

    def end(self, new: ContainerRecord) -> None:
        """The ports are the new one's by now. It opens them first, and whoever was kept waiting gets there."""
        task = self._task
        task.network.publish(new.id)
        task.network.publishing.redirect_waiting(new.id)
        task.runtime.hold(new.id, self._held)
        self.give_up()
        task.runtime.update(new.id, {"reserve": make.reserve_settings(task, new)})

    def give_up(self) -> None:
        from ..runtime import hush

        hush.let_go(self._sockets)
        for fd in [fd for *_key, fds in self._held for fd in fds]:
            os.close(fd)
        self._sockets, self._held = [], []


def _retire(task: Task, old: ContainerRecord) -> None:
    """Nothing new comes to it any more: it ends as it wants to, with what it has begun, and then it goes."""
    if is_running(state(task, old)):
        stop(task, _fresh(task, old), kill=bool(task.params.get("force_kill")), remember=False)
    remove(task, _fresh(task, old), keep_anonymous=True)


def _explain(error: WharfError, name: str, new: ContainerRecord, running: bool) -> None:
    """The failure, under the name that the user knows, with what is there now."""
    logs = error.details.get("logs") or []
    error.msg = "%s was not replaced, %s: %s%s" % (
        name,
        "the old container runs on" if running else "the old container is still there",
        error.msg.replace(new.name, name).replace(name + _NEW, name),
        "; its last output: %s" % " | ".join(logs[-5:]) if logs else "",
    )
    error.args = (error.msg,)
    if error.subject in (None, "container %s" % new.name, new.id):
        error.subject = "container %s" % name


def recover(task: Task, name: str) -> None:
    """Finish or take back a replacement of ``name`` that was cut short. Before the names changed hands the old
    container is the truth, from then on the new one; either way the one that ought to run runs again."""
    containers = task.store.containers
    new, old = containers.by_name(name + _NEW), containers.by_name(name + _OLD)
    if new is None and old is None:
        return
    current = containers.by_name(name)
    if new is not None:
        remove(task, new, keep_anonymous=True)
    wanted = current is not None and current.desired == "running"
    if old is not None and current is not None and task.store.networks.ports(container_id=old.id):
        _take_ports(task, old, current)  # killed while clients were kept waiting
    if old is not None:
        wanted = wanted or old.desired == "running"
        if current is not None and is_running(state(task, current)) and is_running(state(task, old)):
            _switch(task, old, current)
        _retire(task, old)
    if current is None:
        return
    if wanted and not is_running(state(task, current)):
        start(task, current)
    elif is_running(state(task, current)):
        task.network.publish(current.id)
        task.runtime.update(current.id, {"reserve": make.reserve_settings(task, current)})


def _settle(task: Task, record: ContainerRecord) -> None:
    """With a health check, wait for healthy: a replacement that is not well does not replace."""
    image = task.store.images.get(record.image_id)
    if image is not None and make.health_settings(record.spec, make.image_config(image)):
        wait_healthy(task, record, task.params.get("healthy_wait_timeout"))


def _serves(task: Task, old: ContainerRecord, new: ContainerRecord, served: set[int]) -> None:
    """A published TCP port at which the old one listened (``served``) is switched once the new one listens there, too:
    until then clients would be refused. Without a health check nobody knows better; after a while it is switched all
    the same.

    Raises ``StartError`` when the new one ends instead.
    """
    import time

    wanted = {int(port["container_port"]) for port in new.spec.get("published_ports", []) if port["protocol"] == "tcp"}
    wanted &= served
    deadline = time.monotonic() + _LISTEN
    while wanted - _listening(task, new):
        facts = state(task, new)
        if facts["status"] == "exited":
            raise StartError(
                "Container %s exited with code %s before it listened on port %d"
                % (new.name, facts.get("exit_code"), min(wanted)),
                step="wait_listening",
                subject="container %s" % new.name,
                details={"exit_code": facts.get("exit_code"), "logs": last_lines(task, new)},
            )
        if time.monotonic() >= deadline:
            task.warn(
                "%s does not listen on port %s after %d seconds, where the one before it did; its published ports were"
                " switched all the same" % (old.name, ", ".join(map(str, sorted(wanted))), _LISTEN)
            )
            return
        time.sleep(0.01)


def _listening(task: Task, record: ContainerRecord) -> set[int]:
    """TCP ports with a listener that is reached from outside (proc_net_tcp; 0A is TCP_LISTEN)."""
    pid = state(task, record)["pid"]
    found: set[int] = set()
    for name in ("tcp", "tcp6") if pid else ():
        try:
            with open("/proc/%d/net/%s" % (pid, name), encoding="ascii") as stream:
                lines = stream.readlines()[1:]
        except OSError:  # it ended this instant, or the kernel has no IPv6
            continue
        for line in lines:
            _number, local, _remote, status = line.split(None, 4)[:4]
            address, _colon, port = local.rpartition(":")
            if status == "0A" and address not in _LOOPBACK:
                found.add(int(port, 16))
    return found


def _take_over(task: Task, old: ContainerRecord, new: ContainerRecord, *, lease: bool, ports: bool) -> None:
    """Name, published ``ports`` and (``lease``) addresses change hands in one transaction: there is never a moment with
    two owners or none."""
    store = task.store
    with store.transaction():
        store.events.fold()  # under the names they had when it happened
        store.containers.rename(old.id, old.name + _OLD)
        store.containers.rename(new.id, old.name)
        store.events.add_all(
            [
                ("container", "rename", old.id, {"oldName": old.name}),
                ("container", "rename", new.id, {"oldName": new.name}),
            ]
        )
        if lease:
            for endpoint in store.networks.endpoints(container_id=old.id):
                store.networks.remove_endpoint(old.id, endpoint.network_id)
            if new.spec.get("networks"):
                task.network.plan_endpoints(new.id, new.spec["networks"])
        if ports:
            _take_ports(task, old, new)


def _take_ports(task: Task, old: ContainerRecord, new: ContainerRecord) -> None:
    networks = task.store.networks
    with task.store.transaction():
        held = [port._replace(container_id=new.id) for port in networks.ports(container_id=old.id)]
        networks.put_ports(old.id, [])
        networks.put_ports(new.id, held)  # a port that was chosen for the old one goes on
        make.publish_ports(task, new)


class _Before:
    """What the store says of the old container's network before anything has moved."""

    __slots__ = ("endpoints", "ports")

    def __init__(self, task: Task, old: ContainerRecord) -> None:
        self.endpoints = task.store.networks.endpoints(container_id=old.id)
        self.ports = task.store.networks.ports(container_id=old.id)


def _roll_back(task: Task, old: ContainerRecord, new: ContainerRecord, before: _Before, *, running: bool) -> None:
    """While the old one runs: first the records, then the firewall in one transaction, and only then the new one goes.
    Ports that had been switched are switched back without being closed in between."""
    serving = running and is_running(state(task, old))
    if not serving:  # it wants its addresses back, which the new one may have
        remove(task, _fresh(task, new), keep_anonymous=True)
    store = task.store
    with store.transaction():
        if _fresh(task, old).name != old.name:
            if serving:
                store.networks.put_ports(new.id, [])
                store.containers.rename(new.id, old.name + _NEW)
            store.containers.rename(old.id, old.name)
        have = {endpoint.network_id for endpoint in store.networks.endpoints(container_id=old.id)}
        for endpoint in before.endpoints:
            if endpoint.network_id not in have:
                store.networks.put_endpoint(endpoint)
        store.networks.put_ports(old.id, before.ports)
    if serving:
        task.network.publish(old.id)
        remove(task, _fresh(task, new), keep_anonymous=True)
    elif running:
        start(task, _fresh(task, old))


def _fresh(task: Task, record: ContainerRecord) -> ContainerRecord:
    return task.store.containers.get(record.id) or record
