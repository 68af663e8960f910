# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Times as Docker writes them."""

from __future__ import annotations

import time

ZERO = "0001-01-01T00:00:00Z"  # Go's zero time: "never"


def rfc3339(seconds: float) -> str:
    """RFC 3339 with nanoseconds, in UTC."""
    return rfc3339_ns(int(seconds * 10**9))


def rfc3339_ns(nanoseconds: int) -> str:
    whole, fraction = divmod(nanoseconds, 10**9)
    return "%s.%09dZ" % (time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)), fraction)


def now() -> str:
    return rfc3339_ns(time.time_ns())
