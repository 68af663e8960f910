# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""From a container's pipes into its log: nothing lost, nothing twice, also when the monitor is killed at any moment.

    FIFO ── splice ──> spool, a file ── read ──> log driver
                                          └────> mark: how far the spool has been read, and how long the log is then

``splice`` takes out of the pipe exactly what it has put into the spool, and a kill cannot come between the two; so
what the monitor knew only in its memory does not matter. After each write to the log the mark is written: one
``pwrite`` within one page, which a kill cannot halve either. A successor cuts off what the log holds behind the mark
(it stands in the spool still) and goes on from there. The spool's consumed part is given back by punching holes, so
offsets only grow. Mark and spools live in the run directory: they matter as long as the container runs in this boot.

An unfinished line stays in the spool until its end comes. A line longer than 16 KiB goes out in parts, as with Docker.
A log that cannot be written to is the caller's to wait for: ``work`` raises, the mark stays, nobody reads the pipe
any more, and the container blocks in ``write`` once that is full.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional, Union

from ..kernel.syscalls import Kernel
from .logfile import LAST_PART, PART, JsonFile, LocalFile, LogFile

if TYPE_CHECKING:  # imported where a container asks for it
    from .logsocket import SocketLog

MAX_RECORD = 16384
NUMBERS = {"stdout": 1, "stderr": 2}
_PIPE = 65536
_READ = _PIPE + MAX_RECORD
_KEPT = 65536  # bytes of a spool that are read and not yet given back
_PAGE = 4096
_MAGIC = b"wharf-1\0"
# magic, a number for this run of the container; ino and size of the log, newest time; of each stream: bytes read,
# parts of the long line at hand that went out, and where that line began
_MARK = struct.Struct("<8sQQQqQQQQQQ")

Sink = Union[LogFile, "SocketLog"]


class Source:
    """One stream: its spool, and how far that is read."""

    __slots__ = ("begun", "end", "fd", "freed", "number", "parts", "position")

    def __init__(self, number: int, fd: int) -> None:
        self.number = number
        self.fd = fd
        self.end = os.fstat(fd).st_size
        self.position = 0
        self.parts = 0
        self.begun = 0
        self.freed = 0


