# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rarer limits, which the kernel gives back as they were written: what somebody else has written since is found by
comparing with what would be written now. Costs nothing for those that are not asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .resources import from_options

if TYPE_CHECKING:
    from .files import Write
    from .group import Cgroup

OPTIONS = (
    "cpu_period", "cpu_quota", "blkio_weight", "memory_swappiness", "oom_killer",
    "device_read_bps", "device_write_bps", "device_read_iops", "device_write_iops",
)  # fmt: skip
_TOGETHER = ("cpu_quota", "cpu_period")  # one file in v2


def changed(group: Cgroup, options: Mapping[str, Any]) -> dict[str, Any]:
    """Option → what its file says, for those of ``options`` that are not as asked."""
    found: dict[str, Any] = {}
    for name in OPTIONS:
        if options.get(name) is None:
            continue
        asked = _TOGETHER if name in _TOGETHER else (name,)
        for write in group.writes(from_options({key: options.get(key) for key in asked})):
            if name == "cpu_period" and not (write.file.endswith("period_us") or write.file == "cpu.max"):
                continue
            if name == "cpu_quota" and write.file.endswith("period_us"):
                continue
            directory = group.directory(write.controller)
            text = group.files.value("%s/%s" % (directory, write.file))
            if text is not None and not _holds(write, text):
                found[name] = text
    return found


def _holds(write: Write, text: str) -> bool:
    """Whether a file that was written ``write.value`` still says so: the value itself, or a line that begins with the
    device, or is about the one word of it that can be written."""
    if write.file == "memory.oom_control":
        return "oom_kill_disable %s" % write.value in text.split("\n")
    device, *words = write.value.split()
    if ":" not in device:
        return text.split() == write.value.split()
    return any(line.split()[:1] == [device] and set(words) <= set(line.split()) for line in text.split("\n"))
