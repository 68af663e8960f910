# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which addresses, MAC and interface name a container has in each of its networks: rows in the store, nothing else.

The store's UNIQUE constraints are what makes concurrent allocation safe; a dynamic address that somebody else took
first is chosen again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional

from ..errors import Conflict, UsageError
from ..tuples import NamedTuple
from . import ipam
from .bridge import DEFAULT_NETWORK, PREFIX_OPTION, option

if TYPE_CHECKING:
    from ..store.records import EndpointRecord, NetworkRecord
    from ..store.state import Store

_TRIES = 64
IFNAME_OPTION = "com.docker.network.endpoint.ifname"


class Wanted(NamedTuple):
    """One element of a container's ``networks``, checked. ``None``/"" means: choose."""

    aliases: list[str]
    ipv4: Optional[str]
    ipv6: Optional[str]
    mac: str
    ifname: str
    priority: int


def check(network: NetworkRecord, asked: Mapping[str, Any]) -> Wanted:
    """Docker's rules and words for what can be asked of an endpoint."""
    label = "%s (%s)" % (network.name, network.id[:12])
    aliases = [str(alias) for alias in asked.get("aliases") or []]
    static = {}
    for key in ("ipv4_address", "ipv6_address"):
        text = asked.get(key)
        static[key] = ipam.check_static(network.subnets, str(text), key, label) if text else None
    if network.name == DEFAULT_NETWORK:
        if any(static.values()):
            raise UsageError("user specified IP address is supported on user defined networks only", path="networks")
        if aliases:
            raise UsageError(
                "network-scoped alias is supported only for containers in user defined networks", path="networks"
            )
    mac = asked.get("mac_address")
    return Wanted(
        aliases,
        static["ipv4_address"],
        static["ipv6_address"],
        ipam.check_mac(str(mac)) if mac else "",
        str((asked.get("driver_opts") or {}).get(IFNAME_OPTION) or ""),
        int(asked.get("gw_priority") or 0),
    )


def put(
    store: Store,
    container_id: str,
    network: NetworkRecord,
    wanted: Wanted,
    *,
    position: int,
    ifname: str,
    before: Optional[EndpointRecord] = None,
) -> EndpointRecord:
    """Store the endpoint. Addresses it has already stay unless others are asked for."""
    for attempt in range(_TRIES):
        record = _choose(store, container_id, network, wanted, position, ifname, before)
        if record == before:
            return record
        try:
            store.networks.put_endpoint(record)
            return record
        except Conflict:
            if record.static or attempt == _TRIES - 1:
                raise
            before = None  # an address somebody else took since we looked
    raise Conflict("Address already in use", step="allocate_address")  # not reached; for the type checker


def _choose(
    store: Store,
    container_id: str,
    network: NetworkRecord,
    wanted: Wanted,
    position: int,
    ifname: str,
    before: Optional[EndpointRecord],
) -> EndpointRecord:
    from ..store.records import EndpointRecord

    label = "%s (%s)" % (network.name, network.id[:12])
    used: Optional[set[str]] = None
    addresses: list[Optional[str]] = []
    for bits, static, kept in (
        (32, wanted.ipv4, before.ipv4 if before else None),
        (128, wanted.ipv6, before.ipv6 if before else None),
    ):
        if static is None and kept is None:
            used = _used(store, network, container_id) if used is None else used
            kept = ipam.allocate(network.subnets, used, bits, label)
        addresses.append(static or kept)
    ipv4, ipv6 = addresses
    mac = wanted.mac or ipam.mac_for(ipv4, ipv6)
    return EndpointRecord(
        container_id=container_id,
        network_id=network.id,
        ipv4=ipv4,
        ipv6=ipv6,
        mac=mac,
        aliases=wanted.aliases,
        ifname=wanted.ifname or ifname,
        position=position,
        static=bool(wanted.ipv4 or wanted.ipv6),
        priority=wanted.priority,
    )


def _used(store: Store, network: NetworkRecord, container_id: str) -> set[str]:
    leases = store.networks.endpoints(network_id=network.id)
    return {a for e in leases if e.container_id != container_id for a in (e.ipv4, e.ipv6) if a}


def free_ifname(network: NetworkRecord, endpoints: Sequence[EndpointRecord], names: Sequence[str] = ()) -> str:
    """``names``: those that other networks of the container ask for."""
    taken = {*names, *(endpoint.ifname for endpoint in endpoints)}
    prefix = option(network, PREFIX_OPTION) or "eth"
    number = 0
    while "%s%d" % (prefix, number) in taken:
        number += 1
    return "%s%d" % (prefix, number)


def plan(
    store: Store,
    container_id: str,
    asked: Sequence[Mapping[str, Any]],
    resolve: Callable[[str], NetworkRecord],
) -> list[EndpointRecord]:
    """The container's complete set of endpoints, in one transaction: those not asked for any more go.

    ``resolve`` turns a name into a record (NotFound).
    """
    pairs: list[tuple[NetworkRecord, Wanted]] = []
    for item in asked:
        network = resolve(str(item["name"]))
        if any(network.id == other.id for other, _wanted in pairs):
            raise UsageError("network %s is named twice" % network.name, path="networks")
        pairs.append((network, check(network, item)))
    with store.transaction():
        have = {e.network_id: e for e in store.networks.endpoints(container_id=container_id)}
        wanted_ids = {network.id for network, _wanted in pairs}
        for network_id in [i for i in have if i not in wanted_ids]:
            store.networks.remove_endpoint(container_id, network_id)
            del have[network_id]
        names = [wanted.ifname for _network, wanted in pairs if wanted.ifname]
        records = []
        for position, (network, wanted) in enumerate(pairs):
            before = have.get(network.id)
            ifname = before.ifname if before else free_ifname(network, list(have.values()), names)
            record = put(store, container_id, network, wanted, position=position, ifname=ifname, before=before)
            have[network.id] = record
            records.append(record)
    return records
