# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files that hold images, opened for reading: tar archives (plain, gzip, xz, bzip2, zstd), directories of OCI layouts
and of skopeo's ``dir:``.

Nothing is extracted. A plain archive is indexed by its headers and read where it lies; a compressed one is first
unpacked into a nameless file. What an archive says about names is only ever looked up in the archive's own table, so
``../`` and links lead nowhere; members that could be read in two ways (the same name twice) are refused.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Any, NoReturn, Optional

from ..errors import IntegrityError, KernelError, UsageError
from ..tuples import NamedTuple
from .tarstream import HARD_LINK, Entry, Sink, TarStream

JSON_LIMIT = 8 << 20
_PIECE = 1 << 20
_MAX_MEMBERS = 200_000
_MAX_HOPS = 8


class Span(NamedTuple):
    """A member's bytes: ``size`` of them from ``offset`` on in the file ``fd`` (which belongs to the source)."""

    fd: int
    offset: int
    size: int


class Source:
    """``find`` a member by its name; ``close`` when done. Usable in ``with``."""

    path: str

    def find(self, name: str) -> Optional[Span]:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def span(self, name: str) -> Span:
        found = self.find(name)
        if found is None:
            refuse(self.path, "it names %s, which it does not hold" % name[:200])
        return found

    def read(self, name: str, limit: int = JSON_LIMIT) -> bytes:
        """A small member, whole."""
        found = self.span(name)
        if found.size > limit:
            refuse(self.path, "%s has %d bytes, and more than %d are not read" % (name[:200], found.size, limit))
        out = bytearray()
        self.feed(found, out.extend)
        return bytes(out)

    def feed(self, span: Span, write: Callable[[bytes], Any]) -> None:
        """Give the bytes to ``write``, at most 1 MiB at a time. Raises ``IntegrityError`` when the file got shorter."""
        position, end = span.offset, span.offset + span.size
        while position < end:
            try:
                data = os.pread(span.fd, min(_PIECE, end - position), position)
            except OSError as error:
                raise KernelError.wrap(error, "Cannot read %s" % self.path, step="load") from error
            if not data:
                refuse(self.path, "it is cut off")
            position += len(data)
            write(data)


def refuse(path: str, why: str) -> NoReturn:
    raise IntegrityError("Cannot load %s: %s" % (path, why), step="load", path="path", subject=path)


