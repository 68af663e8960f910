# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The two ends of a copy, of which one may be hostile.

A container runs while its files are copied, and swaps directories for links meanwhile (CVE-2018-15664). So a path of
the container's is resolved below its root as the kernel does it for its own processes (``RESOLVE_IN_ROOT``), the
directory it ends in is held, and from there on every step is one name that is not followed, relative to a descriptor.
A file is looked at through an O_PATH descriptor before it is opened: a device node could act when it is opened, a FIFO
would never let go.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from typing import NoReturn, Optional

from ..errors import Conflict, NotFound, UsageError
from ..kernel import idmap
from ..kernel.syscalls import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, Kernel
from ..tuples import NamedTuple

_MAX_LINKS = 40
_NOBODY = 65534
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class Entry(NamedTuple):
    """What lies under a name. ``kind``: file, directory, link, other; ``target`` of a link; ids as that side has
    them."""

    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    target: str
    device: int


class Place(NamedTuple):
    """A name in a directory that is held; "." for the directory itself."""

    fd: int
    name: str


class Side:
    """One end of a copy. ``root``: descriptor of its ``/``; ``inside``: it is a container's, with ``ids`` of a user
    namespace of its own; ``refused``: devices (st_dev) of file systems that are nobody's to copy; ``words``: where."""

    def __init__(
        self,
        kernel: Kernel,
        root: int,
        words: str,
        *,
        inside: bool = False,
        ids: Sequence[idmap.Range] = (),
        refused: frozenset[int] = frozenset(),
    ) -> None:
        self._kernel = kernel
        self._root = root
        self._resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS if inside else 0
        self._ids = ids
        self.refused = refused
        self.words = words

    def locate(self, path: str, follow: bool) -> Place:
        """Of the absolute ``path``, whose last part need not exist. ``follow``: if it is a link, what it leads to.
        Raises ``NotFound`` for a missing directory, ``UsageError``."""
        for _link in range(_MAX_LINKS):
            directory, _slash, name = path.rstrip("/").rpartition("/")
            if name in ("", ".", ".."):
                return Place(self._open(path or "/"), ".")
            fd = self._open(directory or "/")
            target = _read_link(fd, name) if follow else None
            if target is None:
                return Place(fd, name)
            os.close(fd)
            path = target if target.startswith("/") else "%s/%s" % (directory, target)
        raise UsageError("Too many symbolic links: %s %s" % (path, self.words), step="copy", path=path)

    def _open(self, path: str) -> int:
        try:
            fd = self._kernel.openat2(self._root, path, _DIRECTORY, resolve=self._resolve)
        except (FileNotFoundError, NotADirectoryError) as error:
            why = "does not exist" if error.errno == errno.ENOENT else "is not a directory"
            raise NotFound("The directory %s %s %s" % (path, why, self.words), step="copy", path=path) from None
        if os.fstat(fd).st_dev in self.refused:
            os.close(fd)
            self.refuse(path)
        return fd

    def refuse(self, path: str) -> NoReturn:
        raise UsageError(
            "%s cannot be copied: it is the kernel's and no file %s" % (path, self.words), step="copy", path=path
        )

    def look(self, place: Place) -> Optional[Entry]:
        try:
            info = os.stat(place.name, dir_fd=place.fd, follow_symlinks=False)
            target = os.readlink(place.name, dir_fd=place.fd) if stat.S_ISLNK(info.st_mode) else ""
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.EINVAL:  # no link any more
                return self.look(place)
            raise
        kind = _KINDS.get(stat.S_IFMT(info.st_mode), "other")
        uid, gid = self._seen(info.st_uid), self._seen(info.st_gid)
        return Entry(kind, stat.S_IMODE(info.st_mode), uid, gid, info.st_size, info.st_mtime_ns, target, info.st_dev)

    def _seen(self, number: int) -> int:
        found = idmap.inward(self._ids, number) if self._ids else number
        return _NOBODY if found is None else found

    def owner(self, pair: tuple[int, int]) -> tuple[int, int]:
        """As the host has to say it. Raises ``UsageError``."""
        found = []
        for number in pair:
            outside = idmap.outward(self._ids, number) if self._ids else number
            if outside is None:
                raise UsageError(
                    "The id %d has no mapping in the container's user namespace" % number, step="copy", path="owner_id"
                )
            found.append(outside)
        return found[0], found[1]


_KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}


def _read_link(fd: int, name: str) -> Optional[str]:
    try:
        return os.readlink(name, dir_fd=fd)
    except OSError:  # EINVAL: no link; ENOENT
        return None


def own_descriptors() -> int:
    """The directory of this process's descriptors: through it what was looked at is opened, also from another mount
    namespace, whose ``/proc`` is not to be trusted and knows nothing of this process."""
    return os.open("/proc/self/fd", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def looked_at(place: Place) -> int:
    """O_PATH descriptor of a regular file. Raises ``Conflict`` when it is none (any more)."""
    there = os.open(place.name, LOOK, dir_fd=place.fd)
    if not stat.S_ISREG(os.fstat(there).st_mode):
        os.close(there)
        raise Conflict("%s became something else while it was copied" % place.name, step="copy", path=place.name)
    return there


def open_file(place: Place, descriptors: int) -> int:
    """A regular file for reading; ``descriptors``: see ``own_descriptors``. Raises ``Conflict``, ``OSError``."""
    there = looked_at(place)
    try:
        return os.open(str(there), os.O_RDONLY | os.O_CLOEXEC, dir_fd=descriptors)
    finally:
        os.close(there)


def open_directory(place: Place) -> int:
    return os.open(place.name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=place.fd)
