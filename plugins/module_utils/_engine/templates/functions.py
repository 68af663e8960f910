# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What templates can call. ``and`` and ``or`` do not evaluate all they are given, so they are the evaluator's."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Optional

from ..tuples import NamedTuple
from .formatting import MAX_OUTPUT, cut, general, show, sprint, sprintf
from .lexer import Fault
from .values import NO_VALUE, GoMap, NilList, items, octets, truth, type_name


class Signature(NamedTuple):
    """``types``: of the arguments, the last of them of all further ones where ``more``. any, string, int, strings."""

    call: Callable[..., Any]
    types: tuple[str, ...]
    more: bool = False


# -- comparison ----------------------------------------------------------------------------------------------------


def _kind(value: Any) -> str:
    for kind, types in (("bool", bool), ("int", int), ("float", float), ("string", str)):
        if isinstance(value, types):
            return kind
    return "other"


def _eq(first: Any, *others: Any) -> bool:
    if not others:
        raise Fault("missing argument for comparison")
    for other in others:
        one, two = _kind(first), _kind(other)
        if one != two:
            if first is not None and other is not None:
                raise Fault("incompatible types for comparison")
        elif one == "other":
            for value in (first, other):
                if value is not None and not _is_nil(value) and not (first is None or other is None):
                    raise Fault("non-comparable type %s: %s" % (show(value), type_name(value)))
            if _is_nil(first) and _is_nil(other):
                return True
        elif first == other:
            return True
    return False


def _is_nil(value: Any) -> bool:
    return value is None or isinstance(value, NilList) or (isinstance(value, GoMap) and value.is_nil)


def _ne(first: Any, other: Any) -> bool:
    return not _eq(first, other)


def _lt(first: Any, other: Any) -> bool:
    one, two = _kind(first), _kind(other)
    if first is None or other is None or one in ("bool", "other"):
        raise Fault("invalid type for comparison")
    if one != two:
        raise Fault("incompatible types for comparison")
    return bool(octets(first) < octets(other) if one == "string" else first < other)


def _le(first: Any, other: Any) -> bool:
    return _lt(first, other) or _eq(first, other)


def _gt(first: Any, other: Any) -> bool:
    return not _le(first, other)


def _ge(first: Any, other: Any) -> bool:
    return not _lt(first, other)


def _not(value: Any) -> bool:
    return not truth(value)


# -- parts ---------------------------------------------------------------------------------------------------------


def _len(value: Any) -> int:
    if value is None:
        raise Fault("len of nil pointer")
    if isinstance(value, str):
        return len(octets(value))
    if isinstance(value, (list, dict)):
        return len(value)
    raise Fault("len of type %s" % type_name(value))


def _position(value: Any, length: int, *, end: bool = False) -> int:
    if value is None:
        raise Fault("cannot index slice/array with nil")
    if _kind(value) != "int":
        raise Fault("cannot index slice/array with type %s" % type_name(value))
    if value < 0 or value > length or (value == length and not end):
        raise Fault("index out of range: %d" % value)
    return int(value)


def _index(value: Any, *keys: Any) -> Any:
    if value is None:
        raise Fault("index of untyped nil")
    for key in keys:
        if isinstance(value, dict):
            if not isinstance(key, str):
                raise Fault("value has type %s; should be string" % type_name(key))
            value = value[key] if key in value else getattr(value, "zero", NO_VALUE)
        elif isinstance(value, list):
            value = value[_position(key, len(value))]
            value = NO_VALUE if value is None else value
        elif isinstance(value, str):
            data = octets(value)
            value = data[_position(key, len(data))]
        elif value is None or value is NO_VALUE:
            raise Fault("index of nil pointer")
        else:
            raise Fault("can't index item of type %s" % type_name(value))
    return value


def _slice(value: Any, *ends: Any) -> Any:
    if value is None:
        raise Fault("slice of untyped nil")
    if len(ends) > 3:
        raise Fault("too many slice indexes: %d" % len(ends))
    if isinstance(value, str):
        if len(ends) == 3:
            raise Fault("cannot 3-index slice a string")
        length = len(octets(value))
    elif isinstance(value, list):
        length = len(value)
    else:
        raise Fault("can't slice item of type %s" % type_name(value))
    known = [_position(end, length, end=True) for end in ends]
    for before, after in zip(known, known[1:]):
        if before > after:
            raise Fault("invalid slice index: %d > %d" % (before, after))
    start, end = known[0] if known else 0, known[1] if len(known) > 1 else length
    return cut(value, start, end) if isinstance(value, str) else value[start:end]


# -- text ----------------------------------------------------------------------------------------------------------


def _joined(values: tuple[Any, ...]) -> str:
    """What is to be escaped: nil as an action would write it."""
    values = tuple("<no value>" if value is None else value for value in values)
    return values[0] if len(values) == 1 and isinstance(values[0], str) else sprint(values)


def _html(*values: Any) -> str:
    table = {"\0": "\ufffd", '"': "&#34;", "'": "&#39;", "&": "&amp;", "<": "&lt;", ">": "&gt;"}
    return "".join(table.get(char, char) for char in _joined(values))


def _js(*values: Any) -> str:
    table = {"\\": "\\\\", "'": "\\'", '"': '\\"'}
    out = []
    for char in _joined(values):
        if char in table:
            out.append(table[char])
        elif char in "<>&=" or char < " " or not (char.isprintable() or char == " " or char == "\x7f"):
            out.append("\\u%04X" % ord(char))
        else:
            out.append(char)
    return "".join(out)


