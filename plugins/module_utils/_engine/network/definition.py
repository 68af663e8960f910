# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""From the options of a network to its record: name, subnets, gateways. Only rows; no kernel object is made here."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import Conflict, Unsupported, UsageError
from . import bridge, ipam

if TYPE_CHECKING:
    from ..kernel.netlink import Netlink
    from ..store.records import NetworkRecord
    from ..store.state import Store

_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")


def create(store: Store, netlink: Netlink, name: str, spec: Mapping[str, Any]) -> NetworkRecord:
    """Choose and store in one transaction, so that two tasks never choose the same subnet."""
    routes = host_networks(netlink)
    with store.transaction():
        record = _define(store, routes, name, spec)
        store.networks.create(record)
    return record


def define(store: Store, netlink: Netlink, name: str, spec: Mapping[str, Any]) -> NetworkRecord:
    """What ``create`` would store."""
    return _define(store, host_networks(netlink), name, spec)


def _define(store: Store, routes: Sequence[ipam.Net], name: str, spec: Mapping[str, Any]) -> NetworkRecord:
    from ..store.records import NetworkRecord

    if not name or set(name) - _NAME or name[0] in "_.-":
        raise UsageError(
            "invalid network name %r: only [a-zA-Z0-9][a-zA-Z0-9_.-]* are allowed" % name,
            step="create_network",
            path="name",
        )
    if store.networks.by_name(name) is not None:
        raise Conflict("network with name %s already exists" % name, step="create_network", subject="network %s" % name)
    driver = str(spec.get("driver") or "bridge")
    if driver != "bridge":
        raise UsageError("plugin %r not found" % driver, step="create_network", path="driver")
    taken = {n.name: [ipam.parse(str(s["subnet"])) for s in n.subnets] for n in store.networks.list()}
    subnets = _subnets(spec, taken, routes, _seed(store.paths.state))
    record = NetworkRecord(
        id=secrets.token_hex(32), name=name, driver=driver, spec=dict(spec), subnets=subnets, created_at=time.time()
    )
    bridge.check_options(record)
    if bridge.has_ipv6(record) and not os.path.exists("/proc/sys/net/ipv6"):
        raise Unsupported("The host's kernel has no IPv6", step="create_network", path="enable_ipv6")
    _check_link(store, record)
    return record


def _check_link(store: Store, record: NetworkRecord) -> None:
    wanted = bridge.option(record, bridge.NAME_OPTION)
    for other in store.networks.list() if wanted else ():
        if bridge.link_name(store.paths, other) == wanted:
            raise Conflict(
                "cannot create network %s (%s): conflicts with network %s (%s): networks have same bridge name"
                % (record.id, wanted, other.id, other.name),
                step="create_network",
                path="driver_options",
            )


def _subnets(
    spec: Mapping[str, Any], taken: Mapping[str, Sequence[ipam.Net]], routes: Sequence[ipam.Net], seed: bytes
) -> list[dict[str, Any]]:
    """What was asked for, then an IPv4 subnet unless there is one, then an IPv6 one if wanted and there is none."""
    chosen: list[dict[str, Any]] = []
    nets: list[ipam.Net] = []
    for entry in spec.get("ipam_config") or []:
        if not entry.get("subnet"):
            raise UsageError("invalid ipam_config: every entry needs a subnet", path="ipam_config")
        net = ipam.parse(str(entry["subnet"]))
        ipam.check_subnet(net, {**taken, "being created": nets}, routes)
        chosen.append(ipam.normalise(entry, net))
        nets.append(net)
    wants_v6 = spec.get("enable_ipv6")
    if wants_v6 is False and any(net.bits == 128 for net in nets):
        raise UsageError("ipam_config has an IPv6 subnet, but enable_ipv6 is false", path="enable_ipv6")
    busy = [net for others in taken.values() for net in others] + list(routes) + nets
    if not any(net.bits == 32 for net in nets):
        chosen.append(ipam.normalise({}, ipam.choose_subnet(busy)))
    if wants_v6 and not any(net.bits == 128 for net in nets):
        chosen.append(ipam.normalise({}, ipam.choose_ula(busy, seed)))
    return chosen


def host_networks(netlink: Netlink) -> list[ipam.Net]:
    """What the host can reach already: every route but the default ones, and its name servers (libnetwork
    ``InferReservedNetworks``). Routes of our own bridges are among them, rightly."""
    from .files import host_resolver, is_loopback

    found = []
    for route in netlink.routes(table=0):
        bits = 32 if route.family == 2 else 128
        link_local = route.destination.startswith("fe80:") or route.destination.startswith("ff")
        if route.prefix and route.destination and not link_local and not is_loopback(route.destination):
            found.append(ipam.parse("%s/%d" % (route.destination, route.prefix), strict=False))
        elif route.prefix and not route.destination:  # ::/96 and the like
            found.append(ipam.Net(bits, 0, route.prefix))
    for server in host_resolver().servers:
        try:
            number, bits = ipam.to_number(server.partition("%")[0])
        except UsageError:  # resolv.conf may hold anything; the host's resolver skips such lines as well
            continue
        if not is_loopback(server):
            found.append(ipam.Net(bits, number, bits))
    return found


def _seed(state: str) -> bytes:
    """Stable for this instance on this host: its IPv6 networks come from one /48."""
    try:
        with open("/etc/machine-id", "rb") as file:
            machine = file.read(64).strip()
    except OSError:  # hosts without one get a prefix by chance; the record keeps it
        machine = secrets.token_bytes(16)
    return b"wharf " + machine + b" " + state.encode("utf-8", "surrogateescape")
