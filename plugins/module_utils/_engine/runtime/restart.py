# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restart policy and its back-off, by Docker's rules."""

from __future__ import annotations

FIRST_DELAY = 0.1  # seconds
MAX_DELAY = 60.0
STABLE_AFTER = 10.0  # a run at least this long counts as recovered


class Backoff:
    """100 ms, doubled with every restart in a row, at most a minute; a run of 10 s starts it over."""

    __slots__ = ("_next",)

    def __init__(self) -> None:
        self._next = FIRST_DELAY

    def delay(self, ran_for: float) -> float:
        """Seconds to wait before the next start, given how long the last run lasted."""
        if ran_for >= STABLE_AFTER:
            self._next = FIRST_DELAY
        delay = self._next
        self._next = min(delay * 2, MAX_DELAY)
        return delay

    def reset(self) -> None:
        self._next = FIRST_DELAY


def wanted(policy: str, retries: int, exit_code: int, restart_count: int, manually_stopped: bool) -> bool:
    """Does a container that just ended start again? ``retries`` 0 is "without limit"; the count is of automatic
    restarts since the last manual start. Whoever was stopped by hand stays stopped, whatever the policy."""
    if manually_stopped:
        return False
    if policy in ("always", "unless-stopped"):
        return True
    if policy == "on-failure":
        return exit_code != 0 and (retries <= 0 or restart_count < retries)
    return False


def wanted_at_boot(policy: str, retries: int, exit_code: int, restart_count: int, manually_stopped: bool) -> bool:
    """Does a container start that ran when the host went down? ``always`` even when it was stopped by hand before."""
    if policy == "always":
        return True
    return wanted(policy, retries, exit_code, restart_count, manually_stopped)
