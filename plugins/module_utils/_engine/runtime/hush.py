# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sockets that let a port seem far away: what comes is neither taken nor refused, so clients try again (after 1, 3, 7
seconds, tcp_syn_retries of tcp(7)) instead of failing.

A listener whose filter passes nothing: the kernel drops a segment that a filter does not want before it looks whether
somebody could accept the connection, and answers nothing. It ends with the process that holds it, whatever happens.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from collections.abc import Iterable

_ATTACH, _DETACH = 26, 27  # SO_ATTACH_FILTER, SO_DETACH_FILTER
_NOTHING = struct.pack("=HBBI", 0x06, 0, 0, 0)  # BPF_RET | BPF_K, 0 bytes


def hush(fds: Iterable[int]) -> list[socket.socket]:
    """Of bound sockets those of TCP, hushed; the others are closed. Takes the descriptors over."""
    held = []
    for fd in fds:
        sock = socket.socket(fileno=fd)
        if sock.type != socket.SOCK_STREAM:
            sock.close()
            continue
        program = ctypes.create_string_buffer(_NOTHING, len(_NOTHING))
        sock.setsockopt(socket.SOL_SOCKET, _ATTACH, struct.pack("@HP", 1, ctypes.addressof(program)))
        sock.listen(1)
        held.append(sock)
    return held


def let_go(held: Iterable[socket.socket]) -> None:
    """Bound and no more: whoever else has the socket goes on reserving its port, and clients are refused."""
    for sock in held:
        try:
            sock.shutdown(socket.SHUT_RD)  # of a listener: it listens no longer
            sock.setsockopt(socket.SOL_SOCKET, _DETACH, 0)
        except OSError as error:
            if error.errno not in (errno.ENOTCONN, errno.ENOENT):
                raise
        finally:
            sock.close()