def _urlquery(*values: Any) -> str:
    from urllib.parse import quote_plus

    return quote_plus(octets(_joined(values)), safe="")


def _println(*values: Any) -> str:
    return " ".join(show(value) for value in values) + "\n"


def _call(function: Any, *_arguments: Any) -> Any:
    if function is None:
        raise Fault("call of nil")
    raise Fault("non-function %s of type %s" % (show(function), type_name(function)))


def _split(value: str, separator: str) -> list[str]:
    return value.split(separator) if separator else list(value)


def _title(value: str) -> str:
    """The first letter of every word as a capital; letters, digits and underscores make words."""
    out = []
    inside = False
    for char in value:
        out.append(char if inside else _one(char, char.title()))
        inside = char.isalnum() or char == "_" if char < "\x80" else not char.isspace()
    return "".join(out)


def _one(char: str, changed: str) -> str:
    """Go changes a letter into one letter, or leaves it."""
    return changed if len(changed) == 1 else char


def _lower(value: str) -> str:
    return "".join(char.lower()[:1] for char in value)


def _upper(value: str) -> str:
    return "".join(_one(char, char.upper()) for char in value)


def _pad(value: str, before: int, after: int) -> str:
    if before < 0 or after < 0:
        raise Fault("strings: negative Repeat count")
    if before + after > MAX_OUTPUT:
        raise Fault("pad makes more than %d bytes" % MAX_OUTPUT)
    return " " * before + value + " " * after if value else value


def _truncate(value: str, length: int) -> str:
    if length < 0:
        raise Fault("slice bounds out of range [:%d]" % length)
    return cut(value, 0, length)


# -- JSON ----------------------------------------------------------------------------------------------------------


def to_json(value: Any, shapes: Optional[dict[str, str]] = None) -> str:
    """Compact, as Go's encoding/json without its escapes for HTML. Maps are sorted, structs keep their order."""
    out: list[str] = []
    _encode(value, "", shapes or {}, out)
    return "".join(out)


def _encode(value: Any, shape: str, shapes: dict[str, str], out: list[str]) -> None:
    if value is None or value is NO_VALUE or isinstance(value, NilList) or getattr(value, "is_nil", False):
        out.append("null")
    elif isinstance(value, bool):
        out.append("true" if value else "false")
    elif isinstance(value, str):
        out.append(_json_string(value))
    elif isinstance(value, float):
        out.append(_json_float(value))
    elif isinstance(value, dict):
        is_map = isinstance(value, GoMap) or shape in ("map", "strings", "slices")
        for at, (key, item) in enumerate(items(value) if is_map else value.items()):
            out.append("%s%s:" % ("," if at else "{", _json_string(str(key))))
            _encode(item, "" if is_map else shapes.get(key, ""), shapes, out)
        out.append("}" if value else "{}")
    elif isinstance(value, list):
        for at, item in enumerate(value):
            out.append("," if at else "[")
            _encode(item, "", shapes, out)
        out.append("]" if value else "[]")
    else:
        out.append(str(value))


def _json_string(value: str) -> str:
    import json

    text = json.dumps(value, ensure_ascii=False)
    if not value.isascii():
        text = "".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in text)
        text = text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return text


def _json_float(value: float) -> str:
    """As ECMAScript writes numbers; what is none, JSON does not have."""
    if not math.isfinite(value):
        raise Fault("json: unsupported value: %s" % general(value))
    size = abs(value)
    if size and size < 1e-6:
        mantissa, _e, power = general(value).partition("e-")
        return "%se-%s" % (mantissa, power.lstrip("0"))
    if size and size < 1e-4:
        mantissa, _e, power = general(value).partition("e-")
        sign = "-" if value < 0 else ""
        return "%s0.%s%s" % (sign, "0" * (int(power) - 1), mantissa.lstrip("-").replace(".", ""))
    return general(value, 21)


TABLE: dict[str, Signature] = {
    "call": Signature(_call, ("any", "any"), True),
    "eq": Signature(_eq, ("any", "any"), True),
    "ge": Signature(_ge, ("any", "any")),
    "gt": Signature(_gt, ("any", "any")),
    "html": Signature(_html, ("any",), True),
    "index": Signature(_index, ("any", "any"), True),
    "join": Signature(lambda parts, separator: separator.join(parts), ("strings", "string")),
    "js": Signature(_js, ("any",), True),
    "json": Signature(to_json, ("any",)),
    "le": Signature(_le, ("any", "any")),
    "len": Signature(_len, ("any",)),
    "lower": Signature(_lower, ("string",)),
    "lt": Signature(_lt, ("any", "any")),
    "ne": Signature(_ne, ("any", "any")),
    "not": Signature(_not, ("any",)),
    "pad": Signature(_pad, ("string", "int", "int")),
    "print": Signature(lambda *values: sprint(values), ("any",), True),
    "printf": Signature(lambda layout, *values: sprintf(layout, values), ("string", "any"), True),
    "println": Signature(_println, ("any",), True),
    "slice": Signature(_slice, ("any", "any"), True),
    "split": Signature(_split, ("string", "string")),
    "title": Signature(_title, ("string",)),
    "truncate": Signature(_truncate, ("string", "int")),
    "upper": Signature(_upper, ("string",)),
    "urlquery": Signature(_urlquery, ("any",), True),
}
