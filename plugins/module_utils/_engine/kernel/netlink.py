# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A small rtnetlink client: links, addresses, routes. rtnetlink(7), <linux/rtnetlink.h>, <linux/if_link.h>.

It exists because it is on the start path: importing pyroute2 costs 140 to 250 ms, this 3. A test holds every dump
against pyroute2. Failures are ``OSError(errno, kernel's words, subject)`` as in ``syscalls``: the words are those of
the extended acknowledgement (NETLINK_EXT_ACK, Linux 4.12) where the kernel gives any. The caller adds the sentence.
"""

from __future__ import annotations

import os
import socket
import struct
from types import TracebackType
from typing import Optional, Union

from ..tuples import NamedTuple
from .netns import inside

NLM_REQUEST, NLM_ACK, NLM_DUMP = 1, 4, 0x300
NLM_NEW, NLM_REPLACE = 0x600, 0x500  # CREATE|EXCL, CREATE|REPLACE
_MULTI_INTERRUPTED, _ERROR, _DONE = 0x10, 2, 3
_SOL_NETLINK, _EXT_ACK, _STRICT_CHECK = 270, 11, 12

NEWLINK, DELLINK, GETLINK, SETLINK = 16, 17, 18, 19
NEWADDR, DELADDR, GETADDR = 20, 21, 22
NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER, _IFLA_LINKINFO = 1, 3, 4, 5, 10, 18
_IFLA_IFALIAS, _IFLA_NET_NS_FD, _IFLA_EXT_MASK, _IFLA_LINK_NETNSID = 20, 28, 29, 37
_SKIP_STATISTICS = 8
_AF_BRIDGE, _IFLA_PROTINFO, _NESTED = 7, 12, 0x8000
_BRPORT_STATE, _BRPORT_MODE, _BRPORT_FLUSH, _STATE_FORWARDING = 1, 4, 24, 3
_INFO_KIND, _INFO_DATA, _VETH_PEER = 1, 2, 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _IFA_FLAGS = 1, 2, 4, 8
_IFA_F_NODAD = 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_PREFSRC, _RTA_TABLE, _RTA_MULTIPATH = 1, 4, 5, 6, 7, 15, 9
MAIN_TABLE, _PROTOCOL_STATIC, _UNICAST = 254, 4, 1
_IFF_UP = 1
_IFLA_OPERSTATE, _OPER_UP = 16, 6


class Link(NamedTuple):
    """``kind`` is "bridge", "veth", ... or ""; ``master`` and ``peer`` are indices or 0; ``peer_netns`` is the id of
    the namespace the peer lives in, or None when that is ours. ``alias`` is free text (``ip link`` shows it)."""

    ifindex: int
    name: str
    kind: str
    flags: int
    mtu: int
    mac: str
    master: int
    peer: int
    peer_netns: Optional[int]
    alias: str
    operstate: int

    @property
    def running(self) -> bool:
        """Whether the kernel has finished bringing it up, bridge port and all: it does that in the background, and
        says IFF_RUNNING before it has begun (operstate unknown)."""
        return self.operstate == _OPER_UP

    @property
    def up(self) -> bool:
        return bool(self.flags & _IFF_UP)


class Address(NamedTuple):
    ifindex: int
    address: str
    prefix: int


class Route(NamedTuple):
    """``destination`` is "" for a default route."""

    family: int
    destination: str
    prefix: int
    gateway: str
    ifindex: int
    metric: int
    table: int
    kind: int


def attr(kind: int, data: Union[str, int, bytes, list[bytes]]) -> bytes:
    if isinstance(data, str):
        data = data.encode() + b"\0"
    elif isinstance(data, int):
        data = struct.pack("=I", data)
    elif isinstance(data, list):
        data = b"".join(data)
    return struct.pack("=HH", len(data) + 4, kind) + data + b"\0" * (-len(data) % 4)


def attrs(data: bytes, pos: int) -> dict[int, bytes]:
    """The attributes from ``pos`` on, last one wins. The nested and byte-order flag bits are dropped."""
    found = {}
    while pos + 4 <= len(data):
        size, kind = struct.unpack_from("=HH", data, pos)
        if size < 4:
            break
        found[kind & 0x3FFF] = data[pos + 4 : pos + size]
        pos += (size + 3) & ~3
    return found


def family_of(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def pack_ip(address: str) -> bytes:
    return socket.inet_pton(family_of(address), address)


def unpack_ip(raw: Optional[bytes]) -> str:
    if not raw:
        return ""
    return socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw)


def pack_mac(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def _u32(raw: Optional[bytes]) -> int:
    return int(struct.unpack("=I", raw)[0]) if raw else 0


def _ifinfo(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    return struct.pack("=BxHiII", 0, 0, index, flags, change)


def _words(message: bytes, flags: int) -> Optional[str]:
    """NLMSGERR_ATTR_MSG of an NLMSG_ERROR, the kernel's own sentence."""
    if not flags & 0x200:  # NLM_F_ACK_TLVS
        return None
    capped = flags & 0x100  # NLM_F_CAPPED: only the header of our request is quoted
    start = 20 + (16 if capped else int(struct.unpack_from("=I", message, 20)[0]))
    text = attrs(message, (start + 3) & ~3).get(1)
    return text.rstrip(b"\0").decode(errors="replace") if text else None


_LARGEST = 1 << 15  # bytes; the kernel packs no more into one answer (netlink_dump, net/netlink/af_netlink.c)


class Netlink:
    """One rtnetlink socket. It belongs to the network namespace it was opened in, wherever its owner goes later."""

    __slots__ = ("_seq", "_sock")

    def __init__(self) -> None:
        self._sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._sock.bind((0, 0))
        for option in (_EXT_ACK, _STRICT_CHECK):
            try:
                self._sock.setsockopt(_SOL_NETLINK, option, 1)
            except OSError as error:
                if error.errno != 92:  # ENOPROTOOPT: an older kernel; we lose words, and filters in dumps
                    raise
        self._seq = 0

    @classmethod
    def inside(cls, netns_fd: int) -> Netlink:
        """A socket that belongs to another namespace."""
        with inside(netns_fd):
            return cls()

    def __enter__(self) -> Netlink:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], value: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def close(self) -> None:
        self._sock.close()

    def request(self, kind: int, body: bytes, flags: int = NLM_ACK, what: str = "") -> list[bytes]:
        """Send one request and return the bodies of the answers up to its acknowledgement or the end of its dump.

        A dump that changed while it was read (NLM_F_DUMP_INTR) is read again.
        """
        while True:
            self._seq += 1
            header = struct.pack("=IHHII", 16 + len(body), kind, NLM_REQUEST | flags, self._seq, 0)
            self._sock.send(header + body)
            replies, interrupted = self._answers(what)
            if not interrupted:
                return replies

    def _answers(self, what: str) -> tuple[list[bytes], bool]:
        replies: list[bytes] = []
        interrupted = False
        while True:
            data, pos = self._sock.recv(_LARGEST), 0
            while pos + 16 <= len(data):
                size, kind, flags, seq, _port = struct.unpack_from("=IHHII", data, pos)
                message, pos = data[pos : pos + size], pos + ((size + 3) & ~3)
                if seq != self._seq:  # the rest of an answer that nobody waited for
                    continue
                interrupted = interrupted or bool(flags & _MULTI_INTERRUPTED)
                if kind == _ERROR or (kind == _DONE and size >= 20):
                    errno = -int(struct.unpack_from("=i", message, 16)[0])
                    if errno > 0:
                        words = _words(message, flags) if kind == _ERROR else None
                        text = os.strerror(errno) + (" (%s)" % words if words else "")
                        raise OSError(errno, text, what or None)
                if kind in (_ERROR, _DONE):
                    return replies, interrupted
                replies.append(message[16:])

    # -- links -------------------------------------------------------------------------------------------------

    def link(self, name: Union[str, int]) -> Optional[Link]:
        """One link by name or index, None if there is no such link."""
        index = name if isinstance(name, int) else 0
        body = _ifinfo(index) + attr(_IFLA_EXT_MASK, _SKIP_STATISTICS)
        if isinstance(name, str):
            body += attr(_IFLA_IFNAME, name)
        try:
            return _parse_link(self.request(GETLINK, body, NLM_ACK, str(name))[0])
        except OSError as error:
            if error.errno == 19:  # ENODEV
                return None
            raise

    def links(self) -> list[Link]:
        return [
            _parse_link(r) for r in self.request(GETLINK, _ifinfo() + attr(_IFLA_EXT_MASK, _SKIP_STATISTICS), NLM_DUMP)
        ]

    def add_link(self, name: str, kind: str, *, mtu: int = 0, mac: str = "") -> None:
        """A link of a kind that needs no data (bridge, dummy). A MAC given at creation pins a bridge's MAC: otherwise
        it follows its ports' lowest one, and neighbours' ARP entries go stale."""
        body = _ifinfo() + attr(_IFLA_IFNAME, name) + attr(_IFLA_LINKINFO, attr(_INFO_KIND, kind.encode()))
        body += (attr(_IFLA_MTU, mtu) if mtu else b"") + (attr(_IFLA_ADDRESS, pack_mac(mac)) if mac else b"")
        self.request(NEWLINK, body, NLM_ACK | NLM_NEW, name)

    def add_veth(
        self, name: str, peer: str, netns_fd: int, *, master: int = 0, mtu: int = 0, mac: str = "", peer_mac: str = ""
    ) -> None:
        """Both ends in one message, ours up and enslaved to ``master``, the peer born inside ``netns_fd``: there is
        no moment in which a crash leaves half of it, and no name race in our namespace."""
        size = attr(_IFLA_MTU, mtu) if mtu else b""
        inner = _ifinfo() + attr(_IFLA_IFNAME, peer) + attr(_IFLA_NET_NS_FD, netns_fd) + size
        inner += attr(_IFLA_ADDRESS, pack_mac(peer_mac)) if peer_mac else b""
        info = [attr(_INFO_KIND, b"veth"), attr(_INFO_DATA, attr(_VETH_PEER, inner))]
        body = _ifinfo(0, _IFF_UP, _IFF_UP) + attr(_IFLA_IFNAME, name) + size + attr(_IFLA_LINKINFO, info)
        body += attr(_IFLA_MASTER, master) if master else b""
        body += attr(_IFLA_ADDRESS, pack_mac(mac)) if mac else b""
        self.request(NEWLINK, body, NLM_ACK | NLM_NEW, name)

    def set_link(
        self,
        index: int,
        *,
        up: Optional[bool] = None,
        master: Optional[int] = None,
        mtu: int = 0,
        mac: str = "",
        name: str = "",
        alias: str = "",
    ) -> None:
        """Change a link; ``master`` 0 takes it off its bridge."""
        body = _ifinfo(index, _IFF_UP if up else 0, 0 if up is None else _IFF_UP)
        body += attr(_IFLA_MASTER, master) if master is not None else b""
        body += attr(_IFLA_MTU, mtu) if mtu else b""
        body += attr(_IFLA_ADDRESS, pack_mac(mac)) if mac else b""
        body += attr(_IFLA_IFNAME, name) if name else b""
        body += attr(_IFLA_IFALIAS, os.fsencode(alias)[:255]) if alias else b""
        self.request(NEWLINK, body, NLM_ACK, name or "link %d" % index)

    def set_bridge_port(self, index: int, *, hairpin: Optional[bool] = None, forwarding: Optional[bool] = None) -> None:
        """``hairpin``: the bridge may send frames back out of the port they came in by. ``forwarding`` False shuts the
        port at once and forgets what was learnt behind it, at a hundredth of the cost of deleting the link; True opens
        it again."""
        body = attr(_BRPORT_MODE, bytes([hairpin])) if hairpin is not None else b""
        if forwarding is not None:
            body += attr(_BRPORT_STATE, bytes([_STATE_FORWARDING if forwarding else 0]))
            body += attr(_BRPORT_FLUSH, b"") if not forwarding else b""
        head = struct.pack("=BxHiII", _AF_BRIDGE, 0, index, 0, 0)
        self.request(SETLINK, head + attr(_IFLA_PROTINFO | _NESTED, body), NLM_ACK, "link %d" % index)

    def delete_link(self, name: Union[str, int]) -> bool:
        """Returns False if it was not there."""
        body = _ifinfo(name) if isinstance(name, int) else _ifinfo() + attr(_IFLA_IFNAME, name)
        try:
            self.request(DELLINK, body, NLM_ACK, str(name))
        except OSError as error:
            if error.errno == 19:  # ENODEV
                return False
            raise
        return True

    # -- addresses ---------------------------------------------------------------------------------------------

    def addresses(self, index: int = 0) -> list[Address]:
        """All addresses, or those of one link."""
        replies = self.request(GETADDR, struct.pack("=BBBBi", 0, 0, 0, 0, index), NLM_DUMP)
        found = [_parse_address(r) for r in replies]
        return [a for a in found if not index or a.ifindex == index]

    def add_address(self, index: int, address: str, prefix: int) -> bool:
        """Returns False if the link had it already. IPv6 addresses skip duplicate detection: we allocate them, and a
        tentative address cannot be bound for about a second."""
        raw, family = pack_ip(address), family_of(address)
        body = struct.pack("=BBBBi", family, prefix, _IFA_F_NODAD if family == socket.AF_INET6 else 0, 0, index)
        body += attr(_IFA_LOCAL, raw) + attr(_IFA_ADDRESS, raw)
        if family == socket.AF_INET and prefix < 31:
            broadcast = int.from_bytes(raw, "big") | (0xFFFFFFFF >> prefix)
            body += attr(_IFA_BROADCAST, broadcast.to_bytes(4, "big"))
        try:
            self.request(NEWADDR, body, NLM_ACK | NLM_NEW, "%s/%d" % (address, prefix))
        except OSError as error:
            if error.errno == 17:  # EEXIST
                return False
            raise
        return True

    def delete_address(self, index: int, address: str, prefix: int) -> None:
        raw = pack_ip(address)
        body = struct.pack("=BBBBi", family_of(address), prefix, 0, 0, index) + attr(_IFA_LOCAL, raw)
        self.request(DELADDR, body + attr(_IFA_ADDRESS, raw), NLM_ACK, "%s/%d" % (address, prefix))

    # -- routes ------------------------------------------------------------------------------------------------

    def routes(self, family: int = 0, table: int = MAIN_TABLE) -> list[Route]:
        """Unicast and similar routes of one table (0: of all tables)."""
        body = struct.pack("=BBBBBBBBI", family, 0, 0, 0, 0, 0, 0, 0, 0)
        found = [route for r in self.request(GETROUTE, body, NLM_DUMP) for route in _parse_route(r)]
        return [route for route in found if not table or route.table == table]

    def add_route(
        self, destination: str, prefix: int, *, gateway: str = "", index: int = 0, source: str = "", metric: int = 0
    ) -> bool:
        """``destination`` "" with a gateway is a default route. Returns False if there was an equal one."""
        try:
            body = _route(destination, prefix, gateway, index, source, metric)
            self.request(NEWROUTE, body, NLM_ACK | NLM_NEW, "route to %s" % (destination or "default"))
        except OSError as error:
            if error.errno == 17:  # EEXIST
                return False
            raise
        return True

    def delete_route(self, destination: str, prefix: int, *, gateway: str = "", index: int = 0) -> bool:
        try:
            body = _route(destination, prefix, gateway, index, "", 0)
            self.request(DELROUTE, body, NLM_ACK, "route to %s" % (destination or "default"))
        except OSError as error:
            if error.errno == 3:  # ESRCH
                return False
            raise
        return True


