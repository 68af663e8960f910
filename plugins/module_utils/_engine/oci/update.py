# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""``update``: other limits for a container that is there already. What is not named stays as it is."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import Conflict, Unsupported, UsageError
from . import argv, limits, states

if TYPE_CHECKING:
    from .main import Context

# option → (section, key)
_NUMBERS = {
    "cpu-period": ("cpu", "period"), "cpu-quota": ("cpu", "quota"), "cpu-burst": ("cpu", "burst"),
    "cpu-share": ("cpu", "shares"), "cpu-idle": ("cpu", "idle"), "blkio-weight": ("blockIO", "weight"),
    "pids-limit": ("pids", "limit"),
}  # fmt: skip
_SIZES = {"memory": "limit", "memory-reservation": "reservation", "memory-swap": "swap"}
_REFUSED = (
    "cpu-rt-period", "cpu-rt-runtime", "kernel-memory", "kernel-memory-tcp", "l3-cache-schema", "mem-bw-schema",
)  # fmt: skip
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def update(context: Context, values: dict[str, Any], words: Sequence[str]) -> int:
    for name in _REFUSED:
        if values[name]:
            raise Unsupported("--%s is not supported by this runtime" % name, path=name)
    state = states.load(context.root, words[0])
    wanted = _from_file(values["resources"]) if values["resources"] else _from_options(values)
    limits.check(wanted)
    if states.status(context.root, state) in (states.STOPPED, states.CREATING):
        raise Conflict("container %s is not running" % words[0], subject=words[0])
    group = states.cgroup(state)
    if group is None:
        raise Unsupported("container %s has no cgroup" % words[0], subject=words[0])
    if not wanted:
        return 0
    change = limits.for_cgroup(wanted)
    before = state["config"]["linux"].get("resources") or {}
    # A limit of memory and swap together only means something beside the one of memory.
    memory = change.get("memory") or {}
    if "swap" in memory and "limit" not in memory and (before.get("memory") or {}).get("limit"):
        memory["limit"] = before["memory"]["limit"]
    if memory.get("checkBeforeUpdate") or (wanted.get("memory") or {}).get("checkBeforeUpdate"):
        group.check_memory(change)
    for words_ in group.apply(change):
        context.warn(words_)
    if wanted.get("devices"):
        from ..kernel import devices
        from ..kernel.syscalls import Kernel

        devices.apply(Kernel(), group, limits.device_rules(wanted))
    state["config"]["linux"]["resources"] = _merge(before, wanted)
    states.save(states.directory(context.root, words[0]), state)
    return 0


def _merge(before: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(before)
    for section, part in wanted.items():
        old = merged.get(section)
        merged[section] = {**old, **part} if isinstance(old, Mapping) and isinstance(part, Mapping) else part
    return merged


def _from_file(path: str) -> dict[str, Any]:
    try:
        if path == "-":
            text = sys.stdin.read()
        else:
            with open(path) as stream:
                text = stream.read()
        found = json.loads(text)
    except OSError as error:
        raise UsageError("Cannot read %s: %s" % (path, error.strerror), path="resources") from None
    except ValueError as error:
        raise UsageError("%s is not valid JSON: %s" % (path, error), path="resources") from None
    if not isinstance(found, dict):
        raise UsageError("%s: an object is needed" % path, path="resources")
    return found


def _from_options(values: Mapping[str, Any]) -> dict[str, Any]:
    wanted: dict[str, Any] = {}
    for name, (section, key) in _NUMBERS.items():
        if values[name] is not None:
            wanted.setdefault(section, {})[key] = values[name]
    for name, key in (("cpuset-cpus", "cpus"), ("cpuset-mems", "mems")):
        if values[name]:
            wanted.setdefault("cpu", {})[key] = values[name]
    for name, key in _SIZES.items():
        if values[name]:
            wanted.setdefault("memory", {})[key] = size(values[name], name)
    return wanted


def size(text: str, name: str) -> int:
    """``-1``, ``1048576``, ``64m``, ``1GiB``. Raises ``UsageError``."""
    word = text.strip().lower()
    for suffix in ("ib", "b"):
        if word.endswith(suffix):
            word = word[: -len(suffix)]
            break
    unit = word[-1:] if word[-1:] in ("k", "m", "g", "t") else ""
    return argv.number(word[: -1 if unit else None], name) * _UNITS[unit]
