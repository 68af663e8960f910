# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which controller is where. Decided per controller, not per host: on a hybrid host memory is v1 while killing,
freezing and the device program work in the unified hierarchy, which holds no controller at all."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Optional

from ...errors import Unsupported
from ...tuples import NamedTuple
from . import delegation
from .files import Files

# The v1 hierarchies a container joins. Others (perf_event, net_cls ...) do nothing for it and each costs time.
V1_CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory", "pids", "devices", "freezer", "blkio", "hugetlb")
# The v2 controllers switched on for a container.
V2_CONTROLLERS = ("cpu", "cpuset", "io", "memory", "pids")


class Hierarchy(NamedTuple):
    """``name``: of its directory below /sys/fs/cgroup ("" when it is mounted there itself); v1 ``controllers`` as the
    mount options name them, v2 ones as the root's ``cgroup.controllers`` lists them."""

    name: str
    version: int
    mountpoint: str
    controllers: tuple[str, ...]


class Layout:
    """``controllers``: name → (version, mountpoint); ``unified``: mountpoint of the cgroup2 hierarchy, if any;
    ``kind``: ``"v1"``, ``"v2"`` or ``"hybrid"``; ``base``: the cgroup in which the engine may create its own (empty:
    the root; under systemd, a delegated one), in the hierarchies that systemd looks after."""

    __slots__ = ("_tops", "base", "common", "controllers", "files", "hierarchies", "judged", "kind", "unified")

    def __init__(self, hierarchies: Sequence[Hierarchy], *, base: str = "", files: Optional[Files] = None) -> None:
        self.base = base.strip("/")
        self.files = files or Files()
        self._tops: dict[str, str] = {}
        # What containers of one engine have in common, by path, as it was when it was first read: files of the cgroup
        # they are all in, and whether the kernel has a file at all.
        self.common: dict[str, Optional[str]] = {}
        # What the same files said of others with the same limits, and what that meant (``Cgroup.changed``).
        self.judged: dict[tuple[Any, ...], tuple[list[tuple[str, str]], list[Optional[str]], dict[str, Any]]] = {}
        self.hierarchies = tuple(hierarchies)
        self.controllers: dict[str, tuple[int, str]] = {}
        self.unified: Optional[str] = None
        for hierarchy in self.hierarchies:
            if hierarchy.version == 2:
                self.unified = hierarchy.mountpoint
            for controller in hierarchy.controllers:
                self.controllers[controller] = (hierarchy.version, hierarchy.mountpoint)
        has_v1 = any(h.version == 1 for h in self.hierarchies)
        self.kind = "v1" if self.unified is None else "hybrid" if has_v1 else "v2"

    @classmethod
    def detect(
        cls, mountinfo: str = "/proc/self/mountinfo", *, base: Optional[str] = None, files: Optional[Files] = None
    ) -> Layout:
        """Read the mount table; ``base``: what ``delegation`` says. Raises ``Unsupported`` when no cgroup hierarchy is
        mounted."""
        files = files or Files()
        if base is None:
            base = delegation.base()
        from ..procfs import parse_mountinfo

        text = files.read(mountinfo)
        lines = "\n".join(line for line in text.split("\n") if " - cgroup" in line)
        found: dict[str, Hierarchy] = {}
        for mount in parse_mountinfo(lines):
            # The same hierarchy may be mounted again, e.g. in some container's rootfs: the shortest path is the host's.
            known = found.get(mount.device)
            if known is not None and len(known.mountpoint) <= len(mount.target):
                continue
            hierarchy = (
                _v2(mount.target, files) if mount.fstype == "cgroup2" else _v1(mount.target, mount.super_options)
            )
            if hierarchy is not None:
                found[mount.device] = hierarchy
        if not found:
            raise Unsupported(
                "No cgroup hierarchy is mounted on this host, so containers cannot be limited or stopped safely",
                step="detect_cgroups",
                path="/sys/fs/cgroup",
                hint="Mount one: mount -t cgroup2 none /sys/fs/cgroup",
            )
        return cls(list(found.values()), base=base, files=files)

    def view(self) -> list[tuple[str, int, tuple[str, ...]]]:
        """For ``mounts.cgroup_view``: what a container sees below its ``/sys/fs/cgroup``."""
        return [(h.name, h.version, h.controllers) for h in self.hierarchies]

    def is_managed(self, mountpoint: str) -> bool:
        """Whether systemd keeps its units in this hierarchy. It looks at no v1 hierarchy but its own."""
        if not self.base:
            return False
        return mountpoint == self.unified or any(
            h.mountpoint == mountpoint and "name=systemd" in h.controllers for h in self.hierarchies
        )

    def directory(self, mountpoint: str, path: str) -> str:
        top = self._tops.get(mountpoint)
        if top is None:
            top = mountpoint + "/" + self.base if self.is_managed(mountpoint) else mountpoint
            self._tops[mountpoint] = top
        return top + "/" + path if path else top


def _v2(target: str, files: Files) -> Optional[Hierarchy]:
    controllers = files.value(target + "/cgroup.controllers")
    if controllers is None:  # something else is mounted over it
        return None
    name = "" if target == "/sys/fs/cgroup" else os.path.basename(target)
    return Hierarchy(name, 2, target, tuple(controllers.split()))


def _v1(target: str, super_options: str) -> Optional[Hierarchy]:
    words = super_options.split(",")
    controllers = tuple(w for w in words if w in V1_CONTROLLERS or w == "name=systemd")
    if not controllers:
        return None
    if controllers == ("name=systemd",) and not os.path.isdir("/run/systemd/system"):
        return None  # kept by nobody
    return Hierarchy(os.path.basename(target), 1, target, controllers)
