# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What must hold after every round: each function returns sentences about what does not."""

from __future__ import annotations

import json
import os
import re
import socket
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from helpers.engine import Engine

from campaign import faults
from campaign.model import Slot

MOUNTS = "/proc/self/mountinfo"


def all_of(engine: Engine, slots: list[Slot], mounts: set[str], orphaned: bool) -> list[str]:
    """``orphaned``: monitors and spawner were killed, so a job that went on meanwhile is nobody's child any more, and
    255 (nobody was told) is the truth about its end."""
    shown = {c["Name"][1:]: c for c in engine.run("container_info")["containers"]}
    return [
        *store_is_sound(engine),
        *nothing_is_left(engine, shown, mounts),
        *network_agrees(engine, shown),
        *containers_are_as_wanted(shown, slots, {255} if orphaned else set()),
        *volumes_are_whole(engine, slots),
        *ids_are_its_own(shown, slots),
        *logs_have_every_line(engine, shown, slots),
    ]


def store_is_sound(engine: Engine) -> Iterator[str]:
    with sqlite3.connect(engine.paths.database) as db:
        verdict = db.execute("PRAGMA integrity_check").fetchone()[0]
        if verdict != "ok":
            yield "the database is damaged: %s" % verdict
        for table in ("endpoints", "ports"):
            sql = "SELECT count(*) FROM %s WHERE container_id NOT IN (SELECT id FROM containers)" % table
            if db.execute(sql).fetchone()[0]:
                yield "%s of containers that do not exist" % table
        for column in ("ipv4", "ipv6"):
            sql = "SELECT %s FROM endpoints WHERE %s IS NOT NULL GROUP BY network_id, %s HAVING count(*) > 1"
            for (address,) in db.execute(sql % (column, column, column)):
                yield "address %s is leased twice" % address
        ids = {row[0] for row in db.execute("SELECT id FROM containers")}
    yield from _difference("container directory", set(os.listdir(engine.paths.containers)), ids, both=True)
    yield from _difference("network namespace", set(os.listdir(engine.paths.netns)), ids)
    yield from _difference("run directory", set(os.listdir(engine.paths.run + "/containers")), ids)


def _difference(what: str, have: set[str], may: set[str], both: bool = False) -> Iterator[str]:
    for name in sorted(have - may):
        yield "%s %s belongs to nothing" % (what, name)
    for name in sorted(may - have) if both else ():
        yield "%s %s is missing" % (what, name)


def nothing_is_left(engine: Engine, shown: dict[str, Any], mounts: set[str]) -> Iterator[str]:
    ids = {c["Id"] for c in shown.values()}
    for hierarchy in os.listdir("/sys/fs/cgroup"):
        group = "/sys/fs/cgroup/%s/%s" % (hierarchy, engine.paths.cgroup)
        if os.path.isdir(group):
            below = {name for name in os.listdir(group) if os.path.isdir("%s/%s" % (group, name))}
            yield from _difference("cgroup (%s)" % hierarchy, below, ids)
    own = {engine.paths.container_netns(identity) for identity in ids}
    for where in sorted(mount_points() - mounts - own):
        yield "mount on %s" % where
    running = [c for c in shown.values() if c["State"]["Running"]]
    watching = faults.monitors(engine)
    if len(watching) < len(running):
        yield "%d containers run and %d are watched" % (len(running), len(watching))
    # Several tasks may each start one at the same time; all but the first end as soon as they see it.
    for find in (faults.spawners, faults.resolvers):
        if not _comes_true(lambda find=find: len(find(engine)) <= 1):  # type: ignore[misc]
            yield "more than one: %s" % [_command(pid) for pid in find(engine)]
    for name in os.listdir(engine.paths.tmp):
        if name.startswith("trash"):
            yield "litter in %s: %s" % (engine.paths.tmp, name)


