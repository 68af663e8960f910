# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What must hold of the host: nothing that belongs to nothing, and what is there works."""

from __future__ import annotations

import fcntl
import gc
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from helpers.engine import Engine

from campaign import faults
from campaign.model import Slot
from campaign.place import cgroups, comes_true

_PATIENCE = 30.0  # seconds for what ends, or comes, by and by
_GROWTH = 64 << 20  # bytes on the disk: logs, and what waits to be resumed or collected
_FDS, _HELD = 48, 512  # of a process of the engine; where those begin that a spawner keeps for monitors


class Before:
    """How it was when the campaign began."""

    def __init__(self, directory: str) -> None:
        self.mounts = mount_points()
        self.descriptors = len(os.listdir("/proc/self/fd"))
        self.used = used(directory)


def used(directory: str) -> int:
    found = os.statvfs(directory)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def difference(what: str, have: set[str], may: set[str], both: bool = False) -> Iterator[str]:
    for name in sorted(have - may):
        yield "%s %s belongs to nothing" % (what, name)
    for name in sorted(may - have) if both else ():
        yield "%s %s is missing" % (what, name)


def all_of(engine: Engine, slots: list[Slot], shown: dict[str, Any], before: Before, ask: bool) -> list[str]:
    """``ask``: names, too."""
    return [
        *nothing_is_left(engine, shown, before),
        *processes_are_few(engine, shown),
        *locks_are_free(engine),
        *network_agrees(engine, shown),
        *ports_answer(slots),
        *(names_are_known(engine, slots) if ask else ()),
    ]


def nothing_is_left(engine: Engine, shown: dict[str, Any], before: Before) -> Iterator[str]:
    ids = {c["Id"] for c in shown.values()}
    for group in cgroups(engine):
        below = {name for name in os.listdir(group) if os.path.isdir("%s/%s" % (group, name))}
        yield from difference("cgroup %s/" % group, below, ids)
    own = {engine.paths.container_netns(identity) for identity in ids}
    for where in sorted(mount_points() - before.mounts - own):
        yield "mount on %s" % where
    if len(os.listdir("/proc/self/fd")) > before.descriptors:
        gc.collect()  # a task is a process elsewhere, and does not live to see its garbage collected
    if len(os.listdir("/proc/self/fd")) > before.descriptors:
        yield "tasks have left descriptors open: %s" % _descriptors(os.getpid())
    grown = used(os.path.dirname(engine.paths.state)) - before.used
    if grown > _GROWTH:
        yield "the state has grown by %d bytes" % grown


def processes_are_few(engine: Engine, shown: dict[str, Any]) -> Iterator[str]:
    """A monitor for each container that runs, one spawner and one resolver at most, and nobody else. (Several tasks may
    each start a spawner at the same time; all but the first end as soon as they see it.)"""
    running = sum(1 for c in shown.values() if c["State"]["Running"])
    found = faults.Residents(engine)

    def as_should_be() -> bool:
        nonlocal found
        found = faults.Residents(engine)
        few = len(found.spawners) <= 1 and len(found.resolvers) <= 1
        return len(found.monitors) == running and few and not found.others

    if not comes_true(as_should_be, _PATIENCE):
        seen = {what: getattr(found, what) for what in ("monitors", "spawners", "resolvers", "others")}
        commands = [faults.command(pid) for pid in found.others]
        yield "%d containers run, and of the engine there are %s %s" % (running, seen, commands)
    for pid in (*found.monitors, *found.spawners, *found.resolvers):
        descriptors = _descriptors(pid)
        if sum(1 for number in descriptors if number < _HELD) > _FDS:
            yield "%d (%s) has %d descriptors: %s" % (pid, faults.command(pid), len(descriptors), descriptors)
        if sum(1 for number in descriptors if number >= _HELD) > 4 * max(running, 1):
            yield "%d keeps %d descriptors for %d containers" % (pid, len(descriptors), running)


def _descriptors(pid: int) -> dict[int, str]:
    found = {}
    try:
        for name in os.listdir("/proc/%d/fd" % pid):
            found[int(name)] = os.readlink("/proc/%d/fd/%s" % (pid, name))
    except (FileNotFoundError, ProcessLookupError):  # it ended, or closed one
        pass
    return found


def locks_are_free(engine: Engine) -> Iterator[str]:
    for directory in (engine.paths.locks, engine.paths.tmp):
        for name in os.listdir(directory):
            if not comes_true(lambda path=directory + "/" + name: _is_free(path), _PATIENCE):  # type: ignore[misc]
                yield "somebody holds the lock %s" % name


def _is_free(path: str) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(fd)


def mount_points() -> set[str]:
    with open("/proc/self/mountinfo") as lines:
        return {line.split(" ")[4] for line in lines}


def links() -> set[str]:
    """Ours, in this network namespace (/sys/class/net shows the one that it was mounted in)."""
    return {name for _index, name in socket.if_nameindex() if name.startswith("wh")}


def network_agrees(engine: Engine, shown: dict[str, Any]) -> Iterator[str]:
    """Links, addresses, routes and firewall are what the store says, and there are no others."""
    from module_utils._engine.network import bridge, endpoint
    from module_utils._engine.network.service import NetworkService
    from module_utils._engine.store.state import Store

    with Store.open(engine.paths, recover=False) as store, NetworkService(engine.paths, store) as service:
        expected = {bridge.link_name(engine.paths, record) for record in store.networks.list()}
        for name, container in shown.items():
            if container["State"]["Running"]:
                yield from ("%s: %s" % (name, what) for what in service.check(container["Id"]))
            for record in store.networks.endpoints(container_id=container["Id"]):
                expected.add(endpoint.host_link(record.container_id, record.network_id))
        # The kernel takes the links of a namespace that is gone apart by and by.
        comes_true(lambda: links() <= expected, _PATIENCE)
        yield from difference("link", links(), expected)
        yield from ("firewall: %s" % what for what in service.publishing.differences())


def ports_answer(slots: Iterable[Slot]) -> Iterator[str]:
    """At a published port its container's page is served, in its version; a port of nobody's can be had."""
    for slot in slots:
        if not slot.port:
            continue
        mine = slot.port if slot.state == "started" else 0
        for port in (slot.port, slot.port + (-100 if slot.moved else 100)):
            if port != mine and not comes_true(lambda port=port: _can_be_had(port), _PATIENCE):  # type: ignore[misc]
                yield "port %d is still taken" % port
        if mine and slot.kind == "web":
            page = "run %d" % slot.run
            if not comes_true(lambda mine=mine, page=page: _get(mine) == page, _PATIENCE):  # type: ignore[misc]
                yield "at port %d of %s there is %r instead of %r" % (mine, slot.name, _get(mine), page)


def _can_be_had(port: int) -> bool:
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True


def _get(port: int) -> str:
    """The page, or what went wrong."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"GET /index.html HTTP/1.0\r\n\r\n")
            answer = b""
            while data := connection.recv(4096):
                answer += data
    except OSError as error:
        return str(error)
    return answer.partition(b"\r\n\r\n")[2].decode().strip()


def names_are_known(engine: Engine, slots: Iterable[Slot]) -> Iterator[str]:
    """One running container finds another one by its alias."""
    running = [slot for slot in slots if slot.kind != "job" and slot.state == "started"]
    for one, other in zip(running[:1], running[1:]):
        ask: Callable[[], bool] = lambda one=one, other=other: (  # type: ignore[misc]  # noqa: E731
            engine.exec(one.name, "nslookup", "n%d" % other.number)["rc"] == 0
        )
        if not comes_true(ask, _PATIENCE):
            yield "%s does not find n%d" % (one.name, other.number)
