# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Containers: a row says that one exists, and only then its directory does.

``create`` inserts the row, then makes ``paths.container(id)``; ``remove`` deletes the row, then the directory. Both are
durable before the directory is touched. ``remove`` begins by putting ``REMOVED`` into the directory: with it a
directory without a row is one whose removal was cut short; without it the row was lost (somebody put an old copy of
the database back), and the writable layer may be all that is left of somebody's data.
"""

from __future__ import annotations

import errno
import os
from typing import Any, Dict, List, Optional

from ..errors import Conflict, KernelError, NotFound, UsageError, WharfError
from ..paths import Paths
from . import scratch
from .db import Database, Row, damaged, dumps, loads, readable
from .records import ContainerRecord

_COLUMNS = "id, name, image_id, image_ref, spec, desired, created_at, resolved, generation"
_UPDATABLE = frozenset(("image_id", "image_ref", "spec", "desired", "resolved", "generation"))
_JSON = frozenset(("spec", "resolved"))
REMOVED = ".removed"
OF_IMAGE = "(image_id = ?1 OR instr(resolved, ?1))"  # an ID occurs nowhere but where an image is meant


class Containers:
    def __init__(self, paths: Paths, db: Database) -> None:
        self._paths = paths
        self._db = db
        self._seen: Optional[Dict[str, ContainerRecord]] = None  # by name; only during Store.looking

    # -- reading ---------------------------------------------------------------------------------------------

    def get(self, key: str) -> Optional[ContainerRecord]:
        """By full id, name, or unambiguous beginning of the id, in this order. Raises ``Conflict`` when ambiguous."""
        rows = self._db.execute("SELECT %s FROM containers WHERE id = ? OR name = ?" % _COLUMNS, (key, key))
        if len(rows) > 1:  # a container named like another one's id
            rows = [row for row in rows if row[0] == key]
        if not rows and key and not key.strip("0123456789abcdef"):
            rows = self._db.execute(
                "SELECT %s FROM containers WHERE id >= ? AND id < ? LIMIT 2" % _COLUMNS, (key, key + "g")
            )
            if len(rows) > 1:
                raise Conflict("More than one container id begins with %s" % key, step="find_container", subject=key)
        return _record(rows[0]) if rows else None

    def by_name(self, name: str) -> Optional[ContainerRecord]:
        if self._seen is not None:
            return self._seen.get(name)
        row = self._db.first("SELECT %s FROM containers WHERE name = ?" % _COLUMNS, (name,))
        return None if row is None else _record(row)

    def look(self) -> None:
        """See ``Store.looking``."""
        rows = self._db.execute("SELECT %s FROM containers" % _COLUMNS)
        found = readable(rows, _record)
        # With a damaged record among them, the database is asked for each, and says what is wrong with that one.
        self._seen = {record.name: record for record in found} if len(found) == len(rows) else None

    def look_away(self) -> None:
        self._seen = None

    def list(self) -> List[ContainerRecord]:
        """All whose record is readable, oldest first (``damaged()`` tells the others)."""
        return readable(self._db.execute("SELECT %s FROM containers ORDER BY created_at, id" % _COLUMNS), _record)

    def damaged(self) -> List[str]:
        """A sentence per container that ``list()`` leaves out."""
        return damaged(self._db.execute("SELECT %s FROM containers" % _COLUMNS), _record)

    def of_image(self, image_id: str) -> List[ContainerRecord]:
        """Those that are made of an image or have it mounted."""
        rows = self._db.execute("SELECT %s FROM containers WHERE %s ORDER BY name" % (_COLUMNS, OF_IMAGE), (image_id,))
        return readable(rows, _record)

    def mentioning(self, text: str) -> List[ContainerRecord]:
        """Those whose ``spec`` or ``resolved`` contains ``text`` as it is written in JSON. Raises ``StateError`` when
        one of them is damaged: then nobody can say what it uses."""
        rows = self._db.execute(
            "SELECT %s FROM containers WHERE instr(resolved, ?1) OR instr(spec, ?1) ORDER BY name" % _COLUMNS, (text,)
        )
        return [_record(row) for row in rows]

    # -- writing ---------------------------------------------------------------------------------------------

    def create(self, record: ContainerRecord, *, need_image: bool = False) -> ContainerRecord:
        """Insert the row and make the directory. Raises ``Conflict`` when the name is taken, ``DiskFull``, and with
        ``need_image`` ``NotFound`` when the image was removed since the caller looked it up."""
        if len(record.id) != 64 or record.id.strip("0123456789abcdef"):
            raise UsageError("Not a container id: %.100r" % record.id, step="create_container")
        with self._db.transaction(durable=True):
            owner = self.by_name(record.name)
            if owner is not None:
                raise _taken(record.name, owner.id)
            needed = [record.image_id, *(m["image_id"] for m in record.resolved.get("mounts", ()) if "image_id" in m)]
            if need_image and not all(self._db.first("SELECT 1 FROM images WHERE id = ?", (one,)) for one in needed):
                raise NotFound(
                    "Image %s was removed while container %s was being created" % (record.image_ref, record.name),
                    step="create_container",
                    subject="container %s" % record.name,
                    hint="Run the task again.",
                )
            try:
                self._db.execute("INSERT INTO containers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", _row(record))
            except Conflict:
                raise Conflict("Container id %s exists already" % record.id, step="create_container") from None
            self._db.on_commit(lambda: self._make_or_undo(record.id))
        return record

    def _make_or_undo(self, container_id: str) -> None:
        try:
            self.make_directory(container_id)
        except WharfError:
            self._db.execute("DELETE FROM containers WHERE id = ?", (container_id,))
            raise

    def make_directory(self, container_id: str) -> None:
        path = self._paths.container(container_id)
        try:
            os.makedirs(path, 0o700, exist_ok=True)
        except OSError as error:
            raise scratch.wrap(
                error, "Cannot create a container directory", step="create_container", path=path, needed=4096
            ) from error

    def update(self, container_id: str, **fields: Any) -> ContainerRecord:
        """Change ``image_id image_ref spec desired resolved generation``; returns the record; raises ``NotFound``."""
        unknown = sorted(set(fields) - _UPDATABLE)
        if unknown:
            raise UsageError("Cannot update %s of a container" % ", ".join(unknown), step="update_container")
        with self._db.transaction():
            if fields:
                columns = ", ".join("%s = ?" % name for name in fields)
                values = [dumps(value) if name in _JSON else value for name, value in fields.items()]
                self._db.execute("UPDATE containers SET %s WHERE id = ?" % columns, (*values, container_id))
            row = self._db.first("SELECT %s FROM containers WHERE id = ?" % _COLUMNS, (container_id,))
        if row is None:
            raise _absent(container_id)
        return _record(row)

    def rename(self, container_id: str, name: str) -> ContainerRecord:
        """Raises ``Conflict`` when the name is taken by another container, ``NotFound``."""
        with self._db.transaction():
            owner = self.by_name(name)
            if owner is not None and owner.id != container_id:
                raise _taken(name, owner.id)
            self._db.execute("UPDATE containers SET name = ? WHERE id = ?", (name, container_id))
            return self.update(container_id)

    def remove(self, container_id: str) -> bool:
        """Delete row, endpoints and ports in one transaction, then the directory. False if there was no such row."""
        trashed: list[Optional[str]] = []
        with self._db.transaction(durable=True, freeing=True):
            found = self._db.changed("DELETE FROM containers WHERE id = ?", (container_id,)) > 0
            if found:
                path = self._paths.container(container_id)
                _mark_removed(path)
                self._db.on_commit(lambda: trashed.append(scratch.trash(self._paths.tmp, path)))
                self._db.on_commit(lambda: _empty(trashed))
        return found


def _mark_removed(path: str) -> None:
    """Not synced: after a power cut without it the directory is set aside instead of deleted, which harms nobody."""
    try:
        os.close(os.open("%s/%s" % (path, REMOVED), os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOSPC, errno.EDQUOT):
            raise KernelError.wrap(error, "Cannot remove %s" % path, step="remove_container") from error


def _empty(trashed: list[Optional[str]]) -> None:
    for path in trashed:
        scratch.empty(path)


def _row(record: ContainerRecord) -> Row:
    return (*record[:4], dumps(record.spec), record.desired, record.created_at, dumps(record.resolved), record[8])


def _record(row: Row) -> ContainerRecord:
    subject = "container %s" % row[1]
    spec, resolved = loads(row[4], subject), loads(row[7], subject)
    return ContainerRecord(row[0], row[1], row[2], row[3], spec, row[5], row[6], resolved, row[8])


def _taken(name: str, owner: str) -> Conflict:
    return Conflict(
        "The container name %s is already in use by container %s" % (name, owner),
        step="name_container",
        subject="container %s" % name,
        hint="Remove or rename that container.",
    )


def _absent(container_id: str) -> NotFound:
    return NotFound("No such container: %s" % container_id, step="find_container", subject=container_id)
