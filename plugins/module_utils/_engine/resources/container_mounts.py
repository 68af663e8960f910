# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Mounts of a container that exists: what can come and go while it runs, and what makes a new one of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Optional

from ..errors import NotFound
from . import container_make as make
from .container_actual import is_running, mounted_targets, state
from .task import Task

if TYPE_CHECKING:
    from ..store.records import ContainerRecord, ImageRecord

Mount = dict[str, Any]


class Change:
    """From what is mounted to what another spec asks for. ``resolved`` is the new value of that column;
    ``obstacle`` says why a running container cannot follow, or ""."""

    def __init__(self, task: Task, record: ContainerRecord, spec: dict[str, Any]) -> None:
        self._task = task
        self._record = record
        image = task.store.images.get(record.image_id)
        mounts, anonymous = make.resolve_mounts(task, spec, image, record)
        old = {mount["target"]: mount for mount in record.resolved["mounts"]}
        new = {mount["target"]: mount for mount in mounts}
        self.remove = [mount for target, mount in old.items() if _effect(new.get(target)) != _effect(mount)]
        self.add = [mount for target, mount in new.items() if _effect(old.get(target)) != _effect(mount)]
        self.resolved = {
            **record.resolved,
            "mounts": mounts,
            "anonymous": anonymous,
            "volumes": sorted({mount["source"] for mount in mounts if mount["type"] == "volume"}),
        }
        facts = state(task, record)
        self.running = is_running(facts)
        self.obstacle = self._obstacle(facts, set(old), bool(spec.get("read_only"))) if self.running else ""

    def _obstacle(self, facts: dict[str, Any], old: set[str], read_only: bool) -> str:
        if not facts.get("pid"):
            return "the container is between two runs"
        mounted = mounted_targets(facts["pid"])
        going = {mount["target"] for mount in self.remove}
        for mount in self.add:
            target = mount["target"]
            if target in going:
                return "%s stays a mountpoint and gets something else" % target
            if mount.get("propagation") not in (None, "rprivate", "private"):
                return "%s takes part in mount propagation" % target
            if target in mounted or any(other.startswith(target + "/") for other in mounted):
                return "%s would cover what is mounted there" % target
            if read_only and not _exists(self._task, facts["pid"], target):
                return "%s cannot be made in a read-only root" % target
        for mount in self.remove:
            target = mount["target"]
            if target not in mounted and mount["target"] in old:
                return "%s is not mounted under that name" % target
            if any(other.startswith(target + "/") for other in mounted - going):
                return "something is mounted below %s" % target
            if mount["type"] == "image" and mount.get("subpath"):  # a file's device is not that of its mount
                return "%s is a part of an image" % target
        return ""

    def execute(self) -> None:
        """Volumes made and filled, mounts changed in the running container. The caller stores ``resolved``."""
        task, record = self._task, self._record
        image = task.store.images.get(record.image_id)
        if image is not None:
            make.fill_volumes(task, record._replace(resolved=self.resolved), image)
        if self.running:
            remount(task, record, self.add, self.remove)

    def undo(self) -> None:
        if self.running:
            remount(self._task, self._record, self.remove, self.add)


def remount(task: Task, record: ContainerRecord, add: Sequence[Mount], remove: Sequence[Mount] = ()) -> None:
    """``add`` and ``remove`` are entries of ``resolved["mounts"]``."""
    from ..runtime import spec as oci

    pid = state(task, record)["pid"]
    words: list[str] = []
    if record.resolved.get("userns"):
        from .container_userns import context

        words = oci.id_words(context(task, record))
    task.runtime.remount(
        record.id,
        [oci.mount(make.host_mount(task, mount), words) for mount in add],
        [_identity(task, pid, mount) for mount in sorted(remove, key=lambda mount: -mount["target"].count("/"))],
    )


def _identity(task: Task, pid: int, mount: Mount) -> dict[str, Any]:
    """Device and inode of what is to be unmounted: of the source; for a tmpfs and an image, which are file systems of
    their own, the device that the kernel's own table has (0 when something else is there: nothing has that number), and
    no inode."""
    kind = {"tmpfs": "tmpfs", "image": "overlay"}.get(mount["type"])
    if kind is None:
        info = make.source_stat(task, mount)
        return {"destination": mount["target"], "device": info.st_dev, "inode": info.st_ino}
    from ..kernel import procfs

    device = ""
    for entry in procfs.mountinfo("/proc/%d/mountinfo" % pid):
        if entry.target == mount["target"]:
            device = entry.device if entry.fstype == kind else ""
    major, _colon, minor = device.partition(":")
    number = os.makedev(int(major), int(minor)) if minor else 0
    return {"destination": mount["target"], "device": number, "inode": None}


def mounted_image(task: Task, mount: Mount) -> ImageRecord:
    """The image that an entry of ``mounts`` names; it is never pulled. Raises ``NotFound``, ``UsageError``."""
    from . import image_choice

    found = image_choice.find(task, mount["source"])
    if found is None:
        raise NotFound(
            "mounts: No such image: %s, to be mounted on %s" % (mount["source"], mount["target"]),
            step="resolve_image",
            path="mounts",
            hint="pull it first with wharf.engine.image",
        )
    return found


def _effect(mount: Optional[Mount]) -> Optional[Mount]:
    """What of a mount shows in the kernel."""
    if mount is None:
        return None
    return {
        key: value
        for key, value in mount.items()
        if key not in ("create_source", "no_copy", "anonymous", "labels") and value
    }


def _exists(task: Task, pid: int, target: str) -> bool:
    root = os.open("/proc/%d/root" % pid, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.close(task.kernel.open_in_root(root, target, os.O_PATH))
        return True
    except OSError:
        return False
    finally:
        os.close(root)
