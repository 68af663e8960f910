# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a transfer tells while it runs: JSON lines in a file that the action plugin reads over the connection.

Ansible has no channel from a running module, so the action names a file and looks into it now and then. Lines are
``{what, subject, phase, done, total, layers_done, layers, rate, eta}`` (bytes, bytes per second, seconds; ``rate`` and
``eta`` null as long as there is nothing to reckon with). Telling is never a reason to fail.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any, Optional

_KEYS = ("subject", "phase", "done", "total", "layers_done", "layers")
_WINDOW = 5.0  # seconds that the rate is averaged over
_SIZE_LIMIT = 1 << 20  # a day's pull tells no more than that
_HEX = frozenset("0123456789abcdef")


def directory(run: str) -> str:
    return run + "/progress"


class ProgressFile:
    """``<run>/progress/<token>``, made by the first event and removed by ``close``. ``hook`` is called by any thread,
    but by one at a time (``images.progress`` sees to that)."""

    def __init__(self, run: str, token: str, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = "%s/%s" % (directory(run), token)
        self._what = what
        self._clock = clock
        self._fd = -1
        self._dead = len(token) != 32 or not _HEX.issuperset(token)  # it becomes a file name
        self._written = 0
        self._samples: list[tuple[float, int]] = []

    def hook(self, event: dict[str, Any]) -> None:
        if self._dead:
            return
        line = {"what": self._what, **{key: event.get(key) for key in _KEYS}, **self._speed(event)}
        data = json.dumps(line).encode() + b"\n"
        try:
            if self._fd < 0:
                self._open()
            self._written += os.write(self._fd, data)
        except OSError:
            self._dead = True  # no room in /run, say: the transfer matters more
        self._dead = self._dead or self._written > _SIZE_LIMIT

    def _open(self) -> None:
        os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(self._path, flags, 0o600)

    def _speed(self, event: dict[str, Any]) -> dict[str, Optional[int]]:
        now, done = self._clock(), int(event.get("received") or 0)
        self._samples.append((now, done))
        while len(self._samples) > 2 and now - self._samples[0][0] > _WINDOW:
            self._samples.pop(0)
        since, before = self._samples[0]
        if now - since < 1 or done <= before:
            return {"rate": None, "eta": None}
        rate = (done - before) / (now - since)
        left = max(0, int(event.get("total") or 0) - int(event.get("done") or 0))
        return {"rate": int(rate), "eta": int(left / rate)}

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            try:
                os.unlink(self._path)
            except FileNotFoundError:
                return  # somebody tidied up
