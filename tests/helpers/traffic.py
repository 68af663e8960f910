# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A server that ends as a good one does, and a client on another host that never stops asking."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any

from module_utils._engine.kernel.syscalls import CLONE_NEWNET, Kernel

HOST, CLIENT = "10.77.99.1", "10.77.99.2"
# The host's own interpreter, read-only: the test image has none.
PYTHON_BINDS = ["/usr:/usr:ro", "/usr/lib:/lib:ro", "/usr/lib64:/lib64:ro"]
_SERVER = """
import os, select, signal, socket, sys, threading
listener = socket.create_server(("", 80), backlog=256)
stop, told = os.pipe()
signal.signal(signal.SIGTERM, lambda *_: os.write(told, b"x"))
def serve(connection):
    with connection:
        while connection.recv(4096):
            connection.sendall(sys.argv[1].encode() + b"\\n")
threads = []
while True:
    ready = select.select([listener, stop], [], [])[0]
    if listener not in ready:
        break
    threads.append(threading.Thread(target=serve, args=(listener.accept()[0],)))
    threads[-1].start()
for thread in threads:
    thread.join()
"""


def server(answer: str) -> list[str]:
    """The command of a container that answers each message on port 80 with ``answer``. Told to end, it takes what has
    arrived and serves every connection to its end."""
    return ["/usr/bin/python3", "-I", "-S", "-c", _SERVER, answer]


def ask(sock: socket.socket) -> str:
    sock.sendall(b"?")
    return sock.recv(4096).decode().strip()


def served(port: int) -> str:
    """What is answered at ``port`` of this host, once somebody listens there."""
    deadline = time.monotonic() + 20
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
                return ask(sock)
        except ConnectionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


class Client:
    """Asks ``port`` of the host over and over from a network namespace of its own. ``finish`` returns its findings:
    ``{"answers": {text: count}, "errors": [...]}``."""

    def __init__(self, port: int) -> None:
        ready, self._ready = os.pipe()
        go, self._go = os.pipe()
        self._results, results = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                for fd in (self._ready, self._go, self._results):
                    if fd != self._ready:
                        os.close(fd)
                Kernel().unshare(CLONE_NEWNET)
                os.write(self._ready, b"r")
                os.close(self._ready)
                os.read(go, 1)
                found = _hammer(port, go)
                os.write(results, json.dumps(found).encode())
            finally:
                os._exit(0)
        for fd in (go, results, self._ready):
            os.close(fd)
        os.read(ready, 1)
        os.close(ready)
        self._link()
        os.write(self._go, b"g")

    def _link(self) -> None:
        enter = ["nsenter", "--net=/proc/%d/ns/net" % self.pid, "ip"]
        for command in (
            ["ip", "link", "add", "wt-cl", "type", "veth", "peer", "name", "cl", "netns", str(self.pid)],
            ["ip", "addr", "add", HOST + "/24", "dev", "wt-cl"],
            ["ip", "link", "set", "wt-cl", "up"],
            [*enter, "addr", "add", CLIENT + "/24", "dev", "cl"],
            [*enter, "link", "set", "lo", "up"],
            [*enter, "link", "set", "cl", "up"],
        ):
            subprocess.run(command, check=True)

    def finish(self) -> dict[str, Any]:
        os.close(self._go)
        with os.fdopen(self._results) as stream:
            found: dict[str, Any] = json.loads(stream.read())
        os.waitpid(self.pid, 0)
        subprocess.run(["ip", "link", "del", "wt-cl"], check=False, stderr=subprocess.DEVNULL)
        return found


def _hammer(port: int, go: int) -> dict[str, Any]:
    answers: dict[str, int] = {}
    errors: list[str] = []
    while not select.select([go], [], [], 0)[0]:
        try:
            with socket.create_connection((HOST, port), timeout=20) as sock:
                text = ask(sock)
        except OSError as error:
            errors.append("%r at %.3f" % (error, time.monotonic()))
            continue
        answers[text] = answers.get(text, 0) + 1
    return {"answers": answers, "errors": errors[:20]}


@contextlib.contextmanager
def hammering(port: int) -> Iterator[dict[str, Any]]:
    """Inside, a client asks all the time; afterwards the dictionary holds what it found."""
    client = Client(port)
    found: dict[str, Any] = {}
    try:
        yield found
    finally:
        found.update(client.finish())
