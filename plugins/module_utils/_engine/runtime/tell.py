# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a monitor tells the world about its container: a line in the journal of events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..store import journal

if TYPE_CHECKING:
    from .monitor import Monitor


def tell(monitor: Monitor, action: str, *, over: bool = False, **attributes: Any) -> None:
    """The name is for when the container's row is gone before anybody reads this."""
    try:
        journal.append(
            monitor.paths.events,
            action,
            monitor.id,
            {"name": monitor.run_config.get("name") or monitor.id[:12], **attributes},
            over=over,
        )
    except OSError:  # a full run directory must not end the container: then this event is lost
        return
