# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command line, as runc's callers write it: ``--name value``, ``--name=value``, ``-n value``, and one dash for two.

Our own small parser: ``argparse`` takes longer to import than a container to start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import UsageError
from ..tuples import NamedTuple

FLAG, TEXT, MANY, NUMBER = "flag", "text", "many", "number"


class Option(NamedTuple):
    """``kind``: ``flag``, ``text``, ``number``, or ``many`` (may be given again and again)."""

    name: str
    kind: str
    help: str
    short: str = ""
    default: Any = None


def parse(words: Sequence[str], options: Sequence[Option]) -> tuple[dict[str, Any], list[str]]:
    """``(values by name, the words left)``. Options end at ``--`` or at the first word that is none.

    Raises ``UsageError`` for options nobody knows and values that are missing or no number.
    """
    known = {option.name: option for option in options}
    known.update({option.short: option for option in options if option.short})
    values = {option.name: [] if option.kind == MANY else option.default for option in options}
    at = 0
    while at < len(words):
        word = words[at]
        if word == "--":
            return values, list(words[at + 1 :])
        if len(word) < 2 or not word.startswith("-"):
            break
        at += 1
        name, equals, value = word.lstrip("-").partition("=")
        option = known.get(name)
        if option is None:
            raise UsageError("flag provided but not defined: -%s" % name, path=name)
        if option.kind == FLAG:
            values[option.name] = _boolean(option, value) if equals else True
            continue
        if not equals:
            if at >= len(words):
                raise UsageError("flag needs an argument: -%s" % name, path=name)
            value = words[at]
            at += 1
        _take(values, option, value)
    return values, list(words[at:])


def _take(values: dict[str, Any], option: Option, value: str) -> None:
    if option.kind == MANY:
        values[option.name].append(value)
    elif option.kind == NUMBER:
        values[option.name] = number(value, option.name)
    else:
        values[option.name] = value


def number(value: str, name: str) -> int:
    digits = value[1:] if value[:1] in ("-", "+") else value
    if not digits.isascii() or not digits.isdigit():
        raise UsageError("invalid value %r for flag -%s: a whole number is needed" % (value, name), path=name)
    return int(value)


def _boolean(option: Option, value: str) -> bool:
    if value.lower() in ("true", "t", "1"):
        return True
    if value.lower() in ("false", "f", "0"):
        return False
    raise UsageError("invalid boolean value %r for -%s" % (value, option.name), path=option.name)


def exactly(words: Sequence[str], verb: str, names: str, least: int, most: int = -1) -> None:
    """Refuse too few or too many words after a verb. ``names``: what they are called, for the sentence."""
    most = least if most < 0 else most
    if not least <= len(words) <= most:
        count = str(least) if least == most else "%d to %d" % (least, most)
        raise UsageError("%r needs %s argument(s): %s; %d given" % (verb, count, names, len(words)), path=verb)


def help_text(usage: str, about: str, options: Sequence[Option], more: Mapping[str, str]) -> str:
    """``more``: a list of verbs and what they do, or empty."""
    lines = ["USAGE:", "   " + usage, ""]
    if about:
        lines += ["   " + about, ""]
    if more:
        width = max(len(name) for name in more)
        lines += ["COMMANDS:", *("   %-*s  %s" % (width, name, text) for name, text in more.items()), ""]
    if options:
        left = []
        for option in options:
            value = "" if option.kind == FLAG else " value"
            short = ", -%s%s" % (option.short, value) if option.short else ""
            left.append("--%s%s%s" % (option.name, value, short))
        width = max(len(text) for text in left)
        lines += ["OPTIONS:", *("   %-*s  %s" % (width, a, o.help) for a, o in zip(left, options)), ""]
    return "\n".join(lines)
