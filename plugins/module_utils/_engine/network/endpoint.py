# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A container's place in a network: a veth pair, its addresses and its default routes. All of it idempotent."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Optional

from ..errors import KernelError
from .sandbox import open_netns, read_sysctl, write_sysctl

if TYPE_CHECKING:
    from ..kernel.netlink import Link, Netlink
    from ..store.records import EndpointRecord, NetworkRecord, PortRecord
    from . import ipam
    from .firewall import Port


_LOCAL_TABLE = 255
_READY_TRIES = 200  # milliseconds, about


def host_link(container_id: str, network_id: str) -> str:
    """The host's end, 14 characters (the kernel allows 15). Derivable, so that an orphan is recognised as such."""
    return "whv" + hashlib.sha256(("%s/%s" % (container_id, network_id)).encode()).hexdigest()[:11]


class Sandbox:
    """An open namespace and a netlink socket inside it, for the length of one operation."""

    __slots__ = ("fd", "inner")

    def __init__(self, path: str) -> None:
        from ..kernel.netlink import Netlink

        self.fd = open_netns(path)
        self.inner = Netlink.inside(self.fd)

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], value: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.inner.close()
        os.close(self.fd)


def attach(outer: Netlink, sandbox: Sandbox, network: NetworkRecord, bridge: Link, endpoint: EndpointRecord) -> bool:
    """The container's link, up, with its addresses, its other end on ``bridge``. True if it came up just now."""
    try:
        link = _link(outer, sandbox, bridge, endpoint)
        if endpoint.ipv6:
            _enable_ipv6(sandbox, link.name)
        wanted = {a: _prefix(network, a) for a in (endpoint.ipv4, endpoint.ipv6) if a}
        for present in sandbox.inner.addresses(link.ifindex):
            if wanted.pop(present.address, None) is None and _is_lease(network, present.address):
                sandbox.inner.delete_address(link.ifindex, present.address, present.prefix)  # an earlier lease of it
        for address, prefix in wanted.items():
            sandbox.inner.add_address(link.ifindex, address, prefix)
        if not link.up:
            sandbox.inner.set_link(link.ifindex, up=True)
        return not link.up
    except OSError as error:
        raise KernelError.wrap(
            error,
            "Cannot attach container %s to network %s" % (endpoint.container_id[:12], network.name),
            step="attach_endpoint",
            subject="network %s" % network.name,
        ) from error


def _link(outer: Netlink, sandbox: Sandbox, bridge: Link, endpoint: EndpointRecord) -> Link:
    name = host_link(endpoint.container_id, endpoint.network_id)
    link = sandbox.inner.link(endpoint.ifname)
    host = outer.link(name) if link is not None else None
    if link is not None and (host is None or link.mac != endpoint.mac):
        sandbox.inner.delete_link(link.ifindex)  # belongs to what this name meant before; its other end goes with it
        link = None
    fresh = False
    if link is None:
        fresh = True
        _add(outer, sandbox, name, bridge, endpoint)
        link, host = sandbox.inner.link(endpoint.ifname), outer.link(name)
    if link is None or host is None:
        raise OSError(19, "No such device", endpoint.ifname)
    _host_end(outer, host, bridge)
    if not fresh and host.running:
        outer.set_bridge_port(host.ifindex, forwarding=True)  # a release may have been killed after ``silence``
    return link


def _host_end(outer: Netlink, host: Link, bridge: Link) -> None:
    """On the bridge, up, and without an address: a bridge port needs none. Hairpin: with br_netfilter loaded, what a
    container sends to a port it has published itself is rewritten inside the bridge and must leave where it came in.
    """
    if host.master != bridge.ifindex or not host.up:
        outer.set_link(host.ifindex, master=bridge.ifindex, up=True)
    if read_sysctl("ipv6/conf/%s/disable_ipv6" % host.name) == "0":
        write_sysctl("ipv6/conf/%s/disable_ipv6" % host.name, "1")
    outer.set_bridge_port(host.ifindex, hairpin=True)


def _add(outer: Netlink, sandbox: Sandbox, name: str, bridge: Link, endpoint: EndpointRecord) -> None:
    for attempt in (0, 1):
        try:
            outer.add_veth(
                name, endpoint.ifname, sandbox.fd, master=bridge.ifindex, mtu=bridge.mtu, peer_mac=endpoint.mac
            )
            return
        except OSError as error:
            if error.errno != 17 or attempt:  # EEXIST: its former namespace is still being torn down by the kernel
                raise
            outer.delete_link(name)


