# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What was verified already, so that a task that does it again asks no registry.

A note is a hash of everything the answer depends on: digest, name, identity, keys. Another key or name is another note.
The file is root's alone, like the database; losing it costs a few requests, nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os

from ...paths import Paths

_KEPT = 1000


def _file(paths: Paths) -> str:
    return paths.state + "/verified.json"


def _hash(note: list[str]) -> str:
    return hashlib.sha256(json.dumps(note).encode()).hexdigest()


def _load(paths: Paths) -> list[str]:
    try:
        with open(_file(paths), encoding="utf-8") as reader:
            entries = json.load(reader)
    except (OSError, ValueError):  # none yet, or damaged: verify anew
        return []
    return [one for one in entries if isinstance(one, str)] if isinstance(entries, list) else []


def known(paths: Paths, note: list[str]) -> bool:
    return _hash(note) in _load(paths)


def remember(paths: Paths, note: list[str]) -> None:
    """Failing to write is no failure: the next task verifies once more."""
    name = _hash(note)
    others = [one for one in _load(paths) if one != name]
    entries = [*others[1 - _KEPT :], name]
    temporary = "%s.%s" % (_file(paths), os.urandom(4).hex())
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, json.dumps(entries).encode())
        finally:
            os.close(fd)
        os.rename(temporary, _file(paths))
    except OSError:
        return
