# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A poll loop with timers, for the monitor. Monotonic clock only: a clock set back must not stop a health check."""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import Optional

READ = select.POLLIN
PRIORITY = select.POLLPRI
_now = time.monotonic


class Timer:
    """``cancel`` may be called at any time, also from its own callback."""

    __slots__ = ("callback", "when")

    def __init__(self, when: float, callback: Optional[Callable[[], None]]) -> None:
        self.when = when
        self.callback = callback

    def cancel(self) -> None:
        self.callback = None


class Loop:
    def __init__(self) -> None:
        self._poll = select.poll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._timers: list[Timer] = []
        self.stopped = False

    def add(self, fd: int, callback: Callable[[int], None], events: int = READ) -> None:
        """``callback(events)``; a descriptor must be removed before it is closed."""
        self._handlers[fd] = callback
        self._poll.register(fd, events)

    def remove(self, fd: int) -> None:
        if self._handlers.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        return self.at(_now() + seconds, callback)

    def at(self, when: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(when, callback)
        self._timers.append(timer)
        return timer

    def once(self) -> None:
        """Wait for the next event or timer and handle what is due."""
        self._timers = [timer for timer in self._timers if timer.callback is not None]
        wait: Optional[int] = None
        if self._timers:
            left = min(timer.when for timer in self._timers) - _now()
            wait = min(max(0, int(left * 1000) + 1), 1 << 30) if left > 0 else 0
        for fd, events in self._poll.poll(wait):
            handler = self._handlers.get(fd)
            if handler is not None:  # an earlier handler of this round may have removed it
                handler(events)
        now = _now()
        for timer in sorted(self._timers, key=lambda t: t.when):
            if timer.when <= now and timer.callback is not None:
                callback, timer.callback = timer.callback, None
                callback()

    def run(self) -> None:
        while not self.stopped:
            self.once()
