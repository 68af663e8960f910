# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Logs in files: the drivers json-file and local. Written by ``pump``, read by ``logs``.

json-file is Docker's format, one JSON object a line: ``{"log":"text\\n","stream":"stdout","time":"<RFC 3339, UTC>"}``,
with ``attrs`` where labels or a tag were asked for. A part of a longer line has no ``\\n``.

local is a format of ours: blocks, each of lines that one stream said at one time. Little-endian::

    2 bytes "\\xb7W" | u8 stream, 1 or 2 | u8 flags | i64 nanoseconds since the epoch | u32 length of the text
    the text, as it was written | u32 length of the whole block, to read backward by

Flag 1: part of a longer line, and more of it follows; flag 2: the last part of one.

Rotated files are ``.1`` (newest) on, with ``.gz`` once they are compressed, which a child of the monitor does.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import struct
import time
from collections.abc import Iterator, Mapping
from typing import Any, Callable, Optional

from ..kernel.syscalls import PR_SET_PDEATHSIG, Kernel

# json's own quoting of one string, without the detour through an encoder object.
_quote = json.encoder.encode_basestring
_UNSAFE = bytes(code for code in range(32) if code != 10) + b'"\\'
# Stands for the end of a line while a text of many lines is quoted: decoding UTF-8 never yields a lone surrogate.
_LINE_END = "\udc0a"

STREAMS = {1: "stdout", 2: "stderr"}
BLOCK_MAGIC = b"\xb7W"
BLOCK_HEAD = struct.Struct("<2sBBqI")
BLOCK_TAIL = struct.Struct("<I")
PART, LAST_PART = 1, 2
_COMPRESSION = 3
_COPY = 1 << 18


class LogFile:
    """What both drivers share: the open file, its size, rotation. ``ino`` and ``size`` say where the next record goes;
    the pump notes both after every ``put``.

    ``put(stream, data, nanoseconds, part)`` stores the beginning of ``data``, at least a line, and returns how many
    bytes that was; 0 after a rotation, which is to be noted before anything is written to the new file. Raises
    ``OSError``, and then nothing of it was stored: ``BlockingIOError`` while the last rotated file is still being
    compressed (``waits``: the descriptor to poll; what comes in faster than that has to wait, or the log would outgrow
    what it may take), others when the disk is full or broken.
    """

    events = select.POLLIN  # what to poll "waits" for
    bulk = True  # takes many lines at once

    def __init__(self, kernel: Kernel, log: Mapping[str, Any], mark: tuple[int, int]) -> None:
        """``mark``: what was noted last, ``(ino, size)``. What stands behind it in that file was not completed by the
        monitor before, and is cut off: its text is still to be written. Raises ``OSError``."""
        self.kernel = kernel
        self.path: str = log["path"]
        self.max_size: int = log.get("max_size") or 0
        self.max_file: int = max(1, log.get("max_file") or 1)
        self.compress = bool(log.get("compress")) and self.max_file > 1
        self.fd = -1
        self.ino = self.size = 0
        self._child = self._pidfd = 0
        self._use(self._create(self.path, 0))
        if self.ino == mark[0]:
            if self.size > mark[1]:
                os.ftruncate(self.fd, mark[1])
                self.size = mark[1]
        else:
            self._cut_torn_end()

    def _create(self, path: str, how: int) -> int:
        return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | how, 0o640)

    def _use(self, fd: int) -> None:
        self._close_file()
        self.fd = fd
        status = os.fstat(fd)
        self.ino, self.size = status.st_ino, status.st_size

    def _close_file(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def close(self) -> None:
        self.hurry()
        self._close_file()

    def sync(self) -> None:
        """Ask for the records to survive a power cut."""
        try:
            os.fsync(self.fd)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EROFS):  # a file system that has no such thing
                raise

    def _cut_torn_end(self) -> None:
        """Of a file that was last written before a power cut, or by somebody else."""
        raise NotImplementedError

    def put(self, stream: int, data: bytes, stamp: int, part: int = 0, ident: str = "", ordinal: int = 0) -> int:
        raise NotImplementedError

    def _append(self, raw: bytes) -> None:
        view = memoryview(raw)
        try:
            while view:
                view = view[os.write(self.fd, view) :]
        except OSError:
            written = len(raw) - len(view)
            if written:  # no half record may stay
                os.ftruncate(self.fd, max(0, os.fstat(self.fd).st_size - written))
            raise
        self.size += len(raw)

    # -- rotation --------------------------------------------------------------------------------------------------

    @property
    def waits(self) -> Optional[int]:
        return self._pidfd or None

    def _rotate(self) -> None:
        if self.max_file == 1:
            os.ftruncate(self.fd, 0)
            self.size = 0
            return
        self.reap()
        if self._child:
            raise BlockingIOError(errno.EAGAIN, "the log before is still being compressed", self.path + ".1")
        fresh = self.path + ".next"
        fd = self._create(fresh, os.O_TRUNC)  # first, so that a full disk leaves everything as it is
        for number in range(self.max_file - 1, 1, -1):
            self._move("%s.%d" % (self.path, number - 1), "%s.%d" % (self.path, number))
        os.rename(self.path, self.path + ".1")
        _unlink(self.path + ".1.gz")
        os.rename(fresh, self.path)
        self._use(fd)
        self._forget_surplus()
        if self.compress:
            self._start_compression()

    def _move(self, newer: str, older: str) -> None:
        forms = [suffix for suffix in ("", ".gz") if os.path.lexists(newer + suffix)]
        if not forms:  # a rotation that was cut short here: nothing is to be lost for it
            return
        for suffix in ("", ".gz"):
            if suffix in forms:
                os.rename(newer + suffix, older + suffix)
            else:
                _unlink(older + suffix)

    def _forget_surplus(self) -> None:
        """There were to be more files once."""
        number = self.max_file
        while any(os.path.lexists("%s.%d%s" % (self.path, number, suffix)) for suffix in ("", ".gz")):
            for suffix in ("", ".gz"):
                _unlink("%s.%d%s" % (self.path, number, suffix))
            number += 1

    def _start_compression(self) -> None:
        """In a child that lives no longer than that: the pump has better things to do, and zlib stays out of it."""
        parent = os.getpid()
        pid = os.fork()
        if pid:
            self._child, self._pidfd = pid, os.pidfd_open(pid)
            return
        status = 1
        try:
            self.kernel.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() == parent:
                signal.set_wakeup_fd(-1)
                self.kernel.close_range(3)  # above all the container's streams and the monitor's lock
                os.nice(19)
                compress_rotated(self.path, self.max_file)
            status = 0
        except BaseException:
            import traceback

            traceback.print_exc()  # standard error is the spawner's log; the file stays as it is, and is read like that
        finally:
            os._exit(status)

    def reap(self, options: int = os.WNOHANG) -> None:
        """The child that compresses, if it has ended."""
        if self._child and os.waitpid(self._child, options)[0]:
            os.close(self._pidfd)
            self._child = self._pidfd = 0

    def flush(self) -> None:
        """Nothing is held back."""

    def hurry(self) -> None:
        """The container has ended: nothing waits for compression any more. The next one makes up for it."""
        if self._child:
            os.kill(self._child, signal.SIGKILL)
            self.reap(0)