def _comes_true(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _command(pid: int) -> str:
    with open("/proc/%d/cmdline" % pid, "rb") as stream:
        return "%d %s" % (pid, stream.read().replace(b"\0", b" ").decode())


def mount_points() -> set[str]:
    with open(MOUNTS) as lines:
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
        _comes_true(lambda: links() <= expected)
        yield from _difference("link", links(), expected)
        yield from ("firewall: %s" % what for what in service.publishing.differences())


def containers_are_as_wanted(shown: dict[str, Any], slots: Iterable[Slot], unknown: set[int]) -> Iterator[str]:
    wanted = {slot.name: slot for slot in slots if slot.state != "absent"}
    yield from _difference("container", set(shown), set(wanted), both=True)
    for name, slot in wanted.items():
        if name not in shown:
            continue
        container = shown[name]
        state = container["State"]
        if "RUN=%d" % slot.run not in container["Config"]["Env"]:
            yield "%s is not the version that was asked for" % name
        if container["HostConfig"]["Memory"] != slot.memory << 20:
            yield "%s has another memory limit" % name
        if slot.kind == "job":
            yield from exit_code_is_true(slot, state, {slot.code} | unknown)
        elif state["Running"] != (slot.state == "started"):
            yield "%s is %s, and should be %s" % (name, state["Status"], slot.state)


def ids_are_its_own(shown: dict[str, Any], slots: Iterable[Slot]) -> Iterator[str]:
    """Running containers with a user namespace have ranges of ids in which no other one's begins or ends."""
    taken: list[tuple[int, int, str]] = []
    for slot in slots:
        container = shown.get(slot.name)
        if container is None or not container["State"]["Running"]:
            continue
        try:
            with open("/proc/%d/uid_map" % container["State"]["Pid"]) as stream:
                _inside, first, size = (int(word) for word in stream.read().split())
        except (FileNotFoundError, ProcessLookupError, ValueError):  # a job that has ended meanwhile
            continue
        if (first != 0) != slot.own_ids:
            yield "%s has the ids from %d on" % (slot.name, first)
        if first:
            taken.append((first, size, slot.name))
    taken.sort()
    for one, two in zip(taken, taken[1:]):
        if one[0] + one[1] > two[0]:
            yield "%s and %s have ids in common" % (one[2], two[2])


def exit_code_is_true(slot: Slot, state: dict[str, Any], codes: set[int]) -> Iterator[str]:
    """A code that the job did not end with, and that no signal or loss of its monitor explains, was invented."""
    if state["Status"] == "exited" and state["ExitCode"] not in codes:
        yield "%s ended with %s and is recorded with %d" % (slot.name, sorted(codes), state["ExitCode"])


def volumes_are_whole(engine: Engine, slots: Iterable[Slot]) -> Iterator[str]:
    for slot in slots:
        if not slot.precious:
            continue
        path = engine.paths.volume_data(slot.volume) + "/precious"
        try:
            with open(path) as stream:
                found = stream.read().strip()
        except OSError as error:
            yield "volume %s: %s" % (slot.volume, error)
            continue
        if found != slot.precious:
            yield "volume %s holds %r instead of %r" % (slot.volume, found[:80], slot.precious[:80])


_LINE = re.compile(r"line (\d+) of (\d+)")


def logs_have_every_line(engine: Engine, shown: dict[str, Any], slots: Iterable[Slot]) -> Iterator[str]:
    """A talker counts: after n comes n + 1, or 1 when it was started again. Its log may have lost its beginning."""
    for slot in slots:
        if slot.kind != "talker" or slot.name not in shown:
            continue
        last = 0
        for text in engine.run("container_logs", name=slot.name)["stdout_lines"]:
            match = _LINE.fullmatch(text)
            if match is None:
                yield "%s: a line was torn: %r" % (slot.name, text[:100])
                break
            number = int(match.group(1))
            if last and number not in (last + 1, 1):
                yield "%s: line %d is followed by %d" % (slot.name, last, number)
                break
            last = number


def recorded_states(engine: Engine) -> dict[str, dict[str, Any]]:
    """``{container id: state.json}`` of those that have one."""
    found = {}
    for identity in os.listdir(engine.paths.containers):
        try:
            with open(engine.paths.container(identity) + "/state.json") as stream:
                found[identity] = json.load(stream)
        except (FileNotFoundError, ValueError):
            continue
    return found
