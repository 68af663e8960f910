# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""How far a pull is, told at most four times a second; and how long its phases took."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Optional

INTERVAL = 0.25

Hook = Callable[[dict[str, Any]], None]


class Progress:
    """Counts bytes per blob; thread-safe. An event is ``{subject, phase, done, total, received, layers_done, layers,
    blobs: [{digest, state, done, total}]}`` in bytes; states are waiting, downloading, downloaded, unpacking, done,
    exists; of a push waiting, uploading, mounted, done, exists. ``received`` counts what went over the network."""

    def __init__(self, hook: Optional[Hook], subject: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._hook = hook
        self._subject = subject
        self._clock = clock
        self._lock = threading.Lock()
        self._last = -INTERVAL
        self._phase = "resolve"
        self._blobs: dict[str, dict[str, Any]] = {}
        self.received = 0  # bytes that went over the network

    def blob(self, digest: str, total: int, state: str = "waiting") -> None:
        done = total if state == "exists" else 0
        with self._lock:
            self._blobs[digest] = {"digest": digest, "state": state, "done": done, "total": total}

    def phase(self, name: str) -> None:
        with self._lock:
            self._phase = name
        self._tell(force=True)

    def state(self, digest: str, state: str, done: Optional[int] = None) -> None:
        """A blob's new state; ``done`` is its absolute position (None: all of it)."""
        with self._lock:
            entry = self._blobs.get(digest)
            if entry is not None:
                entry["state"] = state
                entry["done"] = entry["total"] if done is None else done
        self._tell()

    def bytes(self, digest: str, count: int) -> None:
        with self._lock:
            self.received += count
            entry = self._blobs.get(digest)
            if entry is not None:
                entry["done"] += count
        self._tell()

    def _tell(self, force: bool = False) -> None:
        if self._hook is None:
            return
        with self._lock:
            now = self._clock()
            if now - self._last < INTERVAL and not force:
                return
            # Phases change a handful of times per pull; everything else keeps to the interval.
            self._last = now
            blobs = [dict(entry) for entry in self._blobs.values()]
            event = {
                "subject": self._subject,
                "phase": self._phase,
                "done": sum(entry["done"] for entry in blobs),
                "total": sum(entry["total"] for entry in blobs),
                "received": self.received,
                "layers_done": sum(entry["state"] in ("done", "exists", "mounted") for entry in blobs),
                "layers": len(blobs),
                "blobs": blobs,
            }
            self._hook(event)


class Stopwatch:
    """Seconds per phase, added up: ``{"resolve": 0.01, ...}``."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._start = self._mark = clock()
        self.seconds: dict[str, float] = {}

    def lap(self, phase: str) -> None:
        now = self._clock()
        self.seconds[phase] = round(self.seconds.get(phase, 0.0) + now - self._mark, 6)
        self._mark = now

    def total(self) -> dict[str, float]:
        return {**self.seconds, "total": round(self._clock() - self._start, 6)}