class JsonFile(LogFile):
    def __init__(self, kernel: Kernel, log: Mapping[str, Any], mark: tuple[int, int]) -> None:
        attrs = log.get("attrs")
        self._attrs = ',"attrs":' + json.dumps(attrs, ensure_ascii=False, separators=(",", ":")) if attrs else ""
        self._second, self._clock = -1, ""
        super().__init__(kernel, log, mark)

    def put(self, stream: int, data: bytes, stamp: int, part: int = 0, ident: str = "", ordinal: int = 0) -> int:
        raw = self._records(stream, data, stamp)
        if not self.max_size or self.size + len(raw) <= self.max_size:
            self._append(raw)
            return len(data)
        end = raw.rfind(b"\n", 0, max(0, self.max_size - self.size)) + 1
        if not end:
            if self.size:
                self._rotate()
                return 0
            end = raw.index(b"\n") + 1  # one record larger than a file may be
        self._append(raw[:end])
        lines = data.split(b"\n", raw.count(b"\n", 0, end))
        return len(data) - len(lines[-1]) if len(lines) > 1 else len(data)

    def _records(self, stream: int, data: bytes, stamp: int) -> bytes:
        """``data``: whole lines, or one text without end. All of it at once: a line costs next to nothing."""
        tail = '","stream":"%s"%s,"time":"%s"}\n' % (STREAMS[stream], self._attrs, self._time(stamp))
        ended = data.endswith(b"\n")
        body = data[:-1] if ended else data
        if len(body.translate(None, _UNSAFE)) == len(body) and (body.isascii() or _is_utf8(body)):
            end = ("\\n" + tail).encode("utf-8", "surrogateescape")
            last = end if ended else tail.encode("utf-8", "surrogateescape")
            return b'{"log":"' + body.replace(b"\n", end + b'{"log":"') + last
        text = _quote(body.decode("utf-8", "replace").replace("\n", _LINE_END))[:-1]
        text = '{"log":' + text.replace(_LINE_END, "\\n" + tail + '{"log":"') + ("\\n" if ended else "") + tail
        return text.encode("utf-8", "surrogateescape")

    def _time(self, stamp: int) -> str:
        seconds, rest = divmod(stamp, 1_000_000_000)
        if seconds != self._second:
            self._second, self._clock = seconds, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        return "%s.%09dZ" % (self._clock, rest)

    def _cut_torn_end(self) -> None:
        """The next record must not be glued to half of one."""
        end = self.size
        if end and os.pread(self.fd, 1, end - 1) == b"\n":
            return
        while end:
            begin = max(0, end - _COPY)
            found = os.pread(self.fd, end - begin, begin).rfind(b"\n")
            if found >= 0:
                end = begin + found + 1
                break
            end = begin
        if end != self.size:
            os.ftruncate(self.fd, end)
            self.size = end


