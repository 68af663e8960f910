# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The device nodes of a container, and the rules that let it use them. Looks at the host for their numbers."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import UsageError
from ..kernel import devices as device_rules


def nodes(asked: Sequence[Mapping[str, Any]], privileged: bool) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(device nodes to create, device cgroup rules)."""
    if privileged:
        return _all_devices("/dev", "/dev"), device_rules.to_oci(device_rules.PRIVILEGED)
    found_all: list[dict[str, Any]] = []
    rules = device_rules.to_oci(device_rules.DEFAULT)
    for device in asked:
        target = device.get("target") or device["source"]
        access = device.get("permissions") or "rwm"
        try:
            info = os.stat(device["source"])
        except OSError as error:
            raise UsageError(
                "error gathering device information while adding custom device %r: %s"
                % (device["source"], error.strerror),
                path="devices",
            ) from error
        if stat.S_ISDIR(info.st_mode):
            found = _all_devices(device["source"], target)
        elif stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode):
            found = [_node(target, info)]
        else:
            raise UsageError("%s is not a device node" % device["source"], path="devices")
        found_all += found
        rules += [
            {"allow": True, "type": n["type"], "major": n["major"], "minor": n["minor"], "access": access}
            for n in found
        ]
    return found_all, rules


def _node(target: str, info: os.stat_result) -> dict[str, Any]:
    return {
        "path": target,
        "type": "c" if stat.S_ISCHR(info.st_mode) else "b",
        "major": os.major(info.st_rdev),
        "minor": os.minor(info.st_rdev),
        "fileMode": stat.S_IMODE(info.st_mode),
        "uid": info.st_uid,
        "gid": info.st_gid,
    }


# The container gets its own of these.
_OWN_DEV = (
    "pts",
    "shm",
    "mqueue",
    "fd",
    "console",
    "ptmx",
    ".lxc",
    ".lxd-mounts",
    ".udev",
    "stdin",
    "stdout",
    "stderr",
)


def _all_devices(source: str, target: str) -> list[dict[str, Any]]:
    """Every device node below ``source`` (not through links), re-rooted at ``target``."""
    nodes = []
    with os.scandir(source) as entries:
        for entry in sorted(entries, key=lambda e: e.name):
            if source == "/dev" and entry.name in _OWN_DEV:
                continue
            info = entry.stat(follow_symlinks=False)
            below = "%s/%s" % (target, entry.name)
            if stat.S_ISDIR(info.st_mode):
                nodes += _all_devices(entry.path, below)
            elif stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode):
                nodes.append(_node(below, info))
    return nodes
