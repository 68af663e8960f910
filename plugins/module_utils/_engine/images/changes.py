# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Dockerfile instructions as changes to an image's configuration (``docker import --change``).

The instructions that need no build: CMD ENTRYPOINT ENV EXPOSE HEALTHCHECK LABEL ONBUILD STOPSIGNAL USER VOLUME
WORKDIR. Everything is checked here, before anything is read or written; errors name the instruction.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Optional

from ..errors import UsageError

Config = dict[str, Any]
_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
_SHELL = ["/bin/sh", "-c"]
_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_MAX_PORTS = 65535


def apply(changes: Sequence[str], config: Optional[Config] = None) -> Config:
    """The OCI ``config`` object after ``changes`` were applied in order to a copy of ``config``. Raises
    ``UsageError``."""
    result: Config = json.loads(json.dumps(config or {}))
    for change in changes:
        word, _space, rest = change.strip().partition(" ")
        handler = _HANDLERS.get(word.upper())
        if handler is None:
            _refuse(change, "%s is not one of %s" % (word or "an empty line", ", ".join(sorted(_HANDLERS))))
        if not rest.strip():
            _refuse(change, "it has no arguments")
        if "\0" in rest:
            _refuse(change, "it holds a NUL byte")
        handler(result, rest.strip(), change)
    return result


def _refuse(change: str, why: str) -> NoReturn:
    raise UsageError("Invalid change %r: %s" % (change, why), step="validate", path="changes")


# -- instructions ------------------------------------------------------------------------------------------------


def _cmd(config: Config, text: str, change: str) -> None:
    config["Cmd"] = _command(text)


def _entrypoint(config: Config, text: str, change: str) -> None:
    config["Entrypoint"] = _command(text)


def _env(config: Config, text: str, change: str) -> None:
    current = dict(entry.split("=", 1) for entry in config.get("Env", ()))
    current.update(_pairs(config, text, change))
    config["Env"] = ["%s=%s" % pair for pair in current.items()]


def _label(config: Config, text: str, change: str) -> None:
    config.setdefault("Labels", {}).update(_pairs(config, text, change))


def _expose(config: Config, text: str, change: str) -> None:
    for word in _words(text, change, config):
        ports, _slash, protocol = word.partition("/")
        protocol = protocol.lower() or "tcp"
        first, _dash, last = ports.partition("-")
        if protocol not in ("tcp", "udp", "sctp") or not first.isdigit() or not (last or first).isdigit():
            _refuse(change, "%r is no port" % word)
        low, high = int(first), int(last or first)
        if not 0 < low <= high <= _MAX_PORTS:
            _refuse(change, "%r is no port" % word)
        for port in range(low, high + 1):
            config.setdefault("ExposedPorts", {})["%d/%s" % (port, protocol)] = {}


def _user(config: Config, text: str, change: str) -> None:
    words = _words(text, change, config)
    if len(words) != 1:
        _refuse(change, "USER wants one argument")
    config["User"] = words[0]


def _volume(config: Config, text: str, change: str) -> None:
    paths = _json_list(text)
    for path in _words(text, change, config) if paths is None else paths:
        if not path.strip():
            _refuse(change, "a volume without a path")
        config.setdefault("Volumes", {})[path] = {}


def _workdir(config: Config, text: str, change: str) -> None:
    path = _expand(text, change, config)
    if not path.startswith("/"):
        path = (config.get("WorkingDir") or "/") + "/" + path
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    config["WorkingDir"] = "/" + "/".join(parts)


def _stopsignal(config: Config, text: str, change: str) -> None:
    import signal

    value = _expand(text, change, config)
    if value.isdigit():
        known = 0 < int(value) <= 64
    else:
        name = value.upper() if value.upper().startswith("SIG") else "SIG" + value.upper()
        base = name.partition("+")[0].partition("-")[0] if name.startswith("SIGRTM") else name
        known = base in signal.Signals.__members__
    if not known:
        _refuse(change, "%r is no signal" % value)
    config["StopSignal"] = value


def _onbuild(config: Config, text: str, change: str) -> None:
    if text.split(None, 1)[0].upper() in ("ONBUILD", "FROM", "MAINTAINER"):
        _refuse(change, "%s is not allowed in ONBUILD" % text.split(None, 1)[0].upper())
    config.setdefault("OnBuild", []).append(text)


def _healthcheck(config: Config, text: str, change: str) -> None:
    check: dict[str, Any] = {}
    options = {"interval": "Interval", "timeout": "Timeout", "start-period": "StartPeriod"}
    options["start-interval"] = "StartInterval"
    while text.startswith("--"):
        flag, _space, text = text.partition(" ")
        name, _equals, value = flag[2:].partition("=")
        text = text.strip()
        if name == "retries":
            if not value.isdigit():
                _refuse(change, "%r is no number of retries" % value)
            check["Retries"] = int(value)
        elif name in options:
            check[options[name]] = duration(value, change)
        else:
            _refuse(change, "unknown option --%s" % name)
    kind, _space, rest = text.partition(" ")
    if kind.upper() == "NONE" and not rest.strip() and not check:
        config["Healthcheck"] = {"Test": ["NONE"]}
        return
    if kind.upper() != "CMD" or not rest.strip():
        _refuse(change, "HEALTHCHECK wants CMD and a command, or NONE")
    command = _json_list(rest.strip())
    check["Test"] = ["CMD-SHELL", rest.strip()] if command is None else ["CMD", *command]
    config["Healthcheck"] = check