class Pump:
    """``directory``: the container's run directory. ``sink`` is the log; None until ``configure``, or when the driver
    is "none"."""

    def __init__(self, kernel: Kernel, directory: str) -> None:
        """Raises ``OSError``."""
        self.kernel = kernel
        self.sink: Optional[Sink] = None
        self.sources: dict[int, Source] = {}
        self._last = 0
        self._noted = (0, 0)
        self._punches = True
        self._mark = os.open(directory + "/log.mark", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        for name, number in NUMBERS.items():
            how = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self.sources[number] = Source(number, os.open("%s/%s.spool" % (directory, name), how, 0o600))
        self._read_mark()

    def _read_mark(self) -> None:
        raw = os.pread(self._mark, _MARK.size, 0)
        if len(raw) < _MARK.size or raw[:8] != _MAGIC:  # a run that begins
            self._run = int.from_bytes(os.urandom(8), "little")
            return
        _magic, self._run, ino, size, self._last, *positions = _MARK.unpack(raw)
        self._noted = ino, size
        for at, source in enumerate(self.sources.values()):
            source.position, source.parts, source.begun = positions[3 * at : 3 * at + 3]
            source.freed = source.position & -_PAGE

    def note(self) -> None:
        """Write the mark. Raises ``OSError``."""
        sink, first, second = self.sink, self.sources[1], self.sources[2]
        if sink is not None:
            self._noted = sink.ino, sink.size
        raw = _MARK.pack(
            _MAGIC, self._run, *self._noted, self._last,
            first.position, first.parts, first.begun, second.position, second.parts, second.begun,
        )  # fmt: skip
        os.pwrite(self._mark, raw, 0)

    def configure(self, log: Mapping[str, Any]) -> None:
        """Write to this log from now on (run.json's ``log``). Raises ``OSError``; the one before then stays in use."""
        fresh = make_sink(self.kernel, log, self._noted)
        if self.sink is not None:
            try:
                self.sink.flush()
            except BlockingIOError:  # its receiver does not take it; close gives it a last chance
                pass
            self.sink.close()
        self.sink = fresh
        self.note()

    # -- in --------------------------------------------------------------------------------------------------------

    def take(self, pipe: int, number: int) -> Optional[int]:
        """Move what is in ``pipe`` into the spool. None: it is empty; 0: and no writer is left. Raises ``OSError``."""
        source = self.sources[number]
        try:
            count = self.kernel.splice_from_pipe(pipe, source.fd, source.end, _PIPE)
        except BlockingIOError:
            return None
        source.end += count
        return count

    def feed(self, number: int, data: bytes) -> None:
        """Put ``data`` into the spool (a terminal's: its output ends with its monitor anyway)."""
        source = self.sources[number]
        while data:  # raises OSError
            written = os.pwrite(source.fd, data, source.end)
            source.end += written
            data = data[written:]

    # -- out -------------------------------------------------------------------------------------------------------

    def work(self, number: int, final: bool = False) -> None:
        """Bring what is in the spool to the log; with ``final`` also a last line without end. Raises ``OSError`` when
        the log does not take it just now (``BlockingIOError``: poll its ``waits``); call again."""
        source, sink = self.sources[number], self.sink
        if sink is None:
            self.skip(source)
            return
        while source.position < source.end:
            data = os.pread(source.fd, _READ, source.position)
            size, part = portion(data, source.parts, final and source.position + len(data) >= source.end)
            if not size:
                break
            if part and not source.parts:
                source.begun = source.position
            ident = "%x-%d-%x" % (self._run, number, source.begun) if part else ""
            parts = source.parts + 1 if part else 0
            whole = data if size == len(data) else data[:size]
            for piece in (whole,) if sink.bulk else lines(whole):
                while piece:
                    taken = sink.put(number, piece, self._now(), part, ident, parts)
                    if taken:
                        source.position += taken
                        source.parts = parts if part == PART else 0
                        piece = piece[taken:]
                    self.note()
            if source.position - source.freed >= _KEPT:
                self._give_back(source)
        sink.flush()

    def _now(self) -> int:
        """Wall clock, nanoseconds. It does not step back by less than a second: time servers do that, and records are
        searched by time. Somebody who sets the clock means it."""
        now = time.time_ns()
        if self._last - 1_000_000_000 < now < self._last:
            now = self._last
        self._last = now
        return now

    def _give_back(self, source: Source) -> None:
        end = source.position & -_PAGE
        if self._punches:
            try:
                self.kernel.punch_hole(source.fd, source.freed, end - source.freed)
            except OSError as error:
                if error.errno not in (95, 38):  # EOPNOTSUPP, ENOSYS: the spool then grows with the output
                    raise
                self._punches = False
        source.freed = end

    def backlog(self, number: int) -> int:
        """Bytes in the spool that are not in the log."""
        source = self.sources[number]
        return source.end - source.position

    def skip(self, source: Source) -> None:
        source.position, source.parts = source.end, 0
        self.note()
        if source.position - source.freed >= _KEPT:
            self._give_back(source)

    def drop_oldest(self, number: int) -> int:
        """For ``mode: non-blocking``: give up the oldest lines that wait; how many."""
        source = self.sources[number]
        data = os.pread(source.fd, _PIPE, source.position)
        size = data.rfind(b"\n") + 1 or len(data)
        source.position += size
        source.parts = 0
        self.note()
        if source.position - source.freed >= _KEPT:
            self._give_back(source)
        return data.count(b"\n", 0, size) or 1

    def close(self) -> None:
        if self.sink is not None:
            self.sink.close()
            self.sink = None
        for source in self.sources.values():
            os.close(source.fd)
        self.sources.clear()
        if self._mark >= 0:
            os.close(self._mark)
            self._mark = -1


def portion(data: bytes, parts: int, final: bool) -> tuple[int, int]:
    """How much of ``data``, the beginning of what waits, can go out: ``(bytes, part)``. As many whole lines as there
    are (part 0), or one part of a line longer than 16 KiB (``PART``, ``LAST_PART``); ``(0, 0)``: nothing yet.
    ``parts``: that many parts of the line it begins with have gone out. ``final``: nothing comes behind it."""
    if parts:
        end = data.find(b"\n", 0, MAX_RECORD) + 1
        if end:
            return end, LAST_PART
    else:
        end = 0
        while True:  # one search for every 16 KiB, not for every line
            found = data.rfind(b"\n", end, end + MAX_RECORD)
            if found < 0:
                break
            end = found + 1
        if end:
            return end, 0
    if len(data) > MAX_RECORD:
        return _character_boundary(data, MAX_RECORD), PART
    if final and data:
        return len(data), LAST_PART if parts else 0
    return 0, 0


def lines(data: bytes) -> list[bytes]:
    """``data`` cut behind each of its line ends (``splitlines`` cuts at others, too)."""
    whole = data.split(b"\n")
    rest = whole.pop()
    return [line + b"\n" for line in whole] + ([rest] if rest else [])


def _character_boundary(data: bytes, end: int) -> int:
    """The last cut at or before ``end`` that does not split a UTF-8 character (``end`` if it is no UTF-8); ``data`` is
    longer than that."""
    for cut in range(end, end - 4, -1):
        if data[cut] & 0xC0 != 0x80:
            return cut
    return end


def make_sink(kernel: Kernel, log: Mapping[str, Any], mark: tuple[int, int] = (0, 0)) -> Optional[Sink]:
    """Open the log. None for the driver "none". Raises ``OSError``."""
    driver = log.get("driver", "json-file")
    if driver in ("json-file", "local"):
        if not log.get("path"):
            return None
        return (JsonFile if driver == "json-file" else LocalFile)(kernel, log, mark)
    if driver == "none":
        return None
    from .logsocket import Journal, Syslog

    return Journal(log) if driver == "journald" else Syslog(log)


def salvage(kernel: Kernel, directory: str, log: Mapping[str, Any], pipes: Sequence[int] = ()) -> None:
    """What a monitor that was killed had not brought to the log, of a container that has ended since. Idempotent.
    ``pipes``: its stdout and stderr, as far as somebody kept them open. Raises ``OSError``."""
    if not os.path.exists(directory + "/log.mark"):
        return
    pump = Pump(kernel, directory)
    try:
        for number, pipe in enumerate(pipes, 1):
            while pump.take(pipe, number):
                pass
        if any(pump.backlog(number) for number in pump.sources):
            pump.configure(log)
            for number in pump.sources:
                pump.work(number, final=True)
    finally:
        pump.close()
