# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Terminals: handing a master to a caller's socket, and relaying one to our own terminal."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import termios
import tty
from array import array
from typing import Any

from ..errors import KernelError
from ..runtime import wire

_CHUNK = 65536


def send_master(path: str, master: int) -> None:
    """As containerd and conmon expect it: one message with the descriptor. Raises ``KernelError``."""
    try:
        sock = wire.connect(path, 10.0)
        try:
            sock.sendmsg([b"/dev/ptmx"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [master]))])
        finally:
            sock.close()
    except OSError as error:
        raise KernelError.wrap(error, "Cannot hand the terminal to %s" % path, step="console_socket") from error


class Relay:
    """Between a container's terminal and our own standard input and output."""

    def __init__(self, master: int) -> None:
        self.master = master
        self._saved: Any = None
        self._pending = b""
        if os.isatty(0):
            self._saved = termios.tcgetattr(0)
            tty.setraw(0, termios.TCSANOW)  # what was typed ahead is the program's
            self.resize()
        os.set_blocking(master, False)

    def resize(self) -> None:
        try:
            size = fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8))
            fcntl.ioctl(self.master, termios.TIOCSWINSZ, size)
        except OSError:  # standard input is no terminal: then nobody can have changed its size
            return

    def register(self, poll: select.poll) -> None:
        poll.register(self.master, select.POLLIN)
        poll.register(0, select.POLLIN)

    def handle(self, poll: select.poll, fd: int, events: int) -> None:
        if fd == 0:
            self._from_user(poll)
            return
        if events & select.POLLOUT:
            self._push(poll)
        if events & (select.POLLIN | select.POLLHUP):
            try:
                data = os.read(self.master, _CHUNK)
            except BlockingIOError:
                return
            except OSError:  # EIO: nobody has the other end open
                data = b""
            if not data:
                poll.unregister(self.master)
                return
            _write_all(1, data)

    def _from_user(self, poll: select.poll) -> None:
        data = os.read(0, _CHUNK)
        if not data:
            poll.unregister(0)
            data = b"\x04"  # what a terminal says when its user has nothing more to say
        self._pending += data
        self._push(poll)

    def _push(self, poll: select.poll) -> None:
        """A program that does not read fills its terminal: then its user waits, its output does not."""
        try:
            written = os.write(self.master, self._pending)
        except BlockingIOError:
            written = 0
        except OSError:  # EIO: the program is gone
            written = len(self._pending)
        self._pending = self._pending[written:]
        poll.modify(self.master, select.POLLIN | (select.POLLOUT if self._pending else 0))

    def close(self) -> None:
        self._drain()
        if self._saved is not None:
            termios.tcsetattr(0, termios.TCSADRAIN, self._saved)
        os.close(self.master)

    def _drain(self) -> None:
        while True:
            try:
                data = os.read(self.master, _CHUNK)
            except OSError:  # nothing left
                return
            if not data:
                return
            _write_all(1, data)


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
