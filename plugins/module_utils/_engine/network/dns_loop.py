# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A poll loop: descriptors with callbacks, and timers. (asyncio costs 74 ms and megabytes.)"""

from __future__ import annotations

import heapq
import select
import time
from collections.abc import Callable

READ, WRITE = select.EPOLLIN, select.EPOLLOUT
Callback = Callable[[int], None]
_TOLD = 20  # tracebacks in the log


class Timer:
    __slots__ = ("action", "when")

    def __init__(self, when: float, action: Callable[[], None]) -> None:
        self.when = when
        self.action: Callable[[], None] = action

    def __lt__(self, other: Timer) -> bool:
        return self.when < other.when

    def cancel(self) -> None:
        self.action = _nothing


def _nothing() -> None:
    return None


class Loop:
    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callback] = {}
        self._timers: list[Timer] = []
        self.stopped = False
        self.failures = 0

    def watch(self, fd: int, mask: int, callback: Callback) -> None:
        """``callback(events)`` whenever ``fd`` is ready; again for the same ``fd`` changes mask and callback."""
        if fd in self._callbacks:
            self._epoll.modify(fd, mask)
        else:
            self._epoll.register(fd, mask)
        self._callbacks[fd] = callback

    def forget(self, fd: int) -> None:
        """Before ``fd`` is closed. Harmless if it isn't watched."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def after(self, seconds: float, action: Callable[[], None]) -> Timer:
        timer = Timer(time.monotonic() + seconds, action)
        heapq.heappush(self._timers, timer)
        return timer

    def run(self) -> None:
        while not self.stopped:
            self.once()

    def once(self) -> None:
        wait = max(0.0, self._timers[0].when - time.monotonic()) if self._timers else -1
        for fd, events in self._epoll.poll(wait, 64):
            callback = self._callbacks.get(fd)
            if callback is not None:  # an earlier callback of this round may have closed it
                self._guarded(callback, events)
        now = time.monotonic()
        while self._timers and self._timers[0].when <= now:
            self._guarded(heapq.heappop(self._timers).action)

    def _guarded(self, action: Callable[..., None], *args: int) -> None:
        """An error of ours in one container's question must not cost all containers their names. What was read is
        gone, so going on does not run into it again. The log is told, but not for ever."""
        try:
            action(*args)
        except Exception:
            self.failures += 1
            if self.failures <= _TOLD:
                import traceback

                traceback.print_exc()

    def close(self) -> None:
        self._epoll.close()
