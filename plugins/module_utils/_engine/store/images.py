# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Images, and the references and repository digests that point to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, List, Optional

from ..errors import Conflict, InUse, NotFound
from .blobs import hex_of
from .db import Database, Row, damaged, dumps, loads, readable
from .records import ContainerRecord, ImageRecord, LayerRef

if TYPE_CHECKING:
    from .blobs import Blobs
    from .containers import Containers
    from .layers import Layers

_LAYER = "diff_id, chain_id, blob_digest, blob_size, media_type"
_COLUMNS = "id, manifest_digest, manifest_type, config, size, created_at"


class Images:
    """References are stored as they are given (callers pass the canonical form, ``docker.io/library/alpine:3``)."""

    def __init__(self, db: Database, containers: Containers, layers: Layers, blobs: Blobs) -> None:
        self._db = db
        self._containers = containers
        self._layers = layers
        self._blobs = blobs

    # -- reading ---------------------------------------------------------------------------------------------

    def get(self, image_id: str) -> Optional[ImageRecord]:
        with self._db.snapshot():  # never an image without its layers
            row = self._db.first("SELECT %s FROM images WHERE id = ?" % _COLUMNS, (image_id,))
            return None if row is None else self._record(row)

    def by_reference(self, reference: str) -> Optional[ImageRecord]:
        row = self._db.first("SELECT image_id FROM refs WHERE reference = ?", (reference,))
        return None if row is None else self.get(row[0])

    def find(self, text: str) -> Optional[ImageRecord]:
        """By full id, reference, ``repository@digest``, or an unambiguous beginning of the id (with or without
        ``sha256:``). Raises ``Conflict`` when more than one image's id begins so."""
        found = self.get(text) or self.by_reference(text)
        if found is not None:
            return found
        rows = self._db.execute("SELECT image_id FROM repo_digests WHERE repo_digest = ? LIMIT 1", (text,))
        if rows:
            return self.get(rows[0][0])
        prefix = text if text.startswith("sha256:") else "sha256:" + text
        rest = prefix[7:]
        if not rest or rest.strip("0123456789abcdef"):
            return None
        rows = self._db.execute(
            "SELECT id FROM images WHERE id >= ? AND id < ? AND doomed = 0 LIMIT 2", (prefix, prefix + "g")
        )
        if len(rows) > 1:
            raise Conflict("More than one image id begins with %s" % text, step="find_image", subject=text)
        return self.get(rows[0][0]) if rows else None

    def list(self) -> List[ImageRecord]:
        """All whose record is readable and that are not waiting for their last container, oldest first."""
        with self._db.snapshot():
            rows = self._db.execute("SELECT %s FROM images WHERE doomed = 0 ORDER BY created_at, id" % _COLUMNS)
            layers: dict[str, list[LayerRef]] = {}
            for image_id, *fields in self._db.execute(
                "SELECT image_id, %s FROM image_layers ORDER BY image_id, position" % _LAYER
            ):
                layers.setdefault(image_id, []).append(LayerRef._make(fields))
            return readable(rows, lambda row: _record(row, layers.get(row[0], ())))

    def damaged(self) -> List[str]:
        return damaged(self._db.execute("SELECT %s FROM images" % _COLUMNS), self._record)

    def references(self, image_id: str) -> List[str]:
        rows = self._db.execute("SELECT reference FROM refs WHERE image_id = ? ORDER BY reference", (image_id,))
        return [row[0] for row in rows]

    def repo_digests(self, image_id: str) -> List[str]:
        rows = self._db.execute(
            "SELECT repo_digest FROM repo_digests WHERE image_id = ? ORDER BY repo_digest", (image_id,)
        )
        return [row[0] for row in rows]

    def names(self) -> dict[str, tuple[List[str], List[str]]]:
        """Of all images that have any, by ID: (references, repository digests)."""
        found: dict[str, tuple[List[str], List[str]]] = {}
        with self._db.snapshot():
            for column, sql in enumerate(
                (
                    "SELECT image_id, reference FROM refs ORDER BY reference",
                    "SELECT image_id, repo_digest FROM repo_digests ORDER BY repo_digest",
                )
            ):
                for image_id, name in self._db.execute(sql):
                    found.setdefault(image_id, ([], []))[column].append(name)
        return found

    def layer_owners(self) -> dict[str, int]:
        """How many of the listed images have a layer, by its chain ID (of which no image has one twice)."""
        return dict(
            self._db.execute(
                "SELECT chain_id, COUNT(*) FROM image_layers"
                " WHERE image_id NOT IN (SELECT id FROM images WHERE doomed = 1) GROUP BY chain_id"
            )
        )

    def layer_blobs(self, diff_id: str) -> List[LayerRef]:
        """What images know of the (compressed) blobs of a layer. Whether a blob is there is for the caller to see."""
        rows = self._db.execute(
            "SELECT DISTINCT %s FROM image_layers WHERE diff_id = ? AND blob_digest <> ''" % _LAYER, (diff_id,)
        )
        return [LayerRef(*row) for row in rows]

    def users(self, image_id: str) -> List[ContainerRecord]:
        return self._containers.of_image(image_id)

    def _record(self, row: Row) -> ImageRecord:
        layers = self._db.execute(
            "SELECT %s FROM image_layers WHERE image_id = ? ORDER BY position" % _LAYER, (row[0],)
        )
        return _record(row, [LayerRef(*layer) for layer in layers])

    # -- writing ---------------------------------------------------------------------------------------------

    def put(self, record: ImageRecord, references: Sequence[str] = (), repo_digests: Sequence[str] = ()) -> None:
        """Store or refresh an image, and move ``references`` to it, in one durable transaction. Its layers must be
        committed before; raises ``NotFound`` if one is not there (any more)."""
        hex_of(record.id)
        with self._db.transaction(durable=True):
            self._db.execute(
                "INSERT INTO images (%s) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET"
                " manifest_digest = excluded.manifest_digest, manifest_type = excluded.manifest_type,"
                " config = excluded.config, size = excluded.size, doomed = 0" % _COLUMNS,
                (*record[:3], dumps(record.config), record.size, record.created_at),
            )
            self._put_layers(record)
            for reference in references:
                self.tag(reference, record.id)
            for repo_digest in repo_digests:
                self._db.execute("INSERT OR IGNORE INTO repo_digests VALUES (?, ?)", (repo_digest, record.id))
        self._unpin(record)

    def _put_layers(self, record: ImageRecord) -> None:
        self._db.execute("DELETE FROM image_layers WHERE image_id = ?", (record.id,))
        for position, layer in enumerate(record.layers):
            try:
                self._db.execute("INSERT INTO image_layers VALUES (?, ?, ?, ?, ?, ?, ?)", (record.id, position, *layer))
            except Conflict:
                raise NotFound(
                    "Layer %s of image %s is not in the store" % (layer.chain_id, record.id),
                    step="put_image",
                    subject=layer.chain_id,
                    hint="Pull the image again.",
                ) from None

    def _unpin(self, record: ImageRecord) -> None:
        for digest in (record.id, record.manifest_digest, *(layer.blob_digest for layer in record.layers)):
            self._blobs.unpin(digest)
        for layer in record.layers:
            self._layers.unpin(layer.chain_id)

    def tag(self, reference: str, image_id: str) -> None:
        """Point ``reference`` to the image, wherever it pointed before. Raises ``NotFound``."""
        with self._db.transaction():
            if not self._db.changed("UPDATE images SET doomed = 0 WHERE id = ?", (image_id,)):
                raise NotFound("No such image: %s" % image_id, step="tag_image", subject=image_id)
            self._db.execute(
                "INSERT INTO refs VALUES (?, ?) ON CONFLICT (reference) DO UPDATE SET image_id = excluded.image_id",
                (reference, image_id),
            )

    def untag(self, reference: str) -> bool:
        """Forget the reference; the image stays. False if there was none."""
        return self._db.changed("DELETE FROM refs WHERE reference = ?", (reference,)) > 0

    def asked_tags(self, reference: str) -> List[str]:
        """The further references that the task about ``reference`` asked for last."""
        return [row[0] for row in self._db.execute("SELECT tag FROM asked_tags WHERE reference = ?", (reference,))]

    def ask_tags(self, reference: str, tags: Sequence[str]) -> None:
        """Remember them, instead of those before. Points nothing anywhere."""
        if sorted(tags) == sorted(self.asked_tags(reference)):
            return
        with self._db.transaction():
            self._db.execute("DELETE FROM asked_tags WHERE reference = ?", (reference,))
            for tag in tags:
                self._db.execute("INSERT OR IGNORE INTO asked_tags VALUES (?, ?)", (reference, tag))

    def drop_repo_digest(self, repo_digest: str, image_id: str) -> bool:
        sql = "DELETE FROM repo_digests WHERE repo_digest = ? AND image_id = ?"
        return self._db.changed(sql, (repo_digest, image_id)) > 0

    def remove(self, image_id: str, *, force: bool = False) -> bool:
        """Remove the record and everything that points to it; ``Store.collect()`` frees the disk. False if absent.

        Raises ``InUse`` when containers are made from it; with ``force`` it loses its references, is no longer listed,
        and goes with the last of those containers.
        """
        with self._db.transaction(durable=True, freeing=True):
            users = self.users(image_id)
            if not users:
                return self._db.changed("DELETE FROM images WHERE id = ?", (image_id,)) > 0
            if not force:
                raise InUse(
                    "Image %s is used by container %s" % (image_id, ", ".join(user.name for user in users)),
                    step="remove_image",
                    subject=image_id,
                    hint="Remove the container first, or use force.",
                )
            self._db.execute("DELETE FROM refs WHERE image_id = ?", (image_id,))
            self._db.execute("DELETE FROM repo_digests WHERE image_id = ?", (image_id,))
            return self._db.changed("UPDATE images SET doomed = 1 WHERE id = ?", (image_id,)) > 0


def _record(row: Row, layers: Sequence[LayerRef]) -> ImageRecord:
    config = loads(row[3], "image %s" % row[0])
    return ImageRecord(row[0], row[1], row[2], config, row[4], row[5], tuple(layers))
