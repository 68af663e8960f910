# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a container says, from its FIFOs (or its terminal) into the log.

The container holds its end of each FIFO open for reading *and* writing: when the monitor dies there still is a reader,
so that no write ends in SIGPIPE; the container only waits once the pipe is full, until a new monitor reads on. ``pump``
says why nothing is lost or repeated then.

A log that cannot be written to (a full disk, a syslog that is down) stalls its container and nothing else: the pipes
are not read until it can, and everything the monitor does besides goes on.
"""

from __future__ import annotations

import errno
import os
import select
import time
from collections.abc import Mapping
from typing import Any, Callable, Optional

from ..errors import StartError
from ..kernel.syscalls import Kernel
from .loop import Loop, Timer
from .pump import NUMBERS, Pump

_READ = 65536
_TERMINAL_RETRY = 0.1
_ROUND = 2  # reads per wake-up: a chatty container must not keep the monitor from its other duties
_RETRY, _RETRY_MAX = 0.05, 1.0
_LAST_WORDS = 2.0  # seconds that the end of a container waits for its log

NAMES = ("stdin", "stdout", "stderr")


class Stdio:
    """One container's streams. ``directory``: its run directory, which holds the FIFOs. ``streams``: what another
    process's ``held`` told, its descriptors being ours now. The log is opened by ``configure``, or when there is
    something to write. ``trouble``: called with a sentence when the log cannot be written to, once, and with "" when
    it can again."""

    def __init__(
        self,
        kernel: Kernel,
        loop: Loop,
        directory: str,
        run: Mapping[str, Any],
        streams: Optional[Mapping[str, int]] = None,
    ) -> None:
        self.kernel = kernel
        self.loop = loop
        self.directory = directory
        self.terminal = -1
        self.pump: Optional[Pump] = None
        self.tty = bool(run.get("tty"))
        self.open_stdin = bool(run.get("open_stdin"))
        self.trouble: Callable[[str], None] = _nobody_told
        self._readers: dict[int, str] = {}
        self._stdin = -1
        self._log: Mapping[str, Any] = run.get("log") or {}
        self._buffer: Optional[int] = self._log.get("max_buffer")
        self._opened = False
        self._stalled = False
        self._told = False
        self._waiting = -1
        self._timer: Optional[Timer] = None
        self._delay = _RETRY
        self._dropped = 0
        if streams is not None:
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

    def configure(self, log: Mapping[str, Any]) -> None:
        """(Re)open the log as run.json's ``log`` says. Raises ``StartError``; the one before then stays in use."""
        try:
            self._open_log(log)
        except OSError as error:
            raise StartError(
                "The log driver %s cannot write to %s: %s"
                % (log.get("driver", "json-file"), _place(log), error.strerror or error),
                step="open_log",
                path="log_driver",
                errno=error.errno if (error.errno or 0) > 0 else None,  # what getaddrinfo says is no errno
            ) from None
        if self._stalled:
            self._try_again()

    def _open_log(self, log: Mapping[str, Any]) -> None:
        pump = self.pump
        if pump is None:
            pump = Pump(self.kernel, self.directory)
        try:
            pump.configure(log)
        except OSError:
            if self.pump is None:
                pump.close()
            raise
        self._stop_waiting()  # for the log before
        self.pump, self._log, self._buffer, self._opened = pump, log, log.get("max_buffer"), True

    def resume(self, told: bool) -> None:
        """Bring what a monitor before us had not brought to the log there. ``told``: it had told of trouble."""
        self._told = told
        self._try_again()

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
        if not self._closed_to_output:
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
        self._listen_again(master)

    # -- reading ---------------------------------------------------------------------------------------------------

    def _read(self, fd: int) -> None:
        number = NUMBERS[self._readers[fd]]
        try:
            pump = self._ready()
            for _turn in range(_ROUND):
                count = pump.take(fd, number)
                if count == 0:  # the last writer is gone; on a FIFO poll would report that for ever
                    self.loop.remove(fd)
                if not count:
                    return
                self._pass_on(pump, number)
                if count < _READ:
                    return
        except OSError as error:
            self._stall(error)

    def _read_terminal(self, _events: int) -> None:
        try:
            pump = self._ready()
            for _turn in range(_ROUND):
                data = self._terminal_data()
                if data is None:
                    return
                if not data:
                    self._pause_terminal(self.terminal)
                    return
                pump.feed(1, data)
                self._pass_on(pump, 1)
        except OSError as error:
            self._stall(error)

    def _terminal_data(self) -> Optional[bytes]:
        """None: nothing just now; b"": nobody has the slave open (EIO), which says nothing about the container."""
        try:
            return os.read(self.terminal, _READ)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def _pause_terminal(self, master: int) -> None:
        self.loop.remove(master)
        self.loop.after(_TERMINAL_RETRY, lambda: self._listen_again(master))

    def _listen_again(self, master: int) -> None:
        if self.terminal == master and not self._closed_to_output:
            self.loop.add(master, self._read_terminal)

    def _ready(self) -> Pump:
        """Raises ``OSError``."""
        if not self._opened:
            self._open_log(self._log)
        if self.pump is None:
            raise OSError(errno.EBADF, "it is closed")
        return self.pump

    def _pass_on(self, pump: Pump, number: int) -> None:
        if not self._stalled:
            pump.work(number)
            return
        while pump.backlog(number) > (self._buffer or 0):  # mode: non-blocking
            self._dropped += pump.drop_oldest(number)

    # -- a log that does not take it -------------------------------------------------------------------------------

    @property
    def _closed_to_output(self) -> bool:
        return self._stalled and self._buffer is None

    def _stall(self, error: OSError) -> None:
        self._stop_waiting()
        self._stalled = True
        if self._closed_to_output:
            for fd in (*self._readers, self.terminal):
                self.loop.remove(fd)
        sink = self.pump.sink if self.pump else None
        waits = sink.waits if sink and isinstance(error, BlockingIOError) else None
        if sink and waits is not None:
            self._waiting = waits
            self.loop.add(waits, lambda _events: self._try_again(), sink.events)
            return
        self._timer = self.loop.after(self._delay, self._try_again)
        self._delay = min(self._delay * 2, _RETRY_MAX)
        if not self._told:
            self._told = True
            self.trouble("The log cannot be written, the container's output waits: %s" % _words(error))

    def _stop_waiting(self) -> None:
        if self._waiting >= 0:
            self.loop.remove(self._waiting)
            self._waiting = -1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _try_again(self) -> None:
        self._stop_waiting()
        try:
            pump = self._ready()
            for number in pump.sources:
                pump.work(number)
        except OSError as error:
            self._stall(error)
            return
        if self._stalled:
            self._stalled = False
            self._delay = _RETRY
            for fd in self._readers:
                self.loop.add(fd, lambda _events, fd=fd: self._read(fd))  # type: ignore[misc]
            if self.terminal >= 0:
                self._listen_again(self.terminal)
        if self._dropped:
            self.trouble("While the log could not be written, the %d oldest lines were given up" % self._dropped)
        elif self._told:
            self.trouble("")
        self._dropped, self._told = 0, False

    def child_ended(self) -> None:
        """Perhaps the one that compressed a file of the log."""
        if self.pump is not None and self.pump.sink is not None:
            self.pump.sink.reap()

    # -- the end ---------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Take what is in the pipes now, and no more: a background process that outlived PID 1 (shared pid namespace)
        may hold them open for ever. A log that does not take it is waited for shortly; what is lost then is told."""
        if not self._opened and not self._anything_to_read():
            return
        self._stop_waiting()
        deadline = time.monotonic() + _LAST_WORDS
        while True:
            try:
                self._drain_once()
                return
            except OSError as error:
                if time.monotonic() >= deadline:
                    self._give_up(error)
                    return
                self._wait_a_moment(isinstance(error, BlockingIOError))

    def _anything_to_read(self) -> bool:
        poll = select.poll()
        for fd in (*self._readers, self.terminal):
            if fd >= 0:
                poll.register(fd, select.POLLIN)
        return any(events & select.POLLIN for _fd, events in poll.poll(0))

    def _drain_once(self) -> None:
        pump = self._ready()
        if pump.sink is not None:
            pump.sink.hurry()
        for fd, name in self._readers.items():
            left = 4 << 20
            while left > 0:
                count = pump.take(fd, NUMBERS[name])
                if not count:
                    break
                left -= count
                pump.work(NUMBERS[name])
        while self.terminal >= 0:
            data = self._terminal_data()
            if not data:
                break
            pump.feed(1, data)
            pump.work(1)
        for number in pump.sources:
            pump.work(number, final=True)

    def _wait_a_moment(self, blocked: bool) -> None:
        sink = self.pump.sink if self.pump else None
        poll = select.poll()
        if blocked and sink and sink.waits is not None:
            poll.register(sink.waits, sink.events)
        poll.poll(50)

    def _give_up(self, error: OSError) -> None:
        lost = 0
        if self.pump is not None:
            for number, source in self.pump.sources.items():
                lost += self.pump.backlog(number)
                self.pump.skip(source)
        self._stalled = self._told = False
        words = "The container ended while its log could not be written, at least %d bytes of its output are lost: %s"
        self.trouble(words % (lost, _words(error)))

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
        self._stop_waiting()
        self.close_streams()
        if self.pump is not None:
            if self.pump.sink is not None:
                try:
                    self.pump.sink.sync()
                except OSError as error:
                    self.trouble("The log may not survive a power cut: %s" % _words(error))
            self.pump.close()
            self.pump = None


def rehearse(kernel: Kernel, directory: str) -> None:
    """Once in the process that monitors are forked from: pass two lines on, into a log in ``directory``, which is
    removed. What the interpreter writes down at the first use of a type, a function or a C library's symbol then is in
    pages that all monitors share (200 KiB less in each). Raises ``OSError``."""
    from .cleanup import remove_directory

    remove_directory(directory)  # of one that was killed here
    os.mkdir(directory, 0o700)
    loop, (read, write) = Loop(), os.pipe()
    os.set_blocking(read, False)
    stdio = Stdio(kernel, loop, directory, {"log": {"path": directory + "/log"}}, {"stdout": read})
    try:
        for _line in range(2):
            os.write(write, b"a line\n")
            loop.once()
    finally:
        stdio.close()
        os.close(write)
        remove_directory(directory)


def _nobody_told(_sentence: str) -> None:
    """Of a process that only opens the streams."""


def _words(error: OSError) -> str:
    place = error.filename
    return "%s: %s" % (place, error.strerror) if place else str(error.strerror or error)


def _place(log: Mapping[str, Any]) -> str:
    place = log.get("address") or log.get("path")
    return str(place or {"syslog": "/dev/log"}.get(str(log.get("driver")), "its log"))


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
