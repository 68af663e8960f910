# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A layer's tree as an EROFS metadata image whose file data stays in the layer's tar (EROFS device 1).

On-disk format: Linux ``fs/erofs/erofs_fs.h``. Used here: 512-byte blocks (Linux 6.4; a tar's data is 512-aligned),
extended inodes (64 bytes, in 32-byte slots; the slot number is the nid), file data as chunks (8-byte indexes that
name device and block), directories and symlinks as plain blocks after the inodes, inline xattrs. Nothing an archive
says is a format field of ours except through ``struct``, so the kernel only ever parses what was written here.
The same archive gives the same bytes.
"""

from __future__ import annotations

import os
import struct
from array import array
from collections.abc import Mapping

from .tarstream import refuse
from .tree import BLK, CHR, DIR, LNK, REG, LayerTree, link_counts

BLOCK = 512
_META = 3 * BLOCK  # superblock (at byte 1,024) and device table come first
_CHUNK_BITS = 30  # 1 GiB; more would overflow a 32-bit kernel's unsigned long
_CHUNK = 1 << _CHUNK_BITS
_FLUSH = 1 << 18
_PREFIXES = ((b"user.", 1), (b"trusted.", 4), (b"security.", 6))
_ACLS = {b"system.posix_acl_access": 2, b"system.posix_acl_default": 3}
_INODE = struct.Struct("<HHHHQIIIIqII16x")
_FILE = struct.Struct("<HHHHQIIIIqII16xHHI24x")  # an inode with one chunk and no attributes: 3 slots
_DIRENT = struct.Struct("<QHBB")
_MAX_BLOCK = 0xFFFFFFFF


class _Output:
    """Bytes appended from ``position`` on, a few at a time."""

    __slots__ = ("buffer", "fd", "position")

    def __init__(self, fd: int, position: int) -> None:
        self.fd = fd
        self.position = position
        self.buffer = bytearray()

    def add(self, data: bytes) -> None:
        self.buffer += data
        if len(self.buffer) >= _FLUSH:
            self.flush()

    def flush(self) -> None:
        view = memoryview(self.buffer)
        while view:
            done = os.pwrite(self.fd, view, self.position)
            self.position += done
            view = view[done:]
        self.buffer = bytearray()


def write_index(tree: LayerTree, fd: int, *, tar_size: int, uuid: bytes) -> int:
    """Write the image of a finished tree to the empty file ``fd``. Returns the number of inodes.

    ``tar_size``: bytes of the archive (the file is padded to whole blocks). ``uuid``: 16 bytes, from the DiffID.
    Raises ``OSError``, ``IntegrityError`` when the layer is too big for 32-bit block numbers.
    """
    bodies = {inode: _xattr_body(xattrs) for inode, xattrs in tree.xattrs.items()}
    nids, order, slots = _number(tree, bodies)
    first = (_META + slots * 32 + BLOCK - 1) // BLOCK
    inodes, blocks = _Output(fd, _META), _Output(fd, first * BLOCK)
    links = link_counts(tree)
    block = first
    types, add, pack = tree.types, inodes.add, _FILE.pack
    for ino, inode in enumerate(order, 1):
        kind = types[inode]
        if kind == REG and inode not in bodies:
            mode, uid, gid, nsec, mtime, size, where = tree.row(inode)
            if 0 < size <= _CHUNK:  # almost every file
                union = 0x20 | max((size - 1).bit_length(), 9) - 9
                count = links.get(inode, 1)
                add(pack(9, 0, mode, 0, size, union, ino, uid, gid, mtime, nsec, count, 0, 1, where // BLOCK))
                continue
        data = b""
        if kind == DIR:
            data = _directory(tree, nids, inode)
        elif kind == LNK:
            data = tree.targets[inode]
        add(_inode(tree, inode, ino, bodies.get(inode, b""), len(data), block, links.get(inode, 1)))
        if data:
            blocks.add(data + bytes(-len(data) % BLOCK))
            block += (len(data) + BLOCK - 1) // BLOCK
    inodes.add(bytes(first * BLOCK - _META - slots * 32))
    tar_blocks = (tar_size + BLOCK - 1) // BLOCK
    if block + tar_blocks > _MAX_BLOCK:
        refuse("%d bytes do not fit into 32-bit block numbers", tar_size)
    inodes.flush()
    blocks.flush()
    os.pwrite(fd, _head(len(order), block, tar_blocks, uuid), 0)
    return len(order)


def _number(tree: LayerTree, bodies: Mapping[int, bytes]) -> tuple[array[int], array[int], int]:
    """Slot numbers by inode, inodes in the order they are written, and the number of slots used."""
    nids = array("I", bytes(4 * len(tree.types)))
    order = array("I")
    slot = 0
    types = tree.types
    for inode in tree.walk():
        nids[inode] = slot
        order.append(inode)
        body = bodies.get(inode) if bodies else None
        length = tree.row(inode)[5] if types[inode] == REG else 0
        if not body:
            slot += 2 if not length else 3 if length <= _CHUNK else (64 + 8 * _chunks(length) + 31) // 32
            continue
        size = 64 + len(body)
        if length:
            size = (size + 7 & ~7) + 8 * _chunks(length)
        slot += (size + 31) // 32
    return nids, order, slot


def _chunks(size: int) -> int:
    return (size - 1 >> _CHUNK_BITS) + 1


def _inode(tree: LayerTree, inode: int, ino: int, body: bytes, length: int, block: int, links: int) -> bytes:
    mode, uid, gid, nsec, mtime, size, where = tree.get(inode)
    kind = tree.types[inode]
    count = (len(body) - 12) // 4 + 1 if body else 0
    if kind == REG and size:
        bits = min(max((size - 1).bit_length(), 9), _CHUNK_BITS)
        layout, union = 4, 0x20 | bits - 9  # 0x20: 8-byte indexes
        first = where // BLOCK
        step = 1 << _CHUNK_BITS - 9
        index = b"".join(struct.pack("<HHI", 0, 1, first + n * step) for n in range(_chunks(size)))
        raw = _INODE.pack(1 | layout << 1, count, mode, 0, size, union, ino, uid, gid, mtime, nsec, links) + body
        raw += bytes(-len(raw) % 8) + index
        return raw + bytes(-len(raw) % 32)
    union = block if length else where if kind in (CHR, BLK) else 0
    if kind == DIR:
        links = 2 + sum(1 for kid in tree.kids[inode].values() if tree.types[kid] == DIR)
    raw = _INODE.pack(1, count, mode, 0, length, union, ino, uid, gid, mtime, nsec, links) + body
    return raw + bytes(-len(raw) % 32)


def _xattr_body(xattrs: Mapping[bytes, bytes]) -> bytes:
    """Inline attributes: a 12-byte header (no shared ones), then entries of 4 bytes, name and value, 4-aligned."""
    out = bytearray(12)
    for key in sorted(xattrs):
        index = _ACLS.get(key, 0)
        name = b""
        for prefix, number in _PREFIXES:
            if key.startswith(prefix):
                index, name = number, key[len(prefix) :]
        value = xattrs[key]
        out += struct.pack("<BBH", len(name), index, len(value)) + name + value
        out += bytes(-len(out) % 4)
    return bytes(out)


def _directory(tree: LayerTree, nids: array[int], inode: int) -> bytes:
    """Blocks of sorted entries, each block its heads first and then its names; no entry spans two blocks."""
    kids = tree.kids[inode]
    types = tree.types
    names = sorted([*kids, b".", b".."])
    out = bytearray()
    at = 0
    while at < len(names):
        used, end = 0, at
        while end < len(names) and used + 12 + len(names[end]) <= BLOCK:
            used += 12 + len(names[end])
            end += 1
        out += bytes(-len(out) % BLOCK)
        offset = 12 * (end - at)
        chunk = names[at:end]
        for name in chunk:
            if name == b".":
                kid = inode
            elif name == b"..":
                kid = tree.parents[inode]
            else:
                kid = kids[name]
            out += _DIRENT.pack(nids[kid], offset, types[kid], 0)
            offset += len(name)
        out += b"".join(chunk)
        at = end
    return bytes(out)


def _head(inodes: int, blocks: int, tar_blocks: int, uuid: bytes) -> bytes:
    """The first three blocks. Compatible feature 2: inodes have an mtime; incompatible 4|8: chunks, device table."""
    superblock = struct.pack(
        "<IIIBBHQQIIII16s16sIHHHBBIQI",
        0xE0F5E1E2, 0, 2, 9, 0, 0, inodes, 0, 0, blocks, 3, 0, uuid, b"", 4 | 8, 0, 1, 9, 0, 0, 0, 0, 0,
    )  # fmt: skip
    device = struct.pack("<64sII", b"", tar_blocks, blocks)
    return bytes(1024) + superblock.ljust(128, b"\0") + device.ljust(_META - 1024 - 128, b"\0")
