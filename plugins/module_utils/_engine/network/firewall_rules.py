# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the firewall is: fixed rules, and sets that say which networks and ports they apply to.

The rules never change. A network is a handful of set elements, a published port is one map element, so publishing the
1001st port is one message whatever is published already, and comparing with the kernel means comparing sets. As
``nft list table ip wharf`` shows it::

    set links     { type ifname }                    # bridges of all our networks
    set same      { type ifname . ifname }           # bridge . bridge where members may talk to each other
    set internal  { type ifname }                    # bridges without an outside
    set masked    { type ifname }                    # bridges whose traffic leaves under the host's address
    map ports     { type inet_proto . inet_service : ipv4_addr . inet_service }
    map addressed { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service }

Every rule looks at interfaces, not at subnets: a container that invents source addresses gains nothing, and IPv6
needs no rules of its own kind. Interfaces of another instance or engine are "outside" to us.
"""

from __future__ import annotations

from ..kernel.nfnetlink import AF_INET, AF_INET6
from ..kernel.nftables import expressions as x
from ..kernel.nftables.objects import (
    FORWARD,
    IFNAME,
    INET_PROTOCOL,
    INET_SERVICE,
    IPV4,
    IPV6,
    OUTPUT,
    POSTROUTING,
    PREROUTING,
    Chain,
    Rule,
    Set,
)

RAW, DSTNAT, FILTER, SRCNAT = -300, -100, 0, 100  # hook priorities, as nft names them

LINKS = Set("links", (IFNAME,))
SAME = Set("same", (IFNAME, IFNAME))
INTERNAL = Set("internal", (IFNAME,))
MASKED = Set("masked", (IFNAME,))
INTERFACE_SETS = (LINKS, SAME, INTERNAL, MASKED)
_PORTS = {
    AF_INET: Set("ports", (INET_PROTOCOL, INET_SERVICE), (IPV4, INET_SERVICE)),
    AF_INET6: Set("ports", (INET_PROTOCOL, INET_SERVICE), (IPV6, INET_SERVICE)),
}
_ADDRESSED = {
    AF_INET: Set("addressed", (IPV4, INET_PROTOCOL, INET_SERVICE), (IPV4, INET_SERVICE)),
    AF_INET6: Set("addressed", (IPV6, INET_PROTOCOL, INET_SERVICE), (IPV6, INET_SERVICE)),
}

CHAINS = (
    Chain("raw", "filter", PREROUTING, RAW),
    Chain("published"),
    Chain("prerouting", "nat", PREROUTING, DSTNAT),
    Chain("output", "nat", OUTPUT, DSTNAT),
    Chain("postrouting", "nat", POSTROUTING, SRCNAT),
    Chain("forward", "filter", FORWARD, FILTER),
)


def ports_map(family: int) -> Set:
    """Ports published on every address: protocol . port → container address . port."""
    return _PORTS[family]


def addressed_map(family: int) -> Set:
    """Ports published on one host address: address . protocol . port → container address . port."""
    return _ADDRESSED[family]


def sets(family: int) -> tuple[Set, ...]:
    return (*INTERFACE_SETS, _PORTS[family], _ADDRESSED[family])


def rules(family: int) -> tuple[Rule, ...]:
    return (*_raw(family), *_published(family), *_nat(family), *_forward())


def _iif(declared: Set, *, inverted: bool = False) -> bytes:
    return x.meta(x.META_IIFNAME, 1) + x.lookup(declared.name, 1, inverted=inverted)


def _oif(declared: Set, *, inverted: bool = False) -> bytes:
    return x.meta(x.META_OIFNAME, 1) + x.lookup(declared.name, 1, inverted=inverted)


def _raw(family: int) -> tuple[Rule, ...]:
    """Bridges have route_localnet on, so that 127.0.0.1:port can be published; what that opens is closed here.

    Without these, a container (or a neighbour, were it on elsewhere) could send packets to services bound to the
    host's loopback only (CVE-2020-8558), or speak from 127.0.0.1 to services that trust it. IPv6 has no such switch:
    the kernel never takes ::1 from a wire.
    """
    if family == AF_INET6:
        return ()
    not_lo = x.meta(x.META_IIFNAME, 1) + x.compare(1, x.NOT_EQUAL, x.interface_name("lo"))
    drop = x.compare(1, x.EQUAL, b"\x7f") + x.verdict(x.DROP)
    return (
        Rule("raw", not_lo + x.payload(x.NETWORK_HEADER, 16, 1, 1) + drop, "loopback is not for the wire"),
        Rule("raw", not_lo + x.payload(x.NETWORK_HEADER, 12, 1, 1) + drop, "nobody out there is 127.0.0.1"),
    )


def _published(family: int) -> tuple[Rule, ...]:
    """The address-specific map first. A miss in a map ends the rule, not the chain."""
    offset, length = (16, 4) if family == AF_INET else (24, 16)
    after = 8 + length // 4  # registers in steps of 4 bytes, 8 is the first
    target = x.dnat(family, 1, after)
    protocol_port = x.meta(x.META_L4PROTO, 1) + x.payload(x.TRANSPORT_HEADER, 2, 2, 9)
    addressed = x.payload(x.NETWORK_HEADER, offset, length, 1)
    addressed += x.meta(x.META_L4PROTO, after) + x.payload(x.TRANSPORT_HEADER, 2, 2, after + 1)
    return (
        Rule(
            "published", addressed + x.lookup(_ADDRESSED[family].name, 1, into=1) + target, "published on one address"
        ),
        Rule(
            "published", protocol_port + x.lookup(_PORTS[family].name, 1, into=1) + target, "published on all addresses"
        ),
    )


def _nat(family: int) -> tuple[Rule, ...]:
    """DNAT for what is addressed to this host, from outside and from the host itself; source NAT where answers would
    not find back.

    ::1 is left alone: the kernel cannot route it out, and a refused connection makes clients try 127.0.0.1 at once.
    """
    to_published = x.fib_local() + x.verdict(x.JUMP, "published")
    from_host = to_published
    if family == AF_INET6:
        loopback = b"\0" * 15 + b"\1"
        from_host = x.payload(x.NETWORK_HEADER, 24, 16, 1) + x.compare(1, x.NOT_EQUAL, loopback) + to_published
    hairpin = _oif(LINKS) + x.ct_has(x.CT_STATUS, x.CT_STATUS_DNAT) + x.masquerade()
    no_iif = x.meta(x.META_IIF, 1) + x.compare(1, x.EQUAL, b"\0" * 4)
    return (
        Rule("prerouting", to_published, "published ports"),
        Rule("output", from_host, "published ports, from the host"),
        Rule("postrouting", _iif(MASKED) + _oif(LINKS, inverted=True) + x.masquerade(), "outside"),
        Rule("postrouting", _iif(LINKS) + hairpin, "container to published port"),
        # With bridge-nf-call-iptables on (Kubernetes sets it) the bridge itself translates and delivers what goes
        # back to it, and such a frame has no input interface here. The port must be in hairpin mode as well.
        Rule("postrouting", no_iif + hairpin, "container to published port, bridged"),
        Rule("postrouting", _oif(LINKS) + x.fib_local(source=True) + x.masquerade(), "host to container"),
    )


def _forward() -> tuple[Rule, ...]:
    """In this order: members, internal networks, known connections, published ports, and the rest not.

    Invalid packets are dropped because source NAT does not touch them: they would leave with a container's address.
    """
    same = x.meta(x.META_IIFNAME, 1) + x.meta(x.META_OIFNAME, 2) + x.lookup(SAME.name, 1)
    known = x.ct_has(x.CT_STATE, x.CT_ESTABLISHED | x.CT_RELATED) + x.verdict(x.ACCEPT)
    invalid = x.ct_has(x.CT_STATE, x.CT_INVALID) + x.verdict(x.DROP)
    drop = x.verdict(x.DROP)
    return (
        Rule("forward", same + x.verdict(x.ACCEPT), "same network"),
        Rule("forward", _iif(INTERNAL) + drop, "internal networks have no outside"),
        Rule("forward", _oif(INTERNAL) + drop, "internal networks are not reached from outside"),
        Rule("forward", _oif(LINKS) + known, "answers and known connections"),
        Rule("forward", _oif(LINKS) + x.ct_has(x.CT_STATUS, x.CT_STATUS_DNAT) + x.verdict(x.ACCEPT), "published port"),
        Rule("forward", _iif(LINKS) + invalid, "invalid packets would leave without NAT"),
        Rule("forward", _oif(LINKS) + drop, "unpublished, or another network"),
    )
