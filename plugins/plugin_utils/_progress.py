# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Shows how far a long transfer is while its module runs: a thread looks into a file on the target now and then.

Core has no channel from a running module. The file is read over the same kind of connection as the module is run, so
this works where a second command can run beside the first (local, ssh, and connections that start a process per
command); elsewhere nothing is shown. Nothing here may ever fail a task.
"""

from __future__ import annotations

import copy
import json
import secrets
import shlex
import threading
from collections.abc import Callable
from typing import Any

QUIET = 2.0  # seconds: a task that is done before costs no extra command
INTERVAL = 1.0
_LINE_LIMIT = 4096


class Tail:
    """``with Tail(action, run_dir, show) as token``: ``token`` goes to the module as ``_progress``; ``show`` gets
    sentences."""

    def __init__(self, action: Any, run_dir: str, show: Callable[[str], object]) -> None:
        self.token = secrets.token_hex(16)
        self._path = "%s/progress/%s" % (run_dir.rstrip("/"), self.token)
        self._show = show
        self._action = _second(action)
        self._stop = threading.Event()
        self._last = ""
        self._thread = threading.Thread(target=self._run, name="wharf-progress", daemon=True)

    def __enter__(self) -> str:
        self._thread.start()
        return self.token

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()
        self._thread.join(5)

    def _run(self) -> None:
        command = "tail -n 1 %s 2>/dev/null || true" % shlex.quote(self._path)
        pause = QUIET
        while not self._stop.wait(pause):
            pause = INTERVAL
            try:
                answer = self._action._low_level_execute_command(command)
            except Exception:
                return  # whatever a connection raises when it cannot do two things at once
            if answer.get("rc"):
                return
            text = sentence(str(answer.get("stdout") or "")[-_LINE_LIMIT:])
            if text and text != self._last and not self._stop.is_set():
                self._last = text
                self._show(text)


def _second(action: Any) -> Any:
    """The action with a connection and a become plugin of its own: both remember things about the command they run
    (the prompt, the success marker), and the module's must not be overwritten."""
    other = copy.copy(action)
    other._connection = copy.copy(action._connection)
    become = getattr(action._connection, "become", None)
    if become is not None:
        other._connection.become = copy.copy(become)
    return other


def works(connection: Any) -> bool:
    """Whether a second command can run beside the module's. Mitogen's connections are one interpreter each, and
    paramiko's and WinRM's are one session."""
    if any("mitogen" in kind.__module__ for kind in type(connection).__mro__):
        return False
    name = str(getattr(connection, "ansible_name", None) or getattr(connection, "transport", "")).rpartition(".")[2]
    return name in ("local", "ssh", "docker", "podman", "kubectl", "oc", "lxc", "lxd", "incus", "nsenter")


def sentence(line: str) -> str:
    """``pulling nginx:1.29: 34 MB of 120 MB, 3 of 7 layers, 11 MB/s, 8 s left``, or "" for what is no event."""
    try:
        event = json.loads(line)
        done, total, layers = int(event["done"]), int(event["total"]), int(event["layers"])
        words = "%s %s: " % (str(event["what"])[:20], _clean(str(event["subject"])))
        if not total:
            return words + "asking the registry"
        parts = ["%s of %s" % (size(done), size(total)), "%d of %d layers" % (int(event["layers_done"]), layers)]
        if event.get("rate"):
            parts.append("%s/s" % size(int(event["rate"])))
            if event.get("eta"):
                parts.append("%d s left" % int(event["eta"]))
        return words + ", ".join(parts)
    except (ValueError, KeyError, TypeError):
        return ""


def _clean(text: str) -> str:
    return "".join(letter for letter in text[:300] if letter.isprintable())


def size(count: int) -> str:
    """Decimal units with three digits: ``1.23 GB``."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 999.5:
            return ("%d %s" if unit == "B" or value >= 99.95 else "%.1f %s") % (value, unit)
        value /= 1000
    return "%.2f GB" % value
