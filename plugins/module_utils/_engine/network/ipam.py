# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Subnets and addresses: Docker's pools, order and wording (libnetwork ipam). Pure functions on integers.

Nothing here remembers anything: what is taken is passed in (other networks' subnets, the host's routes, leases from
the store), so the answer can always be derived again. ``import ipaddress`` would cost the start path 4 ms.
"""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Optional

from ..errors import Conflict, UsageError
from ..tuples import NamedTuple

# (pool, prefix length of the networks cut from it), moby daemon/libnetwork/ipamutils
DEFAULT_POOLS = (
    ("172.17.0.0/16", 16),
    ("172.18.0.0/16", 16),
    ("172.19.0.0/16", 16),
    ("172.20.0.0/14", 16),
    ("172.24.0.0/14", 16),
    ("172.28.0.0/14", 16),
    ("192.168.0.0/16", 20),
)
_ULA_NETWORKS = 65536


class Net(NamedTuple):
    """A subnet: ``bits`` is 32 or 128, ``first`` its base address as an integer."""

    bits: int
    first: int
    prefix: int

    @property
    def last(self) -> int:
        return self.first | ((1 << (self.bits - self.prefix)) - 1)

    def __str__(self) -> str:
        return "%s/%d" % (to_text(self.first, self.bits), self.prefix)

    def holds(self, address: int) -> bool:
        return self.first <= address <= self.last

    def overlaps(self, other: Net) -> bool:
        return self.bits == other.bits and self.first <= other.last and other.first <= self.last


def to_text(address: int, bits: int) -> str:
    family = socket.AF_INET if bits == 32 else socket.AF_INET6
    return socket.inet_ntop(family, address.to_bytes(bits // 8, "big"))


def to_number(text: str, option: str = "address") -> tuple[int, int]:
    """``(integer, bits)``; UsageError naming the option otherwise."""
    try:
        raw = socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
    except (OSError, ValueError, UnicodeError):
        raise UsageError("%s %r is not an IP address" % (option, text), path=option) from None
    return int.from_bytes(raw, "big"), len(raw) * 8


def parse(text: str, option: str = "subnet", *, strict: bool = True) -> Net:
    """``10.0.0.0/8``. Host bits are refused (``strict``) or cleared, as Docker 28 does for subnets and ranges."""
    address, slash, length = str(text).partition("/")
    number, bits = to_number(address, option)
    if not slash or not length.isdigit() or int(length) > bits:
        raise UsageError("invalid %s %s: it must be written as address/prefix length" % (option, text), path=option)
    prefix = int(length)
    mask = ((1 << bits) - 1) ^ ((1 << (bits - prefix)) - 1)
    if strict and number & ~mask:
        proper = Net(bits, number & mask, prefix)
        raise UsageError("invalid %s %s: it should be %s" % (option, text, proper), path=option)
    return Net(bits, number & mask, prefix)


# -- subnets ---------------------------------------------------------------------------------------------------


def choose_subnet(taken: Iterable[Net], pools: Sequence[tuple[str, int]] = DEFAULT_POOLS) -> Net:
    """The first free IPv4 subnet of the default pools. ``taken``: other networks and the host's routes."""
    busy = [net for net in taken if net.bits == 32]
    for candidate in _candidates(pools):
        if not any(candidate.overlaps(net) for net in busy):
            return candidate
    raise Conflict(
        "all predefined address pools have been fully subnetted",
        step="choose_subnet",
        hint="Remove unused networks, or name a subnet in ipam_config.",
    )


def _candidates(pools: Sequence[tuple[str, int]]) -> Iterator[Net]:
    for text, prefix in pools:
        pool = parse(text)
        step = 1 << (pool.bits - prefix)
        for first in range(pool.first, pool.last + 1, step):
            yield Net(pool.bits, first, prefix)


def choose_ula(taken: Iterable[Net], seed: bytes) -> Net:
    """A free /64 of the unique local /48 (RFC 4193) that ``seed`` names: the same host gets the same one again."""
    base = int.from_bytes(b"\xfd" + hashlib.sha256(seed).digest()[:5], "big") << 80
    busy = [net for net in taken if net.bits == 128]
    for number in range(_ULA_NETWORKS):
        candidate = Net(128, base | number << 64, 64)
        if not any(candidate.overlaps(net) for net in busy):
            return candidate
    raise Conflict("all predefined address pools have been fully subnetted", step="choose_subnet")


def check_subnet(net: Net, taken: Mapping[str, Sequence[Net]], routes: Iterable[Net]) -> None:
    """A subnet a user asks for must not overlap another network. A host route that is as specific, or more, means that
    the host already has that network itself: then Docker would take it and break the host, we refuse.
    """
    for name, nets in taken.items():
        for other in nets:
            if net.overlaps(other):
                raise Conflict(
                    "invalid pool request: Pool overlaps with other one on this address space: %s and %s of network %s"
                    % (net, other, name),
                    step="choose_subnet",
                    path="ipam_config",
                )
    for route in routes:
        if route.prefix and route.prefix >= net.prefix and net.overlaps(route):
            raise Conflict(
                "cannot create network with subnet %s: the host has a route to %s already" % (net, route),
                step="choose_subnet",
                path="ipam_config",
            )


