# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""``sound.py [empty]``: prints a line for each thing on this host that is not as a sound store implies.

With ``empty``, also what there is at all: for a host on which everything has been removed.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from collections.abc import Iterator

STATE, RUN = "/var/lib/wharf", "/run/wharf"


def names(path: str) -> set[str]:
    return set(os.listdir(path)) if os.path.isdir(path) else set()


def links() -> set[str]:
    return {name for name in os.listdir("/sys/class/net") if name.startswith("wh")}


def groups() -> set[str]:
    """Containers' cgroups, by container id."""
    return {
        name
        for path, below, _files in os.walk("/sys/fs/cgroup")
        for name in below
        if len(name) == 64 and not set(name) - set("0123456789abcdef") and "wharf" in path
    }


def settled(look: object, wanted: set[str]) -> set[str]:
    """What is there beyond ``wanted``, once the kernel has taken apart what is going."""
    deadline = time.monotonic() + 120
    while True:
        more: set[str] = look() - wanted  # type: ignore[operator]
        if not more or time.monotonic() > deadline:
            return more
        time.sleep(0.5)


def sound() -> Iterator[str]:
    with sqlite3.connect(STATE + "/state.db") as db:
        verdict = db.execute("PRAGMA integrity_check").fetchone()[0]
        if verdict != "ok":
            yield "the database is damaged: %s" % verdict
        ids = {row[0] for row in db.execute("SELECT id FROM containers")}
        for table in ("endpoints", "ports"):
            sql = "SELECT count(*) FROM %s WHERE container_id NOT IN (SELECT id FROM containers)" % table
            if db.execute(sql).fetchone()[0]:
                yield "%s of containers that do not exist" % table
    for what, have in (
        ("container directory", names(STATE + "/containers")),
        ("run directory", names(RUN + "/containers")),
        ("network namespace", names(RUN + "/netns")),
        ("cgroup", settled(groups, ids)),
    ):
        yield from ("%s %s belongs to nothing" % (what, name) for name in sorted(have - ids))
    yield from ("%s was set aside" % name for name in sorted(names(STATE + "/lost")))
    for name in sorted(names(STATE + "/tmp")):
        if not name.startswith("ingest-"):  # part of a blob, kept a day to be resumed
            yield "%s is left in tmp" % name
    with open("/proc/self/mountinfo") as lines:
        for line in lines:
            where = line.split(" ")[4]
            if where.startswith(STATE) or (where.startswith(RUN + "/netns/") and os.path.basename(where) not in ids):
                yield "mounted on %s" % where


def empty() -> Iterator[str]:
    for kind in ("containers", "volumes", "layers", "blobs/sha256", "tmp"):
        yield from ("%s/%s" % (kind, name) for name in sorted(names("%s/%s" % (STATE, kind))))
    yield from ("link %s" % name for name in sorted(settled(links, {"wharf0"})))
    yield from ("cgroup %s" % name for name in sorted(groups()))


if __name__ == "__main__":
    for sentence in (*sound(), *(empty() if "empty" in sys.argv else ())):
        sys.stdout.write(sentence + "\n")
