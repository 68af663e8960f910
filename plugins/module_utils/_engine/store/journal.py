# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What monitors have seen, on its way into the database.

A monitor has no database (SQLite would cost it megabytes), so it appends a line to ``<run>/events/journal``. Whoever
next writes an event takes the file away and stores its lines (``Events``). Both sides hold a lock on the file, the
monitors a shared one, and look after they got it whether the file still is the journal: so a line is either in a file
that nobody has taken yet, or in one that was taken after it was written. Each line has an origin, which the database
knows it by: what was stored, but not yet deleted when its reader was killed, is not stored again.

A line: JSON ``[nanoseconds, origin, action, container id, attributes, over]``; ``over``: it will not be restarted.
"""

from __future__ import annotations

import os
from typing import Any

from ..tuples import NamedTuple

LIMIT = 1 << 20  # then the journal becomes "old", and what was old before is lost: nobody has asked for 10,000 events
_count = 0


class Line(NamedTuple):
    nanoseconds: int
    origin: str
    action: str
    container: str
    attributes: dict[str, str]
    over: bool


def append(directory: str, action: str, container: str, attributes: dict[str, Any], *, over: bool = False) -> None:
    """Raises ``OSError``."""
    import fcntl
    import json
    import time

    global _count
    _count += 1
    moment = time.time_ns()
    origin = "%d.%d.%d" % (moment, os.getpid(), _count)
    texts = {key: str(value) for key, value in attributes.items()}
    # The line feed before it ends what a full file system has cut off.
    line = "\n%s\n" % json.dumps([moment, origin, action, container, texts, over], separators=(",", ":"))
    path = directory + "/journal"
    while True:
        fd = _open(directory, path)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
            if not _is_at(fd, path):
                continue
            os.write(fd, line.encode("utf-8", "surrogateescape"))
            if os.fstat(fd).st_size > LIMIT:
                os.rename(path, directory + "/old")
            return
        finally:
            os.close(fd)


def _open(directory: str, path: str) -> int:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o600)
    except FileNotFoundError:
        os.makedirs(directory, 0o700, exist_ok=True)
        return os.open(path, flags, 0o600)


def _is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def take(directory: str) -> list[str]:
    """Files of lines that nobody writes to any more, oldest first: what a killed reader has left, and the journal. The
    caller is alone in this (it is in a transaction), stores the lines and then calls ``done``."""
    import fcntl

    names = _names(directory)
    taken = sorted(name for name in names if name.startswith("taken-"))
    for name in ("old", "journal"):
        if name not in names:
            continue
        path = "%s/%s" % (directory, name)
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if _is_at(fd, path):
                taken.append("taken-%s" % os.urandom(8).hex())
                os.rename(path, "%s/%s" % (directory, taken[-1]))
        finally:
            os.close(fd)
    return ["%s/%s" % (directory, name) for name in taken]


def done(files: list[str]) -> None:
    for file in files:
        try:
            os.unlink(file)
        except FileNotFoundError:  # another one who took it has stored the same lines
            continue


def pending(directory: str) -> list[Line]:
    """Lines that nobody has stored yet (or not yet deleted), by time; nothing is changed."""
    return read(["%s/%s" % (directory, name) for name in _names(directory)])


def read(files: list[str]) -> list[Line]:
    """By time. What is no line (the end of a full file system) is left out."""
    found = [line for file in files for text in _content(file).split("\n") for line in _parsed(text)]
    found.sort()
    return found


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def _content(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as stream:
            return stream.read()
    except FileNotFoundError:  # taken in this moment; then it is in the database
        return ""


def _parsed(text: str) -> list[Line]:
    if not text:
        return []
    import json

    try:
        moment, origin, action, container, attributes, over = json.loads(text)
    except ValueError:
        return []
    return [Line(int(moment), str(origin), str(action), str(container), dict(attributes), bool(over))]


def waiting(directory: str) -> bool:
    """Whether there is anything to take: one look, for those who write events often."""
    return bool(_names(directory))
