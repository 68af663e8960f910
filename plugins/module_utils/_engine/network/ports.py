# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Published ports: choosing free ones, and finding out that one is taken before anything has changed."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import Conflict, KernelError, UsageError

if TYPE_CHECKING:
    from ..paths import Paths
    from ..store.records import PortRecord
    from ..store.state import Store

_EPHEMERAL = (32768, 60999)
_TYPES = {
    "tcp": (socket.SOCK_STREAM, socket.IPPROTO_TCP),
    "udp": (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
    "sctp": (socket.SOCK_STREAM, 132),
}
_ANY = ("", "0.0.0.0", "::")


def overlap(one: str, other: str) -> bool:
    """Whether two host addresses can claim the same port. "" is any address of both families."""
    if one == other or "" in (one, other):
        return True
    if (":" in one) != (":" in other):
        return False
    return one in _ANY or other in _ANY


def check(store: Store, ports: Sequence[PortRecord], container_id: str, *, running: bool) -> None:
    """Conflict, in Docker's words, when another container has published a port or a host process is bound to it.

    ``running``: the container holds its ports now (its monitor keeps bound sockets), so those are not asked for again.
    """
    taken = store.networks.ports()
    own = [p for p in taken if p.container_id == container_id] if running else []
    others = [p for p in taken if p.container_id != container_id]
    for number, port in enumerate(ports):
        for other in others:
            if _same(port, other):
                raise _refused(port, "port is already allocated", _owner(store, other.container_id))
        if any(_same(port, other) for other in ports[:number]):
            raise _refused(port, "port is asked for twice", "")
        if any(_same(port, other) for other in own) or is_free(port.host_ip, port.host_port, port.protocol):
            continue
        if not any(_same(port, held) for held in _reserved(store.paths)):
            raise _refused(port, "address already in use", "a process of the host is bound to it")


def _reserved(paths: Paths) -> list[PortRecord]:
    """What the monitors of running containers hold (run.json's ``reserve``). No row claims the port that is asked for,
    so a monitor that still holds it is about to hand it over: the container is being replaced, or just ended."""
    import json

    from ..store.records import PortRecord
    from .publishing import is_active

    held = []
    for container_id in os.listdir(paths.containers):
        if not is_active(paths, container_id):
            continue
        try:
            with open(paths.container(container_id) + "/run.json", encoding="utf-8") as file:
                reserve = json.load(file).get("reserve") or []
        except (OSError, ValueError):  # being made or removed
            continue
        held += [PortRecord(container_id, r["host_ip"], int(r["port"]), r["protocol"], 0) for r in reserve]
    return held


def _same(one: PortRecord, other: PortRecord) -> bool:
    return (one.host_port, one.protocol) == (other.host_port, other.protocol) and overlap(one.host_ip, other.host_ip)


def _owner(store: Store, container_id: str) -> str:
    record = store.containers.get(container_id)
    return "by container %s" % (record.name if record is not None else container_id[:12])


def _refused(port: PortRecord, why: str, who: str) -> Conflict:
    address = port.host_ip or "0.0.0.0"
    where = "[%s]:%d" % (address, port.host_port) if ":" in address else "%s:%d" % (address, port.host_port)
    return Conflict(
        "Bind for %s failed: %s%s" % (where, why, " (%s)" % who if who else ""),
        step="check_ports",
        path="published_ports",
        details={"port": port.host_port, "protocol": port.protocol},
    )


def is_free(host_ip: str, port: int, protocol: str) -> bool:
    """Try to bind. SO_REUSEADDR lets TCP ports with connections in TIME_WAIT pass; a listener, or a socket bound
    without it (our reservations), still refuses."""
    addresses = [host_ip] if host_ip else ["0.0.0.0", "::"]
    return all(_try(address, port, protocol) for address in addresses)


def _try(address: str, port: int, protocol: str) -> bool:
    kind, number = _TYPES[protocol]
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, kind | socket.SOCK_CLOEXEC, number) as sock:
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if protocol == "tcp":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address, port))
    except OSError as error:
        if error.errno == 98:  # EADDRINUSE
            return False
        if error.errno in (93, 94, 97):  # no such protocol (sctp), socket type, family (IPv6) on this host
            return True
        if error.errno == 99 and address in _ANY:  # EADDRNOTAVAIL: IPv6 is switched off
            return True
        raise KernelError.wrap(
            error, "Cannot publish port %d/%s on %s" % (port, protocol, address), step="check_ports"
        ) from error
    return True


def resolve(
    store: Store, container_id: str, published: Sequence[Mapping[str, Any]], *, host_ip: str = ""
) -> list[PortRecord]:
    """Records for ``published_ports``: host port 0 becomes the port the container had for the same container port
    before, else a free one of the host's ephemeral range. ``host_ip``: where an entry names no address."""
    default = host_ip
    from ..store.records import PortRecord

    taken = store.networks.ports()
    before = [p for p in taken if p.container_id == container_id]
    others = [p for p in taken if p.container_id != container_id]
    records: list[PortRecord] = []
    asked_first = sorted(published, key=lambda item: not int(item.get("host_port") or 0))
    for item in asked_first:
        host_ip, protocol = str(item.get("host_ip") or default), str(item.get("protocol") or "tcp")
        container_port, host_port = int(item["container_port"]), int(item.get("host_port") or 0)
        if protocol not in _TYPES:
            raise UsageError("invalid proto: %s" % protocol, path="published_ports")
        if not 0 < container_port < 65536 or not 0 <= host_port < 65536:
            raise UsageError("invalid port: %d:%d" % (host_port, container_port), path="published_ports")
        record = PortRecord(container_id, host_ip, host_port, protocol, container_port)
        if not host_port:
            record = _choose(record, before, others + records)
        records.append(record)
    return records


def _choose(record: PortRecord, before: Sequence[PortRecord], taken: Sequence[PortRecord]) -> PortRecord:
    for old in before:
        candidate = record._replace(host_port=old.host_port)
        same = (old.host_ip, old.protocol, old.container_port) == (
            record.host_ip,
            record.protocol,
            record.container_port,
        )
        if same and not any(_same(candidate, other) for other in taken):
            return candidate
    low, high = _range()
    start = int.from_bytes(os.urandom(2), "big") % (high - low + 1)
    for offset in range(high - low + 1):
        candidate = record._replace(host_port=low + (start + offset) % (high - low + 1))
        if any(_same(candidate, other) for other in taken):
            continue
        if is_free(candidate.host_ip, candidate.host_port, candidate.protocol):
            return candidate
    raise Conflict("all ports of the range %d-%d are allocated" % (low, high), path="published_ports")


def _range() -> tuple[int, int]:
    from .sandbox import read_sysctl

    words = read_sysctl("ipv4/ip_local_port_range").split()
    return (int(words[0]), int(words[1])) if len(words) == 2 else _EPHEMERAL
