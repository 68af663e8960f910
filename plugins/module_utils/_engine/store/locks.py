# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Locks between processes: ``flock`` on ``paths.locks/<kind>.<name>``, dropped by the kernel with the process.

They are always taken in the order of ``ORDER``, and by ascending name within one kind; anything else raises at once
instead of deadlocking some day. Taking a lock again that this thread already has is harmless. None is held over
network I/O, except "blob", which only keeps two processes from downloading the same blob.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from types import TracebackType
from typing import Optional

from .. import fds
from ..errors import KernelError, TimedOut, WharfError
from . import scratch

ORDER = ("store", "image", "network", "volume", "container", "blob")
_RANK = {kind: rank for rank, kind in enumerate(ORDER)}
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.")


def quote(name: str) -> str:
    """A file name for any object name; long ones (image references) end in a hash."""
    text = "".join(c if c in _PLAIN else "%" + c.encode("utf-8", "surrogateescape").hex() for c in name)
    if len(text) > 180:
        import hashlib

        text = text[:100] + "%" + hashlib.sha256(os.fsencode(name)).hexdigest()
    return text


class _Held:
    __slots__ = ("count", "fd", "pid", "shared", "thread")

    def __init__(self, fd: int, shared: bool, thread: int) -> None:
        self.fd = fd
        self.shared = shared
        self.thread = thread
        self.pid = os.getpid()
        self.count = 1


_Table = dict[tuple[int, str, int], _Held]  # (rank, name, thread)
_TABLES: dict[str, _Table] = {}


class Locks:
    """The locks below one directory. The table of those held is one per process, however many stores are open, so
    that a process cannot wait for itself; re-entrance and order are judged per thread."""

    def __init__(self, directory: str, forbidden: Callable[[], bool] = lambda: False) -> None:
        self._directory = directory
        self._held = _TABLES.setdefault(directory, {})
        self._forbidden = forbidden

    def lock(self, kind: str, name: str = "", *, shared: bool = False, timeout: Optional[float] = None) -> Lock:
        return Lock(self, kind, name, shared, timeout)

    def acquire(self, kind: str, name: str, shared: bool, timeout: Optional[float]) -> None:
        """Raises ``TimedOut`` naming the holder, ``WharfError`` on a violation of the order."""
        from _thread import get_ident

        thread = get_ident()
        if kind not in _RANK:
            raise WharfError("There is no kind of lock called %r" % kind, step="lock")
        key = (_RANK[kind], name, thread)
        held = self._held.get(key)
        if held is not None and held.pid == os.getpid():
            if held.shared and not shared:
                raise WharfError("Lock %s %s is held shared and cannot become exclusive" % (kind, name), step="lock")
            held.count += 1
            return
        if self._forbidden():
            raise WharfError(
                "Lock %s %s was asked for inside a database transaction: its holder may be waiting for that"
                % (kind, name),
                step="lock",
            )
        self._check_order(key, kind, name)
        fd = self._flock("%s/%s.%s" % (self._directory, kind, quote(name)), kind, name, shared, timeout)
        self._held[key] = _Held(fd, shared, thread)

    def release(self, kind: str, name: str) -> None:
        from _thread import get_ident

        key = (_RANK[kind], name, get_ident())
        held = self._held[key]
        held.count -= 1
        if held.count:
            return
        del self._held[key]
        if held.pid == os.getpid():  # the lock is the parent's if we were forked off; LOCK_UN would drop it there
            fcntl.flock(held.fd, fcntl.LOCK_UN)  # not close() alone: a forked child may keep the description open
        os.close(held.fd)

    def _check_order(self, key: tuple[int, str, int], kind: str, name: str) -> None:
        pid = os.getpid()
        for other, held in list(self._held.items()):
            if other[2] == key[2] and held.pid == pid and other[:2] > key[:2]:
                raise WharfError(
                    "Lock order violated: %s %s after %s %s (the order is %s, and by name)"
                    % (kind, name, ORDER[other[0]], other[1], ", ".join(ORDER)),
                    step="lock",
                )

    def _flock(self, path: str, kind: str, name: str, shared: bool, timeout: Optional[float]) -> int:
        operation = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise scratch.wrap(error, "Cannot lock %s %s" % (kind, name), step="lock", path=path) from error
            try:
                if deadline is None:
                    fcntl.flock(fd, operation)
                else:
                    _poll(fd, operation, deadline, path, "%s %s" % (kind, name))
                if fds.is_at(fd, path):  # else: tidied away between open and flock
                    return fd
            except OSError as error:
                os.close(fd)
                raise KernelError.wrap(error, "Cannot lock %s %s" % (kind, name), step="lock") from error
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)

    def tidy(self) -> None:
        """Remove lock files nobody holds. A process that opened one just before notices, and makes it again."""
        for name in os.listdir(self._directory):
            path = "%s/%s" % (self._directory, name)
            try:
                fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                if scratch.try_lock(fd) and fds.is_at(fd, path):
                    os.unlink(path)
            finally:
                os.close(fd)


def _poll(fd: int, operation: int, deadline: float, path: str, what: str) -> None:
    pause = 0.001
    while not scratch.try_lock(fd, operation):
        left = deadline - time.monotonic()
        if left <= 0:
            pids = holders(fd)
            who = "process %s" % ", ".join(str(pid) for pid in pids) if pids else "another process"
            raise TimedOut(
                "Waited too long for %s, which %s is working on" % (what, who),
                step="lock",
                subject=what,
                path=path,
                hint="Run the task again when that one is done.",
                details={"holders": pids},
            )
        time.sleep(min(pause, left))
        pause = min(pause * 2, 0.05)


def holders(fd: int) -> list[int]:
    """Pids that hold a flock on the file, from /proc/locks (``1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF``).

    Only the inode is compared: btrfs shows another device there than stat(2) does.
    """
    inode = ":%d" % os.fstat(fd).st_ino
    pids: set[int] = set()
    try:
        with open("/proc/locks", encoding="ascii") as lines:
            for line in lines:
                words = line.split()
                if "->" not in words and "FLOCK" in words and len(words) >= 8 and words[-3].endswith(inode):
                    pids.add(int(words[-4]))
    except OSError:  # no procfs: the message just names nobody
        return []
    return sorted(pid for pid in pids if pid > 0)


class Lock:
    """Context manager made by ``Locks.lock``."""

    __slots__ = ("_args", "_locks")

    def __init__(self, locks: Locks, kind: str, name: str, shared: bool, timeout: Optional[float]) -> None:
        self._locks = locks
        self._args = (kind, name, shared, timeout)

    def __enter__(self) -> Lock:
        self._locks.acquire(*self._args)
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], value: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._locks.release(self._args[0], self._args[1])
