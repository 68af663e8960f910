# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""After published UDP ports have changed: make flows that were decided under the old rules be decided again.

TCP needs it only for a port that was closed for a while (``forget_local``): old connections rightly stay with the
container they were made to, and new ones are new flows.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable, Mapping
from typing import Optional

from ..kernel import conntrack
from ..kernel.nfnetlink import Nfnetlink
from ..tuples import NamedTuple

_FEW = 8  # up to so many ports the kernel is asked for each one's flows, beyond for all UDP flows at once


class Gone(NamedTuple):
    """A container port that is no longer published (as it was)."""

    family: int
    address: str
    port: int


class Come(NamedTuple):
    """A host port that is published now; ``host_ip`` "" for every address."""

    family: int
    host_ip: str
    port: int


Target = tuple[str, int]


def settle(nl: Nfnetlink, gone: Iterable[Gone], come: Mapping[Come, Target], netns_fd: Optional[int] = None) -> int:
    """Forget flows to containers in ``gone``, and flows to this host on ports in ``come`` that somebody else answers
    than the container (address, port) they lead to now. Returns how many.

    The kernel's conntrack netlink is optional: without it such flows end when they have been silent for two minutes.
    """
    try:
        flows = _gone(nl, set(gone)) + _come(nl, come, netns_fd)
        return sum(conntrack.forget(nl, flow) for flow in flows)
    except OSError:
        return 0


def forget_local(families: Iterable[int], ports: Iterable[int]) -> int:
    """TCP flows to these ports of this host that lead to no container. Returns how many; without conntrack netlink
    none: their clients are refused, and have to connect again."""
    try:
        with Nfnetlink() as nl:
            found = [
                flow
                for family in families
                for port in ports
                for flow in conntrack.flows_to_port(nl, family, port, conntrack.TCP)
                if flow.server == flow.destination
            ]
            local = _local({(flow.family, flow.destination) for flow in found}, None)
            return sum(conntrack.forget(nl, flow) for flow in found if (flow.family, flow.destination) in local)
    except OSError:
        return 0


def _gone(nl: Nfnetlink, gone: set[Gone]) -> list[conntrack.Flow]:
    if len(gone) <= _FEW:
        flows = [flow for one in gone for flow in conntrack.flows_of_server(nl, one.family, one.address, one.port)]
    else:
        flows = [flow for family in {one.family for one in gone} for flow in conntrack.flows(nl, family)]
    return [
        flow
        for flow in flows
        if flow.server != flow.destination and Gone(flow.family, flow.server, flow.server_port) in gone
    ]


def _come(nl: Nfnetlink, come: Mapping[Come, Target], netns_fd: Optional[int]) -> list[conntrack.Flow]:
    if len(come) <= _FEW:
        flows = [flow for one in come for flow in conntrack.flows_to_port(nl, one.family, one.port)]
    else:
        flows = [flow for family in {one.family for one in come} for flow in conntrack.flows(nl, family)]
    wanted = []
    for flow in flows:
        target = come.get(Come(flow.family, flow.destination, flow.port)) or come.get(Come(flow.family, "", flow.port))
        if target is not None and target != (flow.server, flow.server_port):
            wanted.append(flow)
    local = _local({(flow.family, flow.destination) for flow in wanted}, netns_fd)
    return [flow for flow in wanted if (flow.family, flow.destination) in local]


def _local(addresses: set[tuple[int, str]], netns_fd: Optional[int]) -> set[tuple[int, str]]:
    """Those of the addresses that are this host's: the others are containers' own talks with the world. An address
    can be bound exactly if it is local, which is cheaper to ask than a dump of all addresses."""
    found = set()
    with _where(netns_fd):
        for family, address in addresses:
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                try:
                    sock.bind((address, 0))
                except OSError:
                    continue
                found.add((family, address))
    return found


def _where(netns_fd: Optional[int]) -> contextlib.AbstractContextManager[None]:
    if netns_fd is None:
        return contextlib.nullcontext()
    from ..kernel.netns import inside

    return inside(netns_fd)
