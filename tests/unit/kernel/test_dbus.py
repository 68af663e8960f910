# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""D-Bus as dbus-daemon speaks it, and buses that fail."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from module_utils._engine.kernel import dbus

DAEMON = shutil.which("dbus-daemon")


def method(member: str) -> dbus.Method:
    return dbus.Method("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", member)


@pytest.fixture
def bus(tmp_path: Any) -> Iterator[str]:
    path = str(tmp_path / "bus")
    argv = [DAEMON or "", "--session", "--nofork", "--print-address", "--address=unix:path=" + path]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None and process.stdout.readline()
        yield path
        process.terminate()


@pytest.mark.skipif(DAEMON is None, reason="needs dbus-daemon")
def test_a_real_bus_understands_us_and_we_understand_it(bus: str) -> None:
    with dbus.Bus(bus) as connection:
        assert connection.call(method("GetNameOwner"), "org.freedesktop.DBus") == "org.freedesktop.DBus"
        assert len(connection.call(method("GetId"))) == 32
        assert connection.call(method("ListNames")) == ""  # not a string
        assert connection.call(method("GetId")) == connection.call(method("GetId"))


@pytest.mark.skipif(DAEMON is None, reason="needs dbus-daemon")
def test_an_error_comes_back_with_its_name_and_words(bus: str) -> None:
    with dbus.Bus(bus) as connection:
        with pytest.raises(dbus.Refused, match="no such name") as caught:
            connection.call(method("GetNameOwner"), "org.example.Nobody")
        assert caught.value.name == "org.freedesktop.DBus.Error.NameHasNoOwner"
        assert connection.call(method("GetNameOwner"), "org.freedesktop.DBus") == "org.freedesktop.DBus"


@pytest.mark.skipif(DAEMON is None, reason="needs dbus-daemon")
@pytest.mark.parametrize("size", [1, 7, 8, 63, 200])
def test_arguments_of_every_length_are_aligned(bus: str, size: int) -> None:
    with dbus.Bus(bus) as connection, pytest.raises(dbus.Refused) as caught:
        connection.call(method("GetNameOwner"), "org." + "x" * size)
    assert caught.value.name == "org.freedesktop.DBus.Error.NameHasNoOwner"


def serve(path: str, answer: Callable[[socket.socket], None]) -> threading.Thread:
    """One connection, handled by ``answer``."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen(1)

    def run() -> None:
        with listening, listening.accept()[0] as peer:
            answer(peer)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def silent(peer: socket.socket) -> None:
    peer.recv(4096)
    peer.recv(4096)


def rejecting(peer: socket.socket) -> None:
    peer.recv(4096)
    peer.sendall(b"REJECTED EXTERNAL\r\n")


def ending(peer: socket.socket) -> None:
    peer.recv(4096)


def chattering(peer: socket.socket) -> None:
    peer.recv(4096)
    peer.sendall(b"x" * 5000)


def _in(peer: socket.socket, words: bytes) -> None:
    peer.recv(4096)
    peer.sendall(b"OK 0123\r\n")
    seen = b""
    while b"Hello" not in seen:
        seen += peer.recv(4096)
    peer.sendall(words)


def giant(peer: socket.socket) -> None:
    _in(peer, b"l\2\0\1" + b"\xff" * 12)


def foreign(peer: socket.socket) -> None:
    _in(peer, b"B\2\0\1" + b"\0" * 12)


@pytest.mark.parametrize("answer", [silent, rejecting, ending, chattering, giant, foreign])
def test_a_bus_that_fails_is_an_oserror(tmp_path: Any, answer: Callable[[socket.socket], None]) -> None:
    path = str(tmp_path / "bus")
    thread = serve(path, answer)
    with pytest.raises(OSError):
        dbus.Bus(path, timeout=0.5 if answer is silent else 30)
    thread.join(30)
    assert not thread.is_alive()


def test_no_bus_is_an_oserror(tmp_path: Any) -> None:
    with pytest.raises(FileNotFoundError):
        dbus.Bus(os.path.join(str(tmp_path), "none"))
