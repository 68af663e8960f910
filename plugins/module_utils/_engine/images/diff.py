# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a container changed: its upper directory against the image below, as a list and as a layer.

Overlay's upper is walked alone (``metacopy`` and ``redirect_dir`` are off, so nothing of it lies elsewhere) and each
entry is held against the image: what was only copied up (opened for writing, touched and put back) is the same as
below and left out. Names in an upper are a container's, and hostile: everything is opened below a descriptor,
without following symlinks. The order is fixed, so the same upper gives the same layer.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Optional

from ..errors import IntegrityError, KernelError, Unsupported
from ..kernel.syscalls import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, Kernel
from ..tuples import NamedTuple
from .tarwriter import HARD_LINK, TarWriter

if TYPE_CHECKING:
    from ..storage.shifted import Owners

MODIFIED, ADDED, DELETED = 0, 1, 2  # Docker's numbers (GET /containers/x/changes)

_INSIDE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV
_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_PIECE = 1 << 20
_LONGEST = 4095
_OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")
_WHITEOUT = ("trusted.overlay.whiteout", "user.overlay.whiteout")
# Overlay's own, a label that is the host's policy's business, and a signature over this very inode.
_DROPPED = ("trusted.overlay.", "user.overlay.", "security.selinux", "security.evm")


class Change(NamedTuple):
    """``path`` relative to the root. ``info``: as it is now, None for what was deleted. ``opaque``: a directory that
    shows nothing of the one below."""

    path: bytes
    kind: int
    info: Optional[os.stat_result]
    opaque: bool = False


class _Frame:
    """A directory of the upper that is being walked. ``change`` is pending until something below it is told.
    ``weak``: it is there because something was mounted on or below it; alone it does not count."""

    __slots__ = ("below", "change", "names", "path")

    def __init__(self, path: bytes, names: list[bytes], below: bool, change: Optional[Change]) -> None:
        self.path = path
        self.names = names
        self.below = below
        self.change = change


