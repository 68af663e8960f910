# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Health: when the next probe is due and what its result means. Times are seconds on the monotonic clock."""

from __future__ import annotations

from typing import Any, Optional

SECOND = 1_000_000_000
MAX_OUTPUT = 4096
MAX_RESULTS = 5
_DEFAULT_INTERVAL, _DEFAULT_TIMEOUT, _DEFAULT_START_INTERVAL, _DEFAULT_RETRIES = 30.0, 30.0, 5.0, 3


def _seconds(nanoseconds: Optional[int], default: float) -> float:
    return nanoseconds / SECOND if nanoseconds else default


class Health:
    """State of one container's health check.

    ``check`` is run.json's ``healthcheck``. A failure does not count while the status is "starting" and the probe
    began within the start period; one success ends the start period.
    """

    def __init__(self, check: dict[str, Any], started: float) -> None:
        test = list(check.get("test") or [])
        self.argv = ["/bin/sh", "-c", *test[1:]] if test[:1] == ["CMD-SHELL"] else test[1:]
        self.interval = _seconds(check.get("interval"), _DEFAULT_INTERVAL)
        self.timeout = _seconds(check.get("timeout"), _DEFAULT_TIMEOUT)
        self.start_period = _seconds(check.get("start_period"), 0.0)
        self.start_interval = _seconds(check.get("start_interval"), _DEFAULT_START_INTERVAL)
        self.retries = check.get("retries") or _DEFAULT_RETRIES
        self.started = started
        self.status = "starting"
        self.streak = 0
        self.log: list[dict[str, Any]] = []
        self.due = started + self.pause(started)

    def pause(self, now: float) -> float:
        """Seconds between the end of one probe (or the start of the container) and the next."""
        if self.status == "starting" and now - self.started < self.start_period:
            return self.start_interval
        return self.interval

    def result(self, exit_code: int, output: str, start: str, end: str, began: float, now: float) -> bool:
        """Take in a probe's end (-1: timed out); ``start`` and ``end`` are for people. True when the status changed."""
        before = self.status
        self.log.append({"start": start, "end": end, "exit_code": exit_code, "output": output})
        del self.log[:-MAX_RESULTS]
        if exit_code == 0:
            self.streak = 0
            self.status = "healthy"
        elif not (self.status == "starting" and began - self.started < self.start_period):
            self.streak += 1
            if self.streak >= self.retries:
                self.status = "unhealthy"
        self.due = now + self.pause(now)
        return self.status != before

    def as_dict(self) -> dict[str, Any]:
        """The shape of state.json's ``health``."""
        return {"status": self.status, "failing_streak": self.streak, "log": self.log}


def enabled(check: Optional[dict[str, Any]]) -> bool:
    """Is there anything to probe? ``["NONE"]`` switches an image's check off."""
    test = (check or {}).get("test") or []
    return bool(test) and test[0] in ("CMD", "CMD-SHELL") and len(test) > 1
