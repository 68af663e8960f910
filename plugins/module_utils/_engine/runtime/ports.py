# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Published ports are reserved by bound sockets: no program of the host can then listen where the firewall takes the
traffic away, and a task finds out before anything starts."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import Conflict, StartError

_EADDRINUSE, _EADDRNOTAVAIL, _EAFNOSUPPORT, _EACCES = 98, 99, 97, 13

Key = tuple[str, int, str]


class Reservations:
    """Sockets by (host_ip, port, protocol). Bound, never listening: were the firewall's rules lost, a client should be
    refused, not left hanging."""

    def __init__(self) -> None:
        self._held: dict[Key, list[socket.socket]] = {}

    def set(self, wanted: Sequence[Mapping[str, Any]]) -> None:
        """Hold exactly these. New ones are bound before old ones are let go; on failure nothing changes.

        Raises ``Conflict`` in Docker's words.
        """
        keys = [(entry.get("host_ip") or "", int(entry["port"]), entry.get("protocol") or "tcp") for entry in wanted]
        fresh: dict[Key, list[socket.socket]] = {}
        try:
            for key in keys:
                if key not in self._held and key not in fresh:
                    fresh[key] = _bind(key)
        except BaseException:
            for sockets in fresh.values():
                _close(sockets)
            raise
        for key in [key for key in self._held if key not in keys]:
            _close(self._held.pop(key))
        self._held.update(fresh)

    def held(self) -> list[tuple[str, int, str, list[int]]]:
        """``(host_ip, port, protocol, descriptors)`` of all."""
        return [(*key, [sock.fileno() for sock in sockets]) for key, sockets in self._held.items()]

    def take_over(self, held: Sequence[tuple[str, int, str, Sequence[int]]]) -> None:
        """What another process held, by descriptors that are ours now."""
        for host_ip, port, protocol, fds in held:
            sockets = [socket.socket(fileno=fd) for fd in fds]
            if (host_ip, port, protocol) in self._held:
                _close(sockets)
            else:
                self._held[(host_ip, port, protocol)] = sockets

    def close(self) -> None:
        for sockets in self._held.values():
            _close(sockets)
        self._held.clear()


def _close(sockets: list[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


def _bind(key: Key) -> list[socket.socket]:
    host_ip, _port, protocol = key
    if protocol == "sctp":  # needs a kernel module; the firewall alone serves it
        return []
    if host_ip:
        return [_bind_one(socket.AF_INET6 if ":" in host_ip else socket.AF_INET, host_ip, key)]
    held = [_bind_one(socket.AF_INET, "0.0.0.0", key)]
    try:
        held.append(_bind_one(socket.AF_INET6, "::", key))
    except StartError as error:
        if error.errno not in (_EAFNOSUPPORT, _EADDRNOTAVAIL):
            _close(held)
            raise
    except Conflict:
        _close(held)
        raise
    return held


def _bind_one(family: int, address: str, key: Key) -> socket.socket:
    _host_ip, port, protocol = key
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    shown = "[%s]:%d" % (address, port) if ":" in address else "%s:%d" % (address, port)
    try:
        sock = socket.socket(family, kind | socket.SOCK_CLOEXEC)
    except OSError as error:
        raise StartError("Cannot reserve %s/%s: %s" % (shown, protocol, error.strerror), errno=error.errno) from error
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            sock.bind((address, port))
        except OSError as error:
            if error.errno != _EADDRINUSE or kind != socket.SOCK_STREAM:
                raise
            # Perhaps only connections in TIME_WAIT are in the way; a listener still refuses this bind.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address, port))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    except OSError as error:
        sock.close()
        if error.errno == _EADDRINUSE:
            raise Conflict(
                "Bind for %s failed: port is already allocated" % shown,
                step="reserve_port",
                path="published_ports",
                errno=error.errno,
                hint="Another program on the host, or another container, uses port %d/%s." % (port, protocol),
                details={"exit_code": 125},
            ) from error
        raise StartError(
            "Cannot reserve %s/%s: %s" % (shown, protocol, error.strerror),
            step="reserve_port",
            path="published_ports",
            errno=error.errno,
            details={"exit_code": 125},
        ) from error
    return sock