class Walk:
    """``upper``: descriptor of the directory. ``lower``: of the image's root, or -1 for none. ``mounted``: paths
    (relative, no slash in front) on which something was mounted: what the engine made for that is not the container's.
    ``owners``: from the ids in the upper to the image's, if the container has others.

    Iterating yields ``Change``s, a directory before what is in it, deletions before their siblings. Raises
    ``KernelError``.
    """

    def __init__(
        self,
        kernel: Kernel,
        upper: int,
        lower: int = -1,
        mounted: frozenset[bytes] = frozenset(),
        owners: Optional[Owners] = None,
    ) -> None:
        self._kernel = kernel
        self._owners = owners
        self._upper = upper
        self._lower = lower
        self._mounted = mounted
        self._above = {path[:at] for path in mounted for at in range(len(path)) if path[at : at + 1] == b"/"}

    def __iter__(self) -> Iterator[Change]:
        try:
            yield from self._walk()
        except OSError as error:
            raise KernelError.wrap(error, "Cannot compare a container with its image", step="diff") from error

    def _walk(self) -> Iterator[Change]:
        root = self._root()
        if root is not None:
            yield root
        frames = [_Frame(b"", self._names(b""), self._lower >= 0, None)]
        while frames:
            frame = frames[-1]
            if not frame.names:
                frames.pop()
                continue
            name = frame.names.pop()
            path = frame.path + b"/" + name if frame.path else name
            if len(path) > _LONGEST:
                raise Unsupported("%r... is too deep for an image layer" % path[:60], step="diff")
            found = self._entry(frame, path, name)
            if isinstance(found, _Frame):
                frames.append(found)
                if found.change is None or not self._certain(found):
                    continue
                found = found.change
                frames[-1].change = None
            if found is not None:
                for above in frames:
                    if above.change is not None:
                        pending, above.change = above.change, None
                        yield pending
                yield found

    def _certain(self, frame: _Frame) -> bool:
        """Whether a directory counts by itself."""
        change = frame.change
        if change is None:
            return False
        if change.kind == ADDED:
            return change.path not in self._mounted and change.path not in self._above
        return change.opaque or not self._same_directory(change)

    # -- entries -------------------------------------------------------------------------------------------

    def _root(self) -> Optional[Change]:
        """The engine makes it root's, 0755, whatever the image says: only another state is the container's doing."""
        info = os.fstat(self._upper)
        if self._lower < 0 or self._mine(info) == (stat.S_IFDIR | 0o755, 0, 0):
            return None
        return Change(b".", MODIFIED, info)

    def _entry(self, frame: _Frame, path: bytes, name: bytes) -> Any:
        """A ``_Frame``, a ``Change``, or None for what did not change."""
        with _Directory(self._kernel, self._upper, frame.path) as parent:
            info = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if _is_whiteout(parent, name, info):
                gone = frame.below and self._below(path) is not None
                return Change(path, DELETED, None) if gone else None
            opaque = stat.S_ISDIR(info.st_mode) and any(
                _attribute(parent, name, key) in (b"y", b"Y") for key in _OPAQUE
            )
        if stat.S_ISSOCK(info.st_mode):  # no archive can hold one, and nobody listens on it any more
            return None
        there = self._below(path) if frame.below else None
        if stat.S_ISDIR(info.st_mode):
            over = there is not None and stat.S_ISDIR(there.st_mode)
            kind = ADDED if there is None else MODIFIED
            return _Frame(path, self._names(path), over and not opaque, Change(path, kind, info, opaque and over))
        if there is None:
            if path in self._mounted and stat.S_ISREG(info.st_mode) and not info.st_size:
                return None
            return Change(path, ADDED, info)
        return None if self._same(frame.path, path, name, info, there) else Change(path, MODIFIED, info)

    def _names(self, path: bytes) -> list[bytes]:
        """In reverse order of their turn: deletions first, then by name."""
        with _Directory(self._kernel, self._upper, path) as fd:
            with os.scandir(fd) as entries:
                found = [os.fsencode(entry.name) for entry in entries]
            gone = {name for name in found if _is_whiteout(fd, name, os.stat(name, dir_fd=fd, follow_symlinks=False))}
        return sorted(found, key=lambda name: (name not in gone, name), reverse=True)

    # -- the image -----------------------------------------------------------------------------------------

    def _below(self, path: bytes) -> Optional[os.stat_result]:
        try:
            fd = self._kernel.openat2(self._lower, path, os.O_PATH | os.O_NOFOLLOW, resolve=_INSIDE)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)

    def _same_directory(self, change: Change) -> bool:
        """But for its times: they change with what is in it, which is told by itself."""
        there = self._below(change.path)
        if there is None or change.info is None or not stat.S_ISDIR(there.st_mode):
            return False
        return self._mine(change.info) == _owner(there) and self._same_xattrs(change.path)

    def _same(self, parent: bytes, path: bytes, name: bytes, info: os.stat_result, there: os.stat_result) -> bool:
        if self._mine(info) != _owner(there) or info.st_mtime_ns != there.st_mtime_ns:
            return False
        if stat.S_ISREG(info.st_mode):
            if info.st_nlink > 1 or info.st_size != there.st_size:  # copying up gives each name a file of its own
                return False
            return self._same_xattrs(path) and self._same_content(path)
        if stat.S_ISLNK(info.st_mode):
            return self._target(self._upper, parent, name) == self._target(self._lower, parent, name)
        return info.st_rdev == there.st_rdev and self._same_xattrs(path)

    def _target(self, root: int, parent: bytes, name: bytes) -> bytes:
        with _Directory(self._kernel, root, parent) as fd:
            return os.readlink(name, dir_fd=fd)

    def _mine(self, info: os.stat_result) -> tuple[int, int, int]:
        """Of something in the upper, with the image's ids."""
        if self._owners is None:
            return _owner(info)
        return (info.st_mode, *self._owners.inside(info.st_uid, info.st_gid))

    def _same_xattrs(self, path: bytes) -> bool:
        return read_xattrs(self._kernel, self._upper, path, self._owners) == read_xattrs(
            self._kernel, self._lower, path
        )

    def _same_content(self, path: bytes) -> bool:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        one = self._kernel.openat2(self._upper, path, flags, resolve=_INSIDE)
        try:
            other = self._kernel.openat2(self._lower, path, flags, resolve=_INSIDE)
            try:
                while True:
                    data = os.read(one, _PIECE)
                    if data != os.read(other, _PIECE):
                        return False
                    if not data:
                        return True
            finally:
                os.close(other)
        finally:
            os.close(one)


class _Directory:
    """A directory below ``root`` for the time of a ``with``."""

    def __init__(self, kernel: Kernel, root: int, path: bytes) -> None:
        self._fd = kernel.openat2(root, path or b".", _DIR, resolve=_INSIDE)

    def __enter__(self) -> int:
        return self._fd

    def __exit__(self, *_exception: object) -> None:
        os.close(self._fd)


def _owner(info: os.stat_result) -> tuple[int, int, int]:
    return info.st_mode, info.st_uid, info.st_gid


def _is_whiteout(parent: int, name: bytes, info: os.stat_result) -> bool:
    if stat.S_ISCHR(info.st_mode):
        return info.st_rdev == 0
    if not stat.S_ISREG(info.st_mode) or info.st_size:
        return False
    return any(_attribute(parent, name, key) is not None for key in _WHITEOUT)


