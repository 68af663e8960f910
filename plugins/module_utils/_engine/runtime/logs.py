# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading the logs that ``logfile`` describes: in both formats, rotated, compressed, from either end."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from typing import Any, Optional, Union

from ..tuples import NamedTuple

ZERO_TIME = "0001-01-01T00:00:00Z"
LOCAL_SUFFIX = ".local"  # of the local driver's file beside json-file's
# A record without end that is about as long as records get is a part of a longer line; a shorter one is the last line
# of a container that ended in the middle of it.
_PART_SIZE = 16384 - 3
_BLOCK = 65536
_ROTATIONS = 50  # tries to open a log between two of them

Record = dict[str, Any]


def timestamp(nanoseconds: Optional[int] = None) -> str:
    """RFC 3339 with nanoseconds, UTC; now by default (wall clock: for people and log records only)."""
    if nanoseconds is None:
        nanoseconds = time.time_ns()
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return "%s.%09dZ" % (time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)), rest)


class Choice(NamedTuple):
    """``since``, ``until``: as ``timestamp`` writes them, inclusive; they compare as text."""

    since: str = ""
    until: str = "~"
    streams: tuple[str, ...] = ("stdout", "stderr")

    def takes(self, record: Record) -> bool:
        return record["stream"] in self.streams and self.since <= record["time"] <= self.until


def choice(since: Optional[float], until: Optional[float], streams: tuple[str, ...]) -> Choice:
    """``since``/``until``: seconds since the epoch."""
    low = "" if since is None else timestamp(int(since * 1e9))
    high = "~" if until is None else timestamp(int(until * 1e9))
    return Choice(low, high, streams)


def files(path: str) -> list[str]:
    """The log's files that exist, oldest first; one that is there in both forms, plain and gzip, as the plain one."""
    directory, name = os.path.split(path)
    found: dict[int, str] = {}
    try:
        entries = os.listdir(directory)
    except FileNotFoundError:
        return []
    for entry in entries:
        plain = entry[:-3] if entry.endswith(".gz") else entry
        base, dot, tail = plain.rpartition(".")
        if dot and base == name and tail.isdigit() and (plain == entry or plain not in entries):
            found[int(tail)] = "%s/%s" % (directory, entry)
    rotated = [found[number] for number in sorted(found, reverse=True)]
    return [*rotated, path] if name in entries else rotated


def read(
    path: str,
    *,
    since: Optional[float] = None,
    until: Optional[float] = None,
    tail: Optional[int] = None,
    streams: tuple[str, ...] = ("stdout", "stderr"),
) -> Iterator[Record]:
    """Records, ``{"log", "stream", "time"}`` and maybe "attrs", oldest first, across rotated files. ``path``: of
    json-file's log; what the local driver wrote beside it comes along, for who has changed from one to the other.

    ``since``/``until``: seconds since the epoch, inclusive; ``tail``: only the last so many of those that match.
    What is no record (torn by a crash) is skipped.
    """
    chosen = choice(since, until, streams)
    if tail is None:
        for record in _forward(path):
            if chosen.takes(record):
                yield record
        return
    found: list[Record] = []
    if tail > 0:
        for record in backward(path, chosen):
            found.append(record)
            if len(found) == tail:
                break
    yield from reversed(found)


def is_part(record: Record) -> bool:
    """More of the same line follows in the next record of its stream."""
    text: str = record["log"]
    if text.endswith("\n"):
        return False
    return bool(record.get("part")) or len(text.encode("utf-8", "surrogatepass")) >= _PART_SIZE


def lines(path: str, chosen: Choice, tail: Optional[int] = None) -> Iterator[Record]:
    """As ``read``, but lines: the parts of a long one joined. "log" has no end of line, "time" is the first part's."""
    if tail is not None:
        yield from reversed(_last_lines(path, chosen, tail))
        return
    joiner = Joiner()
    yield from joiner.add(record for record in _forward(path) if chosen.takes(record))
    yield from joiner.rest()