class LocalFile(LogFile):
    def put(self, stream: int, data: bytes, stamp: int, part: int = 0, ident: str = "", ordinal: int = 0) -> int:
        overhead = BLOCK_HEAD.size + BLOCK_TAIL.size
        if self.max_size and self.size + overhead + len(data) > self.max_size:
            end = data.rfind(b"\n", 0, max(0, self.max_size - self.size - overhead)) + 1
            if not end:
                if self.size:
                    self._rotate()
                    return 0
                end = data.find(b"\n") + 1 or len(data)
            data = data[:end]
        head = BLOCK_HEAD.pack(BLOCK_MAGIC, stream, part, stamp, len(data))
        self._append(head + data + BLOCK_TAIL.pack(overhead + len(data)))
        return len(data)

    def _cut_torn_end(self) -> None:
        def read(length: int, offset: int) -> bytes:
            return os.pread(self.fd, length, offset)

        if self.size and block_before(read, self.size) is None:
            end = 0
            for block in blocks(read):
                end = block[0] + BLOCK_HEAD.size + block[4] + BLOCK_TAIL.size
            os.ftruncate(self.fd, end)
            self.size = end


Read = Callable[[int, int], bytes]  # (length, offset), as pread
Block = tuple[int, int, int, int, int]  # offset, stream, flags, nanoseconds, length of the text


def blocks(read: Read) -> Iterator[Block]:
    """Each complete block of the format "local", from the beginning."""
    at = 0
    while True:
        head = read(BLOCK_HEAD.size, at)
        if len(head) < BLOCK_HEAD.size or head[:2] != BLOCK_MAGIC:
            return
        _magic, stream, flags, stamp, length = BLOCK_HEAD.unpack(head)
        whole = BLOCK_HEAD.size + length + BLOCK_TAIL.size
        if read(BLOCK_TAIL.size, at + whole - BLOCK_TAIL.size) != BLOCK_TAIL.pack(whole):
            return
        yield at, stream, flags, stamp, length
        at += whole


def block_before(read: Read, end: int) -> Optional[Block]:
    """The block that ends at ``end``; None when none does."""
    if end < BLOCK_HEAD.size + BLOCK_TAIL.size:
        return None
    tail = read(BLOCK_TAIL.size, end - BLOCK_TAIL.size)
    whole = BLOCK_TAIL.unpack(tail)[0] if len(tail) == BLOCK_TAIL.size else 0
    if whole > end or whole < BLOCK_HEAD.size + BLOCK_TAIL.size:
        return None
    magic, stream, flags, stamp, length = BLOCK_HEAD.unpack(read(BLOCK_HEAD.size, end - whole))
    if magic != BLOCK_MAGIC or length + BLOCK_HEAD.size + BLOCK_TAIL.size != whole:
        return None
    return end - whole, stream, flags, stamp, length


def compress_rotated(path: str, max_file: int) -> None:
    """gzip what is not yet. A reader finds each file in one form or, for an instant, in both. Raises ``OSError``."""
    for number in range(1, max_file):
        plain = "%s.%d" % (path, number)
        try:
            source = open(plain, "rb")
        except FileNotFoundError:
            continue
        import zlib

        with source, open(path + ".gz.tmp", "wb") as target:
            os.fchmod(target.fileno(), 0o640)
            packer = zlib.compressobj(_COMPRESSION, zlib.DEFLATED, 31)  # 31: with gzip's header and checksum
            while True:
                data = source.read(_COPY)
                if not data:
                    break
                target.write(packer.compress(data))
            target.write(packer.flush())
        os.rename(path + ".gz.tmp", plain + ".gz")
        os.unlink(plain)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
