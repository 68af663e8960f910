# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Volumes: the rows. The directories are ``storage.volumes``' business: row first, then directory."""

from __future__ import annotations

import json
from typing import Any, List, Optional

from ..errors import Conflict, InUse, NotFound, UsageError
from .containers import Containers
from .db import Database, Row, damaged, dumps, loads, readable
from .records import ContainerRecord, VolumeRecord

_COLUMNS = "name, driver, labels, anonymous, spec, created_at"
_UPDATABLE = frozenset(("driver", "labels", "spec", "anonymous"))
_JSON = frozenset(("labels", "spec"))


class Volumes:
    def __init__(self, db: Database, containers: Containers) -> None:
        self._db = db
        self._containers = containers

    def create(self, record: VolumeRecord) -> VolumeRecord:
        """Raises ``Conflict`` when the name is taken."""
        row = (*record[:2], dumps(record.labels), int(record.anonymous), dumps(record.spec), record.created_at)
        with self._db.transaction(durable=True):
            try:
                self._db.execute("INSERT INTO volumes VALUES (?, ?, ?, ?, ?, ?)", row)
            except Conflict:
                raise Conflict(
                    "Volume %s already exists" % record.name, step="create_volume", subject="volume %s" % record.name
                ) from None
        return record

    def get(self, name: str) -> Optional[VolumeRecord]:
        row = self._db.first("SELECT %s FROM volumes WHERE name = ?" % _COLUMNS, (name,))
        return None if row is None else _record(row)

    def list(self) -> List[VolumeRecord]:
        return readable(self._db.execute("SELECT %s FROM volumes ORDER BY name" % _COLUMNS), _record)

    def damaged(self) -> List[str]:
        return damaged(self._db.execute("SELECT %s FROM volumes" % _COLUMNS), _record)

    def update(self, name: str, **fields: Any) -> VolumeRecord:
        """Change ``driver labels spec anonymous``. Returns the new record; raises ``NotFound``."""
        unknown = sorted(set(fields) - _UPDATABLE)
        if unknown:
            raise UsageError("Cannot update %s of a volume" % ", ".join(unknown), step="update_volume")
        with self._db.transaction():
            if fields:
                columns = ", ".join("%s = ?" % field for field in fields)
                values = [dumps(value) if field in _JSON else value for field, value in fields.items()]
                self._db.execute("UPDATE volumes SET %s WHERE name = ?" % columns, (*values, name))
            record = self.get(name)
        if record is None:
            raise NotFound("No such volume: %s" % name, step="update_volume", subject="volume %s" % name)
        return record

    def remove(self, name: str) -> bool:
        """Delete the row. Raises ``InUse`` naming the containers that have it. False if there was none."""
        with self._db.transaction(durable=True, freeing=True):
            users = self.users(name)
            if users:
                raise InUse(
                    "Volume %s is in use by container %s" % (name, ", ".join(user.name for user in users)),
                    step="remove_volume",
                    subject="volume %s" % name,
                    hint="Remove these containers first.",
                )
            return self._db.changed("DELETE FROM volumes WHERE name = ?", (name,)) > 0

    def users(self, name: str) -> List[ContainerRecord]:
        """Containers whose ``resolved["volumes"]`` or ``spec["mounts"]`` name it. Derived, never counted. Raises
        ``StateError`` when the record of one that mentions the name is damaged: no data is deleted on a guess."""
        quoted = json.dumps(name)
        return [record for record in self._containers.mentioning(quoted) if name in _volumes_of(record)]


def _volumes_of(record: ContainerRecord) -> set[str]:
    mounts = record.spec.get("mounts") or ()
    return set(record.resolved.get("volumes") or ()) | {
        mount["source"] for mount in mounts if mount.get("type") == "volume" and mount.get("source")
    }


def _record(row: Row) -> VolumeRecord:
    subject = "volume %s" % row[0]
    return VolumeRecord(row[0], row[1], loads(row[2], subject), bool(row[3]), loads(row[4], subject), row[5])
