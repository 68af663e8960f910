# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Beside firewalld: our bridges in one of its zones.

It rejects what is forwarded from an interface that is in no zone; nothing in our own table can change that, and rules
put into its table are gone with its next reload. So each bridge is bound to the zone ``trusted``, as Docker and podman
do it with theirs: containers reach what they reach on a host without firewalld, the host's own services included. A
bridge that an administrator has bound to another zone stays there.

The binding is of the running firewalld only, for its files are the administrator's. A reload or a restart forgets
it. The next task finds that, because firewalld's new rules are another generation of the ruleset. Until then published
ports answer, and containers do not reach out; ``firewall-cmd --permanent --zone=trusted --add-interface=wharf0`` makes
that gap go away.

Asked over D-Bus, and only where firewalld's table is. A firewalld that does not answer keeps no container from
starting: ``answers`` is how that gets told.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

from ..kernel import dbus

ZONE = "trusted"
_NAME, _PATH = "org.fedoraproject.FirewallD1", "/org/fedoraproject/FirewallD1"
_ZONE_OF, _BIND, _UNBIND = (
    dbus.Method(_NAME, _PATH, _NAME + ".zone", member)
    for member in ("getZoneOfInterface", "changeZoneOfInterface", "removeInterface")
)


def unbound(links: Sequence[str]) -> list[str]:
    """Those in no zone; none if firewalld cannot be asked."""
    bus = _bus() if links else None
    if bus is None:
        return []
    with bus:
        return [link for link in links if _zone(bus, link) == ""]


def bind(links: Sequence[str]) -> bool:
    """Put those that are in no zone into ours. True if there were any."""
    bus, changed = _bus() if links else None, False
    if bus is not None:
        with bus:
            for link in links:
                if _zone(bus, link) == "":
                    changed = _ask(bus, _BIND, ZONE, link) is not None or changed
    return changed


def unbind(link: str) -> bool:
    """Take a bridge out of our zone; one in another stays there. True if it was in ours."""
    bus = _bus()
    if bus is None:
        return False
    with bus:
        return _zone(bus, link) == ZONE and _ask(bus, _UNBIND, ZONE, link) is not None


def answers() -> bool:
    bus = _bus()
    if bus is None:
        return False
    with bus:
        return _zone(bus, "lo") is not None


def _bus() -> Optional[dbus.Bus]:
    try:
        return dbus.Bus()
    except (OSError, dbus.Refused):
        return None


def _zone(bus: dbus.Bus, link: str) -> Optional[str]:
    return _ask(bus, _ZONE_OF, link)


def _ask(bus: dbus.Bus, method: dbus.Method, *arguments: str) -> Optional[str]:
    """None when there is no answer: it has ended, or is in the middle of a reload for longer than we wait."""
    try:
        return bus.call(method, *arguments)
    except (OSError, dbus.Refused):
        return None
