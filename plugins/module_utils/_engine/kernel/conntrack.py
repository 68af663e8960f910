# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Connection tracking: find flows and make the kernel forget them.

NAT is decided once per flow. A UDP "flow" lives as long as datagrams keep coming, so a client that sends every second
would be sent to yesterday's container for ever, or never reach a port published after its first datagram.
"""

from __future__ import annotations

import socket
import struct
from typing import Optional

from ..tuples import NamedTuple
from .nfnetlink import AF_INET, SUBSYS_CTNETLINK, Nfnetlink, attr, nest, number, parse

TCP, UDP = 6, 17
_GET, _DELETE = SUBSYS_CTNETLINK | 1, SUBSYS_CTNETLINK | 2
_ORIGINAL, _REPLY, _ID, _FILTER = 1, 2, 12, 25
_BY_SOURCE, _BY_PROTOCOL, _BY_SOURCE_PORT, _BY_DESTINATION_PORT = 1 << 0, 1 << 3, 1 << 4, 1 << 5


class Flow(NamedTuple):
    """``destination:port`` is what the client asked for; ``server:server_port`` is who answers it."""

    family: int
    source: str
    destination: str
    port: int
    server: str
    server_port: int
    original: bytes
    id: bytes


def flows(nl: Nfnetlink, family: int, protocol: int = UDP) -> list[Flow]:
    """All of a protocol."""
    body = nest(_ORIGINAL, _protocol(protocol, b"")) + _filter(_ORIGINAL, _BY_PROTOCOL)
    return _dump(nl, family, body, protocol)


def flows_to_port(nl: Nfnetlink, family: int, port: int, protocol: int = UDP) -> list[Flow]:
    """Flows whose client asked for ``port`` of whatever address."""
    tuple_ = nest(_ORIGINAL, _protocol(protocol, attr(3, struct.pack(">H", port))))
    wanted = _filter(_ORIGINAL, _BY_PROTOCOL | _BY_DESTINATION_PORT)
    return [flow for flow in _dump(nl, family, tuple_ + wanted, protocol) if flow.port == port]


def flows_of_server(
    nl: Nfnetlink, family: int, address: str, port: Optional[int] = None, protocol: int = UDP
) -> list[Flow]:
    """Flows that ``address`` (and ``port``) answers, whatever the client asked for."""
    raw = socket.inet_pton(family, address)
    flags, ip, ports = _BY_PROTOCOL, b"", b""
    if family == AF_INET:  # for IPv6 addresses the kernel's filter has its comparison the wrong way round (6.18)
        flags, ip = flags | _BY_SOURCE, nest(1, attr(1, raw))
    if port is not None:
        flags, ports = flags | _BY_SOURCE_PORT, attr(2, struct.pack(">H", port))
    body = nest(_REPLY, ip, _protocol(protocol, ports)) + _filter(_REPLY, flags)
    address = socket.inet_ntop(family, raw)
    return [
        flow
        for flow in _dump(nl, family, body, protocol)
        if flow.server == address and port in (None, flow.server_port)
    ]


def forget(nl: Nfnetlink, flow: Flow) -> bool:
    """False if it was gone already. The id makes sure that it is not a new flow with the same addresses."""
    try:
        nl.request(_DELETE, flow.family, attr(_ORIGINAL | 0x8000, flow.original) + attr(_ID, flow.id), "forget a flow")
    except FileNotFoundError:
        return False
    return True


def _protocol(protocol: int, ports: bytes) -> bytes:
    return nest(2, attr(1, bytes([protocol])), ports)


def _filter(direction: int, flags: int) -> bytes:
    """Which parts of the tuple count (host order; Linux 5.8). Older kernels send everything, so callers look again."""
    both = {_ORIGINAL: 0, _REPLY: 0, direction: flags}
    return nest(_FILTER, *(attr(kind, struct.pack("=I", value)) for kind, value in both.items()))


def _dump(nl: Nfnetlink, family: int, body: bytes, protocol: int) -> list[Flow]:
    found = []
    for got, data in nl.dump(_GET, family, body, "read connection tracking"):
        attributes = parse(data)
        original = _tuple(attributes.get(_ORIGINAL, b""), got)
        reply = _tuple(attributes.get(_REPLY, b""), got)
        if original is None or reply is None or original[4] != protocol:
            continue
        found.append(
            Flow(
                got, original[0], original[1], original[3], reply[0], reply[2],
                attributes[_ORIGINAL], attributes.get(_ID, b""),
            )
        )  # fmt: skip
    return found


def _tuple(data: bytes, family: int) -> Optional[tuple[str, str, int, int, int]]:
    """Source, destination, source port, destination port, protocol."""
    parts = parse(data)
    ip, protocol = parse(parts.get(1, b"")), parse(parts.get(2, b""))
    source, destination = (ip.get(1), ip.get(2)) if family == AF_INET else (ip.get(3), ip.get(4))
    if source is None or destination is None:
        return None
    return (
        socket.inet_ntop(family, source),
        socket.inet_ntop(family, destination),
        number(protocol.get(2, b"")),
        number(protocol.get(3, b"")),
        number(protocol.get(1, b"")),
    )
