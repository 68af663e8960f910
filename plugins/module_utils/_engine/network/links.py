# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""``links``: names in hosts for other containers on a network that both are on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import NotFound, UsageError
from . import publishing

if TYPE_CHECKING:
    from ..store.records import ContainerRecord
    from ..store.state import Store
    from .publishing import Member


def wanted(spec: Mapping[str, Any]) -> list[dict[str, str]]:
    """``links`` of the container and of its networks: ``{name, alias, network?}``."""
    found = list(spec.get("links") or ())
    for network in spec.get("networks") or ():
        found += [{**link, "network": network["name"]} for link in network.get("links") or ()]
    return found


def named(store: Store, container: ContainerRecord, members: Sequence[Member]) -> ContainerRecord:
    """``container`` with its links among ``etc_hosts``; its own entries win. Raises ``NotFound``, ``UsageError``."""
    names: dict[str, str] = {}
    mine = {network.id for network, _record in members}
    for link in wanted(container.spec):
        other = store.containers.get(link["name"])
        if other is None:
            raise NotFound("links: No such container: %s" % link["name"], step="links", path="links")
        shared = [
            record
            for network, record in publishing.members(store, other.id)
            if network.id in mine and link.get("network") in (None, network.name)
        ]
        if not shared:
            raise UsageError("links: %s is on no network of this container" % other.name, step="links", path="links")
        address = shared[0].ipv4 or shared[0].ipv6 or ""
        for name in (link["alias"], other.id[:12], other.name):
            names.setdefault(name, address)
    return container._replace(
        spec={**container.spec, "etc_hosts": {**names, **(container.spec.get("etc_hosts") or {})}}
    )
