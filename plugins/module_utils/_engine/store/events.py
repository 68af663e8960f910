# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What happened, newest 10,000 entries."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, List, Optional

from .db import Database, Row, dumps, loads, readable
from .records import EventRecord

KEEP = 10_000


class Events:
    def __init__(self, db: Database) -> None:
        self._db = db

    def add(self, type: str, action: str, actor: str, attributes: Optional[Mapping[str, Any]] = None) -> None:  # noqa: A002
        """``type`` "container", "image" ...; ``action`` "create", "die" ...; ``actor`` an id or name."""
        with self._db.transaction():
            self._db.execute(
                "INSERT INTO events (time, type, action, actor, attributes) VALUES (?, ?, ?, ?, ?)",
                (time.time(), type, action, actor, dumps(dict(attributes or {}))),
            )
            self._db.execute("DELETE FROM events WHERE seq <= (SELECT max(seq) FROM events) - %d" % KEEP)

    def list(
        self, since: Optional[float] = None, until: Optional[float] = None, limit: Optional[int] = None
    ) -> List[EventRecord]:
        """Oldest first; with ``limit`` the newest so many. ``since`` and ``until`` are included."""
        rows = self._db.execute(
            "SELECT seq, time, type, action, actor, attributes FROM events WHERE (?1 IS NULL OR time >= ?1)"
            " AND (?2 IS NULL OR time <= ?2) ORDER BY seq DESC LIMIT ?3",
            (since, until, -1 if limit is None else limit),
        )
        return readable(rows[::-1], _record)


def _record(row: Row) -> EventRecord:
    return EventRecord(row[0], row[1], row[2], row[3], row[4], loads(row[5], "event %d" % row[0]))
