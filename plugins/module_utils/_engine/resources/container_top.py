# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The processes of a container, as ``docker top`` shows them; no ``ps`` is run. Numbers are those of the host."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Callable, Optional

from ..errors import UsageError
from .container_actual import state
from .container_make import cgroup_path
from .task import Task

if TYPE_CHECKING:
    from ..kernel.processes import Process
    from ..store.records import ContainerRecord

FULL = ("user", "pid", "ppid", "c", "stime", "tname", "time", "cmd")
LONG = ("user", "pid", "%cpu", "%mem", "vsz", "rss", "tname", "stat", "start", "time", "command")
_SAME = {
    "args": "command", "comm": "ucomm", "pcpu": "%cpu", "pmem": "%mem", "tty": "tname", "tt": "tname", "s": "stat",
    "state": "stat", "vsize": "vsz", "rssize": "rss", "uname": "user", "euser": "user", "cputime": "time", "nice": "ni",
    "thcount": "nlwp", "sess": "sid", "pgrp": "pgid", "euid": "uid", "lstart": "start", "start_time": "stime",
}  # fmt: skip
_TITLES = {"tname": "TTY", "stime": "STIME", "ucomm": "COMMAND", "cmd": "CMD", "user": "USER", "command": "COMMAND"}


class _Host:
    """What all processes are compared with. ``now``: seconds since the boot."""

    def __init__(self) -> None:
        from ..kernel import processes

        self.boot, self.now, self.memory = processes.boot_time(), processes.uptime(), processes.total_memory()
        self.users: dict[int, str] = {}

    def user(self, uid: int) -> str:
        if uid not in self.users:
            import pwd

            try:
                self.users[uid] = pwd.getpwuid(uid).pw_name
            except KeyError:
                self.users[uid] = str(uid)
        return self.users[uid]

    def share(self, one: Process) -> float:
        """Percent of a processor since it started."""
        lived = self.now - one.start / 100
        return one.cpu / lived if lived > 0 else 0.0

    def began(self, one: Process) -> str:
        """The time of day, or the date when that was on another day."""
        moment = time.localtime(self.boot + one.start // 100)
        today = time.localtime()
        same = (moment.tm_year, moment.tm_yday) == (today.tm_year, today.tm_yday)
        return time.strftime("%H:%M" if same else "%b%d", moment)


def _clock(seconds: int, *, days: bool = False) -> str:
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    if days and not hours:
        return "%02d:%02d" % (minute, second)
    day, hour = divmod(hours, 24) if days else (0, hours)
    return ("%d-" % day if day else "") + "%02d:%02d:%02d" % (hour, minute, second)


def _terminal(number: int) -> str:
    major, minor = number >> 8 & 0xFFF, (number & 0xFF) | (number >> 12 & 0xFFF00)
    if 136 <= major <= 143:
        return "pts/%d" % (minor + (major - 136) * 256)
    return "?" if not number else "tty%d" % minor if major == 4 else "%d:%d" % (major, minor)


COLUMNS: dict[str, Callable[[_Host, Any], str]] = {
    "%cpu": lambda host, one: "%.1f" % host.share(one),
    "%mem": lambda host, one: "%.1f" % (100 * one.resident / host.memory),
    "c": lambda host, one: "%d" % min(host.share(one), 99),
    "cmd": lambda _host, one: one.command,
    "command": lambda _host, one: one.command,
    "etime": lambda host, one: _clock(max(int(host.now - one.start / 100), 0), days=True),
    "etimes": lambda host, one: str(max(int(host.now - one.start / 100), 0)),
    "ni": lambda _host, one: str(one.nice),
    "nlwp": lambda _host, one: str(one.threads),
    "pgid": lambda _host, one: str(one.group),
    "pid": lambda _host, one: str(one.pid),
    "ppid": lambda _host, one: str(one.parent),
    "pri": lambda _host, one: str(39 - one.priority),
    "rss": lambda _host, one: str(one.resident >> 10),
    "sid": lambda _host, one: str(one.session),
    "start": lambda host, one: host.began(one),
    "stat": lambda _host, one: one.state,
    "stime": lambda host, one: host.began(one),
    "time": lambda _host, one: _clock(one.cpu // 100),
    "tname": lambda _host, one: _terminal(one.tty),
    "ucomm": lambda _host, one: one.name,
    "uid": lambda _host, one: str(one.uid),
    "user": lambda host, one: host.user(one.uid),
    "vsz": lambda _host, one: str(one.size >> 10),
}


def columns(arguments: Optional[str]) -> tuple[list[str], list[str]]:
    """``(columns, titles)`` of what would be given to ``ps``: ``-ef``, ``aux``, or ``-o`` with a list. Raises
    ``UsageError`` for anything else: nothing is run, so nothing else has a meaning."""
    words = (arguments or "-ef").replace(",", " ").split()
    form = words.pop(0)
    if not words and form in ("-ef", "-f", "-e"):
        return list(FULL), ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    if not words and form.lstrip("-") in ("aux", "au", "ux", "u"):
        return list(LONG), [_title(name) for name in LONG]
    if form in ("-o", "-eo", "o", "-e") and words:
        if words[0] in ("-o", "o"):
            words.pop(0)
        names, titles = [], []
        for word in words:
            wanted, equals, title = word.partition("=")
            name = _SAME.get(wanted, wanted)
            if name not in COLUMNS:
                raise UsageError(
                    "ps_args: %r is no column; there are %s" % (wanted, ", ".join(sorted({*COLUMNS, *_SAME}))),
                    step="validate",
                    path="ps_args",
                )
            names.append(name)
            titles.append(title if equals else _title(name))
        if names:
            return names, titles
    raise UsageError(
        "ps_args: %r is neither -ef, nor aux, nor -o with a list of columns such as -o pid,user,args" % arguments,
        step="validate",
        path="ps_args",
    )


def _title(name: str) -> str:
    return _TITLES.get(name, name.upper())


def top(task: Task, record: ContainerRecord, wanted: tuple[list[str], list[str]]) -> Optional[dict[str, Any]]:
    """``{"Titles", "Processes"}``; None for a container that does not run."""
    from ..kernel import processes
    from ..kernel.cgroups import Cgroup

    if state(task, record)["status"] not in ("running", "paused"):
        return None
    group = Cgroup(task.layout, cgroup_path(task, record))
    host = _Host()
    names, titles = wanted
    found = [processes.process(pid) for pid in group.processes()]
    rows = [[COLUMNS[name](host, one) for name in names] for one in found if one is not None]
    return {"Titles": titles, "Processes": rows}
