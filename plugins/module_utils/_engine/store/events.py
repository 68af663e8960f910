# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What happened, newest 10,000 entries: what tasks did, and what monitors saw (``journal``)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, List, Optional

from ..errors import StateError
from . import journal
from .db import Database, Row, dumps, loads, readable
from .records import EventRecord

KEEP = 10_000
Happened = tuple[str, str, str, Mapping[str, Any]]  # type, action, actor, attributes


class Events:
    """``directory``: of the monitors' journal."""

    def __init__(self, db: Database, directory: str) -> None:
        self._db = db
        self._directory = directory

    def add(self, type: str, action: str, actor: str, attributes: Optional[Mapping[str, Any]] = None) -> None:  # noqa: A002
        """``type`` "container", "image" ...; ``action`` "create", "die" ...; ``actor`` an id or name."""
        self.add_all([(type, action, actor, attributes or {})])

    def add_all(self, happened: Sequence[Happened], *, at: Optional[float] = None) -> None:
        """Several, in this order, at once. Of containers, name, image and labels are added. ``at``: when (now)."""
        with self._db.transaction():
            self.fold()
            for kind, action, actor, attributes in happened:
                known = self._about(actor) if kind == "container" else {}
                self._insert(time.time() if at is None else at, kind, action, actor, {**known, **attributes}, None)
            self._prune()

    def fold(self) -> None:
        """Store what monitors have seen, once, however often whoever does it is killed."""
        if not journal.waiting(self._directory) or self._db.read_only:
            return
        with self._db.transaction():
            files = journal.take(self._directory)
            for event in self._seen(journal.read(files)):
                self._insert(event.time, event.type, event.action, event.actor, event.attributes, event.origin)
            self._prune()
            self._db.on_commit(lambda: journal.done(files))

    def list(
        self, since: Optional[float] = None, until: Optional[float] = None, limit: Optional[int] = None
    ) -> List[EventRecord]:
        """By time; with ``limit`` the newest so many. ``since`` and ``until`` are included. Nothing is changed: what
        has not been stored yet is there all the same."""
        waiting = journal.pending(self._directory)  # first: what is stored meanwhile is known by its origin
        rows = self._db.execute(
            "SELECT seq, time, type, action, actor, attributes, origin FROM events WHERE (?1 IS NULL OR time >= ?1)"
            " AND (?2 IS NULL OR time <= ?2) ORDER BY time DESC, seq DESC LIMIT ?3",
            (since, until, -1 if limit is None else limit),
        )
        found = readable(rows[::-1], _record)
        known = {event.origin for event in found}
        fresh = [
            event
            for event in self._seen(waiting)
            if event.origin not in known
            and (since is None or event.time >= since)
            and (until is None or event.time <= until)
            and not self._db.first("SELECT 1 FROM events WHERE origin = ?", (event.origin,))
        ]
        if fresh:
            found = sorted(found + fresh, key=lambda event: event.time)
        return found if limit is None else found[max(len(found) - limit, 0) :]

    # -- inside ------------------------------------------------------------------------------------------------

    def _insert(
        self, moment: float, kind: str, action: str, actor: str, attributes: Mapping[str, Any], origin: Optional[str]
    ) -> None:
        self._db.execute(
            "INSERT OR IGNORE INTO events (time, type, action, actor, attributes, origin) VALUES (?, ?, ?, ?, ?, ?)",
            (moment, kind, action, actor, dumps(dict(attributes)), origin),
        )

    def _prune(self) -> None:
        self._db.execute("DELETE FROM events WHERE seq <= (SELECT max(seq) FROM events) - %d" % KEEP)

    def _seen(self, lines: Sequence[journal.Line]) -> List[EventRecord]:
        """Events of the monitors' lines. When a container has ended for good, it left its networks and volumes."""
        out = []
        for line in lines:
            moment = line.nanoseconds / 1e9
            about = self._about(line.container)
            attributes = {**line.attributes, **about}
            out.append(EventRecord(0, moment, "container", line.action, line.container, attributes, line.origin))
            if line.action == "die" and line.over:
                for at, (kind, action, actor, details) in enumerate(self._left(line.container)):
                    out.append(EventRecord(0, moment, kind, action, actor, dict(details), "%s.%d" % (line.origin, at)))
        return out

    def _about(self, container_id: str) -> dict[str, Any]:
        """Name, image and labels; {} of a container that is gone."""
        row = self._db.first("SELECT name, image_ref, spec, image_id FROM containers WHERE id = ?", (container_id,))
        if row is None:
            return {}
        image = self._db.first("SELECT config FROM images WHERE id = ?", (row[3],))
        try:
            spec = loads(row[2], "container %s" % row[0])
            config = loads(image[0], "image %s" % row[3]) if image else {}
        except StateError:
            return {"image": row[1], "name": row[0]}
        inherited = (config.get("config") or {}).get("Labels") or {}
        return {**inherited, **spec.get("labels", {}), "image": row[1], "name": row[0]}

    def _left(self, container_id: str) -> List[Happened]:
        return self.attachments(container_id, "disconnect", "unmount")

    def attachments(self, container_id: str, network: str, volume: str) -> List[Happened]:
        """What happens to a container's networks and volumes when it starts (``connect``, ``mount``) or ends."""
        out: List[Happened] = []
        rows = self._db.execute(
            "SELECT networks.id, networks.name, networks.driver FROM endpoints JOIN networks"
            " ON networks.id = endpoints.network_id WHERE container_id = ? ORDER BY position",
            (container_id,),
        )
        for network_id, name, driver in rows:
            out.append(("network", network, network_id, {"container": container_id, "name": name, "type": driver}))
        for mount in self._mounts(container_id):
            if mount["type"] != "volume":
                continue
            details = {"container": container_id, "driver": "local"}
            if volume == "mount":
                details.update(destination=mount["target"], propagation="")
                details["read/write"] = "false" if mount.get("read_only") else "true"
            out.append(("volume", volume, mount["source"], details))
        return out

    def _mounts(self, container_id: str) -> List[dict[str, Any]]:
        row = self._db.first("SELECT resolved FROM containers WHERE id = ?", (container_id,))
        try:
            return list(loads(row[0], "container %s" % container_id).get("mounts", [])) if row else []
        except StateError:  # damaged: what it used is not known
            return []


def _record(row: Row) -> EventRecord:
    return EventRecord(row[0], row[1], row[2], row[3], row[4], loads(row[5], "event %d" % row[0]), row[6] or "")
