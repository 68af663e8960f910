# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plain values and descriptors from one fork of the spawner to another, over a stream or packet socket.

In ``marshal``'s form, not JSON: the receiver is a monitor that should touch as little memory as it can, and both ends
run the same interpreter, so that the form needs no version.
"""

from __future__ import annotations

import socket
from array import array
from collections.abc import Sequence
from marshal import dumps, loads
from typing import Any, Optional

_HEAD = 8  # bytes: sizes of the values and of the list of descriptors, 4 each
_BATCH = 240  # the kernel passes 253 descriptors at once
_MAX_ORDER = 1 << 20
# Later versions intern strings: each key would be looked up among those that there are, which writes to their pages.
_VERSION = 2
# Plain integers: a member of an enum takes Python code, and with it pages, each time it is used.
_SPACE, _CLOEXEC = socket.CMSG_SPACE(4 * _BATCH), int(socket.MSG_CMSG_CLOEXEC)


def send(sock: socket.socket, values: Any, fds: Sequence[int] = ()) -> None:
    """One message on a stream. ``values``: what ``marshal`` takes. Raises ``OSError``."""
    raw = dumps(values, _VERSION)
    head = len(raw).to_bytes(4, "little") + len(fds).to_bytes(4, "little")
    sock.sendmsg([head], _rights(fds[:_BATCH]))
    for start in range(_BATCH, len(fds), _BATCH):
        sock.sendmsg([b"+"], _rights(fds[start : start + _BATCH]))
    sock.sendall(raw)


def receive(sock: socket.socket) -> Optional[tuple[Any, list[int]]]:
    """The message, or None when the sender ended before it was complete (which no sender does that gives us
    descriptors)."""
    head, fds = _receive(sock, _HEAD)
    if len(head) < _HEAD:
        return None
    size, count = int.from_bytes(head[:4], "little"), int.from_bytes(head[4:], "little")
    while len(fds) < count:
        more = _receive(sock, 1)
        if not more[0]:
            return None
        fds += more[1]
    raw = b""
    while len(raw) < size:
        data = sock.recv(size - len(raw))
        if not data:
            return None
        raw += data
    return loads(raw), fds


def send_order(sock: socket.socket, values: Any, fds: Sequence[int] = ()) -> None:
    """One packet. Raises ``OSError``."""
    sock.sendmsg([dumps(values, _VERSION)], _rights(fds))


def receive_order(sock: socket.socket) -> Optional[tuple[Any, list[int]]]:
    """The next packet; None when there is none just now (the socket is non-blocking)."""
    try:
        raw, fds = _receive(sock, _MAX_ORDER)
    except BlockingIOError:
        return None
    return (loads(raw), fds) if raw else None


def _rights(fds: Sequence[int]) -> list[tuple[int, int, array[int]]]:
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))] if fds else []


def _receive(sock: socket.socket, size: int) -> tuple[bytes, list[int]]:
    raw, control, _flags, _address = sock.recvmsg(size, _SPACE, _CLOEXEC)
    fds: list[int] = []
    for _level, _kind, data in control:
        fds += memoryview(data).cast("i")
    return raw, fds
