# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Layers: ``layers/<chain id>/``, built in ``tmp/``, synced, renamed, and only then named by a row."""

from __future__ import annotations

import errno
import fcntl
import os
from types import TracebackType
from typing import List, Optional

from .. import fds
from ..errors import Conflict, InUse, KernelError
from ..paths import Paths
from . import scratch
from .blobs import hex_of
from .db import Database, Row
from .records import LayerRecord

_COLUMNS = "chain_id, diff_id, parent, form, size"


class Stage:
    """A directory below ``tmp/`` for a layer that is being built; ``path`` is its name, ``fd`` the descriptor that
    holds it. In ``with``, leaving without ``Layers.commit`` discards it."""

    __slots__ = ("_tmp", "fd", "path")

    def __init__(self, tmp: str) -> None:
        self._tmp = tmp
        self.path, self.fd = scratch.new_dir(tmp, "layer")

    def discard(self) -> None:
        """Delete what is there. Idempotent, and harmless after a commit."""
        if self.fd < 0:
            return
        trashed = scratch.trash(self._tmp, self.path)
        self.close()
        scratch.empty(trashed)

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def take(self) -> int:
        fd, self.fd = self.fd, -1
        return fd

    def __enter__(self) -> Stage:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], value: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.discard()


class Layers:
    """A layer that no image names yet is pinned as blobs are (``blobs.Blobs``), by a ``flock`` on its directory."""

    def __init__(self, paths: Paths, db: Database) -> None:
        self._paths = paths
        self._db = db
        self._pins: dict[str, int] = {}
        self._pid = os.getpid()

    def get(self, chain_id: str) -> Optional[LayerRecord]:
        row = self._db.first("SELECT %s FROM layers WHERE chain_id = ?" % _COLUMNS, (chain_id,))
        return None if row is None else _record(row)

    def list(self) -> List[LayerRecord]:
        return [_record(row) for row in self._db.execute("SELECT %s FROM layers ORDER BY chain_id" % _COLUMNS)]

    def sizes(self) -> dict[str, int]:
        """Bytes of the files in each layer, by chain ID."""
        return dict(self._db.execute("SELECT chain_id, size FROM layers"))

    def stage(self) -> Stage:
        """A new, empty, locked directory. Raises ``DiskFull``."""
        return Stage(self._paths.tmp)

    def commit(self, stage: Stage, record: LayerRecord) -> LayerRecord:
        """Make the staged directory the layer ``record.chain_id``. If it exists already the stage is discarded and
        the existing record returned. The layer stays pinned. Raises ``DiskFull``."""
        target = self._paths.layer("sha256:" + hex_of(record.chain_id))
        if self.pin(record.chain_id):
            existing = self.get(record.chain_id)
            if existing is not None:
                stage.discard()
                return existing
            self.unpin(record.chain_id)
        self._sync(stage, record.form)
        with self._db.transaction():
            existing = self.get(record.chain_id)
            if existing is None:
                self._move_in(stage, target)
                self._db.execute("INSERT INTO layers (%s) VALUES (?, ?, ?, ?, ?)" % _COLUMNS, record)
        if existing is not None:
            stage.discard()
            self.pin(record.chain_id)
            return existing
        fd = stage.take()
        fcntl.flock(fd, fcntl.LOCK_SH)
        self._pins[record.chain_id] = fd
        return record

    def _sync(self, stage: Stage, form: str) -> None:
        """Two files are synced one by one; thousands with one ``syncfs``, which also waits for what others wrote."""
        try:
            if form == "erofs":
                for name in os.listdir(stage.fd):
                    _sync_file(stage.fd, name)
                os.fsync(stage.fd)
                return
            from ..kernel.syscalls import Kernel

            Kernel().syncfs(stage.fd)
        except OSError as error:
            raise scratch.wrap(error, "Cannot store a layer", step="commit_layer", path=stage.path) from error

    def _move_in(self, stage: Stage, target: str) -> None:
        """Inside the transaction. A directory that is there without a row is what a crash left: out of the way."""
        try:
            try:
                os.rename(stage.path, target)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                scratch.trash(self._paths.tmp, target)
                os.rename(stage.path, target)
            scratch.sync_dir(self._paths.layers)
        except OSError as error:
            raise scratch.wrap(error, "Cannot store a layer", step="commit_layer", path=target, needed=4096) from error

    def pin(self, chain_id: str) -> bool:
        """Keep a layer from being collected until ``unpin()``, ``Store.close()`` or the end of this process. False if
        there is none."""
        if chain_id in self._pins:
            return True
        path = self._paths.layer("sha256:" + hex_of(chain_id))
        while True:
            try:
                fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:
                return False
            except OSError as error:
                raise KernelError.wrap(error, "Cannot use layer %s" % chain_id, step="pin_layer") from error
            fcntl.flock(fd, fcntl.LOCK_SH)
            if fds.is_at(fd, path):
                self._pins[chain_id] = fd
                return True
            os.close(fd)

    def unpin(self, chain_id: Optional[str] = None) -> None:
        """Drop one pin, or all."""
        for name in [chain_id] if chain_id is not None else list(self._pins):
            fd = self._pins.pop(name, -1)
            if fd < 0:
                continue
            if self._pid == os.getpid():  # close() alone would leave it to a forked child; in one, it is the parent's
                fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)

    def remove(self, chain_id: str) -> int:
        """Delete; returns the bytes freed, 0 if there is no such layer or another process pinned it. Raises ``InUse``
        when an image names it."""
        self.unpin(chain_id)
        with self._db.transaction(freeing=True):
            trashed = self.take(chain_id)
        return scratch.empty(trashed)

    def take(self, chain_id: str) -> Optional[str]:
        """Inside a transaction: delete the row and move the directory to the trash, whose path is returned."""
        path = self._paths.layer("sha256:" + hex_of(chain_id))
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            fd = -1
        try:
            if fd >= 0 and not scratch.try_lock(fd):
                return None
            try:
                self._db.execute("DELETE FROM layers WHERE chain_id = ?", (chain_id,))
            except Conflict:
                raise InUse("Layer %s is part of an image" % chain_id, step="remove_layer", subject=chain_id) from None
            return scratch.trash(self._paths.tmp, path)
        finally:
            if fd >= 0:
                os.close(fd)


def _sync_file(dirfd: int, name: str) -> None:
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dirfd)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _record(row: Row) -> LayerRecord:
    return LayerRecord(*row)