_HANDLERS: dict[str, Callable[[Config, str, str], None]] = {
    "CMD": _cmd, "ENTRYPOINT": _entrypoint, "ENV": _env, "EXPOSE": _expose, "HEALTHCHECK": _healthcheck,
    "LABEL": _label, "ONBUILD": _onbuild, "STOPSIGNAL": _stopsignal, "USER": _user, "VOLUME": _volume,
    "WORKDIR": _workdir,
}  # fmt: skip


# -- arguments ---------------------------------------------------------------------------------------------------


def _json_list(text: str) -> Optional[list[str]]:
    """The exec form: a JSON array of strings. Anything else is the shell form, as in Docker."""
    if not text.startswith("["):
        return None
    try:
        value = json.loads(text)
    except ValueError:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        return None
    return value


def _command(text: str) -> list[str]:
    command = _json_list(text)
    return [*_SHELL, text] if command is None else command


def duration(text: str, change: str) -> int:
    """Go's notation ("1m30s", "1.5h", "500ms") in nanoseconds."""
    rest, total = text, 0.0
    if not rest:
        _refuse(change, "an empty duration")
    while rest:
        digits = rest[: len(rest) - len(rest.lstrip("0123456789."))]
        rest = rest[len(digits) :]
        unit = rest[: len(rest) - len(rest.lstrip("nuµmsh"))]
        rest = rest[len(unit) :]
        if text == "0":
            return 0
        if not digits.replace(".", "", 1).isdigit() or unit not in _UNITS:
            _refuse(change, "%r is no duration (such as 1m30s)" % text)
        total += float(digits) * _UNITS[unit]
    return round(total)


def _pairs(config: Config, text: str, change: str) -> dict[str, str]:
    """``key=value ...``, or the old form ``key value with blanks``."""
    first = text.split(None, 1)
    if "=" not in first[0]:
        if len(first) < 2:
            _refuse(change, "%r has no value" % first[0])
        return {first[0]: _expand(first[1], change, config)}
    pairs = {}
    for word in _words(text, change, config):
        key, equals, value = word.partition("=")
        if not equals or not key:
            _refuse(change, "%r is not key=value" % word)
        pairs[key] = value
    return pairs


def _words(text: str, change: str, config: Config) -> list[str]:
    """Split at blanks outside quotes, then remove quotes and put variables in."""
    words: list[str] = []
    word, quote, inside, at = "", "", False, 0
    while at < len(text):
        char = text[at]
        if char == "\\" and quote != "'" and at + 1 < len(text):
            word += text[at : at + 2]
            inside = True
            at += 2
            continue
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote, inside = char, True
        elif char.isspace():
            if inside:
                words.append(word)
            word, inside = "", False
            at += 1
            continue
        word += char
        inside = True
        at += 1
    if quote:
        _refuse(change, "a quote is not closed")
    if inside:
        words.append(word)
    return [_expand(word, change, config) for word in words]


def _expand(text: str, change: str, config: Config) -> str:
    """Remove quotes and escapes; replace ``$name`` and ``${name}`` by what ENV set before."""
    known = dict(entry.split("=", 1) for entry in config.get("Env", ()))
    out, quote, at = "", "", 0
    while at < len(text):
        char = text[at]
        if char == "\\" and quote != "'" and at + 1 < len(text):
            following = text[at + 1]
            out += char + following if quote and following not in '"$\\' else following
            at += 2
        elif char in "'\"" and quote in ("", char):
            quote = "" if quote else char
            at += 1
        elif char == "$" and quote != "'":
            value, at = _variable(text, at + 1, known, change)
            out += value
        else:
            out += char
            at += 1
    if quote:
        _refuse(change, "a quote is not closed")
    return out


def _variable(text: str, at: int, known: dict[str, str], change: str) -> tuple[str, int]:
    braces = text[at : at + 1] == "{"
    start = at = at + 1 if braces else at
    while at < len(text) and text[at] in _NAME:
        at += 1
    name = text[start:at]
    if not braces:
        return (known.get(name, ""), at) if name else ("$", at)
    end = text.find("}", at)
    if not name or end < 0:
        _refuse(change, "a broken variable")
    modifier = text[at:end]
    value = known.get(name, "")
    if modifier.startswith(":-"):
        value = value or modifier[2:]
    elif modifier.startswith(":+"):
        value = modifier[2:] if value else ""
    elif modifier:
        _refuse(change, "the modifier %r of the variable %s is not supported here" % (modifier, name))
    return value, end + 1
