# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Docker's filters: names that are known, values as a list of text, and how they match.

Several values of one filter are alternatives, except for labels, which must all be there; several filters must all
match.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn, Optional

from ..errors import UsageError, WharfError

_WORDS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


class Filters:
    """``option``: its name in the task, for the sentences. Raises ``UsageError`` for a filter that is not in ``known``:
    ignored, it would show (or prune) too much."""

    def __init__(self, given: Optional[Mapping[str, Any]], known: Iterable[str], *, option: str = "filters") -> None:
        self.option = option
        self.values: dict[str, list[str]] = {}
        names = sorted(known)
        for name, value in (given or {}).items():
            if name not in names:
                raise UsageError(
                    "%s: invalid filter %r; there are %s" % (option, name, ", ".join(names)),
                    step="validate",
                    path=option,
                )
            self.values[name] = list(self._texts(name, value))

    def _texts(self, name: str, value: Any) -> Iterable[str]:
        if isinstance(value, Mapping):  # labels as a dictionary; Docker's API: {"value": true}
            for key, item in value.items():
                yield key if item is True or item is None else "%s=%s" % (key, item)
            return
        for one in value if isinstance(value, list) else [value]:
            if one is None or isinstance(one, (list, dict)):
                self.refuse(name, one, "is no value for it")
            yield str(one).lower() if isinstance(one, bool) else str(one)

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def __bool__(self) -> bool:
        return bool(self.values)

    def get(self, name: str) -> list[str]:
        return self.values.get(name, [])

    def refuse(self, name: str, value: Any, why: str) -> NoReturn:
        path = "%s.%s" % (self.option, name)
        raise UsageError("%s: %r %s" % (path, value, why), step="validate", path=path)

    # -- values of a kind, checked before anything is looked at --------------------------------------------------------

    def choice(self, name: str, choices: Sequence[str]) -> list[str]:
        for value in self.get(name):
            if value not in choices:
                self.refuse(name, value, "is not one of %s" % ", ".join(choices))
        return self.get(name)

    def flag(self, name: str) -> Optional[bool]:
        """None when it is not given."""
        values = self.get(name)
        for value in values:
            if value.lower() not in _WORDS:
                self.refuse(name, value, "is neither true nor false")
        found = {_WORDS[value.lower()] for value in values}
        return found.pop() if len(found) == 1 else None

    def integers(self, name: str) -> list[int]:
        for value in self.get(name):
            if not re.fullmatch(r"-?[0-9]{1,9}", value, re.ASCII):
                self.refuse(name, value, "is not a whole number")
        return [int(value) for value in self.get(name)]

    def patterns(self, name: str) -> list[re.Pattern[str]]:
        """Regular expressions."""
        out = []
        for value in self.get(name):
            try:
                out.append(re.compile(value))
            except (re.error, OverflowError, RecursionError) as error:
                self.refuse(name, value, "is no regular expression: %s" % error)
        return out

    def moment(self, name: str) -> Optional[float]:
        """Seconds since the epoch; the last value counts."""
        values = self.get(name)
        return when(values[-1], "%s.%s" % (self.option, name)) if values else None

    # -- matching ------------------------------------------------------------------------------------------------------

    def text(self, name: str, candidates: Iterable[str]) -> bool:
        """Whether one of the candidates is, or matches the expression of, one of the values."""
        if name not in self.values:
            return True
        found = list(candidates)
        if any(value in found for value in self.values[name]):
            return True
        return any(pattern.search(one) for pattern in self.patterns(name) for one in found)

    def exact(self, name: str, candidates: Iterable[str]) -> bool:
        return name not in self.values or bool(set(self.values[name]) & set(candidates))

    def labels(self, have: Mapping[str, str]) -> bool:
        """``label`` must be there, ``label!`` must not: ``key`` or ``key=value``."""
        return all(_has(have, one) for one in self.get("label")) and not any(_has(have, x) for x in self.get("label!"))


def _has(labels: Mapping[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)


def when(text: str, option: str) -> float:
    """A time as seconds since the epoch or RFC 3339, or a duration back from now (``24h``, ``1h30m``)."""
    from ..images.changes import duration

    if re.fullmatch(r"[0-9]{1,11}(\.[0-9]+)?", text, re.ASCII):
        return float(text)
    moment = parse_time(text)
    if moment is not None:
        return moment
    try:
        return time.time() - duration(text, option) / 1e9
    except (WharfError, OverflowError):
        raise UsageError(
            "%s: %r is neither a time nor a duration such as 24h" % (option, text), step="validate", path=option
        ) from None


def parse_time(text: str) -> Optional[float]:
    """RFC 3339, or a date, in seconds since the epoch; None for anything else. A time without zone is UTC."""
    import datetime

    head, dot, rest = text.strip().partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    zone = rest[len(digits) :] if dot else ""
    plain = (head + zone).replace("Z", "+00:00")
    try:
        moment = datetime.datetime.fromisoformat(plain)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=datetime.timezone.utc)
        return moment.timestamp() + (float("0." + digits) if digits else 0.0)
    except (ValueError, OverflowError):
        return None


def glob(pattern: str) -> re.Pattern[str]:
    """Go's ``path.Match``: ``*`` and ``?`` do not match a slash. Raises ``ValueError``."""
    out, at = "", 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            out += "[^/]*"
        elif char == "?":
            out += "[^/]"
        elif char == "[":
            end = pattern.find("]", at + 1)
            if end < 0:
                raise ValueError("syntax error in pattern")
            inner = pattern[at:end].replace("\\", "\\\\").replace("[", "\\[")
            out += "[%s]" % inner
            at = end + 1
        elif char == "\\":
            if at >= len(pattern):
                raise ValueError("syntax error in pattern")
            out += re.escape(pattern[at])
            at += 1
        else:
            out += re.escape(char)
    try:
        return re.compile(out)
    except re.error as error:
        raise ValueError(str(error)) from None
