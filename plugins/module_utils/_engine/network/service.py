# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Networks and containers' places in them, as the resources use them.

The store's records are the truth: ``start`` and ``repair`` make the kernel agree with them and can be repeated at any
time, from any half-done state; nothing that exists only in the kernel is ever needed to go on. Callers hold the
container's (or network's) lock; nothing here takes one, but a leaf lock around changes of the firewall.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Optional

from ..errors import Conflict, InUse, NotFound, UsageError, WharfError
from . import bridge, container_files, endpoint, publishing, sandbox

if TYPE_CHECKING:
    from ..kernel.netlink import Netlink
    from ..kernel.syscalls import Kernel
    from ..paths import Paths
    from ..store.records import ContainerRecord, EndpointRecord, NetworkRecord, PortRecord
    from ..store.state import Store
    from .glance import Look
    from .publishing import Member

PREDEFINED = ("bridge", "host", "none")


class NetworkService:
    """One per task (or hook). Usable in ``with``; holds at most a netlink socket and a firewall socket."""

    def __init__(self, paths: Paths, store: Store, kernel: Optional[Kernel] = None) -> None:
        self.paths = paths
        self.store = store
        self._kernel = kernel
        self._netlink: Optional[Netlink] = None
        self._look: Optional[Look] = None
        self.publishing = publishing.Publishing(paths, store)

    @contextmanager
    def looking(self) -> Iterator[None]:
        """``glance`` at many containers inside, in which nothing is changed: what they share is looked at once."""
        from . import glance

        self._look = glance.Look()
        try:
            yield
        finally:
            self._look.close()
            self._look = None

    def __enter__(self) -> NetworkService:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], value: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._netlink is not None:
            self._netlink.close()
            self._netlink = None
        self.publishing.close()

    @property
    def kernel(self) -> Kernel:
        if self._kernel is None:
            from ..kernel.syscalls import Kernel

            self._kernel = Kernel()
        return self._kernel

    @property
    def netlink(self) -> Netlink:
        if self._netlink is None:
            from ..kernel.netlink import Netlink

            self._netlink = Netlink()
        return self._netlink

    # -- networks ----------------------------------------------------------------------------------------------

    def ensure_default(self) -> NetworkRecord:
        """The network called "bridge", made when it is first needed."""
        record = self.store.networks.by_name(bridge.DEFAULT_NETWORK)
        if record is None:
            try:
                record = self._create(bridge.DEFAULT_NETWORK, {})
            except Conflict:
                record = self.store.networks.by_name(bridge.DEFAULT_NETWORK)  # somebody was faster
                if record is None:
                    raise
        return record

    def find(self, name: str) -> NetworkRecord:
        """By name, id or the beginning of one; the default network appears when it is named. NotFound."""
        if name in (bridge.DEFAULT_NETWORK, "default"):
            return self.ensure_default()
        record = self.store.networks.get(name)
        if record is None:
            raise NotFound("network %s not found" % name, step="find_network", subject="network %s" % name)
        return record

    def create(self, name: str, spec: Mapping[str, Any]) -> NetworkRecord:
        """``spec`` is the network module's normalised options. The bridge exists when this returns; on failure nothing
        does."""
        if name in PREDEFINED:
            raise UsageError("operation is not permitted on predefined %s network" % name, path="name")
        return self._create(name, spec)

    def _create(self, name: str, spec: Mapping[str, Any]) -> NetworkRecord:
        from . import definition

        self.sweep()
        record = definition.create(self.store, self.netlink, name, spec)
        try:
            self._ensure_network(record)
        except WharfError:
            self.store.networks.remove(record.id)
            bridge.remove(self.netlink, self.paths, record)
            raise
        self._tell("create", record)
        return record

    def _tell(self, action: str, network: NetworkRecord, container_id: str = "") -> None:
        details = {"name": network.name, "type": network.driver}
        if container_id:
            details["container"] = container_id
        self.store.events.add("network", action, network.id, details)

    def preview(self, name: str, spec: Mapping[str, Any]) -> NetworkRecord:
        """The record ``create`` would store (for check mode); raises what it would raise."""
        from . import definition

        return definition.define(self.store, self.netlink, name, spec)

    def remove(self, record: NetworkRecord) -> None:
        """Row and bridge. InUse while a running container is on it; a stopped one loses its place."""
        if record.name in PREDEFINED:
            raise UsageError("%s is a pre-defined network and cannot be removed" % record.name, path="name")
        with self.store.transaction():
            active = []
            for member in self.store.networks.endpoints(network_id=record.id):
                if self.is_active(member.container_id):
                    active.append(self._container_name(member.container_id))
                else:
                    self.store.networks.remove_endpoint(member.container_id, record.id)
            if active:
                raise InUse(
                    "error while removing network: network %s id %s has active endpoints (%s)"
                    % (record.name, record.id, ", ".join(sorted(active))),
                    step="remove_network",
                    subject="network %s" % record.name,
                    hint="Disconnect or stop these containers, or remove the network with force.",
                )
            self.store.networks.remove(record.id)
        self.publishing.remove_network(record)
        bridge.remove(self.netlink, self.paths, record)
        self._tell("destroy", record)

    def sweep(self) -> list[str]:
        """Take away what killed removals have left: namespaces without a container, bridges without a network. They
        would hold addresses for ever. Returns what was removed."""
        gone = []
        for container_id in os.listdir(self.paths.netns):
            if self.store.containers.get(container_id) is None:
                self.release(container_id)
                gone.append("network namespace %s" % container_id)
        known = {record.id for record in self.store.networks.list()}
        for link in bridge.orphans(self.netlink, self.paths, known):
            if self.netlink.delete_link(link.ifindex):
                gone.append("bridge %s" % link.name)
        return gone

    def observe(self, record: NetworkRecord) -> dict[str, Any]:
        """What ``bridge.observe`` says, plus ``internal`` and ``containers`` (ids of the running ones)."""
        found = bridge.observe(self.netlink, self.paths, record)
        members = self.store.networks.endpoints(network_id=record.id)
        found["internal"] = bridge.internal(record)
        found["containers"] = [e.container_id for e in members if self.is_active(e.container_id)]
        found["drift"] += self.publishing.differences()
        return found

    def repair(self, record: NetworkRecord) -> list[str]:
        """Put right what ``observe`` calls drift; returns those sentences. Running containers are attached again: a
        bridge that somebody deleted lost its ports."""
        drift: list[str] = self.observe(record)["drift"]
        if drift:
            self._ensure_network(record)
            for member in self.store.networks.endpoints(network_id=record.id):
                if self.is_active(member.container_id):
                    self._attach(member.container_id)
            self.publishing.sync()
        return drift

    # -- leases and ports --------------------------------------------------------------------------------------

    def plan_endpoints(self, container_id: str, wanted: Sequence[Mapping[str, Any]]) -> list[EndpointRecord]:
        """Leases for the container's complete list of networks, in one transaction (its row exists)."""
        from . import leases

        for item in wanted:
            self.find(str(item["name"]))  # makes the default network outside the transaction
        return leases.plan(self.store, container_id, wanted, self.find)

    def resolve_ports(self, container_id: str, published: Sequence[Mapping[str, Any]]) -> list[PortRecord]:
        """Records for ``published_ports``, host port 0 chosen. Not stored. The container's leases exist: its gateway
        network may say on which address ports are published (host_binding_ipv4)."""
        from . import ports

        gateway = endpoint.gateway_networks(self._members(container_id)).get(2)
        binding = bridge.option(gateway, bridge.HOST_BINDING_OPTION) if gateway is not None else None
        return ports.resolve(self.store, container_id, published, host_ip=binding or "")

    def check_ports(self, records: Sequence[PortRecord], container_id: str) -> None:
        """Conflict before anything changes, when a port is another container's or a host process is bound to it."""
        from . import ports

        ports.check(self.store, records, container_id, running=self.is_active(container_id))

    # -- containers --------------------------------------------------------------------------------------------

    def is_active(self, container_id: str) -> bool:
        return publishing.is_active(self.paths, container_id)

    def start(self, container_id: str) -> str:
        """Namespace, endpoints, files, published ports, names. Returns the namespace's path.

        Fails whole: what this call made is gone again; what was there before stays.
        """
        container = self._container(container_id)
        fresh = not self.is_active(container_id)
        if not fresh and sandbox.is_left_over(self.paths, container_id):
            self.release(container_id)
            fresh = True
        path = sandbox.create(self.kernel, self.paths, container_id, container.resolved.get("userns"))
        try:
            members = self._attach(container_id)
            container = self._with_links(container, members)
            container_files.write(self.paths, container, members, self._host_gateway(container))
            self.publishing.publish(container_id, members)
            self._register(container, members)
        except BaseException:
            if fresh:
                self._release_quietly(container_id)
            raise
        return path

    def release(self, container_id: str, *, wait: bool = False) -> None:
        """Kernel objects and names go, leases stay. Every step is tried; the first failure is raised at the end.

        The links go with the namespace, which the kernel takes apart in the background in about 30 ms. ``wait`` deletes
        them here, for callers that have the time.
        """
        failures: list[WharfError] = []
        members = self._members(container_id)
        steps: list[Callable[[], object]] = [
            lambda: self._unregister(container_id),
            lambda: self._drop_links(members, wait),
            lambda: sandbox.remove(
                self.kernel, self.paths, container_id
            ),  # from here on ``desired`` has no ports of it
            lambda: self.publishing.withdraw(container_id, members),
        ]
        for step in steps:
            try:
                step()
            except WharfError as error:
                failures.append(error)
        if failures:
            raise failures[0]

    def connect(self, container_id: str, wanted: Mapping[str, Any]) -> EndpointRecord:
        """Join one network, live if the container runs. Joining again changes aliases only."""
        from . import leases

        container = self._container(container_id)
        mode = str(container.spec.get("network_mode") or "")
        if mode == "host" or mode.startswith("container:"):
            raise UsageError(
                "container sharing network namespace with another container or host cannot be connected to any other"
                " network",
                path="networks",
            )
        network = self.find(str(wanted["name"]))
        asked = leases.check(network, wanted)
        before = self._members(container_id)
        with self.store.transaction():
            have = self.store.networks.endpoints(container_id=container_id)
            old = next((e for e in have if e.network_id == network.id), None)
            record = leases.put(
                self.store,
                container_id,
                network,
                asked,
                position=old.position if old else max((e.position for e in have), default=-1) + 1,
                ifname=old.ifname if old else leases.free_ifname(network, have),
                before=old,
            )
        self._live_change(container, before)
        if self.is_active(container_id) and old is None:
            self._tell("connect", network, container_id)
        return record

    def disconnect(self, container_id: str, network: NetworkRecord) -> None:
        """Leave one network, live if the container runs."""
        container = self._container(container_id)
        before = self._members(container_id)
        if not self.store.networks.remove_endpoint(container_id, network.id):
            raise NotFound(
                "container %s is not connected to network %s" % (container.name, network.name), step="disconnect"
            )
        endpoint.detach(self.netlink, container_id, network.id)
        self._live_change(container, before)
        if self.is_active(container_id):
            self._tell("disconnect", network, container_id)

    def publish(self, container_id: str) -> bool:
        """Make the firewall agree with the container's stored ports; True if anything changed."""
        if not self.is_active(container_id):
            return False
        return self.publishing.sync()

    def withdraw(self, container_id: str) -> None:
        """Close the container's published ports; what is connected stays."""
        self.publishing.withdraw(container_id, self._members(container_id))

    def glance(self, container_id: str, pid: int, *, remember: bool = True) -> list[str]:
        """``check`` for the path of every task: nearly free when nothing is wrong (see ``glance``)."""
        from . import glance

        members, ports = self._members(container_id), self.store.networks.ports(container_id=container_id)
        if glance.is_sound(self.paths, container_id, pid, members, ports, self._look):
            return self._missing_names(container_id, members)
        try:
            number = glance.generation() if members else glance.NO_GENERATION
        except OSError:  # then check says what is wrong
            number = -1
        drift = self.check(container_id)
        if not drift and remember and number >= 0:
            glance.remember(self.paths, container_id, number, members, ports)
        return drift

    def mend(self, container_id: str) -> None:
        """Put right what ``check`` finds, all of it and nothing else."""
        self.start(container_id)
        self.publish(container_id)

    def check(self, container_id: str) -> list[str]:
        """How the kernel differs from the records of a container that should run; ``mend`` puts it right."""
        if not self.is_active(container_id):
            return ["its network namespace is missing"]
        drift: list[str] = []
        members = self._members(container_id)
        with endpoint.Sandbox(self.paths.container_netns(container_id)) as box:
            for network, record in members:
                link = self.netlink.link(bridge.link_name(self.paths, network))
                if link is None:
                    drift.append("bridge of network %s is missing" % network.name)
                    continue
                drift += endpoint.observe(self.netlink, box, link, record)["drift"]
            drift += endpoint.missing_routes(box, members)
        drift += self._edited_files(container_id, members)
        return drift + self.publishing.missing(container_id, members) + self._missing_names(container_id, members)

    def _edited_files(self, container_id: str, members: Sequence[Member]) -> list[str]:
        container = self._container(container_id)
        try:
            container = self._with_links(container, members)
        except WharfError:  # whom it is linked to has gone: it keeps the name it has
            return []
        return container_files.differences(self.paths, container, members, self._host_gateway(container))

    def _missing_names(self, container_id: str, members: Sequence[Member]) -> list[str]:
        if not container_files.uses_resolver(members):
            return []
        from . import dns

        wanted = dns.Member(container_id, self.paths.container_netns(container_id))
        return ["nobody answers names at 127.0.0.11"] if dns.missing(self.paths, [wanted]) else []

    # -- inside ------------------------------------------------------------------------------------------------

    def _container(self, container_id: str) -> ContainerRecord:
        record = self.store.containers.get(container_id)
        if record is None:
            raise NotFound("No such container: %s" % container_id, step="network")
        return record

    def _container_name(self, container_id: str) -> str:
        record = self.store.containers.get(container_id)
        return record.name if record is not None else container_id[:12]

    def _members(self, container_id: str) -> list[Member]:
        return publishing.members(self.store, container_id)

    def _ensure_network(self, record: NetworkRecord) -> Any:
        """Bridge and firewall entry; both look before they change anything."""
        link = bridge.ensure(self.netlink, self.paths, record)
        self.publishing.add_network(record)
        return link

    def _attach(self, container_id: str) -> list[Member]:
        members = self._members(container_id)
        with endpoint.Sandbox(self.paths.container_netns(container_id)) as box:
            endpoint.drop_others(self.netlink, box, container_id, {network.id for network, _record in members})
            fresh = [
                record
                for network, record in members
                if endpoint.attach(self.netlink, box, network, self._ensure_network(network), record)
            ]
            endpoint.set_default_routes(box, members)
            for record in fresh:
                endpoint.announce(self.netlink, box, record)
        return members

    def _live_change(self, container: ContainerRecord, before: Sequence[Member]) -> None:
        """A container's networks have changed in the store; its namespace, files, ports and names follow."""
        after = self._members(container.id)
        if self.is_active(container.id):
            self._attach(container.id)
            container_files.update(self.paths, container, before, after)
            self.publish(container.id)
            if container_files.uses_resolver(after):
                self._register(container, after)
            elif container_files.uses_resolver(before):
                self._unregister(container.id)

    def rewrite_files(self, container: ContainerRecord) -> None:
        """hosts, resolv.conf and the resolver's servers of a running container after its wishes for them changed."""
        if self.is_active(container.id):
            members = self._members(container.id)
            container = self._with_links(container, members)
            container_files.write(self.paths, container, members, self._host_gateway(container))

    def _with_links(self, container: ContainerRecord, members: Sequence[Member]) -> ContainerRecord:
        """``links`` as names in hosts: the addresses of other containers on a network both are on."""
        spec = container.spec
        if not spec.get("links") and not any(network.get("links") for network in spec.get("networks") or ()):
            return container
        from . import links

        return links.named(self.store, container, members)

    def _host_gateway(self, container: ContainerRecord) -> str:
        """For ``etc_hosts: {name: host-gateway}``."""
        if "host-gateway" not in (container.spec.get("etc_hosts") or {}).values():
            return ""
        return endpoint.gateway_of(self.ensure_default(), 2)

    def _register(self, container: ContainerRecord, members: Sequence[Member]) -> None:
        if not container_files.uses_resolver(members):
            return
        from . import dns

        dns.register(self.paths, container.id, self.paths.container_netns(container.id))

    def _unregister(self, container_id: str) -> None:
        if os.path.exists(self.paths.resolver_socket):
            from . import dns

            dns.unregister(self.paths, container_id)

    def _drop_links(self, members: Sequence[Member], wait: bool) -> None:
        for _network, record in members:
            if wait:
                endpoint.detach(self.netlink, record.container_id, record.network_id)
            else:
                endpoint.silence(self.netlink, record.container_id, record.network_id)

    def _release_quietly(self, container_id: str) -> None:
        """On the way out with an error that matters more."""
        try:
            self.release(container_id)
        except WharfError:
            pass


def main(argv: Sequence[str]) -> None:
    """``release <state> <run> <container id>``, see ``hook``."""
    from . import hook

    hook.run(argv)
