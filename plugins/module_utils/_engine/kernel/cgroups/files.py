# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The handful of file operations cgroups consist of. A test's subclass makes a directory tree behave like cgroupfs."""

from __future__ import annotations

import os
from typing import Optional

from ...tuples import NamedTuple
from .. import procfs

_ABSENT = (2, 19, 95)  # ENOENT, ENODEV, EOPNOTSUPP


class Write(NamedTuple):
    """One value for one control file. ``option``: the task's option it comes from, for error messages;
    ``optional``: the file may be absent, then only a warning is due."""

    controller: str
    file: str
    value: str
    option: str
    optional: bool = False


class Files:
    """Raises ``OSError``; values are stripped text."""

    def read(self, path: str) -> str:
        return procfs.whole(path).decode(errors="replace").strip()

    def write(self, path: str, value: str) -> None:
        """In one write(2), as cgroupfs demands. An empty value is sent as a newline: an empty write never arrives."""
        fd = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        try:
            os.write(fd, (value or "\n").encode())
        finally:
            os.close(fd)

    def mkdir(self, path: str) -> bool:
        """False when it exists already."""
        try:
            os.mkdir(path, 0o755)
        except FileExistsError:
            return False
        return True

    def rmdir(self, path: str) -> None:
        os.rmdir(path)

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def children(self, path: str) -> list[str]:
        """Names of the child cgroups; empty when ``path`` is gone."""
        try:
            with os.scandir(path) as entries:
                return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            return []

    def value(self, path: str) -> Optional[str]:
        """``read``, or ``None`` when the file is absent or cannot be read (ENODEV: the cgroup is being removed;
        ENOTSUP: the feature is compiled in but switched off)."""
        try:
            return self.read(path)
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            raise


def keyed(text: Optional[str]) -> dict[str, int]:
    """``"a 1\\nb 2"`` as a dict; lines of other shapes are left out."""
    found = {}
    for line in (text or "").split("\n"):
        key, _space, value = line.partition(" ")
        if value.isdigit():
            found[key] = int(value)
    return found
