# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""One look at a running container's network that says "surely as recorded" or "look closer".

It is on the path of every task that changes nothing, so it imports next to nothing: files of /proc, a few netlink
messages made by hand (``<linux/rtnetlink.h>``, ``<linux/netfilter/nf_tables.h>``), and for the firewall the kernel's
generation number, which every change of any nf_tables table moves on: the same number as after the last thorough check
means the same rules, and the same times and sizes of hosts and resolv.conf the same text. ``NetworkService.check`` is
that thorough check.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Optional

from . import bridge, container_files, endpoint

if TYPE_CHECKING:
    from ..paths import Paths
    from ..store.records import PortRecord
    from .publishing import Member

_NETLINK_ROUTE, _NETLINK_NETFILTER = 0, 12
_RTM_GETLINK, _RTM_NEWLINK, _IFLA_IFNAME, _IFLA_MASTER, _IFF_UP = 18, 16, 3, 10, 1
_NFT_GETGEN, _NFTA_GEN_ID = 10 << 8 | 16, 1
_HEADER = struct.Struct("=IHHII")
_SEEN = "network.seen"
NO_GENERATION = 0  # of a container that is on no network: the firewall knows nothing of it


class Look:
    """What one look at many containers has in common: a netlink socket, the bridges, the firewall's generation as it
    was at the first one."""

    def __init__(self) -> None:
        self._sock: Optional[socket.socket] = None
        self._generation: Optional[int] = None
        self.bridges: dict[str, Optional[dict[str, Any]]] = {}

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def generation(self) -> int:
        if self._generation is None:
            self._generation = generation()
        return self._generation

    def link(self, name: str) -> Optional[dict[str, Any]]:
        if self._sock is None:
            self._sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_ROUTE)
            self._sock.settimeout(2)
        return _link(self._sock, name)

    def bridge(self, name: str) -> Optional[dict[str, Any]]:
        if name not in self.bridges:
            self.bridges[name] = self.link(name)
        return self.bridges[name]


def is_sound(
    paths: Paths,
    container_id: str,
    pid: int,
    members: Sequence[Member],
    ports: Sequence[PortRecord],
    look: Optional[Look] = None,
) -> bool:
    """Whether namespace, links, addresses, default routes and firewall are as recorded; False when it cannot tell."""
    own = look or Look()
    try:
        inside = os.stat("/proc/%d/ns/net" % pid)
        here = os.stat(paths.container_netns(container_id))
        if (inside.st_dev, inside.st_ino) != (here.st_dev, here.st_ino):
            return False
        seen = _seen(paths, container_id)
        if not members:
            return seen == _stamp(paths, container_id, NO_GENERATION, members, ports)
        return (
            _inside(pid, members)
            and _outside(paths, container_id, members, own)
            and seen == _stamp(paths, container_id, own.generation(), members, ports)
        )
    except (OSError, ValueError, struct.error):
        return False
    finally:
        if look is None:
            own.close()


def remember(
    paths: Paths, container_id: str, number: int, members: Sequence[Member], ports: Sequence[PortRecord]
) -> None:
    """A thorough check begun at generation ``number`` found nothing wrong."""
    try:
        path = "%s/%s" % (paths.container_run(container_id), _SEEN)
        with open(path + ".new", "w") as stream:
            stream.write(_stamp(paths, container_id, number, members, ports))
        os.rename(path + ".new", path)
    except OSError:  # only a cache: without it the next task looks closer again
        return


def _seen(paths: Paths, container_id: str) -> str:
    return _read("%s/%s" % (paths.container_run(container_id), _SEEN))


def _stamp(paths: Paths, container_id: str, number: int, members: Sequence[Member], ports: Sequence[PortRecord]) -> str:
    files = container_files.stamp(paths, container_id)
    return json.dumps([number, [member for _network, member in members], sorted(ports), files])


# -- inside -----------------------------------------------------------------------------------------------------


