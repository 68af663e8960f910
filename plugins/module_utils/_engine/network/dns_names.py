# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names of containers, out of the store: container name, aliases, short id, hostname, each also with ``.network``.

Read-only, straight from the database, loaded again when SQLite says that somebody committed (``data_version``, some
microseconds). Only what shares a network with the asker is visible, and the default network has no names, as in Docker.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Optional

from ..paths import Paths
from .dns_messages import Names

if TYPE_CHECKING:
    import sqlite3

DEFAULT_NETWORK = "bridge"
# While one replaces another, the new one is not well yet, and the old one ends: neither is who the aliases mean.
_REPLACING = (".wharf-new", ".wharf-old")
_QUERY = (
    "SELECT e.container_id, e.network_id, e.ipv4, e.ipv6, e.aliases, c.name, c.spec, n.name, n.spec, n.subnets "
    "FROM endpoints e JOIN containers c ON c.id = e.container_id JOIN networks n ON n.id = e.network_id "
    "ORDER BY e.position, n.name"
)


class _Network:
    __slots__ = ("addresses", "internal", "members", "name", "named", "subnets")

    def __init__(self, name: str, internal: bool, subnets: list[Any]) -> None:
        self.name = name
        self.internal = internal
        self.named = name != DEFAULT_NETWORK
        self.subnets = subnets
        self.members: dict[str, list[tuple[str, list[str]]]] = {}  # name → (container id, addresses)
        self.addresses: dict[str, tuple[str, str]] = {}  # address → (container id, container name)


class Table:
    """One snapshot of all names."""

    __slots__ = ("by_container", "servers")

    def __init__(self, rows: Iterable[tuple[Any, ...]]) -> None:
        networks: dict[str, _Network] = {}
        self.by_container: dict[str, list[_Network]] = {}
        self.servers: dict[str, list[str]] = {}
        for container, network_id, ipv4, ipv6, aliases, name, spec, network_name, network_spec, subnets in rows:
            network = networks.get(network_id)
            if network is None:
                internal = bool(json.loads(network_spec).get("internal"))
                network = networks[network_id] = _Network(network_name, internal, _subnets(subnets))
            self.by_container.setdefault(container, []).append(network)
            addresses = [address for address in (ipv4, ipv6) if address]
            asked = json.loads(spec)
            hostname = asked.get("hostname") or ""
            self.servers[container] = list(asked.get("dns_servers") or ())
            for address in addresses:
                network.addresses[address] = (container, name)
            if name.endswith(_REPLACING):
                continue
            for one in {n.lower() for n in (name, container[:12], hostname, *json.loads(aliases)) if n}:
                network.members.setdefault(one, []).append((container, addresses))


class StoreNames(Names):
    """``running(container id)``: is anybody there? A stopped container's name stays ours, without addresses."""

    def __init__(self, paths: Paths, running: Optional[Callable[[str], bool]] = None) -> None:
        self._path = paths.database
        self._running = running or (lambda ident: os.path.exists(paths.container_netns(ident)))
        self._connection: Optional[sqlite3.Connection] = None
        self._file: tuple[int, int] = (0, 0)
        self._version = -1
        self._table = Table(())

    def lookup(self, asker: str, name: str) -> Optional[list[str]]:
        """In the order of the asker's networks; the first with somebody there wins."""
        ours = False
        for network in self._networks(asker):
            candidates = network.members.get(name, [])
            suffix = "." + network.name.lower()
            if name.endswith(suffix):
                candidates = candidates + network.members.get(name[: -len(suffix)], [])
            ours = ours or bool(candidates)
            found = {address for ident, addresses in candidates if self._running(ident) for address in addresses}
            if found:
                return sorted(found)
        return [] if ours else None

    def reverse(self, asker: str, address: str) -> Optional[str]:
        ours = False
        for network in self._networks(asker):
            ident, name = network.addresses.get(address, ("", ""))
            if ident and self._running(ident):
                return "%s.%s" % (name, network.name)
            ours = ours or _within(address, network.subnets)
        return "" if ours else None

    def outside(self, asker: str) -> bool:
        networks = self._current().by_container.get(asker)
        return networks is None or any(not network.internal for network in networks)

    def own_servers(self, asker: str) -> list[str]:
        return self._current().servers.get(asker, [])

    def _networks(self, asker: str) -> list[_Network]:
        return [network for network in self._current().by_container.get(asker, []) if network.named]

    def _current(self) -> Table:
        """The newest snapshot; the last one if the database cannot be read just now (being replaced, locked)."""
        import sqlite3

        try:
            connection = self._connected()
            version = connection.execute("PRAGMA data_version").fetchone()[0]
            if version != self._version:
                self._table = Table(connection.execute(_QUERY).fetchall())
                self._version = version
        except (OSError, sqlite3.Error, ValueError):
            self._disconnect()
        return self._table

    def _connected(self) -> sqlite3.Connection:
        """Opened again when another file has taken its place. Never creates one."""
        import sqlite3

        found = os.stat(self._path)
        if self._connection is not None and self._file != (found.st_dev, found.st_ino):
            self._disconnect()
        if self._connection is None:
            uri = "file:%s?mode=ro" % self._path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
            self._connection = sqlite3.connect(uri, uri=True, timeout=0.2, isolation_level=None)
            self._file, self._version = (found.st_dev, found.st_ino), -1
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection, self._version = None, -1


def _subnets(text: str) -> list[Any]:
    import ipaddress

    found = []
    for entry in json.loads(text):
        try:
            found.append(ipaddress.ip_network(entry["subnet"], strict=False))
        except (KeyError, TypeError, ValueError):
            continue
    return found


def _within(address: str, subnets: list[Any]) -> bool:
    if not subnets:
        return False
    import ipaddress

    parsed = ipaddress.ip_address(address)
    return any(parsed.version == subnet.version and parsed in subnet for subnet in subnets)