class Joiner:
    """Makes lines of records, which come oldest first."""

    def __init__(self) -> None:
        self._begun: dict[str, list[Record]] = {}

    def add(self, records: Iterable[Record]) -> Iterator[Record]:
        for record in records:
            parts = self._begun.setdefault(record["stream"], [])
            parts.append(record)
            if not is_part(record):
                yield _joined(self._begun.pop(record["stream"]))

    def rest(self) -> list[Record]:
        """Lines whose end has not come."""
        return [_joined(parts) for parts in self._begun.values()]


def _last_lines(path: str, chosen: Choice, tail: int) -> list[Record]:
    """Newest first."""
    found: list[list[Record]] = []  # each line's records, newest first
    of_stream: dict[str, list[Record]] = {}
    for record in backward(path, chosen) if tail > 0 else ():
        newer = of_stream.get(record["stream"])
        if newer is not None and is_part(record):
            newer.append(record)
            continue
        if len(found) == tail:
            if record["stream"] == found[-1][0]["stream"]:
                break  # the oldest line's beginning is known
            of_stream.pop(record["stream"], None)  # parts further back belong to a line not wanted
            continue
        of_stream[record["stream"]] = [record]
        found.append(of_stream[record["stream"]])
    return [_joined(parts[::-1]) for parts in found]


def _joined(parts: list[Record]) -> Record:
    text = "".join(part["log"] for part in parts)
    return {**parts[0], "log": text[:-1] if text.endswith("\n") else text}


class Follower:
    """What is written from now on. ``new`` is called again and again; it reads backward to where it was, and so does
    not mind rotation."""

    def __init__(self, path: str, chosen: Choice) -> None:
        self._path = path
        self._chosen = chosen
        self._time = chosen.since
        self._seen = 0  # records of that very time

    def new(self) -> list[Record]:
        found = []
        for record in backward(self._path, self._chosen._replace(since=self._time)):
            found.append(record)
        found.reverse()
        fresh = found[self._seen :]
        if found:
            newest = found[-1]["time"]
            self._time, self._seen = newest, sum(1 for record in found if record["time"] == newest)
        return fresh


# -- files ---------------------------------------------------------------------------------------------------------


def _forward(path: str) -> Iterator[Record]:
    theirs, ours = _streams(path), _streams(path + LOCAL_SUFFIX)
    try:
        plain = (record for stream in theirs for record in _json_forward(stream))
        if not ours:
            yield from plain
            return
        import heapq

        local = (record for stream in ours for record in _local_forward(stream))
        yield from heapq.merge(plain, local, key=_time)
    finally:
        _close(theirs + ours)


def backward(path: str, chosen: Choice) -> Iterator[Record]:
    """Those chosen, newest first. Times grow, so it ends at the first that is older (a clock set back may hide a
    little)."""
    theirs, ours = _streams(path), _streams(path + LOCAL_SUFFIX)
    try:
        found = (record for stream in reversed(theirs) for record in _json_backward(stream))
        if ours:
            import heapq

            local = (record for stream in reversed(ours) for record in _local_backward(stream))
            found = iter(heapq.merge(found, local, key=_time, reverse=True))
        for record in found:
            if record["time"] < chosen.since:
                return
            if chosen.takes(record):
                yield record
    finally:
        _close(theirs + ours)


def _time(record: Record) -> str:
    time_: str = record["time"]
    return time_


def _streams(path: str) -> list[Any]:
    """Binary streams of ``files(path)``, all opened before the first is read, and all at one moment between two
    rotations: or what moved on while it was being opened would be missing, or come twice."""
    opened: list[Any] = []
    for _attempt in range(_ROTATIONS):
        opened = _open(files(path))
        if [_identity(stream.fileno()) for stream in opened] == [_identity(name) for name in files(path)]:
            break
        _close(opened)
    else:
        opened = _open(files(path))  # it rotates faster than it can be opened: whatever there is
    return [_unpacked(stream) for stream in opened]


