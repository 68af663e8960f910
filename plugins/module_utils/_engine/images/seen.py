# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which archive files were imported or exported, so that a task that does it again need not read them.

A cache beside the database, never the truth: an entry holds only while the file is the same inode with the same size
and times, and none is made for a file that was written to just before (a later write could leave its times as they
were). Losing it costs time, nothing else.
"""

from __future__ import annotations

import json
import os
import time
from typing import Optional

from ..paths import Paths
from ..tuples import NamedTuple

_KEPT = 200
_SETTLED = 2_000_000_000  # ns; longer than any file system's clock tick


class Seen(NamedTuple):
    diff_id: str
    newest: int


def stamp(info: os.stat_result) -> list[int]:
    return [info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns]


def recall(paths: Paths, path: str) -> Optional[Seen]:
    """What is known of the imported file at ``path`` as it is now."""
    known = _recall(paths.state + "/imports.json", path)
    if known is None or len(known) != 2:
        return None
    diff_id, newest = known
    return Seen(diff_id, newest) if isinstance(diff_id, str) and isinstance(newest, int) else None


def remember(paths: Paths, path: str, info: os.stat_result, seen: Seen) -> None:
    """``info``: the file's state before it was read, which it still had afterwards. Failing to write is no failure."""
    _remember(paths.state + "/imports.json", path, info, list(seen))


def exported(paths: Paths, path: str) -> Optional[str]:
    """The fingerprint of what the file at ``path``, as it is now, was found to hold."""
    known = _recall(paths.state + "/exports.json", path)
    return known[0] if known and isinstance(known[0], str) else None


def remember_export(paths: Paths, path: str, info: os.stat_result, fingerprint: str) -> None:
    """As ``remember``."""
    _remember(paths.state + "/exports.json", path, info, [fingerprint])


def _load(file: str) -> dict[str, list[object]]:
    try:
        with open(file, encoding="utf-8", errors="surrogateescape") as reader:
            entries = json.load(reader)
    except (OSError, ValueError):  # none yet, or damaged: start anew
        return {}
    return entries if isinstance(entries, dict) else {}


def _recall(file: str, path: str) -> Optional[list[object]]:
    try:
        info = os.stat(path)
    except OSError:
        return None
    entry = _load(file).get(os.path.realpath(path))
    if not isinstance(entry, list) or not entry or entry[0] != stamp(info):
        return None
    return entry[1:]


def _remember(file: str, path: str, info: os.stat_result, values: list[object]) -> None:
    if time.time_ns() - max(info.st_ctime_ns, info.st_mtime_ns) < _SETTLED:
        return
    entries = _load(file)
    name = os.path.realpath(path)
    entries.pop(name, None)
    entries[name] = [stamp(info), *values]
    for old in list(entries)[:-_KEPT]:
        del entries[old]
    temporary = "%s.%s" % (file, os.urandom(4).hex())
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, json.dumps(entries).encode("utf-8", "surrogateescape"))
        finally:
            os.close(fd)
        os.rename(temporary, file)
    except OSError:  # a cache: the next task reads the file again
        return
