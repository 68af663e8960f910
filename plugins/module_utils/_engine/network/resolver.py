# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The resolver process: one per engine instance, started on demand, gone when nobody needs it.

It may be killed at any time: nothing is kept but what ``dns.register`` says again. Started as
``network.resolver <state dir> <run dir> [resolv.conf]``. Control messages (JSON, one per packet, see ``_do``) come in
over ``paths.resolver_socket``, whose peers must be root or our own user.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import socket
import struct
import time
from collections.abc import Sequence
from typing import Any, Optional

from ..paths import DEFAULT_RUN, DEFAULT_STATE, Paths
from . import files
from .dns_loop import READ, Loop
from .dns_messages import Names
from .dns_server import NameServer

IDLE_SECONDS = 30.0
_SWEEP_SECONDS = 10.0
_MAX_MESSAGE = 65536
_MAX_ANSWER = 1 << 22  # a packet must fit the send buffer: the list of some 10,000 members
_SO_SNDBUFFORCE = 32
PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class HostServers:
    """The name servers in the host's resolv.conf, read again when it changes.

    The file as it is: a stub on loopback (systemd-resolved) knows more about the host's zones than the servers
    behind it, and is reachable from here.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._stamp: tuple[int, int] = (-1, -1)
        self._servers: list[str] = []

    def __call__(self) -> Sequence[str]:
        try:
            found = os.stat(self._path)
            stamp = (found.st_ino, found.st_mtime_ns)
            if stamp != self._stamp:
                with open(self._path, encoding="utf-8", errors="replace") as file:
                    self._servers = files.upstreams(files.parse_resolv(file.read()))
                self._stamp = stamp
        except OSError:
            self._servers = files.upstreams(files.parse_resolv(""))
        return self._servers


class Resolver:
    def __init__(self, paths: Paths, names: Names, resolv_conf: str = "/etc/resolv.conf") -> None:
        self.paths = paths
        self.loop = Loop()
        self.server = NameServer(self.loop, names, HostServers(resolv_conf))
        self.idle_seconds = IDLE_SECONDS
        self._idle_since = time.monotonic()
        self._control: Optional[socket.socket] = None
        self._clients: set[socket.socket] = set()

    def serve(self) -> None:
        """Until idle or told to stop. The caller holds the lock that makes us the only one."""
        self._control = self._listen()
        self.loop.watch(self._control.fileno(), READ, self._accept)
        self._tick()
        try:
            self.loop.run()
        finally:
            self.close()

    def close(self) -> None:
        """The socket's name goes first: whoever connected before is answered by the end of the connection, and asks
        again, of our successor."""
        if self._control is not None:
            try:
                os.unlink(self.paths.resolver_socket)
            except FileNotFoundError:
                pass
            self.loop.forget(self._control.fileno())
            self._control.close()
            self._control = None
        for sock in list(self._clients):
            self._hang_up(sock)
        for ident in list(self.server.members):
            self.server.unregister(ident)
        self.loop.close()

    def _listen(self) -> socket.socket:
        path = self.paths.resolver_socket
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        old = os.umask(0o177)
        try:
            sock.bind(path)
        finally:
            os.umask(old)
        sock.listen(64)
        return sock

    def _tick(self) -> None:
        self.server.sweep()
        now = time.monotonic()
        if self.server.members or self._clients:
            self._idle_since = now
        elif now - self._idle_since >= self.idle_seconds:
            self.loop.stopped = True
            return
        self.loop.after(min(_SWEEP_SECONDS, self.idle_seconds / 3), self._tick)

    # -- control -----------------------------------------------------------------------------------------------

    def _accept(self, _events: int) -> None:
        if self._control is None:
            return
        try:
            sock, _peer = self._control.accept()
        except OSError:  # gone again, or no descriptors left
            return
        _pid, uid, _gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid not in (0, os.geteuid()):
            sock.close()
            return
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _MAX_ANSWER)
        self._clients.add(sock)
        self.loop.watch(sock.fileno(), READ, lambda _events: self._message(sock))

    def _hang_up(self, sock: socket.socket) -> None:
        self._clients.discard(sock)
        self.loop.forget(sock.fileno())
        sock.close()

    def _message(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(_MAX_MESSAGE)
            if data:
                sock.send(json.dumps(self._answer(data)).encode())
                return
        except OSError:
            pass
        self._hang_up(sock)

    def _answer(self, data: bytes) -> dict[str, Any]:
        try:
            return {"ok": self._do(json.loads(data))}
        except OSError as error:
            return {"errno": error.errno, "error": error.strerror or str(error), "what": str(error.filename or "")}
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            return {"errno": 22, "error": "malformed request: %.200r" % error, "what": ""}

    def _do(self, request: dict[str, Any]) -> Any:
        """``register`` (id, netns, servers) → port; ``unregister`` (id) → was there; ``list`` → members; ``hello`` →
        which engine this is; ``stop`` → members, to be registered with the successor."""
        operation = request["do"]
        if operation == "register":
            servers = [str(server) for server in request.get("servers", ())]
            return self.server.register(str(request["id"]), str(request["netns"]), servers)
        if operation == "unregister":
            return self.server.unregister(str(request["id"]))
        if operation == "hello":
            return {"engine": PACKAGE, "pid": os.getpid()}
        members = [member.describe() for member in self.server.members.values()]
        if operation == "stop":
            self.loop.stopped = True
        elif operation != "list":
            raise ValueError(operation)
        return members


def lock(paths: Paths, seconds: float) -> int:
    """Descriptor that holds the right to be the resolver, -1 if another process keeps it for ``seconds``, or has its
    socket up: who waited longer would serve nobody, after a ``stop`` meant for all."""
    fd = os.open(paths.run + "/resolver.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        except BlockingIOError:
            if time.monotonic() >= deadline or os.path.exists(paths.resolver_socket):
                os.close(fd)
                return -1
            time.sleep(0.02)


def hold_bundle() -> int:
    """Shared lock on the delivered bundle this process runs from, so that it is not removed; -1 in a checkout."""
    try:
        fd = os.open(os.path.join(os.path.dirname(os.path.dirname(PACKAGE)), ".lock"), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1
    fcntl.flock(fd, fcntl.LOCK_SH)
    return fd


def _set_up_process() -> None:
    """A name for ``ps``; and when memory runs out the kernel should rather take a container than everybody's names
    (needs CAP_SYS_RESOURCE)."""
    for path, value in (("/proc/self/comm", b"wharf-resolver"), ("/proc/self/oom_score_adj", b"-500")):
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, value)
            finally:
                os.close(fd)
        except OSError:  # neither is needed to go on
            continue


def main(argv: list[str]) -> None:
    state, run = (argv + [DEFAULT_STATE, DEFAULT_RUN][len(argv) :])[:2]
    paths = Paths(state, run)
    held = lock(paths, 1.0)
    if held < 0:
        return
    hold_bundle()
    _set_up_process()
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    from .dns_names import StoreNames

    Resolver(paths, StoreNames(paths), argv[2] if len(argv) > 2 else "/etc/resolv.conf").serve()
