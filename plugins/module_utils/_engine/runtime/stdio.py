# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a container says, from its FIFOs (or its terminal) into the log.

The container holds its end of each FIFO open for reading *and* writing: when the monitor dies there still is a reader,
so that no write ends in SIGPIPE; the container only waits once the pipe is full, until a new monitor reads on.
"""

from __future__ import annotations

import os
import select
from collections.abc import Mapping
from typing import Any, Optional

from .logs import Writer
from .loop import Loop

_READ = 65536
_HANGUP = select.POLLHUP | select.POLLERR
_TERMINAL_RETRY = 0.1
_ROUND = 2  # reads per wake-up: a chatty container must not keep the monitor from its other duties

NAMES = ("stdin", "stdout", "stderr")


class Stdio:
    """One container's streams. ``directory``: its run directory, which holds the FIFOs. ``streams``: what another
    process's ``held`` told, its descriptors being ours now; the log then is opened when there is something to write."""

    def __init__(
        self, loop: Loop, directory: str, run: Mapping[str, Any], streams: Optional[Mapping[str, int]] = None
    ) -> None:
        self.loop = loop
        self.directory = directory
        self.terminal = -1
        self.writer: Optional[Writer] = None
        self.tty = bool(run.get("tty"))
        self.open_stdin = bool(run.get("open_stdin"))
        self._readers: dict[int, str] = {}
        self._stdin = -1
        self._unopened: Optional[Mapping[str, Any]] = None
        if streams is None:
            self.configure(run)
        else:
            self._unopened = run
            self._take_over(streams)

    def _take_over(self, streams: Mapping[str, int]) -> None:
        for name in NAMES[1:]:
            if name in streams:
                self._listen(streams[name], name)
        self._stdin = streams.get("stdin", -1)
        if "terminal" in streams:
            self.attach_terminal(streams["terminal"])

    def held(self) -> dict[str, int]:
        """Descriptors by stream: those of "stdin", "stdout", "stderr", "terminal" that there are."""
        found = {name: fd for fd, name in self._readers.items()}
        for name, fd in (("stdin", self._stdin), ("terminal", self.terminal)):
            if fd >= 0:
                found[name] = fd
        return found

    def configure(self, run: Mapping[str, Any]) -> None:
        """(Re)open the log as run.json says. Raises ``OSError``; the old one then stays in use."""
        self._unopened = None
        log = run.get("log") or {}
        fresh: Optional[Writer] = None
        if log.get("driver", "json-file") != "none" and log.get("path"):
            fresh = Writer(log["path"], log.get("max_size"), log.get("max_file") or 1, log.get("labels"))
        if self.writer is not None:
            self.writer.flush()
            self.writer.close()
        self.writer = fresh

    # -- ends ------------------------------------------------------------------------------------------------------

    def open(self, *, adopt: bool = False) -> None:
        """Make the FIFOs (left as they are for ``adopt``) and listen to them."""
        if self.tty:
            return
        for name in NAMES[1:]:
            path = "%s/%s" % (self.directory, name)
            if not adopt:
                _make_fifo(path)
            try:
                fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except FileNotFoundError:  # adopting a container whose log driver is "none"
                continue
            self._listen(fd, name)
        path = self.directory + "/stdin"
        if self.open_stdin and (not adopt or os.path.exists(path)):
            if not adopt:
                _make_fifo(path)
            # Held open by us as well: a writer may come and go without ending the container's input.
            self._stdin = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def _listen(self, fd: int, name: str) -> None:
        self._readers[fd] = name
        self.loop.add(fd, lambda _events: self._read(fd))

    def container_ends(self) -> tuple[int, int, int]:
        """Descriptors for the container's 0, 1, 2; the caller closes those that are not -1 once it has started."""
        if self.tty:
            return (-1, -1, -1)
        ends = [-1, -1, -1]
        if self.open_stdin:
            # Not O_RDONLY: without a monitor nobody else might hold it for writing, and reads would end.
            ends[0] = os.open(self.directory + "/stdin", os.O_RDWR | os.O_CLOEXEC)
        for number in (1, 2):
            ends[number] = os.open("%s/%s" % (self.directory, NAMES[number]), os.O_RDWR | os.O_CLOEXEC)
        return (ends[0], ends[1], ends[2])

    def attach_terminal(self, master: int) -> None:
        self.terminal = master
        os.set_blocking(master, False)
        self.loop.add(master, self._read_terminal)

    # -- reading ---------------------------------------------------------------------------------------------------

    def _read(self, fd: int) -> None:
        for _number in range(_ROUND):
            try:
                data = os.read(fd, _READ)
            except BlockingIOError:
                return
            if not data:  # the last writer is gone; on a FIFO poll would report that for ever
                self.loop.remove(fd)
                return
            self._log(self._readers[fd], data)

    def _read_terminal(self, events: int) -> None:
        for _number in range(_ROUND):
            try:
                data = os.read(self.terminal, _READ)
            except BlockingIOError:
                return
            except OSError:  # EIO: nobody has the slave open just now, which says nothing about the container
                data = b""
            if not data:
                self._pause_terminal(self.terminal)
                return
            self._log("stdout", data)

    def _pause_terminal(self, master: int) -> None:
        self.loop.remove(master)
        self.loop.after(_TERMINAL_RETRY, lambda: self._listen_again(master))

    def _listen_again(self, master: int) -> None:
        if self.terminal == master:
            self.loop.add(master, self._read_terminal)

    def _log(self, stream: str, data: bytes) -> None:
        unopened = self._unopened
        if unopened is not None:
            try:
                self.configure(unopened)
            except OSError:  # it could be opened at the start; whatever broke it since, the container goes on
                self._unopened = unopened
                return
        if self.writer is not None:
            self.writer.write(stream, data)

    # -- the end ---------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Take what is in the pipes now, and no more: a background process that outlived PID 1 (shared pid namespace)
        may hold them open for ever."""
        for fd, name in self._readers.items():
            self._drain(fd, name)
        if self.terminal >= 0:
            self._drain(self.terminal, "stdout")
        if self.writer is not None:
            self.writer.flush()

    def _drain(self, fd: int, name: str) -> None:
        left = 4 << 20
        while left > 0:
            try:
                data = os.read(fd, _READ)
            except OSError:  # EAGAIN: empty; EIO: a terminal without slave
                return
            if not data:
                return
            left -= len(data)
            self._log(name, data)

    def close_streams(self) -> None:
        """The log stays open: the container may start again."""
        for fd in self._readers:
            self.loop.remove(fd)
            os.close(fd)
        self._readers.clear()
        if self._stdin >= 0:
            os.close(self._stdin)
            self._stdin = -1
        if self.terminal >= 0:
            self.loop.remove(self.terminal)
            os.close(self.terminal)
            self.terminal = -1

    def close(self) -> None:
        self.close_streams()
        if self.writer is not None:
            self.writer.sync()
            self.writer.close()
            self.writer = None


def discard(ends: tuple[int, int, int]) -> None:
    for fd in ends:
        if fd >= 0:
            os.close(fd)


def _make_fifo(path: str) -> None:
    """Fresh each time: what an earlier container's process still holds must not mix with the new one's output."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    os.mkfifo(path, 0o600)