def _open(names: list[str]) -> list[Any]:
    opened = []
    for name in names:
        try:
            opened.append(open(name, "rb"))
        except FileNotFoundError:  # rotated away, or compressed, this instant
            continue
    return opened


def _close(streams: list[Any]) -> None:
    for stream in streams:
        stream.close()


def _identity(file: Union[int, str]) -> Optional[tuple[int, int]]:
    try:
        status = os.stat(file)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _unpacked(stream: Any) -> Any:
    if not stream.name.endswith(".gz"):
        return stream
    import gzip

    return gzip.GzipFile(fileobj=stream)


def _is_gzip(stream: Any) -> bool:
    return hasattr(stream, "mtime")


def _parse(line: bytes) -> Optional[Record]:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    if isinstance(record, dict) and isinstance(record.get("log"), str) and isinstance(record.get("time"), str):
        record.setdefault("stream", "stdout")
        return record
    return None


def _json_forward(stream: Any) -> Iterator[Record]:
    for line in stream:
        record = _parse(line)
        if record is not None:
            yield record


def _json_backward(stream: Any) -> Iterator[Record]:
    for line in _lines_backward(stream):
        record = _parse(line)
        if record is not None:
            yield record


def _lines_backward(stream: Any) -> Iterator[bytes]:
    if _is_gzip(stream):
        yield from reversed(stream.read().split(b"\n"))  # at most max-size; a gzip stream has no way back
        return
    position = stream.seek(0, os.SEEK_END)
    rest = b""
    while position:
        step = min(_BLOCK, position)
        position -= step
        stream.seek(position)
        found = (stream.read(step) + rest).split(b"\n")
        rest = found[0]
        for line in reversed(found[1:]):
            if line:
                yield line
    if rest:
        yield rest


def _local_forward(stream: Any) -> Iterator[Record]:
    from .logfile import blocks

    with _Blocks(stream) as source:
        for block in blocks(source.read):
            yield from source.records(block)


def _local_backward(stream: Any) -> Iterator[Record]:
    from .logfile import block_before, blocks

    with _Blocks(stream) as source:
        end = source.size
        if end and block_before(source.read, end) is None:  # torn, or being written just now
            for block in blocks(source.read):
                end = source.end(block)
        while end:
            block_ = block_before(source.read, end)
            if block_ is None:
                return
            yield from reversed(source.records(block_))
            end = block_[0]


class _Blocks:
    """A file of the local driver; a compressed one is read into memory."""

    def __init__(self, stream: Any) -> None:
        self._fd, self._data, self.size = -1, b"", 0
        if _is_gzip(stream):
            self._data = stream.read()
            self.size = len(self._data)
        else:
            self._fd = os.dup(stream.fileno())
            self.size = os.fstat(self._fd).st_size

    def __enter__(self) -> _Blocks:
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    def read(self, length: int, offset: int) -> bytes:
        return os.pread(self._fd, length, offset) if self._fd >= 0 else self._data[offset : offset + length]

    @staticmethod
    def end(block: tuple[int, int, int, int, int]) -> int:
        from .logfile import BLOCK_HEAD, BLOCK_TAIL

        return block[0] + BLOCK_HEAD.size + block[4] + BLOCK_TAIL.size

    def records(self, block: tuple[int, int, int, int, int]) -> list[Record]:
        from .logfile import BLOCK_HEAD, PART, STREAMS

        offset, stream, flags, stamp, length = block
        text = self.read(length, offset + BLOCK_HEAD.size)
        said = text.decode("utf-8", "replace").split("\n")
        rest = said.pop()
        fixed = {"stream": STREAMS.get(stream, "stdout"), "time": timestamp(stamp)}
        found: list[Record] = [{"log": line + "\n", **fixed} for line in said]
        if rest:
            found.append({"log": rest, **fixed, **({"part": True} if flags == PART else {})})
        return found