def _read(path: str) -> str:
    """Text of a file of any size; those of /proc/net come a page at a time."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.read(fd, 65536)
        while data:
            more = os.read(fd, 65536)
            if not more:
                break
            data += more
        return data.decode()
    finally:
        os.close(fd)


def _inside(pid: int, members: Sequence[Member]) -> bool:
    base = "/proc/%d/net/" % pid
    routes, tries = _read(base + "route"), _read(base + "fib_trie")
    six = _read(base + "if_inet6").split() if any(record.ipv6 for _network, record in members) else []
    for _network, record in members:
        if record.ipv4 and not _is_local(tries, record.ipv4):
            return False
        if record.ipv6 and socket.inet_pton(socket.AF_INET6, record.ipv6).hex() not in six:
            return False
        # The kernel drops the routes of a link that is taken down.
        if record.ipv4 and "\n%s\t" % record.ifname not in routes:
            return False
    for family, (gateway, ifname) in endpoint.wanted_routes(members).items():
        if family == socket.AF_INET:
            raw = "%08X" % struct.unpack("=I", socket.inet_aton(gateway))[0]
            if "\n%s\t00000000\t%s\t" % (ifname, raw) not in routes:
                return False
        elif not _route6(base, gateway, ifname):
            return False
    return True


def _is_local(tries: str, address: str) -> bool:
    """``fib_trie`` has a leaf a line, ``|-- 172.17.0.2``, and what it is on the lines after it."""
    leaf = "|-- %s\n" % address
    at = tries.find(leaf)
    while at >= 0:
        at += len(leaf)
        if tries[at : tries.find("\n", at)].strip() == "/32 host LOCAL":
            return True
        at = tries.find(leaf, at)
    return False


def _route6(base: str, gateway: str, ifname: str) -> bool:
    raw = socket.inet_pton(socket.AF_INET6, gateway).hex()
    for line in _read(base + "ipv6_route").splitlines():
        words = line.split()
        if words[0] == "0" * 32 and words[1] == "00" and words[4] == raw and words[9] == ifname:
            return True
    return False


# -- outside ----------------------------------------------------------------------------------------------------


def _outside(paths: Paths, container_id: str, members: Sequence[Member], look: Look) -> bool:
    for network, record in members:
        ours = look.bridge(bridge.link_name(paths, network))
        host = look.link(endpoint.host_link(container_id, record.network_id))
        if not ours or not host or not (ours["up"] and host["up"]) or host["master"] != ours["index"]:
            return False
    return True


def _link(sock: socket.socket, name: str) -> Optional[dict[str, Any]]:
    raw = name.encode() + b"\0"
    wanted = struct.pack("=HH", 4 + len(raw), _IFLA_IFNAME) + raw + b"\0" * (-len(raw) % 4)
    body = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + wanted
    sock.send(_HEADER.pack(16 + len(body), _RTM_GETLINK, 1, 0, 0) + body)
    data = sock.recv(65536)
    if _HEADER.unpack_from(data)[1] != _RTM_NEWLINK:  # an error: there is no such link
        return None
    _family, _kind, index, flags, _change = struct.unpack_from("=BxHiII", data, 16)
    master, pos = 0, 32
    while pos + 4 <= len(data):
        size, kind = struct.unpack_from("=HH", data, pos)
        if size < 4:
            break
        if kind == _IFLA_MASTER:
            master = struct.unpack_from("=I", data, pos + 4)[0]
        pos += (size + 3) & ~3
    return {"index": index, "up": bool(flags & _IFF_UP), "master": master}


def generation() -> int:
    """The nf_tables generation of this network namespace. Raises ``OSError`` where there is no nf_tables."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER) as sock:
        sock.settimeout(2)
        sock.send(_HEADER.pack(20, _NFT_GETGEN, 1, 0, 0) + struct.pack("=BBH", 0, 0, 0))
        data = sock.recv(4096)
    pos = 20
    while _HEADER.unpack_from(data)[1] != 2 and pos + 8 <= len(data):
        size, kind = struct.unpack_from("=HH", data, pos)
        if kind & 0x3FFF == _NFTA_GEN_ID:
            return int(struct.unpack_from(">I", data, pos + 4)[0])
        pos += max(4, (size + 3) & ~3)
    raise OSError(95, "nf_tables does not answer")