def announce(outer: Netlink, sandbox: Sandbox, endpoint: EndpointRecord) -> None:
    """Gratuitous ARP and an unsolicited neighbour advertisement for each address: whoever knew it under the MAC of a
    former owner learns better at once, instead of in a minute.

    Announcing when the interface comes up is too early: the bridge opens the port a moment later, in the background.
    Setting a MAC, even to what it is, makes the kernel announce (arp_notify, ndisc_notify).
    """
    try:
        link = _when_ready(outer, sandbox, endpoint)
        if link is not None:
            sandbox.inner.set_link(link.ifindex, mac=link.mac)
    except OSError as error:
        raise KernelError.wrap(error, "Cannot announce the address of %s" % endpoint.ifname, step="announce") from error


def _when_ready(outer: Netlink, sandbox: Sandbox, endpoint: EndpointRecord) -> Optional[Link]:
    name = host_link(endpoint.container_id, endpoint.network_id)
    link = None
    for _try in range(_READY_TRIES):
        host, link = outer.link(name), sandbox.inner.link(endpoint.ifname)
        if host is None or link is None:
            return None
        if host.running and link.running and _is_local(sandbox, endpoint.ipv6):
            break
        time.sleep(0.001)
    return link


def _is_local(sandbox: Sandbox, ipv6: Optional[str]) -> bool:
    """Whether the container's kernel takes packets for its IPv6 address: even without duplicate detection the address
    gets its local route from a background worker, and until then what arrives for it is dropped."""
    return not ipv6 or any(r.destination == ipv6 for r in sandbox.inner.routes(10, _LOCAL_TABLE))


def _subnet(network: NetworkRecord, address: str) -> Optional[ipam.Net]:
    from . import ipam

    number, bits = ipam.to_number(address)
    for subnet in network.subnets:
        net = ipam.parse(str(subnet["subnet"]))
        if net.bits == bits and net.holds(number):
            return net
    return None


def _prefix(network: NetworkRecord, address: str) -> int:
    net = _subnet(network, address)
    return net.prefix if net is not None else 128 if ":" in address else 32


def _is_lease(network: NetworkRecord, address: str) -> bool:
    return _subnet(network, address) is not None


def _enable_ipv6(sandbox: Sandbox, ifname: str) -> None:
    """Interfaces are born without IPv6 in our namespaces, see ``sandbox._SYSCTLS``."""
    from ..kernel.netns import inside

    with inside(sandbox.fd):
        path = "ipv6/conf/%s/" % ifname
        if read_sysctl(path + "disable_ipv6") == "1":
            write_sysctl(path + "accept_dad", "0")
            write_sysctl(path + "disable_ipv6", "0")


def gateway_networks(members: Sequence[tuple[NetworkRecord, EndpointRecord]]) -> dict[int, NetworkRecord]:
    """Address family → the network that gives the default route: the highest priority, then the first by name among
    those that are not internal and have the family, one with both families before one with a single one (libnetwork
    ``Endpoint.Less``)."""
    from . import bridge

    open_ones = sorted(
        ((endpoint.priority, network) for network, endpoint in members if not bridge.internal(network)),
        key=lambda one: (-one[0], -_families(one[1]), one[1].name),
    )
    chosen: dict[int, NetworkRecord] = {}
    for _priority, network in open_ones:
        for subnet in network.subnets:
            if subnet["gateway"]:
                chosen.setdefault(10 if ":" in str(subnet["subnet"]) else 2, network)
    return chosen


def _families(network: NetworkRecord) -> int:
    return len({":" in str(subnet["subnet"]) for subnet in network.subnets if subnet["gateway"]})


def gateway_of(network: NetworkRecord, family: int) -> str:
    for subnet in network.subnets:
        if (":" in str(subnet["subnet"])) == (family == 10) and subnet["gateway"]:
            return str(subnet["gateway"])
    return ""


def wanted_routes(members: Sequence[tuple[NetworkRecord, EndpointRecord]]) -> dict[int, tuple[str, str]]:
    """Family → (gateway, interface)."""
    wanted = {}
    for family, network in gateway_networks(members).items():
        ifname = next(endpoint.ifname for _network, endpoint in members if endpoint.network_id == network.id)
        wanted[family] = (gateway_of(network, family), ifname)
    return wanted


def missing_routes(sandbox: Sandbox, members: Sequence[tuple[NetworkRecord, EndpointRecord]]) -> list[str]:
    have = {route.gateway for route in sandbox.inner.routes() if not route.prefix}
    return [
        "the default route through %s is missing" % gateway
        for gateway, _ifname in wanted_routes(members).values()
        if gateway not in have
    ]