def _route(destination: str, prefix: int, gateway: str, index: int, source: str, metric: int) -> bytes:
    family = family_of(destination or gateway)
    scope = 0 if gateway or family == socket.AF_INET6 else 253  # universe, link
    body = struct.pack("=BBBBBBBBI", family, prefix, 0, 0, MAIN_TABLE, _PROTOCOL_STATIC, scope, _UNICAST, 0)
    body += attr(_RTA_DST, pack_ip(destination)) if destination else b""
    body += attr(_RTA_GATEWAY, pack_ip(gateway)) if gateway else b""
    body += attr(_RTA_OIF, index) if index else b""
    body += attr(_RTA_PREFSRC, pack_ip(source)) if source else b""
    return body + (attr(_RTA_PRIORITY, metric) if metric else b"")


def _parse_link(data: bytes) -> Link:
    _family, index, flags = struct.unpack_from("=BxxxiI", data)
    found = attrs(data, 16)
    info = attrs(found.get(_IFLA_LINKINFO, b""), 0)
    netns = found.get(_IFLA_LINK_NETNSID)
    return Link(
        index,
        found[_IFLA_IFNAME].rstrip(b"\0").decode(errors="surrogateescape"),
        info.get(_INFO_KIND, b"").rstrip(b"\0").decode(),
        flags,
        _u32(found.get(_IFLA_MTU)),
        ":".join("%02x" % byte for byte in found.get(_IFLA_ADDRESS, b"")),
        _u32(found.get(_IFLA_MASTER)),
        _u32(found.get(_IFLA_LINK)),
        struct.unpack("=i", netns)[0] if netns else None,
        os.fsdecode(found.get(_IFLA_IFALIAS, b"").rstrip(b"\0")),
        found.get(_IFLA_OPERSTATE, b"\0")[0],
    )


