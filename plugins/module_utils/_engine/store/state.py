# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The store as one object. See the package's docstring for layout, lock order and what may be found half-done."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Optional

from ..errors import DiskFull, StateError
from ..paths import Paths
from . import reserve, scratch
from .blobs import Blobs
from .containers import Containers
from .db import Database, Transaction
from .images import Images
from .layers import Layers
from .locks import Lock, Locks

if TYPE_CHECKING:
    from .events import Events
    from .networks import Networks
    from .volumes import Volumes


class Store:
    """One engine instance's state. Made by ``open``; usable in ``with``; several processes have it open at once."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        self.db = Database(paths.database)
        self.locks = Locks(paths.locks, self.db.in_transaction)
        self.blobs = Blobs(paths)
        self.layers = Layers(paths, self.db)
        self.containers = Containers(paths, self.db)
        self.images = Images(self.db, self.containers, self.layers, self.blobs)
        self._networks: Optional[Networks] = None
        self._volumes: Optional[Volumes] = None
        self._events: Optional[Events] = None

    # Not every task needs these three, and each import is time that all would pay.

    @property
    def networks(self) -> Networks:
        if self._networks is None:
            from .networks import Networks

            self._networks = Networks(self.db)
        return self._networks

    @property
    def volumes(self) -> Volumes:
        if self._volumes is None:
            from .volumes import Volumes

            self._volumes = Volumes(self.db, self.containers)
        return self._volumes

    @property
    def events(self) -> Events:
        if self._events is None:
            from .events import Events

            self._events = Events(self.db, self.paths.events)
        return self._events

    @classmethod
    def open(cls, paths: Paths, *, recover: bool = True) -> Store:
        """Make the directories, bring the schema up to date, repair what a crash left.

        Raises ``StateError`` when the state is damaged or of a newer release, ``DiskFull``.
        """
        try:
            paths.ensure()
        except OSError as error:
            if os.path.exists(paths.database):
                raise StateError(
                    "Cannot write to the state directory %s: %s" % (paths.state, error.strerror),
                    step="open_state",
                    path=paths.state,
                    errno=error.errno,
                ) from error
            raise scratch.wrap(
                error, "Cannot create the state directory", step="open_state", path=paths.state, needed=1 << 20
            ) from error
        store = cls(paths)
        try:
            reserve.spend(paths.state)
            if not store.db.check_version():
                store._migrate()
            if recover:
                store._recover_if_possible()
            reserve.keep(paths.state)
        except BaseException:
            store.close()
            raise
        return store

    def _migrate(self) -> None:
        with self.locks.lock("store", "migrate"):
            if self.db.version() == 0:
                self._make_private()
            self.db.migrate()

    def _make_private(self) -> None:
        """The database holds environments, and thus passwords; SQLite gives -wal and -shm the same mode."""
        try:
            os.close(os.open(self.paths.database, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
            os.chmod(self.paths.database, 0o600)
        except OSError as error:
            path = self.paths.database
            raise scratch.wrap(
                error, "Cannot create the state database", step="open_state", path=path, needed=1 << 16
            ) from error

    def _recover_if_possible(self) -> None:
        """A full disk must not keep anybody from opening the store to remove something."""
        try:
            self.recover()
        except DiskFull:
            return  # what is half-done stays invisible, and is repaired when there is room

    def close(self) -> None:
        """Idempotent. Drops pins."""
        self.blobs.unpin()
        self.layers.unpin()
        self.db.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], value: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def transaction(self, *, durable: bool = False, freeing: bool = False) -> Transaction:
        """All or nothing for what is done inside; joins an outer transaction. Keep it short: it locks out writers.

        ``durable`` waits for the disk at the end (needed where losing the last commit in a power cut loses data).
        ``freeing`` (it removes something) may use the reserved space on a full disk.
        Directories of containers created or removed inside appear or go when the outermost transaction commits.
        """
        return self.db.transaction(durable=durable, freeing=freeing)

    def lock(self, kind: str, name: str = "", *, shared: bool = False, timeout: Optional[float] = None) -> Lock:
        """A lock between processes; see ``locks``. ``timeout`` in seconds, ``None`` waits for ever."""
        return self.locks.lock(kind, name, shared=shared, timeout=timeout)

    @contextmanager
    def looking(self) -> Iterator[None]:
        """All containers and networks are read once, and looked up in that inside: for a plan over many of them. They
        are as they were at the beginning. Nothing may be written inside."""
        with self.db.snapshot():
            self.containers.look()
            self.networks.look()
        try:
            yield
        finally:
            self.containers.look_away()
            self.networks.look_away()

    def damaged(self) -> list[str]:
        """A sentence for every record that the ``list()`` methods leave out because it cannot be read."""
        tables = (self.images, self.containers, self.networks, self.volumes)
        return [sentence for table in tables for sentence in table.damaged()]

    def recover(self) -> list[str]:
        """Repair what a crash left; sentences about what was done. Cheap when there is nothing to do."""
        from .recovery import recover

        return recover(self)

    def collect(self) -> dict[str, Any]:
        """Delete unreachable layers and blobs and litter: ``{"layers": [...], "blobs": [...], "bytes": n}``."""
        from .collect import collect

        return collect(self)
