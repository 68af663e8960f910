# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A layer as ordinary files, for kernels and archives that the index is not for.

File data is written as it streams in, to numbered files in a directory of ours; names come into play only when the
whole archive has been read and judged (``tree.py``). Then the tree is made top down: every directory that a name is
created in was itself made a moment ago by this process and opened through its parent, so there is no path, no
symlink and nothing of the host for a hostile archive to reach.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from typing import NoReturn, Optional

from ..errors import DiskFull, KernelError
from .tarstream import Entry, Sparse
from .tree import BLK, CHR, DIR, FIFO, LNK, REG, ROOT, Attributes, LayerTree, link_counts

_OPEN_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class ExtractingTree(LayerTree):
    """A tree whose regular files are numbered files in the directory ``files`` (a descriptor, not closed here)."""

    def __init__(self, files: int) -> None:
        super().__init__()
        self.files = files
        self.next_file = 0
        self._fd = -1
        self._entry: Optional[Entry] = None
        self._inode = -1
        self._pieces: Optional[list[list[int]]] = None
        self._buckets: set[int] = set()

    def file(self, name: bytes, mode: int, uid: int, gid: int, size: int, mtime: int, offset: int) -> bool:
        return False  # its data must be written

    def place_data(self, entry: Entry) -> int:
        if entry.kind != stat.S_IFREG:
            return 0
        self.next_file += 1
        return self.next_file

    def wants_data(self, entry: Entry, inode: int) -> bool:
        self._fd = self.new_file(self.next_file)
        self._inode = inode
        self._pieces = _stack(entry.sparse)
        return True

    def new_file(self, number: int) -> int:
        """64 to a directory: ext4 places the inodes of one directory together, and with thousands of new ones in one
        place looks long for the next (measured: 4 to 8 times)."""
        bucket = number >> 6
        if bucket not in self._buckets:
            os.mkdir(str(bucket), 0o700, dir_fd=self.files)
            self._buckets.add(bucket)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        return os.open(file_name(number), flags, 0o600, dir_fd=self.files)

    def data(self, piece: memoryview) -> None:
        if self._pieces is not None:
            self._sparse_data(piece, self._pieces)
            return
        while piece:
            piece = piece[os.write(self._fd, piece) :]

    def _sparse_data(self, piece: memoryview, pieces: list[list[int]]) -> None:
        """``pieces`` is a stack of [offset, bytes left]; bytes behind the last piece are padding."""
        while piece and pieces:
            offset, left = pieces[-1]
            done = os.pwrite(self._fd, piece[:left], offset)
            piece = piece[done:]
            pieces[-1] = [offset + done, left - done]
            if done == left:
                pieces.pop()

    def end(self) -> None:
        attributes = self.get(self._inode)
        if self._pieces is not None:
            os.ftruncate(self._fd, attributes.size)
        dress(self._fd, attributes, self.xattrs.get(self._inode, {}))
        os.close(self._fd)
        self._fd = -1

    def abandon(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def file_name(number: int) -> str:
    return "%d/%d" % (number >> 6, number)


def _stack(sparse: Optional[Sparse]) -> Optional[list[list[int]]]:
    if sparse is None:
        return None
    return [[offset, length] for offset, length in reversed(sparse) if length]


def dress(fd: int, attributes: Attributes, xattrs: Mapping[bytes, bytes]) -> None:
    """Owner, xattrs, mode, times of an open file or directory, in this order: chown clears set-id bits and file
    capabilities, and everything touches the change time."""
    os.fchown(fd, attributes.uid, attributes.gid)
    for key, value in xattrs.items():
        _set_xattr(fd, key, value)
    os.fchmod(fd, stat.S_IMODE(attributes.mode))
    _set_time(fd, attributes)


def _set_xattr(where: int, key: bytes, value: bytes) -> None:
    try:
        os.setxattr(where, key, value)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:  # this file system has no such attributes
            raise


def _set_time(where: int, attributes: Attributes) -> None:
    stamp = attributes.mtime * 1_000_000_000 + attributes.nsec
    os.utime(where, ns=(stamp, stamp))


# -- building the tree -------------------------------------------------------------------------------------------


def materialise(tree: ExtractingTree, stage: int, name: str = "tree") -> None:
    """Make the finished ``tree`` as directory ``name`` below the directory ``stage``. The numbered files are moved
    (or linked) into place. Raises ``OSError``."""
    os.mkdir(name, 0o700, dir_fd=stage)
    counts = link_counts(tree)
    here = os.open(name, _OPEN_DIR, dir_fd=stage)
    try:
        trail = [(ROOT, iter(sorted(tree.kids[ROOT])))]
        while trail:
            inode, names = trail[-1]
            entered = None
            for entry in names:
                kid = tree.kids[inode][entry]
                if tree.types[kid] == DIR:
                    os.mkdir(entry, 0o700, dir_fd=here)
                    entered = (entry, kid)
                    break
                _make(tree, here, entry, kid, counts)
            if entered is not None:
                here = _step(here, entered[0])
                trail.append((entered[1], iter(sorted(tree.kids[entered[1]]))))
                continue
            dress(here, tree.get(inode), tree.xattrs.get(inode, {}))
            trail.pop()
            if trail:
                here = _step(here, b"..")  # nobody else is in here, so this is the directory it was made in
    finally:
        os.close(here)


def _step(here: int, name: bytes) -> int:
    try:
        return os.open(name, _OPEN_DIR, dir_fd=here)
    finally:
        os.close(here)


def _make(tree: ExtractingTree, here: int, name: bytes, inode: int, counts: Mapping[int, int]) -> None:
    kind = tree.types[inode]
    attributes = tree.get(inode)
    if kind == REG:
        number = file_name(attributes.where)
        if counts.get(inode, 1) > 1:
            os.link(number, name, src_dir_fd=tree.files, dst_dir_fd=here)
        else:
            os.rename(number, name, src_dir_fd=tree.files, dst_dir_fd=here)
        return
    if counts.get(inode, 1) > 1:
        _make_linked(tree, here, name, inode)
        return
    _make_special(tree, here, name, inode, attributes)


def _make_linked(tree: ExtractingTree, here: int, name: bytes, inode: int) -> None:
    """A symlink, device or FIFO with several names: made once among the numbered files, then linked."""
    spare = b"s%d" % inode
    try:
        _make_special(tree, tree.files, spare, inode, tree.get(inode))
    except FileExistsError:
        pass
    os.link(spare, name, src_dir_fd=tree.files, dst_dir_fd=here, follow_symlinks=False)


def _make_special(tree: ExtractingTree, here: int, name: bytes, inode: int, attributes: Attributes) -> None:
    kind = tree.types[inode]
    if kind == LNK:
        os.symlink(tree.targets[inode], name, dir_fd=here)
    elif kind in (CHR, BLK, FIFO):
        os.mknod(name, attributes.mode & ~0o7777 | 0o600, _device(attributes.where), dir_fd=here)
    else:
        _impossible(kind)
    os.chown(name, attributes.uid, attributes.gid, dir_fd=here, follow_symlinks=False)
    for key, value in tree.xattrs.get(inode, {}).items():
        try:
            os.setxattr(b"/proc/self/fd/%d/%s" % (here, name), key, value, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EPERM):  # user.* exists on files and directories only
                raise
    if kind != LNK:
        os.chmod(name, stat.S_IMODE(attributes.mode), dir_fd=here)
    stamp = attributes.mtime * 1_000_000_000 + attributes.nsec
    os.utime(name, ns=(stamp, stamp), dir_fd=here, follow_symlinks=False)


def _device(encoded: int) -> int:
    return os.makedev(encoded >> 8 & 0xFFF, encoded & 0xFF | encoded >> 12 & 0xFFF00)


def _impossible(kind: int) -> NoReturn:
    raise AssertionError("a layer tree with an inode of type %d" % kind)


def wrap(error: OSError, sentence: str) -> KernelError:
    kind = DiskFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else KernelError
    return kind.wrap(error, sentence, step="write_layer")
