# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where a container's cgroup is: ``linux.cgroupsPath`` in every hierarchy, with the processes right in it.

An absolute path is one below each hierarchy's mount point. A relative one is below our own cgroup (in the unified
hierarchy beside it: a cgroup with processes cannot hand controllers to its children). Without a path it is the id.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Optional

from ..errors import Conflict, UsageError
from ..kernel.cgroups import Cgroup, Layout
from ..kernel.cgroups.layout import Hierarchy


class Placed(Layout):
    """``prefixes``: mount point → the cgroup below which paths are meant."""

    __slots__ = ("prefixes",)
    prefixes: dict[str, str]

    def directory(self, mountpoint: str, path: str) -> str:
        parts = [mountpoint, self.prefixes.get(mountpoint, ""), path]
        return "/".join(part for part in parts if part)


def place(config: Mapping[str, Any], name: str) -> Cgroup:
    """The cgroup for a new container; nothing is made yet. Raises ``UsageError``, ``Unsupported``."""
    found = Layout.detect(base="")
    layout = Placed(found.hierarchies, files=found.files)
    wanted = str((config.get("linux") or {}).get("cgroupsPath") or "")
    layout.prefixes = {} if wanted.startswith("/") else _own(layout)
    path = os.path.normpath("/" + (wanted or name).lstrip("/")).strip("/")
    if not path:
        raise UsageError("linux.cgroupsPath: %r is the root cgroup" % wanted, path="linux.cgroupsPath")
    return Cgroup(layout, path)


def _own(layout: Layout, path: str = "/proc/self/cgroup") -> dict[str, str]:
    prefixes = {}
    for line in layout.files.read(path).split("\n"):
        number, _colon, rest = line.partition(":")
        controllers, _colon, cgroup = rest.partition(":")
        for hierarchy in layout.hierarchies:
            if hierarchy.version == 2 and number == "0":
                prefixes[hierarchy.mountpoint] = os.path.dirname(cgroup).strip("/")
            elif hierarchy.version == 1 and set(controllers.split(",")) & set(hierarchy.controllers):
                prefixes[hierarchy.mountpoint] = cgroup.strip("/")
    return prefixes


def refuse_foreign(group: Cgroup) -> None:
    """Two containers in one cgroup would be limited, paused and killed together. Raises ``Conflict``."""
    inside = group.processes()
    if inside:
        raise Conflict(
            "container's cgroup is not empty: %d process(es) found in %s" % (len(inside), group.path),
            step="create_cgroup",
            subject=group.path,
            path="linux.cgroupsPath",
        )


def describe(group: Cgroup, scope: str = "") -> dict[str, Any]:
    """For ``state.json``; ``restore`` reads it. ``scope``: systemd's unit, if it made the cgroup."""
    layout = group.layout
    prefixes = layout.prefixes if isinstance(layout, Placed) else {}
    return {
        "path": group.path,
        "hierarchies": [[*entry] for entry in layout.hierarchies],
        "prefixes": prefixes,
        "scope": scope,
    }


def restore(found: Mapping[str, Any]) -> Cgroup:
    layout = Placed(
        [Hierarchy(name, version, mount, tuple(words)) for name, version, mount, words in found["hierarchies"]]
    )
    layout.prefixes = dict(found["prefixes"])
    return Cgroup(layout, found["path"])


def paths(group: Optional[Cgroup]) -> dict[str, str]:
    """Hierarchy → directory, for those that exist."""
    if group is None:
        return {}
    found = {}
    for hierarchy in group.layout.hierarchies:
        path = group.layout.directory(hierarchy.mountpoint, group.path)
        if group.files.exists(path):
            found[",".join(hierarchy.controllers) if hierarchy.version == 1 else ""] = path
    return found
