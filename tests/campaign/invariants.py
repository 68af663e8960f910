# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What must hold of containers, images, volumes and logs: each function returns sentences about what does not."""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any

from helpers.engine import Engine

from campaign.host import difference
from campaign.model import Slot
from campaign.work import held

_LINE = re.compile(r"line (\d+) of (\d+)")
_SIGNALS = {137, 143}


def all_of(engine: Engine, slots: list[Slot], shown: dict[str, Any], unknown: set[int]) -> list[str]:
    """After the task for everything. ``unknown``: exit codes of jobs that nobody was told about."""
    return [
        *store_is_sound(engine, slots),
        *containers_are_as_wanted(shown, slots, unknown),
        *volumes_are_whole(engine, slots),
        *ids_are_its_own(shown, slots),
        *logs_have_every_line(engine, shown, slots),
    ]


def stand(shown: dict[str, Any], slots: Iterable[Slot], running: bool, booted: bool) -> list[str]:
    """Containers that no task was about are there, in the version that was asked for last; with ``running``, those
    that should run do. ``booted``: since then, and ``always`` means also those that were stopped by hand."""
    found = []
    for slot in slots:
        container = shown.get(slot.name)
        if (container is not None) != (slot.state != "absent"):
            found.append("%s was %s" % (slot.name, "lost" if container is None else "made"))
        elif container is not None:
            if "RUN=%d" % slot.run not in container["Config"]["Env"]:
                found.append("%s became another version" % slot.name)
            if slot.kind != "job" and slot.state == "started" and running and not container["State"]["Running"]:
                found.append("%s went down: %s" % (slot.name, container["State"]))
            stays = slot.kind != "job" and not (booted and slot.kind == "service")
            if stays and slot.state == "stopped" and container["State"]["Running"]:
                found.append("%s came up" % slot.name)
    return found


def codes_are_true(shown: dict[str, Any], slots: Iterable[Slot]) -> Iterator[str]:
    """Codes recorded for jobs before anything repairs them. A job ends with its run's code or the one before (when the
    task was killed before it replaced it), by a signal, or unwatched."""
    for slot in slots:
        if slot.kind == "job" and slot.name in shown:
            yield from exit_code_is_true(slot, shown[slot.name]["State"], slot.codes | _SIGNALS | {255})


def exit_code_is_true(slot: Slot, state: dict[str, Any], codes: set[int]) -> Iterator[str]:
    """A code that the job did not end with, and that no signal or loss of its monitor explains, was invented."""
    if state["Status"] == "exited" and state["ExitCode"] not in codes:
        yield "%s ended with %s and is recorded with %d" % (slot.name, sorted(codes), state["ExitCode"])


def store_is_sound(engine: Engine, slots: Iterable[Slot]) -> Iterator[str]:
    paths = engine.paths
    with sqlite3.connect(paths.database) as db:
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
        chains = {row[0].partition(":")[2] for row in db.execute("SELECT chain_id FROM layers")}
        volumes = {row[0] for row in db.execute("SELECT name FROM volumes")}
        networks = {row[0] for row in db.execute("SELECT name FROM networks")}
    db.close()
    yield from difference("container directory", set(os.listdir(paths.containers)), ids, both=True)
    yield from difference("network namespace", set(os.listdir(paths.netns)), ids)
    yield from difference("run directory", set(os.listdir(paths.run + "/containers")), ids)
    yield from difference("layer", set(os.listdir(paths.layers)), chains, both=True)
    wanted = {slot.volume for slot in slots if slot.kind == "service"}
    yield from difference("volume", volumes, wanted, both=True)
    yield from difference("volume directory", set(os.listdir(paths.volumes)), wanted, both=True)
    yield from difference("network", networks, {"bridge", "campaign", "second"})
    if os.path.isdir(paths.state + "/lost"):
        yield "containers were set aside: %s" % os.listdir(paths.state + "/lost")
    for name in os.listdir(paths.blobs):
        with open(paths.blobs + "/" + name, "rb") as stream:
            if hashlib.sha256(stream.read()).hexdigest() != name:
                yield "blob %s is damaged" % name
    for identity in ids & set(os.listdir(paths.containers)):
        # What a killed writer left goes with the next start or the next monitor.
        left = [name for name in os.listdir(paths.container(identity)) if name.endswith(".tmp")]
        if len(left) > 3:
            yield "litter in the directory of container %s: %s" % (identity[:12], left)
    for name in os.listdir(paths.tmp):
        if not re.fullmatch(r"ingest-[0-9a-f]{64}", name):  # waits to be resumed
            yield "litter in tmp: %s" % name


def containers_are_as_wanted(shown: dict[str, Any], slots: Iterable[Slot], unknown: set[int]) -> Iterator[str]:
    wanted = {slot.name: slot for slot in slots if slot.state != "absent"}
    yield from difference("container", set(shown), set(wanted), both=True)
    for name, slot in wanted.items():
        if name not in shown:
            continue
        container = shown[name]
        state = container["State"]
        if "RUN=%d" % slot.run not in container["Config"]["Env"]:
            yield "%s is not the version that was asked for" % name
        if container["HostConfig"]["Memory"] != slot.memory << 20:
            yield "%s has another memory limit" % name
        if container["Config"]["Labels"].get("campaign") != slot.label:
            yield "%s has another label" % name
        if slot.kind == "job":
            yield from exit_code_is_true(slot, state, {slot.code} | unknown)
        elif state["Status"] not in (("running",) if slot.state == "started" else ("exited", "created")):
            yield "%s is %s, and should be %s" % (name, state["Status"], slot.state)
        elif slot.kind == "web" and slot.state == "started" and state["Health"]["Status"] != "healthy":
            yield "%s is %s" % (name, state["Health"]["Status"])


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


def volumes_are_whole(engine: Engine, slots: Iterable[Slot]) -> Iterator[str]:
    for slot in slots:
        if slot.kind == "service":
            found = held(engine, slot, "precious").strip()
            if found != slot.precious:
                yield "volume %s holds %r instead of %r" % (slot.volume, found[:80], slot.precious)
            found = held(engine, slot, "copied")
            if found != slot.copied:
                yield "what was copied into volume %s has changed: %r..." % (slot.volume, found[:40])


def logs_have_every_line(engine: Engine, shown: dict[str, Any], slots: Iterable[Slot]) -> Iterator[str]:
    """A talker counts: after n comes n + 1, or 1 when it was started again. Its log may have lost its beginning. A job
    says its last word before it ends."""
    for slot in slots:
        if slot.name not in shown or slot.kind not in ("talker", "job"):
            continue
        lines = engine.run("container_logs", name=slot.name)["stdout_lines"]
        if slot.kind == "talker":
            yield from _counts(slot.name, lines)
        elif shown[slot.name]["State"]["ExitCode"] == slot.code and lines[-1:] != ["run %d ends" % slot.run]:
            yield "the log of %s lacks its end: %r" % (slot.name, lines[-3:])


def _counts(name: str, lines: list[str]) -> Iterator[str]:
    last = 0
    for text in lines:
        match = _LINE.fullmatch(text)
        if match is None:
            yield "%s: a line was torn: %r" % (name, text[:100])
            return
        number = int(match.group(1))
        if last and number not in (last + 1, 1):
            yield "%s: line %d is followed by %d" % (name, last, number)
            return
        last = number
