# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""``state``, ``list``, ``ps``: what there is, on standard output."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Optional

from ..errors import Conflict, UsageError, WharfError
from ..kernel import procfs
from . import states

if TYPE_CHECKING:
    from .main import Context

_COLUMNS = ("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")


def state(context: Context, _values: dict[str, Any], words: Sequence[str]) -> int:
    found = states.public(context.root, states.load(context.root, words[0]))
    # Indented by hand: json's own indenting is in Python, and this verb is called all the time.
    lines = ",\n  ".join("%s: %s" % (json.dumps(key), json.dumps(value)) for key, value in found.items())
    sys.stdout.write("{\n  %s\n}\n" % lines)
    return 0


def list_all(context: Context, values: dict[str, Any], _words: Sequence[str]) -> int:
    if values["format"] not in ("table", "json"):
        raise UsageError("invalid format option %r: use table or json" % values["format"], path="format")
    found = []
    for name in states.names(context.root):
        try:
            found.append({**states.public(context.root, states.load(context.root, name)), "owner": "root"})
        except WharfError as error:  # one that is being made or removed, or is damaged, must not hide the others
            context.warn("%s: %s" % (name, error.msg))
    if values["quiet"]:
        sys.stdout.write("".join(entry["id"] + "\n" for entry in found))
    elif values["format"] == "json":
        sys.stdout.write(json.dumps(found, separators=(",", ":")))
    else:
        rows = [_COLUMNS, *(tuple(str(entry[key.lower()]) for key in _COLUMNS) for entry in found)]
        sys.stdout.write(table(rows))
    return 0


def table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(9, *(len(row[at]) for row in rows)) + 3 for at in range(len(rows[0]))]
    lines = ["".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    return "\n".join(lines) + "\n"


def processes(context: Context, name: str) -> list[int]:
    found = states.load(context.root, name)
    if states.status(context.root, found) == states.STOPPED:
        raise Conflict("container %s is not running" % name, subject=name)
    group = states.cgroup(found)
    return group.processes() if group is not None else [int(found["pid"])]


def ps(context: Context, values: dict[str, Any], words: Sequence[str]) -> int:
    if values["format"] not in ("table", "json"):
        raise UsageError("invalid format option %r: use table or json" % values["format"], path="format")
    pids = processes(context, words[0])
    if values["format"] == "json":
        sys.stdout.write(json.dumps(pids, separators=(",", ":")) + "\n")
    elif len(words) > 1:
        sys.stdout.write(_by_program(pids, words[1:]))
    else:
        sys.stdout.write(_own_table(pids))
    return 0


def _by_program(pids: Sequence[int], options: Sequence[str]) -> str:
    """The host's ``ps`` with the caller's options, cut down to the container's processes by its column PID."""
    from .. import process

    try:
        result = process.run(["ps", *options], timeout=30.0)
    except FileNotFoundError:
        raise UsageError("ps with options needs the program ps on this host", path="ps") from None
    text = result.stdout.decode(errors="replace")
    if result.returncode:
        raise UsageError("ps: %s" % result.stderr.decode(errors="replace").strip(), path="ps")
    lines = text.rstrip("\n").split("\n")
    titles = lines[0].split()
    if "PID" not in titles:
        raise UsageError("couldn't find PID field in ps output", path="ps", hint="Ask ps for that column.")
    at, wanted = titles.index("PID"), {str(pid) for pid in pids}
    return "\n".join([lines[0], *(x for x in lines[1:] if len(x.split()) > at and x.split()[at] in wanted)]) + "\n"


def _own_table(pids: Sequence[int]) -> str:
    rows = [("UID", "PID", "PPID", "TIME", "CMD")]
    for pid in pids:
        row = _row(pid)
        if row is not None:
            rows.append(row)
    return table(rows)


def _row(pid: int) -> Optional[tuple[str, str, str, str, str]]:
    found = procfs.stat(pid)
    if found is None:
        return None
    try:
        uid = os.stat("/proc/%d" % pid).st_uid
        with open("/proc/%d/cmdline" % pid, "rb") as stream:
            command = stream.read().replace(b"\0", b" ").decode(errors="replace").strip()
        with open("/proc/%d/stat" % pid, errors="replace") as stream:
            fields = stream.read().rpartition(")")[2].split()
    except OSError:  # it ended meanwhile
        return None
    seconds = (int(fields[11]) + int(fields[12])) // os.sysconf("SC_CLK_TCK")
    spent = "%02d:%02d:%02d" % (seconds // 3600, seconds // 60 % 60, seconds % 60)
    return str(uid), str(pid), str(found.parent), spent, command or "[%s]" % found.comm