def _parse_address(data: bytes) -> Address:
    _family, prefix, _flags, _scope, index = struct.unpack_from("=BBBBi", data)
    found = attrs(data, 8)
    return Address(index, unpack_ip(found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS)), prefix)


def _parse_route(data: bytes) -> list[Route]:
    """One route per next hop."""
    family, prefix, _src, _tos, table, _proto, _scope, kind = struct.unpack_from("=BBBBBBBB", data)
    if family not in (socket.AF_INET, socket.AF_INET6):  # 128, 129: the multicast forwarding caches
        return []
    found = attrs(data, 12)
    table = _u32(found.get(_RTA_TABLE)) or table
    destination, metric = unpack_ip(found.get(_RTA_DST)), _u32(found.get(_RTA_PRIORITY))
    hops = [(unpack_ip(found.get(_RTA_GATEWAY)), _u32(found.get(_RTA_OIF)))]
    if _RTA_MULTIPATH in found:
        hops = _next_hops(found[_RTA_MULTIPATH])
    return [Route(family, destination, prefix, gateway, index, metric, table, kind) for gateway, index in hops]


def _next_hops(data: bytes) -> list[tuple[str, int]]:
    hops, pos = [], 0
    while pos + 8 <= len(data):
        size, index = struct.unpack_from("=HxxI", data, pos)
        if size < 8:
            break
        hops.append((unpack_ip(attrs(data[pos : pos + size], 8).get(_RTA_GATEWAY)), index))
        pos += (size + 3) & ~3
    return hops