def open_source(path: str, tmp: str) -> Source:
    """``path``: an archive or an OCI layout directory. ``tmp``: where a compressed archive may be unpacked.

    Raises ``UsageError`` (no such file), ``IntegrityError`` (no or a hostile archive), ``Unsupported`` (compression),
    ``DiskFull``.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise UsageError(
            "Cannot load %s: %s" % (path, error.strerror), step="load", path="path", errno=error.errno
        ) from error
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            return _directory(path, fd, tmp)
        if not stat.S_ISREG(mode):
            raise UsageError("Cannot load %s: it is neither a file nor a directory" % path, step="load", path="path")
        return TarSource(path, _plain(path, fd, tmp))
    except BaseException:
        os.close(fd)
        raise


def _directory(path: str, fd: int, tmp: str) -> Source:
    from .skopeodir import SkopeoDir, is_skopeo_dir

    layout = LayoutSource(path, os.dup(fd))
    try:
        found = SkopeoDir(layout, tmp) if is_skopeo_dir(layout) else layout
    except BaseException:
        layout.close()
        raise
    os.close(fd)
    return found


# -- directories -------------------------------------------------------------------------------------------------


class LayoutSource(Source):
    """Members are files below the directory; no symlink is followed (a layout has none), so none leads out of it. No
    ``openat2`` here: this also runs on controllers, whatever their system is."""

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self._fd = fd
        self._open: dict[str, Span] = {}

    def find(self, name: str) -> Optional[Span]:
        if name in self._open:
            return self._open[name]
        try:
            fd = self._descend(name)
        except FileNotFoundError:
            return None
        except OSError as error:
            refuse(self.path, "%s cannot be opened inside it (%s)" % (name[:200], error.strerror))
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            os.close(fd)
            refuse(self.path, "%s is not a file" % name[:200])
        self._open[name] = Span(fd, 0, info.st_size)
        return self._open[name]

    def _descend(self, name: str) -> int:
        *directories, last = name.split("/")
        if any(part in ("", ".", "..") for part in (*directories, last)):
            refuse(self.path, "the name %r leads out of it" % name[:200])
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        here = os.dup(self._fd)
        try:
            for part in directories:
                below = os.open(part, flags | os.O_DIRECTORY, dir_fd=here)
                os.close(here)
                here = below
            return os.open(last, flags | os.O_NONBLOCK, dir_fd=here)
        finally:
            os.close(here)

    def close(self) -> None:
        for span in self._open.values():
            os.close(span.fd)
        self._open.clear()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


# -- archives ----------------------------------------------------------------------------------------------------


class TarSource(Source, Sink):
    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self.fd = fd
        self._members: dict[str, Span] = {}
        self._links: dict[str, str] = {}
        try:
            self._index()
        except IntegrityError as error:
            if error.path == "path":
                raise
            refuse(path, error.msg.replace("Layer refused: ", "it is no sound archive: "))

    def _index(self) -> None:
        size = os.fstat(self.fd).st_size
        stream = TarStream(self, max_entries=_MAX_MEMBERS, max_size=1 << 50)
        position = 0
        while position < size:
            unwanted = stream.skippable()
            if unwanted:  # what a header is continued by (PAX, long names) is wanted
                position += unwanted
                stream.skip()
            data = os.pread(self.fd, 512, position)
            if not data:
                break
            position += len(data)
            stream.write(data)
        if position > size + 511:  # padding may be missing at the end, content may not
            refuse(self.path, "it is cut off")
        stream.close()
        if not stream.entries:
            refuse(self.path, "it is empty")

    def entry(self, entry: Entry) -> bool:
        name = self._normal(entry.name)
        if entry.kind == stat.S_IFDIR:
            return False
        if not name or name in self._members or name in self._links:
            refuse(self.path, "it holds %r twice" % name[:200])
        if entry.kind == stat.S_IFLNK:
            self._links[name] = self._normal(os.path.dirname(name).encode() + b"/" + entry.link, inside=True)
        elif entry.kind == HARD_LINK:
            self._links[name] = self._normal(entry.link)
        elif entry.kind != stat.S_IFREG or entry.sparse is not None:
            refuse(self.path, "%r is no ordinary file" % name[:200])
        else:
            self._members[name] = Span(self.fd, entry.offset, entry.size)
        return False

    def _normal(self, raw: bytes, inside: bool = False) -> str:
        """Parts joined by one slash. ``inside``: ".." is allowed as long as it stays in the archive (old archives have
        symlinks ``../<id>/layer.tar``)."""
        parts: list[str] = []
        if not inside and raw.startswith(b"/"):
            refuse(self.path, "the name %r leads out of it" % raw[:200])
        for part in raw.decode("utf-8", "surrogateescape").split("/"):
            if part in ("", "."):
                continue
            if part == ".." and inside and parts:
                parts.pop()
            elif part == "..":
                refuse(self.path, "the name %r leads out of it" % raw[:200])
            else:
                parts.append(part)
        return "/".join(parts)

    def find(self, name: str) -> Optional[Span]:
        for _hop in range(_MAX_HOPS):
            target = self._links.get(name)
            if target is None:
                return self._members.get(name)
            name = target
        refuse(self.path, "%r is a link that leads in circles" % name[:200])

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _plain(path: str, fd: int, tmp: str) -> int:
    """``fd`` if the archive is plain, else a nameless file with what is in it (then ``fd`` is closed)."""
    from .unpack import compression

    try:
        start = os.pread(fd, 512, 0)
    except OSError as error:
        raise KernelError.wrap(error, "Cannot read %s" % path, step="load") from error
    kind = compression(start)
    if not kind:
        return fd
    out = nameless(tmp)
    try:
        _unpack(path, fd, kind, out)
    except BaseException:
        os.close(out)
        raise
    os.close(fd)
    return out


def _unpack(path: str, fd: int, kind: str, out: int) -> None:
    from .importer import decompress
    from .unpack import unpack

    def write(data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(out, view) :]
        except OSError as error:
            from ..store.scratch import wrap

            raise wrap(error, "Cannot unpack %s" % path, step="load", path=path, needed=len(view)) from error

    if kind in ("xz", "bzip2"):
        decompress(fd, kind, write, path)
    else:
        unpack(fd, write, subject=path)


def nameless(tmp: str) -> int:
    """A file without a name: it goes with its descriptor, whatever happens."""
    try:
        if not hasattr(os, "O_TMPFILE"):
            raise OSError
        return os.open(tmp, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:  # a file system (or system) without such files
        name = "%s/load-%s" % (tmp, os.urandom(8).hex())
        try:
            fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            os.unlink(name)
        except OSError as error:
            raise KernelError.wrap(error, "Cannot unpack an archive in %s" % tmp, step="load") from error
        return fd
