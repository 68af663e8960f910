# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""From records to the firewall: which bridges and published ports it should know, and keeping it so."""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Optional

from ..errors import KernelError
from . import bridge, endpoint, sandbox

if TYPE_CHECKING:
    from ..paths import Paths
    from ..store.records import EndpointRecord, NetworkRecord, PortRecord
    from ..store.state import Store
    from .firewall import Desired, Firewall, Network, Port

Member = tuple["NetworkRecord", "EndpointRecord"]


class _Lock:
    """A whole table computed from the store must not be overtaken by a later, smaller change. A leaf lock: nothing
    else is taken while it is held."""

    __slots__ = ("_fd", "_path")

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1

    def __enter__(self) -> None:
        import fcntl

        try:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            fcntl.flock(self._fd, fcntl.LOCK_EX)
        except OSError as error:
            raise KernelError.wrap(error, "Cannot lock %s" % self._path, step="firewall_lock") from error

    def __exit__(
        self, kind: Optional[type[BaseException]], value: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        os.close(self._fd)


def members(store: Store, container_id: str) -> list[Member]:
    """The container's networks in join order, each with its endpoint."""
    found = []
    for record in sorted(store.networks.endpoints(container_id=container_id), key=lambda e: e.position):
        network = store.networks.get(record.network_id)
        if network is not None:
            found.append((network, record))
    return found


def is_active(paths: Paths, container_id: str) -> bool:
    """Whether the container has a network namespace now; only then are its ports open."""
    return sandbox.is_namespace(paths.container_netns(container_id))


class Publishing:
    """The firewall, driven by the store."""

    def __init__(self, paths: Paths, store: Store) -> None:
        self.paths = paths
        self.store = store
        self._firewall: Optional[Firewall] = None
        self._seen: Optional[set[Port]] = None
        self._whole = True

    def close(self) -> None:
        if self._firewall is not None:
            self._firewall.close()
            self._firewall = None

    @property
    def firewall(self) -> Firewall:
        if self._firewall is None:
            from .firewall import Firewall

            self._firewall = Firewall(self.paths)
        return self._firewall

    def _locked(self) -> _Lock:
        self._seen = None
        return _Lock(self.paths.run + "/firewall.lock")

    def desired(self) -> Desired:
        """All networks, and the ports of all containers that run."""
        from .firewall import Firewall

        by_container: dict[str, list[PortRecord]] = {}
        for port in self.store.networks.ports():
            by_container.setdefault(port.container_id, []).append(port)
        wanted: list[Port] = []
        for container_id, published in by_container.items():
            if is_active(self.paths, container_id):
                wanted += endpoint.port_targets(published, members(self.store, container_id))
        return Firewall.desired([self._network(record) for record in self.store.networks.list()], wanted)

    def _network(self, record: NetworkRecord) -> Network:
        from .firewall import Network

        return Network(
            bridge.link_name(self.paths, record),
            internal=bridge.internal(record),
            masquerade=bridge.masquerade(record),
            members_talk=bridge.icc(record),
        )

    def sync(self) -> bool:
        with self._locked():
            return self.firewall.sync(self.desired())

    def differences(self) -> list[str]:
        return self.firewall.differences(self.desired())

    def add_network(self, record: NetworkRecord) -> None:
        with self._locked():
            self.firewall.add_network(self._network(record), self.desired)

    def remove_network(self, record: NetworkRecord) -> None:
        with self._locked():
            self.firewall.remove_network(bridge.link_name(self.paths, record))

    def targets(self, container_id: str, networks: Sequence[Member]) -> list[Port]:
        return endpoint.port_targets(self.store.networks.ports(container_id=container_id), networks)

    def publish(self, container_id: str, networks: Sequence[Member]) -> None:
        """Open the container's ports: a cost that does not grow with the number of published ports."""
        targets = self.targets(container_id, networks)
        if targets:
            with self._locked():
                self.firewall.add_ports(targets, self.desired)

    def withdraw(self, container_id: str, networks: Sequence[Member]) -> None:
        if not networks and self.store.containers.get(container_id) is None:
            self.sync()  # its row has gone first, and with it what its ports were
            return
        targets = self.targets(container_id, networks)
        if targets:
            with self._locked():
                self.firewall.remove_ports(targets)

    def redirect_waiting(self, container_id: str) -> None:
        """Where a connection goes is decided by its first packet. Clients that had no answer while the container's TCP
        ports were closed: their next try finds them open."""
        from . import firewall_flows

        ports = {port.host_port for port in self.store.networks.ports(container_id=container_id)}
        firewall_flows.forget_local(self.firewall.families, ports)

    def missing(self, container_id: str, networks: Sequence[Member]) -> list[str]:
        """One sentence for each of the container's ports that is not open, and one for rules that are not as made.
        The tables are read once for many containers."""
        targets = self.targets(container_id, networks)
        if not networks:
            return []
        if self._seen is None:
            found = self.firewall.observe()
            self._seen, self._whole = set(found["ports"]), found["present"]
        return ([] if self._whole else ["the firewall's rules are not as made"]) + [
            "published port %d/%s is not in the firewall" % (target.host_port, target.protocol)
            for target in targets
            if target not in self._seen
        ]
