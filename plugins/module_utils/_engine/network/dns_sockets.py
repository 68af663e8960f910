# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What stands inside a container's network namespace: two sockets on 127.0.0.11, and port 53 redirected to them.

A random port and a redirect, so that the container may bind port 53 itself, on every address. The table belongs to
the namespace and goes with it. Answers need no rule: connection tracking undoes the redirect.
"""

from __future__ import annotations

import errno
import socket

from ..kernel.netns import inside
from ..kernel.nfnetlink import AF_INET, Batch, Nfnetlink, open_socket
from ..kernel.nftables import expressions as x
from ..kernel.nftables import objects
from ..tuples import NamedTuple

ADDRESS = "127.0.0.11"
PORT = 53
TABLE = "wharf_dns"
_RAW = socket.inet_aton(ADDRESS)


class Listening(NamedTuple):
    udp: socket.socket
    tcp: socket.socket
    port: int


def listen(netns_fd: int) -> Listening:
    """Make the sockets and the redirect. Raises ``OSError``.

    Without NAT in the kernel port 53 is bound directly, which fails where the container has taken it.
    """
    with inside(netns_fd):
        listening = _bind_pair()
        try:
            control = open_socket()
        except OSError:
            control = None
    try:
        if control is None:
            raise OSError(errno.EPROTONOSUPPORT, "no netfilter")
        redirect(control, listening.port)
        return listening
    except OSError:
        listening.udp.close()
        listening.tcp.close()
    finally:
        if control is not None:
            control.close()
    with inside(netns_fd):
        return _bind(PORT)


def redirected(netns_fd: int, port: int) -> bool:
    """Whether the redirect to ``port`` is still in place (the container may have flushed its firewall)."""
    try:
        with Nfnetlink.at(netns_fd) as nl:
            found = objects.read_table(nl, AF_INET, TABLE, ())
    except OSError:
        return port == PORT
    wanted = [objects.describe_rule(rule) for rule in _rules(port)]
    return port == PORT or (found is not None and list(found.rules) == wanted)


def redirect(sock: socket.socket, port: int) -> None:
    """A predecessor's redirect led to its own port, and is replaced."""
    chain = objects.Chain("output", "nat", objects.OUTPUT, -100)
    ruleset = objects.Ruleset(AF_INET, TABLE, (chain,), (), _rules(port), {})
    for fill in (objects.new_table, objects.replace_table):
        batch = Batch()
        fill(batch, ruleset)
        try:
            Nfnetlink(sock).commit(batch)
            return
        except FileExistsError:
            if fill is objects.replace_table:
                raise


def _rules(port: int) -> tuple[objects.Rule, ...]:
    rules = []
    for name, protocol in (("udp", 17), ("tcp", 6)):
        match = x.payload(x.NETWORK_HEADER, 16, 4, 1) + x.compare(1, x.EQUAL, _RAW)
        match += x.l4proto(protocol)
        match += x.payload(x.TRANSPORT_HEADER, 2, 2, 1) + x.compare(1, x.EQUAL, PORT.to_bytes(2, "big"))
        target = x.load(1, _RAW) + x.load(2, port.to_bytes(2, "big")) + x.dnat(AF_INET, 1, 2)
        rules.append(objects.Rule("output", match + target, "names over " + name))
    return tuple(rules)


def _bind_pair() -> Listening:
    """The same free port for both protocols."""
    for _try in range(16):
        try:
            return _bind(0)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    raise OSError(errno.EADDRINUSE, "no port is free for both UDP and TCP", ADDRESS)


def _bind(port: int) -> Listening:
    """Caller is inside the namespace."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        udp.bind((ADDRESS, port))
        port = udp.getsockname()[1]
        tcp.bind((ADDRESS, port))
        tcp.listen(64)
    except OSError:
        udp.close()
        tcp.close()
        raise
    return Listening(udp, tcp, port)
