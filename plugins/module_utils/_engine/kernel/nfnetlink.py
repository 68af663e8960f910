# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Netlink to netfilter: attributes, requests, dumps, and the all-or-nothing batch of nf_tables.

Spoken directly, because the host need not have the ``nft`` program. Everything is ``<linux/netfilter/nfnetlink.h>``:
message header in host order, integers inside attributes big endian. Failures are ``OSError`` whose ``filename`` says
which message of the batch the kernel refused, with the kernel's own sentence (extended ack) if it gave one.

A netlink socket belongs to the network namespace it was made in, wherever it is used later: ``Nfnetlink.at`` makes one
inside another namespace.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from types import TracebackType
from typing import Optional

from ..tuples import NamedTuple

NETLINK_NETFILTER = 12
SUBSYS_CTNETLINK, SUBSYS_NFTABLES = 1 << 8, 10 << 8
AF_INET, AF_INET6 = 2, 10

_SOL_NETLINK, _CAP_ACK, _EXT_ACK = 270, 10, 11
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_F_REQUEST, _F_ACK, _F_DUMP_INTR, _F_CAPPED, _F_ACK_TLVS = 1, 4, 0x10, 0x100, 0x200
_F_DUMP = 0x300
F_EXCL, F_CREATE, F_APPEND = 0x200, 0x400, 0x800
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_BATCH_BEGIN, _BATCH_END, _BATCH_GENID = 16, 17, 1
_MSG_GETGEN = SUBSYS_NFTABLES | 16

_HEADER = struct.Struct("=IHHII")
_ATTR = struct.Struct("=HH")
_U32 = struct.Struct(">I")


# -- attributes ------------------------------------------------------------------------------------------------


def attr(kind: int, data: bytes) -> bytes:
    """One attribute, padded to 4 bytes. The length field has 16 bits: at most 65,531 bytes of data."""
    return _ATTR.pack(len(data) + 4, kind) + data + b"\0" * (-len(data) % 4)


def nest(kind: int, *parts: bytes) -> bytes:
    return attr(kind | 0x8000, b"".join(parts))


def u32(kind: int, value: int) -> bytes:
    return _ATTR.pack(8, kind) + _U32.pack(value & 0xFFFFFFFF)


def text(kind: int, value: str) -> bytes:
    return attr(kind, value.encode() + b"\0")


