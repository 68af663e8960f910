# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A layer's directory tree in memory, from its tar entries: the one model that both layer forms are written from.

All judgement about names happens here, where no path of the archive can reach the host: entries through symlinks of
the same layer land where the link points inside the layer, later entries replace earlier ones, whiteouts count for
lower layers whatever their position, and what would leave the layer is refused.

Layers can have a million entries, so there are no objects per entry: an inode is a number; its attributes are a
40-byte record in one bytearray, its type a byte in another; only directories, symlinks and inodes with extended
attributes have entries in dictionaries.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterator, Mapping
from typing import Optional

from ..tuples import NamedTuple
from . import xattrs
from .tarstream import HARD_LINK, Entry, Sink, refuse

# Inode types as EROFS numbers them in directory entries.
REG, DIR, CHR, BLK, FIFO, LNK = 1, 2, 3, 4, 5, 7
TYPES = {
    stat.S_IFREG: REG, stat.S_IFDIR: DIR, stat.S_IFCHR: CHR, stat.S_IFBLK: BLK, stat.S_IFIFO: FIFO, stat.S_IFLNK: LNK,
}  # fmt: skip

ROOT = 0
MAX_DEPTH = 1024
_DOT = ord(".")
_HEADS = 1024  # directories whose names are remembered: archives do not jump about much
MAX_LINKS = 40
OPAQUE = b"trusted.overlay.opaque"
_RECORD = struct.Struct("<HxxIIIqQQ")  # mode, uid, gid, nsec, mtime, size, where
_SIZE = struct.Struct("<24xQ8x")  # of a record


class Attributes(NamedTuple):
    """``where``: offset of a regular file's data or the number of its file, or a device number."""

    mode: int
    uid: int
    gid: int
    nsec: int
    mtime: int
    size: int
    where: int


class Missing(NamedTuple):
    """A hard link whose target is not in this layer: name ``name`` in directory ``parent``, path ``target``."""

    parent: int
    name: bytes
    target: bytes