def normalise(entry: Mapping[str, Any], net: Net) -> dict[str, Any]:
    """``{"subnet", "gateway", "ip_range", "aux"}`` as stored, from one ``ipam_config`` entry with subnet ``net``."""
    ip_range = str(entry.get("ip_range") or entry.get("iprange") or "")
    if ip_range:
        inner = parse(ip_range, "iprange")
        if inner.bits != net.bits or not (net.holds(inner.first) and net.holds(inner.last)):
            raise UsageError("invalid ip-range %s: parent subnet is %s" % (ip_range, net), path="iprange")
        ip_range = str(inner)
    aux = {str(name): _inside(net, str(text), "aux_addresses") for name, text in _aux(entry).items()}
    gateway = str(entry.get("gateway") or "")
    if gateway:
        gateway = _inside(net, gateway, "gateway")
    else:
        used = {to_number(text)[0] for text in aux.values()}
        number = next((n for n in _usable(net) if n not in used), None)
        if number is None:
            raise UsageError("invalid pool request: subnet %s has no room for a gateway" % (net,), path="subnet")
        gateway = to_text(number, net.bits)
    if gateway in aux.values():
        raise UsageError("gateway %s is among the aux_addresses: Address already in use" % gateway, path="gateway")
    return {"subnet": str(net), "gateway": gateway, "ip_range": ip_range, "aux": aux}


def _aux(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    aux: Mapping[str, Any] = entry.get("aux_addresses") or entry.get("aux") or {}
    return aux


def _inside(net: Net, text: str, option: str) -> str:
    number, bits = to_number(text.partition("/")[0], option)
    if bits != net.bits or not net.holds(number):
        raise UsageError("invalid %s %s: parent subnet is %s" % (option, text, net), path=option)
    return to_text(number, bits)


# -- addresses -------------------------------------------------------------------------------------------------


def _usable(net: Net, within: Optional[Net] = None) -> range:
    """Addresses (of ``within``) a container can have in ``net``, lowest first: not the network address (IPv6: the
    subnet-router anycast address), not the IPv4 broadcast address. /31 and /32, /127 and /128 have neither."""
    edge = 1 if net.bits - net.prefix > 1 else 0
    low, high = net.first + edge, net.last - (edge if net.bits == 32 else 0)
    return range(low, high + 1) if within is None else range(max(low, within.first), min(high, within.last) + 1)


def reserved(subnet: Mapping[str, Any]) -> set[str]:
    """What no container gets: the gateway and the auxiliary addresses."""
    return {str(subnet["gateway"]), *(str(text) for text in (subnet.get("aux") or {}).values())} - {""}


def allocate(subnets: Sequence[Mapping[str, Any]], used: set[str], bits: int, network: str) -> Optional[str]:
    """The lowest free address of the family, None if the network has no subnet of it. ``used``: leases, as text.

    ``network`` is "NAME (ID)" for the error. An address that was released is given out again at once, as Docker does.
    """
    family = [s for s in subnets if (":" in str(s["subnet"])) == (bits == 128)]
    if not family:
        return None
    for subnet in family:
        net = parse(str(subnet["subnet"]))
        within = parse(str(subnet["ip_range"])) if subnet.get("ip_range") else net
        taken = {to_number(text)[0] for text in used | reserved(subnet) if (":" in text) == (bits == 128)}
        for number in _usable(net, within):
            if number not in taken:
                return to_text(number, bits)
    raise Conflict(
        "no available IPv%d addresses on this network's address pools: %s" % (4 if bits == 32 else 6, network),
        step="allocate_address",
        hint="Remove containers from the network, or make it again with a larger subnet or ip_range.",
    )


def check_static(subnets: Sequence[Mapping[str, Any]], text: str, option: str, network: str) -> str:
    """The address in canonical form. It must lie in a subnet, and be neither reserved nor a network's own address.

    An address outside ``ip_range`` is fine: the range only bounds what is given out automatically.
    """
    number, bits = to_number(text, option)
    if (option == "ipv4_address") != (bits == 32):
        raise UsageError("invalid %s: %s" % (option, text), path=option)
    address = to_text(number, bits)
    for subnet in subnets:
        net = parse(str(subnet["subnet"]))
        if net.bits != bits or not net.holds(number):
            continue
        if address in reserved(subnet) or number not in _usable(net):
            raise Conflict("Address already in use: %s is reserved in network %s" % (address, network), path=option)
        return address
    raise UsageError(
        "invalid %s %s: no configured subnet or ip-range of network %s contains it" % (option, text, network),
        path=option,
    )


def mac_for(ipv4: Optional[str], ipv6: Optional[str]) -> str:
    """02:42 + the IPv4 address: an address that moves to another container keeps its neighbours' ARP entries right."""
    if ipv4:
        tail = socket.inet_aton(ipv4)
    else:
        tail = hashlib.sha256((ipv6 or "").encode()).digest()[:4]
    return "02:42:" + ":".join("%02x" % byte for byte in tail)


def check_mac(text: str) -> str:
    """Lower case, colons. A multicast address cannot be a station's."""
    parts = text.replace("-", ":").lower().split(":")
    try:
        if len(parts) != 6 or any(len(part) > 2 for part in parts):
            raise ValueError
        octets = bytes(int(part, 16) for part in parts)
    except ValueError:
        raise UsageError("invalid MAC address: %s" % text, path="mac_address") from None
    if octets[0] & 1 or not any(octets):
        raise UsageError("invalid MAC address: %s is a multicast or null address" % text, path="mac_address")
    return ":".join("%02x" % byte for byte in octets)
