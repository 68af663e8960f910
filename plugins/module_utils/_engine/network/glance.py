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

import os
import socket
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Optional

from ..kernel import procfs
from . import bridge, container_files, endpoint

if TYPE_CHECKING:
    from ..paths import Paths
    from ..store.records import NetworkRecord, PortRecord
    from .publishing import Member

    Wanted = tuple[list[str], list[tuple[str, str]]]

_NETLINK_ROUTE, _NETLINK_NETFILTER = 0, 12
_RTM_GETLINK, _RTM_NEWLINK, _NLMSG_DONE, _IFF_UP = 18, 16, 3, 1
_IFLA_IFNAME, _IFLA_MASTER, _IFLA_EXT_MASK, _SKIP_STATS = 3, 10, 29, 8
_REQUEST, _DUMP, _DUMP_INTERRUPTED, _DUMP_FILTERED = 1, 0x300, 0x10, 0x20
_FEW = 4  # links of a bridge that are asked for one by one; then all of them at once
_NFT_GETGEN, _NFTA_GEN_ID = 10 << 8 | 16, 1
_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg
_SEEN = "network.seen"
NO_GENERATION = 0  # of a container that is on no network: the firewall knows nothing of it


class Look:
    """What one look at many containers has in common: a netlink socket, the bridges and what is on them, the routes
    that a place in a network brings, the firewall's generation as it was at the first one."""

    def __init__(self) -> None:
        self._sock: Optional[socket.socket] = None
        self._generation: Optional[int] = None
        self._namespaces = 0  # the device of all of them
        self._bridges: dict[str, Optional[dict[str, Any]]] = {}
        self._asked: dict[int, int] = {}  # how many links of a bridge were asked for
        self._ports: dict[int, dict[str, bool]] = {}  # bridge → link on it → up
        self._wanted: dict[tuple[Any, ...], Wanted] = {}

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def generation(self) -> int:
        if self._generation is None:
            self._generation = generation()
        return self._generation

    def same_namespace(self, pid: int, path: str) -> bool:
        """Whether a process is in the network namespace that is mounted at ``path``. Raises ``OSError``."""
        self._namespaces = self._namespaces or os.stat("/proc/self/ns/net").st_dev
        here = os.stat(path)
        return here.st_dev == self._namespaces and os.readlink("/proc/%d/ns/net" % pid) == "net:[%d]" % here.st_ino

    def bridge(self, paths: Paths, network: NetworkRecord) -> Optional[dict[str, Any]]:
        if network.id not in self._bridges:
            self._bridges[network.id] = _link(self._socket(), bridge.link_name(paths, network))
        return self._bridges[network.id]

    def is_on(self, name: str, index: int) -> bool:
        """Whether this link is up, and on the bridge with that index."""
        if index not in self._ports:
            self._asked[index] = self._asked.get(index, 0) + 1
            if self._asked[index] <= _FEW or not self._see_all_on(index):
                link = _link(self._socket(), name)
                return link is not None and bool(link["up"]) and link["master"] == index
        return self._ports[index].get(name, False)

    def _see_all_on(self, index: int) -> bool:
        found = _links_on(self._socket(), index)
        if found is None:
            return False
        self._ports[index] = found
        return True

    def wanted(self, members: Sequence[Member]) -> Wanted:
        key = tuple([(network.id, record.ifname, record.priority) for network, record in members])
        if key not in self._wanted:
            self._wanted[key] = _wanted(members)
        return self._wanted[key]

    def _socket(self) -> socket.socket:
        if self._sock is None:
            self._sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_ROUTE)
            self._sock.settimeout(2)
        return self._sock


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
        if not own.same_namespace(pid, paths.container_netns(container_id)):
            return False
        seen = _seen(paths, container_id)
        if not members:
            return seen == _stamp(paths, container_id, NO_GENERATION, members, ports)
        return (
            _inside(pid, members, own.wanted(members))
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
    return procfs.whole("%s/%s" % (paths.container_run(container_id), _SEEN)).decode()


def _stamp(paths: Paths, container_id: str, number: int, members: Sequence[Member], ports: Sequence[PortRecord]) -> str:
    files = container_files.stamp(paths, container_id)
    return repr((number, [tuple(record) for _network, record in members], sorted(map(tuple, ports)), files))


# -- inside -----------------------------------------------------------------------------------------------------


def _wanted(members: Sequence[Member]) -> Wanted:
    """Lines of /proc/net/route begin like these; IPv6 default routes are (gateway, interface)."""
    lines, six = [], []
    for _network, record in members:  # the kernel drops the routes of a link that is taken down
        if record.ipv4:
            lines.append("\n%s\t" % record.ifname)
    for family, (gateway, ifname) in endpoint.wanted_routes(members).items():
        if family == socket.AF_INET:
            raw = "%08X" % struct.unpack("=I", socket.inet_aton(gateway))[0]
            lines.append("\n%s\t00000000\t%s\t" % (ifname, raw))
        else:
            six.append((gateway, ifname))
    return lines, six


def _inside(pid: int, members: Sequence[Member], wanted: Wanted) -> bool:
    base = "/proc/%d/net/" % pid
    routes, tries = procfs.whole(base + "route").decode(), procfs.whole(base + "fib_trie").decode()
    for line in wanted[0]:
        if line not in routes:
            return False
    six = procfs.whole(base + "if_inet6").decode().split() if any(record.ipv6 for _network, record in members) else []
    for _network, record in members:
        if record.ipv4 and not _is_local(tries, record.ipv4):
            return False
        if record.ipv6 and socket.inet_pton(socket.AF_INET6, record.ipv6).hex() not in six:
            return False
    return all(_route6(base, gateway, ifname) for gateway, ifname in wanted[1])


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
    for line in procfs.whole(base + "ipv6_route").decode().splitlines():
        words = line.split()
        if words[0] == "0" * 32 and words[1] == "00" and words[4] == raw and words[9] == ifname:
            return True
    return False


# -- outside ----------------------------------------------------------------------------------------------------


def _outside(paths: Paths, container_id: str, members: Sequence[Member], look: Look) -> bool:
    for network, record in members:
        ours = look.bridge(paths, network)
        if not ours or not ours["up"]:
            return False
        if not look.is_on(endpoint.host_link(container_id, record.network_id), ours["index"]):
            return False
    return True


def _links_on(sock: socket.socket, index: int) -> Optional[dict[str, bool]]:
    """Links on a bridge → whether each is up, by one request. None when the answer is not surely that."""
    body = _LINK.pack(0, 0, 0, 0, 0) + struct.pack("=HHIHHI", 8, _IFLA_MASTER, index, 8, _IFLA_EXT_MASK, _SKIP_STATS)
    sock.send(_HEADER.pack(16 + len(body), _RTM_GETLINK, _REQUEST | _DUMP, 0, 0) + body)
    found: dict[str, bool] = {}
    sure = True
    while True:
        data = sock.recv(1 << 15)
        pos = 0
        while pos < len(data):
            size, kind, flags, _number, _port = _HEADER.unpack_from(data, pos)
            if kind == _NLMSG_DONE:
                return found if sure else None
            if kind != _RTM_NEWLINK:
                return None
            if not flags & _DUMP_FILTERED or flags & _DUMP_INTERRUPTED:
                sure = False
            up = bool(_LINK.unpack_from(data, pos + 16)[3] & _IFF_UP)
            at, end = pos + 32, pos + size
            while at + 4 <= end:
                length, what = struct.unpack_from("=HH", data, at)
                if what == _IFLA_IFNAME:  # the first one
                    found[data[at + 4 : at + length - 1].decode()] = up
                    break
                at += max(4, (length + 3) & ~3)
            pos += max(16, (size + 3) & ~3)


def _link(sock: socket.socket, name: str) -> Optional[dict[str, Any]]:
    raw = name.encode() + b"\0"
    wanted = struct.pack("=HH", 4 + len(raw), _IFLA_IFNAME) + raw + b"\0" * (-len(raw) % 4)
    body = _LINK.pack(0, 0, 0, 0, 0) + wanted
    sock.send(_HEADER.pack(16 + len(body), _RTM_GETLINK, _REQUEST, 0, 0) + body)
    data = sock.recv(65536)
    if _HEADER.unpack_from(data)[1] != _RTM_NEWLINK:  # an error: there is no such link
        return None
    _family, _kind, index, flags, _change = _LINK.unpack_from(data, 16)
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
