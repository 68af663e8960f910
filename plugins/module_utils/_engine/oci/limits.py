# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""``linux.resources`` and ``process.rlimits``: checked, and brought to the form ``kernel.cgroups`` takes."""

from __future__ import annotations

import resource
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import Unsupported, UsageError

if TYPE_CHECKING:
    from ..kernel.devices import DeviceRule

_UNLIMITED = (1 << 64) - 1
_NUMBERS = {
    "memory": ("limit", "reservation", "swap", "swappiness"),
    "cpu": ("shares", "quota", "period", "burst", "idle"),
    "pids": ("limit",),
    "blockIO": ("weight", "leafWeight"),
}
# Nothing enforces them any more, or only a scheduler class that distributions leave out.
_REFUSED = (
    ("cpu", "realtimeRuntime"), ("cpu", "realtimePeriod"), ("memory", "kernel"), ("memory", "kernelTCP"),
    ("blockIO", "leafWeight"), ("network", "classID"), ("network", "priorities"),
)  # fmt: skip


def check(resources: Mapping[str, Any]) -> None:
    """Raises ``UsageError``, ``Unsupported``."""
    for section in (*_NUMBERS, "network", "unified"):
        if not isinstance(resources.get(section) or {}, Mapping):
            field = "linux.resources.%s" % section
            raise UsageError("%s: an object is needed" % field, path=field)
    for section, key in _REFUSED:
        value = (resources.get(section) or {}).get(key)
        if value and value != -1:
            field = "linux.resources.%s.%s" % (section, key)
            raise Unsupported("%s is not supported by this runtime" % field, step="validate", path=field)
    if resources.get("rdma"):
        raise Unsupported("linux.resources.rdma is not supported by this runtime", path="linux.resources.rdma")
    for section, keys in _NUMBERS.items():
        part = resources.get(section) or {}
        for key in keys:
            value = part.get(key)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
                field = "linux.resources.%s.%s" % (section, key)
                raise UsageError("%s: a whole number is needed, not %r" % (field, value), path=field)
    from ..kernel.devices import from_oci

    rules = resources.get("devices") or []
    if not isinstance(rules, list) or not all(isinstance(rule, Mapping) for rule in rules):
        raise UsageError("linux.resources.devices: a list of objects is needed", path="linux.resources.devices")
    from_oci(rules)


def for_cgroup(resources: Mapping[str, Any]) -> dict[str, Any]:
    """Without the device rules (see ``device_rules``), and without the zeroes by which callers say "not set"."""
    wanted: dict[str, Any] = {}
    for section, part in resources.items():
        if section in ("devices", "network", "rdma") or not part:
            continue
        if section in _NUMBERS:
            part = {key: value for key, value in part.items() if value is not None and _is_set(section, key, value)}
        wanted[section] = part
    return wanted


def _is_set(section: str, key: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if value == 0:
        # A quota or limit of nothing cannot be meant; no swap, idleness or swappiness can.
        return key in ("swappiness", "idle")
    return bool(value != "")


def device_rules(resources: Mapping[str, Any]) -> list[DeviceRule]:
    """The caller's rules, then what every container needs: any node may be made, and these may be used."""
    from ..kernel.devices import DEFAULT, from_oci

    always = [rule for rule in DEFAULT if rule.allow and rule.kind in ("c", "b")]
    return [*from_oci(resources.get("devices") or []), *always]


def check_rlimits(entries: Sequence[Any], field: str) -> None:
    seen = set()
    for entry in entries:
        kind = entry.get("type") if isinstance(entry, Mapping) else None
        if not isinstance(kind, str) or not kind.startswith("RLIMIT_") or not hasattr(resource, kind):
            raise UsageError("%s: wrong rlimit value: %s" % (field, kind), path=field)
        if kind in seen:
            raise UsageError("%s: %s is given twice" % (field, kind), path=field)
        seen.add(kind)
        for key in ("soft", "hard"):
            value = entry.get(key)
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _UNLIMITED:
                raise UsageError("%s: %s of %s must be a number, not %r" % (field, key, kind, value), path=field)
