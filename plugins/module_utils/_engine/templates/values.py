# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What Go knows about a value and Python does not: maps beside structs, nil maps and slices, and no value at all."""

from __future__ import annotations

from typing import Any


class NoValue:
    """What a map has under a key that it lacks; nil, but printed as ``<no value>``."""

    def __bool__(self) -> bool:
        return False


NO_VALUE = NoValue()


class GoMap(dict):  # type: ignore[type-arg]
    """A map, not a struct: sorted when it is walked, and a key it lacks is no mistake. ``zero``: what ``index`` finds
    for such a key."""

    zero: Any = NO_VALUE
    is_nil = False


class StringMap(GoMap):
    zero = ""


class SliceMap(GoMap):
    """``index`` finds a nil slice for a key it lacks."""


class NilList(list):  # type: ignore[type-arg]
    """A slice that is nil: null in JSON, [] otherwise."""


_MAPS: dict[str, type[GoMap]] = {"map": GoMap, "strings": StringMap, "slices": SliceMap}


def shaped(value: Any, shape: str) -> Any:
    """``value`` as what ``shape`` (see ``Template``) says it is."""
    kind = _MAPS.get(shape)
    if kind is not None and (value is None or isinstance(value, dict)):
        out = kind(value or {})
        out.is_nil = value is None
        if kind is SliceMap:
            out.zero = NilList()
            for key, item in out.items():
                if item is None:
                    out[key] = NilList()
        return out
    if shape == "list" and value is None:
        return NilList()
    return value


def items(value: dict[Any, Any]) -> list[tuple[Any, Any]]:
    """In the order in which Go walks a map."""
    return sorted(value.items(), key=lambda item: octets(item[0]) if isinstance(item[0], str) else b"")


def octets(text: str) -> bytes:
    """Strings are bytes to Go. What is no UTF-8 came in as lone surrogates."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def type_name(value: Any) -> str:
    """Of a value, in Go's words."""
    if value is None or value is NO_VALUE:
        return "<nil>"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int"
    if isinstance(value, float):
        return "float64"
    if isinstance(value, str):
        return "string"
    if isinstance(value, list):
        return "[]interface {}"
    return "map[string]string" if isinstance(value, StringMap) else "map[string]interface {}"


def truth(value: Any) -> bool:
    return bool(value)