class LayerTree(Sink):
    """Feed it entries, then ``finish``. ``kids[directory]`` maps names to inodes; ``needs_extraction`` says why the
    layer cannot be indexed, if so."""

    def __init__(self) -> None:
        self.records = bytearray()
        self.types = bytearray()
        self.kids: dict[int, dict[bytes, int]] = {}
        self.parents: dict[int, int] = {}
        self.names: dict[int, bytes] = {}  # of directories, in their parents
        self.targets: dict[int, bytes] = {}
        self.xattrs: dict[int, dict[bytes, bytes]] = {}
        self.linked: set[int] = set()  # inodes that have had more than one name
        self.implied: dict[int, None] = {}  # directories no entry described, in order
        self.opaque: set[int] = set()
        self.missing: list[Missing] = []
        self.needs_extraction = ""
        self.whiteouts: dict[int, set[bytes]] = {}
        self._depths: dict[int, int] = {ROOT: 0}
        self._heads: dict[bytes, int] = {}  # directory part of a name as written -> inode
        self._new_directory(ROOT, b"")

    # -- inodes --------------------------------------------------------------------------------------------

    def add(self, kind: int, attributes: Attributes) -> int:
        self.types.append(kind)
        self.records += _RECORD.pack(*attributes)
        return len(self.types) - 1

    def row(self, inode: int) -> tuple[int, int, int, int, int, int, int]:
        """``get`` as a plain tuple, for those who ask a hundred thousand times."""
        return _RECORD.unpack_from(self.records, inode * 40)

    def get(self, inode: int) -> Attributes:
        return Attributes._make(_RECORD.unpack_from(self.records, inode * _RECORD.size))

    def file_bytes(self) -> int:
        """Bytes of the content of all files, each counted once whatever its names."""
        records, types, width = self.records, self.types, _RECORD.size
        return sum(_SIZE.unpack_from(records, inode * width)[0] for inode in self.walk() if types[inode] == REG)

    def put(self, inode: int, attributes: Attributes) -> None:
        _RECORD.pack_into(self.records, inode * _RECORD.size, *attributes)

    def _new_directory(self, parent: int, name: bytes) -> int:
        inode = self.add(DIR, Attributes(stat.S_IFDIR | 0o755, 0, 0, 0, 0, 0, 0))
        depth = self._depths[parent] + 1
        if depth > MAX_DEPTH:
            refuse("directories more than %d deep", MAX_DEPTH)
        self.kids[inode] = {}
        self.parents[inode] = parent
        self.names[inode] = name
        self._depths[inode] = depth
        self.implied[inode] = None
        return inode

    # -- names ---------------------------------------------------------------------------------------------

    def entry(self, entry: Entry) -> bool:
        head, _slash, tail = entry.name.rpartition(b"/")
        if not tail or tail == b".":
            head, tail = self._strip(entry.name)
        parent = self._heads.get(head)
        if parent is None:
            parent = self.directory(head, entry.name)
            if len(self._heads) >= _HEADS:
                self._heads.clear()
            self._heads[head] = parent
        if not tail:
            return self._describe_root(entry)
        if len(tail) > 255 or tail == b".." or b"\0" in tail or len(entry.name) > 4095:
            refuse("the name %r%s", entry.name[:80], " leads out of it" if tail == b".." else " is too long")
        if tail.startswith(b".wh.") and self._whiteout(parent, tail, entry.name):
            return False
        return self._place(parent, tail, entry)

    def file(self, name: bytes, mode: int, uid: int, gid: int, size: int, mtime: int, offset: int) -> bool:
        """A new file in a directory that is known. Names that begin with a dot (whiteouts, "..") are for ``entry``."""
        head, _slash, tail = name.rpartition(b"/")
        parent = self._heads.get(head)
        if parent is None or not tail or tail[0] == _DOT or len(tail) > 255 or len(name) > 4095:
            return False
        kids = self.kids[parent]
        if tail in kids:
            return False
        kids[tail] = len(self.types)
        self.types.append(REG)
        self.records += _RECORD.pack(stat.S_IFREG | mode, uid, gid, 0, mtime, size, offset)
        return True

    @staticmethod
    def _strip(name: bytes) -> tuple[bytes, bytes]:
        """Directory part and last name, without trailing slashes and dots."""
        parts = [part for part in name.split(b"/") if part not in (b"", b".")]
        return (b"/".join(parts[:-1]), parts[-1]) if parts else (b"", b"")

    def _describe_root(self, entry: Entry) -> bool:
        if entry.kind == stat.S_IFDIR:  # anything else cannot be the root
            self._describe(ROOT, entry)
        return False

    def directory(self, path: bytes, name: bytes, create: bool = True) -> int:
        """The directory that ``path`` leads to, following this layer's symlinks as if the layer were ``/``.

        Missing directories are made when ``create``, else -1 is returned. ``name`` is for messages.
        """
        if len(path) > 4095:
            refuse("the name %r is too long", name[:80])
        here = ROOT
        waiting = path.split(b"/")
        waiting.reverse()
        links = 0
        trusted = len(waiting)  # how many of the waiting parts come from the entry's own name
        while waiting:
            part = waiting.pop()
            own = len(waiting) < trusted
            trusted = min(trusted, len(waiting))
            if part in (b"", b"."):
                continue
            if part == b"..":
                if own:
                    refuse("the name %r leads out of it", name[:80])
                here = self.parents[here]
                continue
            kid = self.kids[here].get(part)
            if kid is None:
                if not create:
                    return -1
                here = self._imply(here, part, name)
            elif self.types[kid] == DIR:
                here = kid
            elif self.types[kid] == LNK:
                links += 1
                if links > MAX_LINKS:
                    refuse("%r goes through more than %d symlinks", name[:80], MAX_LINKS)
                target = self.targets[kid]
                if target.startswith(b"/"):
                    here = ROOT
                waiting += reversed(target.split(b"/"))
            elif not create:
                return -1
            else:
                refuse("%r is below something that is no directory", name[:80])
        return here

    def _imply(self, parent: int, part: bytes, name: bytes) -> int:
        if len(part) > 255 or b"\0" in part:
            refuse("the name %r is too long", name[:80])
        if part.startswith(b".wh.") and not (parent == ROOT and part.startswith(b".wh..wh.")):
            refuse("%r is below a whiteout", name[:80])
        inode = self._new_directory(parent, part)
        self.kids[parent][part] = inode
        return inode

    # -- entries -------------------------------------------------------------------------------------------

    def _place(self, parent: int, name: bytes, entry: Entry) -> bool:
        kids = self.kids[parent]
        old = kids.get(name)
        if old is not None:
            kind = self.types[old]
            if kind == DIR and entry.kind == stat.S_IFDIR:
                self._describe(old, entry)
                return False
            if kind in (DIR, LNK):
                self._heads.clear()
        if entry.kind == stat.S_IFCHR and not entry.rdev:  # overlay takes it for a whiteout, as in Docker
            kids.pop(name, None)
            self.whiteouts.setdefault(parent, set()).add(name)
            return False
        if entry.kind == stat.S_IFDIR:
            inode = self._new_directory(parent, name)
            self._describe(inode, entry)
        elif entry.kind == HARD_LINK:
            self._link(parent, name, entry)
            return False
        else:
            where = entry.rdev if entry.kind in (stat.S_IFCHR, stat.S_IFBLK) else self.place_data(entry)
            size = entry.size
            if entry.kind == stat.S_IFLNK:
                size = len(entry.link)
                if not 0 < size <= 4095 or b"\0" in entry.link:
                    refuse("%r is a symlink to %r", entry.name[:80], entry.link[:80])
            mode = entry.kind | (0o777 if entry.kind == stat.S_IFLNK else entry.mode)
            self.types.append(TYPES[entry.kind])
            self.records += _RECORD.pack(mode, entry.uid, entry.gid, entry.nsec, entry.mtime, size, where)
            inode = len(self.types) - 1
            if entry.kind == stat.S_IFLNK:
                self.targets[inode] = entry.link
            if entry.xattrs:
                self._take_xattrs(inode, entry)
        kids[name] = inode
        return entry.kind == stat.S_IFREG and self.wants_data(entry, inode)

    def place_data(self, entry: Entry) -> int:
        """Where a regular file's data is: for the index, its offset in the archive."""
        if entry.sparse is not None and not self.needs_extraction:
            self.needs_extraction = "%r is sparse" % entry.name
        return entry.offset

    def wants_data(self, entry: Entry, inode: int) -> bool:
        return False

    def _describe(self, inode: int, entry: Entry) -> None:
        mode = stat.S_IFDIR | entry.mode
        self.put(inode, Attributes(mode, entry.uid, entry.gid, entry.nsec, entry.mtime, 0, 0))
        self.implied.pop(inode, None)
        self.xattrs.pop(inode, None)
        if entry.xattrs:
            self._take_xattrs(inode, entry)

    def _take_xattrs(self, inode: int, entry: Entry) -> None:
        kept = xattrs.clean(entry.xattrs or {}, self.get(inode).mode, entry.name)
        if kept:
            self.xattrs[inode] = kept

    def _link(self, parent: int, name: bytes, entry: Entry) -> None:
        """A hard link to an earlier entry; to a symlink means the symlink itself. Its target may be in a lower layer:
        judged when those are at hand."""
        if b"\0" in entry.link or not entry.link or len(entry.link) > 4095:
            refuse("%r is a hard link to %r", entry.name[:80], entry.link[:80])
        head, tail = self._strip(entry.link)
        if not tail or b".." in entry.link.split(b"/"):
            refuse("the hard link %r leads out of it, to %r", entry.name[:80], entry.link[:80])
        place = self.directory(head, entry.link, create=False)
        target = self.kids[place].get(tail) if place >= 0 else None
        if target is None:
            self.missing.append(Missing(parent, name, head + b"/" + tail if head else tail))
            self.kids[parent].pop(name, None)
            return
        if self.types[target] == DIR:
            refuse("%r is a hard link to the directory %r", entry.name[:80], entry.link[:80])
        self.linked.add(target)
        self.kids[parent][name] = target

    # -- whiteouts -----------------------------------------------------------------------------------------

    def _whiteout(self, parent: int, tail: bytes, name: bytes) -> bool:
        """Whether the entry was one. ``.wh..wh.`` files are AUFS's own: those at the top are kept until ``finish``
        because hard links may point at them."""
        if tail == b".wh..wh..opq":
            self.opaque.add(parent)
            return True
        if tail.startswith(b".wh..wh."):
            return parent != ROOT
        gone = tail[4:]
        if gone in (b"", b".", b".."):
            refuse("%r is a whiteout of nothing", name[:80])
        self.whiteouts.setdefault(parent, set()).add(gone)
        return True

    def hide(self, parent: int, name: bytes) -> None:
        """Hide ``name`` of the lower layers. A directory of this layer under the name shows only its own entries."""
        kid = self.kids[parent].get(name)
        if kid is None:
            self.kids[parent][name] = self.add(CHR, Attributes(stat.S_IFCHR, 0, 0, 0, 0, 0, 0))
        elif self.types[kid] == DIR:
            self.opaque.add(kid)

    def finish(self) -> None:
        """Turn whiteouts into overlay's form: character devices 0:0, and an attribute on opaque directories."""
        root = self.kids[ROOT]
        for name in [name for name in root if name.startswith(b".wh..wh.")]:
            del root[name]
        for parent, names in self.whiteouts.items():
            for name in sorted(names):
                self.hide(parent, name)
        self.whiteouts.clear()
        for inode in self.opaque:
            self.xattrs[inode] = {**self.xattrs.get(inode, {}), OPAQUE: b"y"}

    # -- walking -------------------------------------------------------------------------------------------

    def walk(self) -> Iterator[int]:
        """Reachable inodes, each once, a directory before and near what is in it; the same order every time."""
        seen = bytearray(len(self.types))
        seen[ROOT] = 1
        yield ROOT
        waiting = [ROOT]
        while waiting:
            kids = self.kids[waiting.pop()]
            below = []
            for name in sorted(kids):
                inode = kids[name]
                if seen[inode]:
                    continue
                seen[inode] = 1
                yield inode
                if self.types[inode] == DIR:
                    below.append(inode)
            below.reverse()
            waiting += below

    def path(self, directory: int) -> Optional[bytes]:
        """Path of a directory inside the layer, "" for the root, None when it has been replaced since."""
        parts: list[bytes] = []
        while directory != ROOT:
            parent, name = self.parents[directory], self.names[directory]
            if self.kids[parent].get(name) != directory:
                return None
            parts.append(name)
            directory = parent
        return b"/".join(reversed(parts))

    def hides_lower(self, directory: int) -> bool:
        """Whether this layer cuts a directory off from those of the same name below (before ``finish``)."""
        while directory != ROOT:
            parent = self.parents[directory]
            if parent in self.opaque or self.names[directory] in self.whiteouts.get(parent, ()):
                return True
            directory = parent
        return ROOT in self.opaque

    def move(self, source: int, target: int) -> None:
        """Merge the directory ``source`` into ``target`` and forget it."""
        self._heads.clear()
        del self.kids[self.parents[source]][self.names[source]]
        waiting = [(source, target)]
        while waiting:
            old, new = waiting.pop()
            for name, kid in self.kids[old].items():
                there = self.kids[new].get(name)
                if there is not None and self.types[kid] == DIR == self.types[there]:
                    waiting.append((kid, there))
                    continue
                self.kids[new][name] = kid
                if self.types[kid] == DIR:
                    self.parents[kid] = new
            self.kids[old] = {}
            if old in self.whiteouts:
                self.whiteouts.setdefault(new, set()).update(self.whiteouts.pop(old))
            if old in self.opaque:
                self.opaque.discard(old)
                self.opaque.add(new)
            self.missing = [m._replace(parent=new) if m.parent == old else m for m in self.missing]


def link_counts(tree: LayerTree) -> Mapping[int, int]:
    """Names per inode for those that were hard-linked; 1 for every other."""
    counts: dict[int, int] = {}
    if tree.linked:
        for directory in tree.walk():
            if tree.types[directory] == DIR:
                for inode in tree.kids[directory].values():
                    if inode in tree.linked:
                        counts[inode] = counts.get(inode, 0) + 1
    return counts
