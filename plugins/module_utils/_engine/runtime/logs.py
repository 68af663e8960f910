# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""json-file logs: one JSON object per line, ``{"log": "text\\n", "stream": "stdout", "time": "<RFC 3339, UTC>"}``.

Docker's format, so its tools read it. A line longer than 16 KiB becomes several records, only the last of which ends
in a newline. Times always have nine fractional digits: they sort as text. Rotated files are ``log.1`` (newest) on.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from typing import Any, Optional

# json's own quoting of one string, without the detour through an encoder object: half the cost of a line.
_quote = json.encoder.encode_basestring

MAX_RECORD = 16384
ZERO_TIME = "0001-01-01T00:00:00Z"
_BLOCK = 65536


def timestamp(nanoseconds: Optional[int] = None) -> str:
    """RFC 3339 with nanoseconds, UTC; now by default (wall clock: for people and log records only)."""
    if nanoseconds is None:
        nanoseconds = time.time_ns()
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return "%s.%09dZ" % (time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)), rest)


class Writer:
    """Splits what a container says into lines and appends records.

    Nothing here may stop the container: when the disk is full records are dropped and counted in ``dropped``; the
    next successful write is preceded by one record that says so.
    """

    def __init__(
        self,
        path: str,
        max_size: Optional[int] = None,
        max_file: int = 1,
        labels: Optional[dict[str, str]] = None,
    ) -> None:
        self.path = path
        self.max_size = max_size
        self.max_file = max(1, max_file)
        self.dropped = 0
        self._attrs = ', "attrs": ' + json.dumps(labels) if labels else ""
        self._partial: dict[str, bytes] = {}
        self._fd = -1
        self._size = 0
        self._open(os.O_APPEND)

    def _open(self, how: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | how
        fd = os.open(self.path, flags, 0o640)
        self.close()
        self._fd = fd
        self._size = os.fstat(fd).st_size

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def sync(self) -> None:
        """Ask for the records to survive a power cut."""
        try:
            os.fsync(self._fd)
        except OSError:  # a log on a file system that cannot: nothing depends on it
            pass

    def write(self, stream: str, data: bytes) -> None:
        """``data``: the next bytes of ``stream`` ("stdout", "stderr"), cut anywhere."""
        data = self._partial.pop(stream, b"") + data
        tail = self._tail(stream)
        records: list[str] = []
        start = 0
        while start < len(data):
            end = data.find(b"\n", start, start + MAX_RECORD) + 1
            if not end:
                if len(data) - start < MAX_RECORD:
                    self._partial[stream] = data[start:]
                    break
                end = _character_boundary(data, start, start + MAX_RECORD)
            records.append('{"log": ' + _quote(data[start:end].decode("utf-8", "replace")) + tail)
            start = end
        self._append(records)

    def flush(self) -> None:
        """Write what did not end in a newline: the stream has ended."""
        records = [self._record(stream, data) for stream, data in self._partial.items() if data]
        self._partial.clear()
        self._append(records)

    def _tail(self, stream: str) -> str:
        return ', "stream": "%s"%s, "time": "%s"}\n' % (stream, self._attrs, timestamp())

    def _record(self, stream: str, line: bytes) -> str:
        return '{"log": ' + _quote(line.decode("utf-8", "replace")) + self._tail(stream)

    def _append(self, records: list[str]) -> None:
        if not records:
            return
        if self.dropped:
            note = b"wharf: %d log records were lost, the disk was full\n" % self.dropped
            records.insert(0, self._record("stderr", note))
        whole = "".join(records).encode("utf-8", "surrogatepass")
        if not self.max_size or self._size + len(whole) <= self.max_size:
            self._put(whole, len(records))
            return
        batch: list[bytes] = []
        size = 0
        for record in records:
            raw = record.encode("utf-8", "surrogatepass")
            if self._size + size and self._size + size + len(raw) > self.max_size:
                self._put(b"".join(batch), len(batch))
                batch, size = [], 0
                self._rotate()
            batch.append(raw)
            size += len(raw)
        self._put(b"".join(batch), len(batch))

    def _put(self, raw: bytes, records: int) -> None:
        view = memoryview(raw)
        try:
            while view:
                written = os.write(self._fd, view)
                self._size += written
                view = view[written:]
        except OSError:  # ENOSPC, EDQUOT, EIO
            self.dropped += records
            self._cut_torn_record(len(raw) - len(view))
        else:
            if records:
                self.dropped = 0

    def _cut_torn_record(self, written: int) -> None:
        """After a failed write: no half record may stay, the next one would be glued to it."""
        if written:
            self._size -= written
            try:
                os.ftruncate(self._fd, self._size)
            except OSError:  # the reader skips lines that are no JSON
                pass

    def _rotate(self) -> None:
        try:
            if self.max_file == 1:
                self._open(os.O_APPEND | os.O_TRUNC)
                return
            for number in range(self.max_file - 1, 1, -1):
                _rename("%s.%d" % (self.path, number - 1), "%s.%d" % (self.path, number))
            _rename(self.path, self.path + ".1")
            self._open(os.O_APPEND)
        except OSError:  # cannot rotate: go on in the old file rather than lose records
            pass


def _rename(old: str, new: str) -> None:
    try:
        os.rename(old, new)
    except FileNotFoundError:
        pass


def _character_boundary(data: bytes, start: int, end: int) -> int:
    """The last cut at or before ``end`` that does not split a UTF-8 character (whole ``end`` if it is no UTF-8)."""
    for cut in range(end, max(start, end - 4), -1):
        if cut >= len(data) or data[cut] & 0xC0 != 0x80:
            return cut
    return end


def files(path: str) -> list[str]:
    """The log's files that exist, oldest first."""
    directory, name = os.path.split(path)
    numbers = []
    try:
        for entry in os.listdir(directory):
            base, dot, tail = entry.rpartition(".")
            if dot and base == name and tail.isdigit():
                numbers.append(int(tail))
    except FileNotFoundError:
        return []
    found = ["%s.%d" % (path, number) for number in sorted(numbers, reverse=True)]
    return [*found, path] if os.path.exists(path) else found


def read(
    path: str,
    *,
    since: Optional[float] = None,
    until: Optional[float] = None,
    tail: Optional[int] = None,
    streams: tuple[str, ...] = ("stdout", "stderr"),
) -> Iterator[dict[str, Any]]:
    """Records (dicts as stored), oldest first, across rotated files.

    ``since``/``until``: seconds since the epoch, inclusive; ``tail``: only the last so many of those that match.
    Lines that are no records (torn by a crash) are skipped.
    """
    low = "" if since is None else timestamp(int(since * 1e9))
    high = "~" if until is None else timestamp(int(until * 1e9))
    if tail is None:
        for name in files(path):
            for record in _forward(name):
                if record["stream"] in streams and low <= record["time"] <= high:
                    yield record
        return
    if tail <= 0:
        return
    found: list[dict[str, Any]] = []
    for record in _backward_all(path):
        if record["time"] < low:
            break  # times grow: nothing older matches (a clock set back may hide a little)
        if record["stream"] in streams and record["time"] <= high:
            found.append(record)
            if len(found) == tail:
                break
    yield from reversed(found)


def _parse(line: bytes) -> Optional[dict[str, Any]]:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    if isinstance(record, dict) and isinstance(record.get("log"), str) and isinstance(record.get("time"), str):
        record.setdefault("stream", "stdout")
        return record
    return None


def _forward(path: str) -> Iterator[dict[str, Any]]:
    try:
        with open(path, "rb") as stream:
            for line in stream:
                record = _parse(line)
                if record is not None:
                    yield record
    except FileNotFoundError:  # rotated away meanwhile
        return


def _backward_all(path: str) -> Iterator[dict[str, Any]]:
    for name in reversed(files(path)):
        for line in _lines_backward(name):
            record = _parse(line)
            if record is not None:
                yield record


def _lines_backward(path: str) -> Iterator[bytes]:
    try:
        stream = open(path, "rb")
    except FileNotFoundError:
        return
    with stream:
        position = stream.seek(0, os.SEEK_END)
        rest = b""
        while position:
            step = min(_BLOCK, position)
            position -= step
            stream.seek(position)
            lines = (stream.read(step) + rest).split(b"\n")
            rest = lines[0]
            for line in reversed(lines[1:]):
                if line:
                    yield line
        if rest:
            yield rest
