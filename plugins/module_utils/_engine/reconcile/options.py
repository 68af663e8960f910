# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an option table says about values: canonical form, differences, how a difference is made true.

The table (data in ``_args``) is the only place that knows an option; everything here is generic.
"""

from __future__ import annotations

from typing import Any

from ..tuples import NamedTuple
from . import values

Table = dict[str, dict[str, Any]]
_MISSING = object()


class Difference(NamedTuple):
    """One option that is not as asked. ``change``: live or replace. ``why``: asked (the task changed) or drift
    (the task did not, the host did)."""

    option: str
    before: Any
    after: Any
    change: str
    why: str


def normalise(table: Table, params: dict[str, Any]) -> dict[str, Any]:
    """The canonical spec of a task: options left out are absent, and so are values that ask for nothing.

    Raises ``UsageError`` naming the option. Options folded ``into`` another are merged there.
    """
    spec: dict[str, Any] = {}
    for name in [name for name in table if params.get(name) is not None]:  # few of many
        option = table[name]
        value = _canonical(name, option, params[name])
        target = option.get("into", name)
        if target in spec and isinstance(value, list):
            value = spec[target] + value
        spec[target] = value
    for name in spec:
        option = table[name]
        if option.get("compare") == "named":
            spec[name] = _unique(name, spec[name], option["key"])
    return {
        name: value for name, value in spec.items() if value not in ([], {}, False, "") or _is_zero(table, name, value)
    }


def _canonical(name: str, option: dict[str, Any], value: Any) -> Any:
    function = _function(option.get("normal", ""))
    if option["type"] == "list" and option.get("normal") != "words":
        out: list[Any] = []
        for index, item in enumerate(value):
            clean = item if function is None else function("%s[%d]" % (name, index), item)
            out.extend(clean if isinstance(clean, list) else [clean])
        if option.get("compare") == "set":
            out = sorted(_distinct(out), key=repr)
        return out
    return value if function is None else function(name, value)


def _is_zero(table: Table, name: str, value: Any) -> bool:
    """A zero that asks for something (``zero`` in the table), where it usually asks for nothing."""
    return value == 0 and not isinstance(value, bool) and bool(table.get(name, {}).get("zero"))


def _function(name: str) -> Any:
    found = getattr(values, name, None)
    if found is None and name:
        from . import values_linux

        found = getattr(values_linux, name)
    return found


def _distinct(items: list[Any]) -> list[Any]:
    out: list[Any] = []
    for item in items:
        if item not in out:
            out.append(item)
    return out


def _unique(name: str, items: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    seen: dict[Any, dict[str, Any]] = {}
    for item in items:
        if item[key] in seen and seen[item[key]] != item:
            raise values.bad(name, item[key], "is given twice with different settings")
        seen[item[key]] = item
    return list(seen.values())


def differences(
    table: Table, asked_before: dict[str, Any], asked_now: dict[str, Any], actual: dict[str, Any]
) -> list[Difference]:
    """Three-way comparison. ``actual`` holds what the host really has, for the options that can be observed.

    The task changed an option → "asked". It did not, but the host has something else → "drift".
    """
    if asked_before == asked_now and all(asked_now.get(name) == value for name, value in actual.items()):
        return []  # stricter than option by option, and nearly always so
    out = []
    named = set(asked_before).union(asked_now, actual)
    for name, option in table.items():
        if name not in named or option.get("compare") in (None, "ignore") or "into" in option:
            continue
        before, now = asked_before.get(name, _MISSING), asked_now.get(name, _MISSING)
        if not _equal(option, before, now):
            out.append(Difference(name, _plain(before), _plain(now), option["change"], "asked"))
        elif name in actual and not _equal(option, actual[name], None if now is _MISSING else now):
            out.append(Difference(name, actual[name], _plain(now), option["change"], "drift"))
    return out


def _plain(value: Any) -> Any:
    return None if value is _MISSING else value


def _equal(option: dict[str, Any], a: Any, b: Any) -> bool:
    if option.get("compare") == "named" and isinstance(a, list) and isinstance(b, list):
        key = option["key"]
        return {item[key]: item for item in a} == {item[key]: item for item in b}
    return bool(a == b)
