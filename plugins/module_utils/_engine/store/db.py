# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""One connection to ``state.db``: transactions, migrations, and SQLite's errors in our words.

SQLite runs in WAL mode with ``synchronous=NORMAL``: after a power cut the database is whole, but the last
transactions may be gone. Where that would lose data (a container's or an image's row), the transaction is asked to
be *durable*: the WAL is synced after the commit, which is what ``synchronous=FULL`` does, but can also be asked for by
an inner transaction that joined an outer one. (Closing a descriptor of the *main* file would drop SQLite's POSIX locks;
of the WAL it doesn't: SQLite locks the main file and the -shm file only.)
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Optional, TypeVar

from ..errors import Conflict, DiskFull, KernelError, StateError, TimedOut, UsageError, WharfError
from . import reserve, schema

if TYPE_CHECKING:
    import sqlite3

BUSY_SECONDS = 30.0
_RACES = 20  # begun transactions in a row that may be lost to others
Row = tuple[Any, ...]
_Record = TypeVar("_Record")


def _driver() -> Any:
    """``sqlite3``, without what it adds to the C module: dates and times, of which the state has none."""
    try:
        import _sqlite3

        return _sqlite3
    except ImportError:  # another Python keeps it elsewhere
        import sqlite3

        return sqlite3


def dumps(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


def loads(text: str, subject: str) -> Any:
    """A JSON column of ``subject`` ("network web"). Raises ``StateError`` when it cannot be read."""
    if text == "[]":
        return []
    try:
        return json.loads(text)
    except (TypeError, ValueError) as error:
        raise StateError(
            "The stored record of %s is damaged: %s" % (subject, error),
            step="read_record",
            subject=subject,
            hint="Remove it and run its task again.",
        ) from error


def readable(rows: Sequence[Row], convert: Callable[[Row], _Record]) -> list[_Record]:
    """One damaged record must not stop work on the others: it is left out (``Store.damaged()`` tells)."""
    found = []
    for row in rows:
        try:
            found.append(convert(row))
        except StateError:
            continue
    return found


def damaged(rows: Sequence[Row], convert: Callable[[Row], Any]) -> list[str]:
    """The sentences about those that ``readable`` leaves out."""
    sentences = []
    for row in rows:
        try:
            convert(row)
        except StateError as error:
            sentences.append(error.msg)
    return sentences


class Database:
    """Serialises the threads of one process; a forked child gets a connection of its own at its first statement."""

    def __init__(self, path: str) -> None:
        from _thread import RLock

        self.path = path
        self.read_only = False
        self._closed = False
        self._mutex = RLock()
        self._pid = os.getpid()
        self._depth = 0
        self._owner = 0  # thread whose transaction is open
        self._durable = False
        self._on_commit: list[Callable[[], None]] = []
        self._abandoned: list[Any] = []
        self._connection: Optional[sqlite3.Connection] = None

    # -- opening ---------------------------------------------------------------------------------------------

    def connect(self) -> sqlite3.Connection:
        """The connection of this process. A connection must not cross a fork (its locks and caches are the
        parent's), and must not be closed there either: it is kept aside, unused."""
        if self._connection is not None and self._pid == os.getpid():
            return self._connection
        if self._connection is not None:
            if self._depth:
                raise WharfError("A database transaction was carried across a fork", step="database")
            self._abandoned.append(self._connection)
            self._connection = None
        if self._closed:
            raise WharfError("The store was used after it was closed", step="database")
        self._pid = os.getpid()
        self._connection = connection = self._new_connection()
        return connection

    def _new_connection(self) -> sqlite3.Connection:
        driver = _driver()
        lost = 0
        while True:
            connection: Optional[sqlite3.Connection] = None
            try:
                connection = driver.connect(
                    self._uri(),
                    timeout=BUSY_SECONDS,
                    isolation_level=None,
                    check_same_thread=False,
                    cached_statements=256,
                    uri=True,
                )
                connection.execute("PRAGMA synchronous=NORMAL")
                connection.execute("PRAGMA foreign_keys=ON")
                return connection
            except driver.Error as error:
                if connection is not None:
                    connection.close()
                lost += 1
                if lost == _RACES or not self._lost_a_race(error):
                    self._fail(error)

    def _lost_a_race(self, error: Exception) -> bool:
        """SQLITE_PROTOCOL: for seconds others were faster to begin a transaction (https://sqlite.org/rescode.html#protocol).
        Nothing has happened; after a pause it may be tried again."""
        if self._depth or "locking protocol" not in str(error):
            return False
        import time

        time.sleep(0.1)
        return True

    def _uri(self) -> str:
        """On a read-only file system WAL needs help: without a -wal file nothing can change, so none is looked for;
        with one, SQLite builds the index it cannot write in memory."""
        name = "file:" + self.path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
        self.read_only = os.path.exists(self.path) and not os.access(os.path.dirname(self.path), os.W_OK)
        if not self.read_only:
            return name
        return name + ("?mode=ro" if os.path.exists(self.path + "-wal") else "?mode=ro&immutable=1")

    def close(self) -> None:
        self._closed = True
        if self._connection is not None and self._pid == os.getpid():
            self._connection.close()
        elif self._connection is not None:
            self._abandoned.append(self._connection)
        self._connection = None

    def version(self) -> int:
        return int(self.execute("PRAGMA user_version")[0][0])

    def check_version(self) -> bool:
        """True when the schema is current, False when it must be migrated (call ``migrate`` under a lock).

        Raises ``StateError`` for a database of a newer release, which is not touched.
        """
        version, known = self.version(), len(schema.MIGRATIONS)
        if version > known:
            raise StateError(
                "The state in %s was written by a newer release (schema version %d, this release knows up to %d)"
                % (os.path.dirname(self.path), version, known),
                step="open_state",
                path=self.path,
                hint="Use the newer wharf.engine again; nothing was changed.",
            )
        return version == known

    def migrate(self) -> None:
        """Bring the schema up to date, one transaction per version. Idempotent."""
        if self.check_version():
            return
        self.execute("PRAGMA journal_mode=WAL")
        while not self.check_version():
            with self.transaction(durable=True):
                version = self.version()
                for statement in schema.MIGRATIONS[version]:
                    self.execute(statement)
                self.execute("PRAGMA user_version=%d" % (version + 1))

    # -- statements ------------------------------------------------------------------------------------------

    def execute(self, sql: str, args: Sequence[Any] = ()) -> list[Row]:
        """Run one statement and fetch everything. A broken UNIQUE or FOREIGN KEY raises ``Conflict`` with SQLite's
        words (the caller says it better); see ``_fail`` for the rest."""
        with self._mutex:
            connection = self.connect()
            if self._depth:
                self._check_alive()
            lost = 0
            while True:
                try:
                    return connection.execute(sql, args).fetchall()
                except Exception as error:
                    lost += 1
                    if lost == _RACES or not self._lost_a_race(error):
                        self._fail(error)

    def changed(self, sql: str, args: Sequence[Any] = ()) -> int:
        """Run one statement and return how many rows it changed."""
        with self._mutex:
            connection = self.connect()
            if self._depth:
                self._check_alive()
            lost = 0
            while True:
                try:
                    return connection.execute(sql, args).rowcount
                except Exception as error:
                    lost += 1
                    if lost == _RACES or not self._lost_a_race(error):
                        self._fail(error)

    def first(self, sql: str, args: Sequence[Any] = ()) -> Optional[Row]:
        rows = self.execute(sql, args)
        return rows[0] if rows else None

    # -- transactions ----------------------------------------------------------------------------------------

    def transaction(self, *, durable: bool = False, freeing: bool = False) -> Transaction:
        """``BEGIN IMMEDIATE`` … ``COMMIT``, or a savepoint inside an outer transaction. See ``Transaction``."""
        if freeing:
            reserve.spend(os.path.dirname(self.path))
        return Transaction(self, durable)

    def snapshot(self) -> Transaction:
        """Several reads that see one state. Writes nothing, waits for nobody."""
        return Transaction(self, durable=False, reading=True)

    def in_transaction(self) -> bool:
        """Is this thread inside a transaction?"""
        from _thread import get_ident

        return self._depth > 0 and self._owner == get_ident()

    def data_version(self) -> int:
        """Another number whenever another connection committed something (``PRAGMA data_version``)."""
        return int(self.execute("PRAGMA data_version")[0][0])

    def on_commit(self, function: Callable[[], None]) -> None:
        """Call ``function`` after the (outermost) transaction is committed, at once if there is none."""
        if self.in_transaction():
            self._on_commit.append(function)
        else:
            function()

    def sync(self) -> None:
        """Make every commit so far survive a power cut."""
        wal = self.path + "-wal"
        try:
            fd = os.open(wal, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return  # checkpointed, and thereby synced
        try:
            os.fdatasync(fd)
        except OSError as error:
            raise KernelError.wrap(error, "Cannot write %s to the disk" % wal, step="sync_state") from error
        finally:
            os.close(fd)

    def _begin(self, durable: bool, reading: bool) -> int:
        from _thread import get_ident

        self._mutex.acquire()
        try:
            start = "BEGIN" if reading else "BEGIN IMMEDIATE"
            self.execute("SAVEPOINT s%d" % self._depth if self._depth else start)
        except BaseException:
            self._mutex.release()
            raise
        self._depth += 1
        self._owner = get_ident()
        self._durable = self._durable or durable
        return len(self._on_commit)

    def _end(self, keep: bool, mark: int) -> None:
        """``mark``: how many functions waited for the commit when this (inner) transaction began."""
        self._depth -= 1
        try:
            if self._depth:
                self._end_inner(keep, mark)
            elif keep:
                self._commit()
            else:
                self._rollback()
        finally:
            self._mutex.release()

    def _end_inner(self, keep: bool, mark: int) -> None:
        if not keep:
            del self._on_commit[mark:]
            if not self.connect().in_transaction:
                return  # SQLite rolled everything back already; the outer one finds out
            self.execute("ROLLBACK TO s%d" % self._depth)
        self.execute("RELEASE s%d" % self._depth)

    def _commit(self) -> None:
        try:
            self._check_alive()
            self.execute("COMMIT")
        except BaseException:
            self._rollback()
            raise
        todo, durable = self._on_commit, self._durable
        self._on_commit, self._durable = [], False
        if durable:
            self.sync()
        for function in todo:
            function()

    def _rollback(self) -> None:
        self._on_commit, self._durable = [], False
        if self._connection is not None and self._connection.in_transaction:
            self.execute("ROLLBACK")

    def _check_alive(self) -> None:
        """A full disk or an I/O error may make SQLite roll the whole transaction back by itself. Whoever caught that
        error and goes on would from here on write outside of any transaction."""
        if not self.connect().in_transaction:
            raise DiskFull(
                "A change of %s was rolled back after an earlier error; nothing was changed" % self.path,
                step="database",
                path=self.path,
            )

    # -- errors ----------------------------------------------------------------------------------------------

    def _is_full(self, words: str) -> bool:
        """SQLite says "full" only for writes; files it cannot make or extend are "I/O error" and "unable to open"."""
        if "full" in words:
            return True
        if "I/O error" not in words and "unable to open" not in words:
            return False
        directory = os.path.dirname(self.path)
        return not self.read_only and (reserve.free_bytes(directory) < 65536 or reserve.is_used_up(directory))

    def _fail(self, error: Exception) -> NoReturn:
        driver = _driver()
        words = str(error)
        where: dict[str, Any] = {"path": self.path, "step": "database"}
        if isinstance(error, (driver.ProgrammingError, driver.InterfaceError, driver.NotSupportedError)):
            raise error  # our mistake, not the database's
        if isinstance(error, UnicodeError):
            raise UsageError("A name has bytes in it that are no text: %s" % error, **where) from error
        if isinstance(error, driver.IntegrityError):
            raise Conflict(words, **where) from error
        if isinstance(error, driver.OperationalError) and self._is_full(words):
            raise DiskFull(
                "No space left for %s: %d bytes are free, at least %d are needed; nothing was changed"
                % (self.path, reserve.free_bytes(os.path.dirname(self.path)), reserve.STEP),
                errno=28,
                hint="Free some space on that file system.",
                details={"bytes_needed": reserve.STEP},
                **where,
            ) from error
        if isinstance(error, driver.OperationalError) and ("locked" in words or "locking protocol" in words):
            raise TimedOut(
                "%s stayed locked by another process for %d seconds" % (self.path, BUSY_SECONDS), **where
            ) from error
        if isinstance(error, driver.OperationalError) and ("readonly" in words or "unable to open" in words):
            raise StateError("Cannot write %s: %s" % (self.path, words), **where) from error
        if isinstance(error, driver.DatabaseError):
            raise StateError(
                "The state database %s is damaged or unreadable: %s" % (self.path, words),
                hint="Move state.db, state.db-wal and state.db-shm out of %s and run the task again: volumes are found "
                "again, container directories are set aside below lost/, images are pulled again."
                % os.path.dirname(self.path),
                **where,
            ) from error
        raise error


class Transaction:
    """Context manager; an exception rolls back, also when it is caught outside of an inner transaction."""

    __slots__ = ("_db", "_durable", "_mark", "_reading")

    def __init__(self, db: Database, durable: bool, reading: bool = False) -> None:
        self._db = db
        self._durable = durable
        self._reading = reading
        self._mark = 0

    def __enter__(self) -> Transaction:
        self._mark = self._db._begin(self._durable, self._reading)
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], value: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._db._end(kind is None, self._mark)
