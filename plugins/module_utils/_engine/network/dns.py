# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names for containers, as the rest of the engine uses them: say who is there, the resolver process does the rest.

The resolver is started by the first call that needs it, and may die at any time: calls try again with a new one. What
it knew then is lost until ``ensure`` or ``register`` says it again.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from collections.abc import Iterable, Sequence
from typing import Any, Optional

from ..errors import Interrupted, KernelError
from ..paths import Paths
from ..tuples import NamedTuple

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_SECONDS = 8.0
_START_SECONDS = 30.0
_SPAWN_AGAIN = 1.5  # a starting resolver waits that long for its predecessor to go


class Member(NamedTuple):
    """``servers``: what to ask for other names, in order. Those that are the container's own ``dns_servers`` are asked
    from its network, others from the host's. None given: its own, else whatever the host's resolv.conf says then."""

    container_id: str
    netns: str
    servers: tuple[str, ...] = ()


def register(paths: Paths, container_id: str, netns_path: str, servers: Sequence[str] = ()) -> None:
    """Answer names at 127.0.0.11 in that network namespace. Idempotent; starts the resolver if there is none."""
    request = {"do": "register", "id": container_id, "netns": netns_path, "servers": list(servers)}
    _call(paths, request, subject="container %s" % container_id[:12])


def unregister(paths: Paths, container_id: str) -> bool:
    """Stop answering for a container. False if nobody did."""
    answer = _try(paths, {"do": "unregister", "id": container_id})
    return answer is not None and bool(_result(answer, "container %s" % container_id[:12]))


def members(paths: Paths) -> list[Member]:
    """Whom the resolver serves; nobody without one. Starts nothing."""
    answer = _try(paths, {"do": "list"})
    if not answer:
        return []
    return [Member(m["id"], m["netns"], tuple(m["servers"])) for m in _result(answer, None)]


def missing(paths: Paths, wanted: Iterable[Member]) -> list[Member]:
    """Which of these are not served as they should be. Starts nothing."""
    have = set(members(paths))
    return [member for member in wanted if member not in have]


def ensure(paths: Paths, wanted: Iterable[Member]) -> list[str]:
    """Register all of these that are not; returns their container ids. Replaces a resolver of another release."""
    everybody = list(wanted)
    if everybody:
        _replace_other_release(paths)
    absent = missing(paths, everybody)
    for member in absent:
        register(paths, member.container_id, member.netns, member.servers)
    return [member.container_id for member in absent]


def stop(paths: Paths) -> list[Member]:
    """End the resolver, if there is one; returns whom it served."""
    answer = _try(paths, {"do": "stop"})
    if not answer:
        return []
    served = [Member(m["id"], m["netns"], tuple(m["servers"])) for m in _result(answer, None)]
    deadline = time.monotonic() + _SECONDS
    while os.path.exists(paths.resolver_socket) and time.monotonic() < deadline:
        time.sleep(0.01)
    return served


def _replace_other_release(paths: Paths) -> None:
    """A resolver from another bundle may not understand today's database: it hands its members over."""
    answer = _try(paths, {"do": "hello"})
    if answer and (answer.get("ok") or {}).get("engine") != PACKAGE:
        for member in stop(paths):
            if os.path.exists(member.netns):
                register(paths, member.container_id, member.netns, member.servers)


# -- talking to it ------------------------------------------------------------------------------------------------


def _call(paths: Paths, request: dict[str, Any], subject: str) -> Any:
    deadline = time.monotonic() + _START_SECONDS
    spawned = 0.0
    while True:
        answer = _try(paths, request)
        if answer:
            return _result(answer, subject)
        now = time.monotonic()
        if now > deadline:
            raise Interrupted(
                "The resolver did not start within %g seconds" % _START_SECONDS,
                step="resolver",
                subject=subject,
                path=paths.run + "/resolver.log",
            )
        if now - spawned > _SPAWN_AGAIN:
            _spawn(paths)
            spawned = now
        time.sleep(0.005)


def _spawn(paths: Paths) -> None:
    """Start one, unless one is starting: on a slow host every further one only keeps the others from it (seen: 14 of
    them after a boot). It inherits the lock, which so lasts as long as it does."""
    import fcntl

    from ..kernel.cgroups import Layout, delegation
    from ..process import engine_command, spawn_daemon

    alive = os.open(paths.run + "/resolver.alive", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
        argv = engine_command("network.resolver", paths.state, paths.run)
        log, cgroups = paths.run + "/resolver.log", delegation.ensure(Layout.detect())
        spawn_daemon(argv, keep=(alive,), log=log, cgroups=cgroups)
    except BlockingIOError:
        pass
    finally:
        os.close(alive)


def _try(paths: Paths, request: dict[str, Any]) -> Optional[dict[str, Any]]:
    """One exchange; None if there is no resolver, or it went away in the middle."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC) as sock:
        sock.settimeout(_SECONDS)
        try:
            sock.connect(paths.resolver_socket)
            sock.send(json.dumps(request).encode())
            data = sock.recv(1 << 22)
        except OSError as error:
            gone = (errno.ENOENT, errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE)
            if error.errno in gone:
                return None
            raise KernelError.wrap(error, "Cannot talk to the resolver", step="resolver") from error
    answer: Optional[dict[str, Any]] = json.loads(data) if data else None
    return answer


def _result(answer: dict[str, Any], subject: Optional[str]) -> Any:
    if "ok" in answer:
        return answer["ok"]
    error = OSError(answer.get("errno") or errno.EIO, answer.get("error", ""))
    sentence = "The resolver cannot serve %s" % (subject or "the request")
    if answer.get("what"):
        sentence += " (%s)" % answer["what"]
    raise KernelError.wrap(error, sentence, step="resolver", subject=subject)
