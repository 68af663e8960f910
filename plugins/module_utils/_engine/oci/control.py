# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""``kill``, ``pause``, ``resume``."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import Conflict, Unsupported, UsageError
from ..kernel import pidfd as pidfds
from . import states

if TYPE_CHECKING:
    from ..kernel.cgroups import Cgroup
    from .main import Context

_LAST = 64


def signal_number(word: str) -> int:
    """``9``, ``KILL``, ``SIGKILL``, ``RTMIN+3``. Raises ``UsageError``."""
    if word.isascii() and word.isdigit() and int(word) <= _LAST:
        return int(word)
    name = word.upper()
    name = name if name.startswith("SIG") else "SIG" + name
    base, plus, offset = name.partition("+")
    found = getattr(signal, base, None) if base[3:4] != "_" else None
    if isinstance(found, int) and (not plus or (offset.isdigit() and base == "SIGRTMIN")):
        number = int(found) + int(offset or 0)
        if number <= _LAST:
            return number
    raise UsageError("unknown signal %r" % word, path="signal")


def kill(context: Context, values: dict[str, Any], words: Sequence[str]) -> int:
    number = signal_number(words[1] if len(words) > 1 else "TERM")
    state = states.load(context.root, words[0])
    group = states.cgroup(state)
    everybody = values["all"] or (number == signal.SIGKILL and _shares_processes(state))
    if everybody and group is not None and group.processes():
        if number == signal.SIGKILL:
            if group.is_frozen():
                group.thaw()
            group.kill_all()
        else:
            for pid in group.processes():
                _send(pid, number)
        return 0
    if states.status(context.root, state) in (states.STOPPED, states.CREATING):
        raise Conflict("container not running", subject=words[0])
    _signal_first(state, number, group)
    return 0


def _shares_processes(state: dict[str, Any]) -> bool:
    """Without a pid namespace of its own the others do not die with the first process."""
    entries = state["config"]["linux"].get("namespaces") or ()
    return not any(entry["type"] == "pid" and not entry.get("path") for entry in entries)


def _signal_first(state: dict[str, Any], number: int, group: Any) -> None:
    fd = pidfds.open_pid(int(state["pid"]), int(state["start"]))
    if fd is None:
        raise Conflict("container not running", subject=state["id"])
    try:
        if not pidfds.send_signal(fd, number):
            raise Conflict("container not running", subject=state["id"])
        if number == signal.SIGKILL and group is not None and group.is_frozen():
            group.thaw()  # a frozen process of cgroup v1 does not die
    finally:
        os.close(fd)


def _send(pid: int, number: int) -> None:
    fd = pidfds.open_pid(pid)
    if fd is not None:
        pidfds.send_signal(fd, number)
        os.close(fd)


def pause(context: Context, _values: dict[str, Any], words: Sequence[str]) -> int:
    group = _group(context, words[0], (states.RUNNING, states.CREATED), "pause")
    group.freeze()
    return 0


def resume(context: Context, _values: dict[str, Any], words: Sequence[str]) -> int:
    group = _group(context, words[0], (states.PAUSED,), "resume")
    group.thaw()
    return 0


def _group(context: Context, name: str, wanted: Sequence[str], verb: str) -> Cgroup:
    state = states.load(context.root, name)
    now = states.status(context.root, state)
    if now not in wanted:
        raise Conflict("cannot %s container %s: it is %s" % (verb, name, now), subject=name)
    group = states.cgroup(state)
    if group is None:
        raise Unsupported("cannot %s container %s: it has no cgroup" % (verb, name), subject=name)
    return group