def set_default_routes(sandbox: Sandbox, members: Sequence[tuple[NetworkRecord, EndpointRecord]]) -> None:
    """Default routes through the gateway networks; those through our other gateways go, a container's own stay."""
    wanted = wanted_routes(members)
    ours = {gateway_of(network, family) for network, _endpoint in members for family in (2, 10)} - {""}
    try:
        for route in sandbox.inner.routes():
            if not route.prefix and route.gateway in ours and wanted.get(route.family, ("", ""))[0] != route.gateway:
                sandbox.inner.delete_route("", 0, gateway=route.gateway, index=route.ifindex)
        for gateway, ifname in wanted.values():
            link = sandbox.inner.link(ifname)
            if link is not None:
                sandbox.inner.add_route("", 0, gateway=gateway, index=link.ifindex)
    except OSError as error:
        raise KernelError.wrap(error, "Cannot set the default route of a container", step="default_route") from error


def drop_others(outer: Netlink, sandbox: Sandbox, container_id: str, network_ids: set[str]) -> None:
    """Delete links of ours whose networks the container has left. Those the container made itself stay: only a veth
    whose other end is on the host and has our kind of name is ours."""
    keep = {host_link(container_id, network_id) for network_id in network_ids}
    try:
        for link in sandbox.inner.links():
            if link.kind == "veth" and link.peer and link.peer_netns is not None:
                host = outer.link(link.peer)
                if host is not None and host.name.startswith("whv") and host.name not in keep:
                    outer.delete_link(host.ifindex)
    except OSError as error:
        raise KernelError.wrap(error, "Cannot delete a stale link of a container", step="detach_endpoint") from error


def port_targets(records: Sequence[PortRecord], members: Sequence[tuple[NetworkRecord, EndpointRecord]]) -> list[Port]:
    """Where published ports lead: the container's addresses in its gateway networks (replies leave through those).
    A container that is in internal networks only, or in none, publishes nothing, as with Docker."""
    from .firewall import ports_for

    addresses: dict[int, Optional[str]] = {}
    for family, network in gateway_networks(members).items():
        record = next(endpoint for _network, endpoint in members if endpoint.network_id == network.id)
        addresses[family] = record.ipv6 if family == 10 else record.ipv4
    return [
        target
        for port in records
        for target in ports_for(
            port.host_ip, port.host_port, port.protocol, port.container_port, addresses.get(2), addresses.get(10)
        )
    ]


def detach(outer: Netlink, container_id: str, network_id: str) -> bool:
    name = host_link(container_id, network_id)
    try:
        return outer.delete_link(name)
    except OSError as error:
        raise KernelError.wrap(error, "Cannot delete link %s" % name, step="detach_endpoint") from error


def silence(outer: Netlink, container_id: str, network_id: str) -> None:
    """Shut the container's port. A namespace is taken apart in the background; until then its kernel would answer for
    an address that may be somebody else's already, and take his packets."""
    host = outer.link(host_link(container_id, network_id))
    if host is None or not host.master:
        return
    try:
        outer.set_bridge_port(host.ifindex, forwarding=False)
    except OSError as error:
        if error.errno not in (19, 95):  # ENODEV, EOPNOTSUPP: gone, or off its bridge, since we looked
            raise KernelError.wrap(error, "Cannot shut the bridge port %s" % host.name, step="silence") from error


def observe(outer: Netlink, sandbox: Sandbox, bridge: Link, endpoint: EndpointRecord) -> dict[str, Any]:
    """``{present, up, mac, addresses, drift: [sentences]}``."""
    link = sandbox.inner.link(endpoint.ifname)
    host = outer.link(host_link(endpoint.container_id, endpoint.network_id))
    if link is None or host is None:
        drift = ["interface %s is missing" % endpoint.ifname]
        return {"present": False, "up": False, "mac": "", "addresses": [], "drift": drift}
    have = {a.address for a in sandbox.inner.addresses(link.ifindex)}
    drift = [] if link.up else ["interface %s is down" % endpoint.ifname]
    if host.master != bridge.ifindex:
        drift.append("interface %s is not on its bridge" % endpoint.ifname)
    elif not host.up:
        drift.append("the host's end of interface %s is down" % endpoint.ifname)
    drift += [
        "interface %s has lost its address %s" % (endpoint.ifname, address)
        for address in (endpoint.ipv4, endpoint.ipv6)
        if address and address not in have
    ]
    return {"present": True, "up": link.up, "mac": link.mac, "addresses": sorted(have), "drift": drift}
