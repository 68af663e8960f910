# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The executable: reads the command line, calls the verb, says what failed. Exit status 1 for errors, 255 of exec."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from .. import VERSION
from ..errors import UsageError, WharfError
from ..tuples import NamedTuple
from . import argv, verbs

NAME = "wharf-oci"
SPEC = "1.2.0"
_HELP = ("--help", "-help", "-h")


class Context(NamedTuple):
    """The global options. ``root``: absolute."""

    root: str
    systemd: bool
    log: str
    log_format: str
    debug: bool

    def warn(self, words: str) -> None:
        self.write("warning", words)

    def write(self, level: str, words: str) -> None:
        from .log import write

        write(self.log, self.log_format, level, words)


def main(words: Sequence[str]) -> int:
    """One command line, to its exit status."""
    context = Context("", False, "", "text", False)
    verb = ""
    try:
        values, rest = argv.parse(words, verbs.GLOBAL)
        context = _context(values)
        if values["version"]:
            return _say(_version())
        if values["help"] or not rest or rest[0] in ("help", "h"):
            return _say(_help(rest[1:]))
        verb = rest[0]
        if verb in verbs.VERBS and rest[1:2] and rest[1] in _HELP:
            return _say(_help([verb]))
        if verb == "exec":  # always among the container's processes: see seal. Before anything else is imported
            from . import seal

            seal.ensure()
        return _call(context, verb, rest[1:])
    except WharfError as error:
        _report(context, error)
        return 255 if verb == "exec" else 1
    except BrokenPipeError:  # whoever read our output has gone
        return 1


def _context(values: dict[str, Any]) -> Context:
    if values["log-format"] not in ("text", "json"):
        raise UsageError("unknown log-format %r: use text or json" % values["log-format"], path="log-format")
    log = values["log"] or ""
    return Context(
        os.path.abspath(values["root"]),
        bool(values["systemd-cgroup"]),
        log,
        values["log-format"],
        bool(values["debug"]),
    )


def _call(context: Context, name: str, words: Sequence[str]) -> int:
    verb = verbs.VERBS.get(name)
    if verb is None:
        raise UsageError("No such command: %s" % name, path=name, hint="See %s --help" % NAME)
    values, rest = ({}, list(words)) if name in ("checkpoint", "restore") else argv.parse(words, verb.options)
    least, most = verb.words
    if name == "ps" and len(rest) > 1 and rest[1] == "--":
        del rest[1]
    argv.exactly(rest, name, verb.usage or "none", least, len(rest) if most < 0 and len(rest) >= least else most)
    module = __import__("%s.%s" % (__name__.rpartition(".")[0], verb.module), fromlist=[verb.function])
    status: int = getattr(module, verb.function)(context, values, rest)
    return status


def _say(text: str) -> int:
    sys.stdout.write(text)
    return 0


def _version() -> str:
    return "%s version %s\nspec: %s\npython: %s\n" % (NAME, VERSION, SPEC, sys.version.split()[0])


def _help(names: Sequence[str]) -> str:
    verb = verbs.VERBS.get(names[0]) if names else None
    if verb is None:
        usage = "%s [global options] command [command options] [arguments]" % NAME
        return argv.help_text(usage, "", verbs.GLOBAL, {name: verb.about for name, verb in verbs.VERBS.items()})
    return argv.help_text("%s %s [options] %s" % (NAME, names[0], verb.usage), verb.about, verb.options, {})


def _report(context: Context, error: WharfError) -> None:
    """To the log, and for people (or callers that collect standard error) to standard error."""
    words = error.msg if not error.hint else "%s. %s" % (error.msg.rstrip("."), error.hint)
    if context.log:
        try:
            context.write("error", words)
        except OSError as failure:
            sys.stderr.write("cannot write the log %s: %s\n" % (context.log, failure.strerror))
        sys.stderr.write(words + "\n")
    else:
        context.write("error", words)