def _attribute(parent: int, name: bytes, key: str) -> Optional[bytes]:
    try:
        return os.getxattr(b"/proc/self/fd/%d/%s" % (parent, name), key, follow_symlinks=False)
    except OSError:  # not set, or a file system without such attributes
        return None


def read_xattrs(kernel: Kernel, root: int, path: bytes, owners: Optional[Owners] = None) -> dict[bytes, bytes]:
    """Of the entry itself (no symlink is followed), without what is not for a layer."""
    head, _slash, name = path.rpartition(b"/")
    with _Directory(kernel, root, head) as parent:
        where = b"/proc/self/fd/%d/%s" % (parent, name or b".")
        keys = [key for key in os.listxattr(where, follow_symlinks=False) if not key.startswith(_DROPPED)]
        found = {os.fsencode(key): os.getxattr(where, key, follow_symlinks=False) for key in keys}
    if owners is not None and b"security.capability" in found:
        found[b"security.capability"] = owners.capability(found[b"security.capability"], inward=True)
    return found


# -- as an archive -----------------------------------------------------------------------------------------------


def write_layer(
    kernel: Kernel,
    upper: int,
    changes: Iterator[Change],
    write: Callable[[bytes], Any],
    owners: Optional[Owners] = None,
) -> int:
    """The changes as an OCI layer (whiteouts as ``.wh.`` files) to ``write``; returns their number. Raises
    ``IntegrityError`` when a file changes its size while it is read, ``Unsupported`` for names that only look like
    whiteouts."""
    return _Layer(kernel, upper, write, owners).run(changes, layer=True)


def write_tree(kernel: Kernel, root: int, write: Callable[[bytes], Any], owners: Optional[Owners] = None) -> int:
    """Everything below the directory ``root`` as a plain archive (``docker export``)."""
    return _Layer(kernel, root, write, owners).run(iter(Walk(kernel, root, owners=owners)), layer=False)


class _Layer:
    def __init__(
        self, kernel: Kernel, root: int, write: Callable[[bytes], Any], owners: Optional[Owners] = None
    ) -> None:
        self._kernel = kernel
        self._root = root
        self._owners = owners
        self._tar = TarWriter(write)
        self._links: dict[tuple[int, int], bytes] = {}

    def run(self, changes: Iterator[Change], layer: bool) -> int:
        count = 0
        try:
            for change in changes:
                if layer and change.info is not None and os.path.basename(change.path).startswith(b".wh."):
                    raise Unsupported(
                        "%r cannot be in a layer: its name means that %r was deleted"
                        % (change.path[:200], os.path.basename(change.path)[4:]),
                        step="diff",
                        hint="Rename it, or keep it on a volume.",
                    )
                count += 1
                self._one(change)
        except OSError as error:
            raise KernelError.wrap(error, "Cannot read what a container changed", step="diff") from error
        self._tar.finish()
        return count

    def _one(self, change: Change) -> None:
        if change.info is None:
            head, slash, name = change.path.rpartition(b"/")
            self._tar.add(head + slash + b".wh." + name, mode=0)
            return
        info, kind = change.info, stat.S_IFMT(change.info.st_mode)
        uid, gid = info.st_uid, info.st_gid
        if self._owners is not None:
            uid, gid = self._owners.inside(uid, gid)
        fields: dict[str, Any] = {
            "mode": stat.S_IMODE(info.st_mode), "uid": uid, "gid": gid, "mtime_ns": info.st_mtime_ns,
        }  # fmt: skip
        if kind != stat.S_IFDIR and info.st_nlink > 1:
            first = self._links.setdefault((info.st_dev, info.st_ino), change.path)
            if first != change.path:
                self._tar.add(change.path, HARD_LINK, link=first, **fields)
                return
        fields["xattrs"] = read_xattrs(self._kernel, self._root, change.path, self._owners)
        if kind == stat.S_IFREG:
            self._tar.add(change.path, size=info.st_size, **fields)
            self._content(change.path, info.st_size)
            return
        if kind == stat.S_IFLNK:
            head, _slash, name = change.path.rpartition(b"/")
            with _Directory(self._kernel, self._root, head) as parent:
                fields["link"] = os.readlink(name, dir_fd=parent)
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            fields["rdev"] = info.st_rdev
        self._tar.add(change.path, kind, **fields)
        if change.opaque:
            self._tar.add(change.path + b"/.wh..wh..opq", mode=0)

    def _content(self, path: bytes, size: int) -> None:
        fd = self._kernel.openat2(self._root, path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, resolve=_INSIDE)
        try:
            left = size
            while left:
                data = os.read(fd, min(left, _PIECE))
                if not data:
                    raise IntegrityError(
                        "%r became shorter while it was read" % path[:200], step="diff", hint="Pause the container."
                    )
                left -= len(data)
                self._tar.data(data)
        finally:
            os.close(fd)