def each(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The attributes of ``data`` in order, flag bits removed from the kind. Stops at a malformed length."""
    pos, end = 0, len(data)
    while pos + 4 <= end:
        size, kind = _ATTR.unpack_from(data, pos)
        if size < 4:
            return
        yield kind & 0x3FFF, data[pos + 4 : pos + size]
        pos += (size + 3) & ~3


def parse(data: bytes) -> dict[int, bytes]:
    return dict(each(data))


def number(data: bytes) -> int:
    return int.from_bytes(data, "big")


def string(data: bytes) -> str:
    return data.rstrip(b"\0").decode(errors="replace")


# -- messages --------------------------------------------------------------------------------------------------


class _Message(NamedTuple):
    kind: int
    family: int
    flags: int
    body: bytes
    what: str


class Batch:
    """Changes that take effect together or not at all."""

    __slots__ = ("messages",)

    def __init__(self) -> None:
        self.messages: list[_Message] = []

    def add(self, kind: int, family: int, body: bytes, what: str, flags: int = 0) -> None:
        """``what`` names the change in errors ("add chain forward")."""
        self.messages.append(_Message(kind, family, flags, body, what))

    def __len__(self) -> int:
        return len(self.messages)


class Nfnetlink:
    """One netfilter socket; usable in ``with``. Not for two threads at once."""

    def __init__(self, sock: Optional[socket.socket] = None) -> None:
        self.sock = sock if sock is not None else open_socket()
        self._seq = 0

    @classmethod
    def at(cls, netns_fd: int) -> Nfnetlink:
        """A socket that works on the namespace behind ``netns_fd``, whichever the caller is in."""
        from .netns import inside

        with inside(netns_fd):
            sock = open_socket()
        return cls(sock)

    def __enter__(self) -> Nfnetlink:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], value: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def close(self) -> None:
        self.sock.close()

    def request(self, kind: int, family: int, body: bytes, what: str) -> list[bytes]:
        """A question or single change outside batches; returns the attribute blocks of the answers."""
        return [data for _family, data in self._ask(kind, family, _F_ACK, body, what)]

    def dump(self, kind: int, family: int, body: bytes, what: str) -> list[tuple[int, bytes]]:
        """All objects of a kind: ``(family, attributes)``. Asked again when a change got in between.

        The kernel marks a dump that spans a change; half of the old and half of the new would look like damage.
        """
        for _try in range(20):
            try:
                return self._ask(kind, family, _F_DUMP, body, what)
            except InterruptedError:
                continue
        raise OSError(errno.EBUSY, "the firewall changes faster than it can be read", what)

    def generation(self) -> int:
        """Number of the ruleset of this namespace; every transaction of anybody raises it."""
        for data in self.request(_MSG_GETGEN, 0, b"", "read the ruleset generation"):
            return number(parse(data).get(1, b""))
        return 0

    def commit(self, batch: Batch, generation: Optional[int] = None) -> None:
        """Apply a batch. With ``generation``, only if the ruleset is still that one; otherwise ``OSError(ERESTART)``.

        One datagram carries everything. The kernel works on it inside send(), so all answers are waiting afterwards.
        """
        if not batch.messages:
            return
        genid = u32(_BATCH_GENID, generation) if generation is not None else b""
        first = self._seq + 1
        parts = [self._frame(_BATCH_BEGIN, _F_REQUEST, 0, SUBSYS_NFTABLES >> 8, genid)]
        for message in batch.messages:
            parts.append(self._frame(message.kind, _F_REQUEST | message.flags, message.family, 0, message.body))
        parts.append(self._frame(_BATCH_END, _F_REQUEST, 0, SUBSYS_NFTABLES >> 8, b""))
        data = b"".join(parts)
        _grow(self.sock, len(data))
        try:
            self.sock.send(data)
        except OSError as error:
            raise OSError(error.errno, error.strerror, batch.messages[0].what) from None
        self._check_batch(batch, first)

    def _check_batch(self, batch: Batch, first: int) -> None:
        """Read what the kernel queued. It reports every message it refuses; the first one is the cause."""
        failed: Optional[OSError] = None
        while True:
            try:
                data = self.sock.recv(1 << 16, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            for kind, flags, seq, body in _messages(data):
                if kind != _NLMSG_ERROR or seq < first or failed is not None:
                    continue
                index = seq - first - 1
                what = batch.messages[index].what if 0 <= index < len(batch.messages) else "commit"
                failed = _error(body, flags, what)
        if failed is not None:
            raise failed

    def _frame(self, kind: int, flags: int, family: int, resource: int, body: bytes) -> bytes:
        self._seq += 1
        return _HEADER.pack(20 + len(body), kind, flags, self._seq, 0) + struct.pack(">BBH", family, 0, resource) + body

    def _ask(self, kind: int, family: int, flags: int, body: bytes, what: str) -> list[tuple[int, bytes]]:
        self.sock.send(self._frame(kind, _F_REQUEST | flags, family, 0, body))
        answers: list[tuple[int, bytes]] = []
        seq, interrupted = self._seq, False
        while True:
            for got, got_flags, got_seq, data in _messages(self.sock.recv(1 << 16)):
                if got_seq != seq:
                    continue
                interrupted = interrupted or bool(got_flags & _F_DUMP_INTR)
                if got in (_NLMSG_ERROR, _NLMSG_DONE):
                    failed = _error(data, got_flags, what)
                    if failed is not None:
                        raise failed
                    if interrupted:
                        raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR), what)
                    return answers
                answers.append((data[0], data[4:]))


def open_socket() -> socket.socket:
    """A netfilter socket of the current network namespace."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
    try:
        sock.bind((0, 0))
        for option in (_EXT_ACK, _CAP_ACK):  # CAP_ACK: errors do not send the whole batch message back
            sock.setsockopt(_SOL_NETLINK, option, 1)
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 21)
    except PermissionError:
        pass  # an unprivileged reader gets the default buffer
    except OSError:
        sock.close()
        raise
    return sock


def _grow(sock: socket.socket, size: int) -> None:
    """Make room for a batch of ``size`` bytes; the kernel counts about twice the payload."""
    need = 2 * size + (1 << 16)
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) >= need:
        return
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, need)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, need)


def _messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """``(kind, flags, seq, body)`` of each message in a datagram; ``body`` starts with the nfgenmsg or error code."""
    pos = 0
    while pos + 16 <= len(data):
        size, kind, flags, seq, _port = _HEADER.unpack_from(data, pos)
        if size < 16:
            return
        yield kind, flags, seq, data[pos + 16 : pos + size]
        pos += (size + 3) & ~3


def _error(body: bytes, flags: int, what: str) -> Optional[OSError]:
    """The ``OSError`` of an NLMSG_ERROR or NLMSG_DONE body, None for success."""
    code = struct.unpack_from("=i", body)[0] if len(body) >= 4 else 0
    if not code:
        return None
    words = os.strerror(-code)
    said = _ext_ack(body, flags) if flags & _F_ACK_TLVS else ""
    return OSError(-code, "%s (%s)" % (words, said) if said else words, what)


def _ext_ack(body: bytes, flags: int) -> str:
    """NLMSGERR_ATTR_MSG (1): after the code and the refused message's header (and payload, unless capped)."""
    if len(body) < 20:
        return ""
    skip = 16 if flags & _F_CAPPED else struct.unpack_from("=I", body, 4)[0]
    return string(parse(body[4 + ((skip + 3) & ~3) :]).get(1, b""))
