# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Layer archives from Python descriptions, well-formed or not.

``build([folder("etc"), file("etc/passwd", b"root:x:0:0"), link("a", "etc/passwd"), whiteout("etc/old")])``
gives the bytes of a tar. Written by hand rather than with ``tarfile``, so that tests can say what no sane writer
would: negative sizes, NULs, wrong checksums, entries out of order. ``snapshot(fd)`` tells everything about a
directory tree that two of them must agree on.
"""

from __future__ import annotations

import hashlib
import os
import stat
from typing import Any, Optional, Union

Text = Union[str, bytes]
MTIME = 1_700_000_000


def _bytes(value: Text) -> bytes:
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value


def number(value: int, width: int) -> bytes:
    """Octal where it fits, else GNU's base-256."""
    if 0 <= value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    return (value & (1 << width * 8 - 1) - 1 | 1 << width * 8 - 1).to_bytes(width, "big")


def header(
    name: Text,
    flag: bytes = b"0",
    size: int = 0,
    *,
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    mtime: int = MTIME,
    link: Text = b"",
    major: int = 0,
    minor: int = 0,
    magic: bytes = b"ustar\x0000",
    prefix: Text = b"",
) -> bytes:
    """One 512-byte header with a right checksum; fields are cut, not checked."""
    raw = b"".join(
        (
            _bytes(name)[:100].ljust(100, b"\0"),
            number(mode, 8), number(uid, 8), number(gid, 8), number(size, 12), number(mtime, 12), b" " * 8, flag,
            _bytes(link)[:100].ljust(100, b"\0"), magic, b"\0" * 64, number(major, 8), number(minor, 8),
            _bytes(prefix)[:155].ljust(155, b"\0"), b"\0" * 12,
        )
    )  # fmt: skip
    return raw[:148] + b"%06o\0 " % sum(raw) + raw[156:]


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def pax(records: dict[str, Text], flag: bytes = b"x") -> bytes:
    """A PAX extended header and its records."""
    body = b""
    for key, value in records.items():
        text = b" " + _bytes(key) + b"=" + _bytes(value) + b"\n"
        length = len(text) + len(str(len(text)))
        if len(str(length)) + len(text) != length:
            length += 1
        body += str(length).encode() + text
    return header("PaxHeaders/x", flag, len(body)) + padded(body)


def long_name(name: Text, flag: bytes = b"L") -> bytes:
    body = _bytes(name) + b"\0"
    return header("././@LongLink", flag, len(body), magic=b"ustar  \0") + padded(body)


def entry(
    name: Text,
    flag: bytes,
    data: bytes = b"",
    *,
    xattrs: Optional[dict[str, bytes]] = None,
    nsec: int = 0,
    records: Optional[dict[str, Text]] = None,
    gnu: bool = False,
    link: Text = b"",
    mtime: int = MTIME,
    **fields: Any,
) -> bytes:
    """A member with whatever extension headers it needs: PAX, or GNU long names with ``gnu``."""
    name, link = _bytes(name), _bytes(link)
    out = b""
    extra: dict[str, Text] = {"SCHILY.xattr." + key: value for key, value in (xattrs or {}).items()}
    if len(name) > 100:
        if gnu:
            out += long_name(name)
        else:
            extra["path"] = name
    if len(link) > 100:
        if gnu:
            out += long_name(link, b"K")
        else:
            extra["linkpath"] = link
    if nsec:
        whole, part = (mtime + 1, 10**9 - nsec) if mtime < 0 else (mtime, nsec)
        extra["mtime"] = "%s%d.%09d" % ("-" if mtime < 0 and whole == 0 else "", whole, part)
    extra.update(records or {})
    if extra:
        out += pax(extra)
    magic = b"ustar  \0" if gnu else b"ustar\x0000"
    fields.setdefault("magic", magic)
    return out + header(name, flag, len(data), link=link, mtime=mtime, **fields) + padded(data)


def file(name: Text, data: Text = b"", **fields: Any) -> bytes:
    return entry(name, b"0", _bytes(data), **fields)


def folder(name: Text, mode: int = 0o755, **fields: Any) -> bytes:
    return entry(_bytes(name) + b"/", b"5", mode=mode, **fields)


def symlink(name: Text, target: Text, **fields: Any) -> bytes:
    return entry(name, b"2", link=target, mode=0o777, **fields)


def link(name: Text, target: Text, **fields: Any) -> bytes:
    return entry(name, b"1", link=target, **fields)


def fifo(name: Text, **fields: Any) -> bytes:
    return entry(name, b"6", **fields)


def char(name: Text, major: int, minor: int, **fields: Any) -> bytes:
    return entry(name, b"3", major=major, minor=minor, **fields)


def block(name: Text, major: int, minor: int, **fields: Any) -> bytes:
    return entry(name, b"4", major=major, minor=minor, **fields)


def whiteout(name: Text) -> bytes:
    head, slash, tail = _bytes(name).rpartition(b"/")
    return file(head + slash + b".wh." + tail)


def opaque(folder_name: Text) -> bytes:
    name = _bytes(folder_name)
    return file((name + b"/" if name else b"") + b".wh..wh..opq")


def build(entries: list[bytes], *, end: bool = True) -> bytes:
    return b"".join(entries) + (bytes(1024) if end else b"")


# -- for fuzzing -------------------------------------------------------------------------------------------------


def sampler() -> bytes:
    """An archive with one of everything, to be mutated."""
    return build(
        [
            folder("d"), file("d/f", b"x" * 600, xattrs={"user.a": b"1"}, nsec=5), symlink("s", "d"), link("l", "d/f"),
            char("c", 1, 3), file("n" * 150, b"1", gnu=True), whiteout("w"), opaque("d"),
            pax({"GNU.sparse.size": "9", "GNU.sparse.map": "0,1,5,2"}) + file("sp", b"abc"),
            pax({"GNU.sparse.major": "1", "GNU.sparse.realsize": "9", "GNU.sparse.name": "q"})
            + file("sp", padded(b"1\n0\n3\n") + b"abc"),
            header("o", b"S", 0, magic=b"ustar  \0"),
        ]
    )  # fmt: skip


def repaired(data: bytes) -> bytes:
    """Every block in header position gets a right checksum again, so that mutations get past it."""
    out = bytearray(data)
    for at in range(0, len(out) - 511, 512):
        if bytes(out[at + 257 : at + 262]) == b"ustar":
            out[at + 148 : at + 156] = b" " * 8
            out[at + 148 : at + 156] = b"%06o\0 " % sum(out[at : at + 512])
    return bytes(out)


# -- comparing trees ---------------------------------------------------------------------------------------------


def snapshot(root: Union[int, str], *, times: bool = True) -> dict[bytes, tuple[Any, ...]]:
    """Path -> (mode, uid, gid, size, device, mtime ns, content hash or link target, xattrs, first path of the same
    inode). ``root``: a path, or a descriptor (O_PATH ones too)."""
    top = os.open(".", os.O_RDONLY, dir_fd=root) if isinstance(root, int) else os.open(root, os.O_RDONLY)
    found: dict[bytes, tuple[Any, ...]] = {}
    first: dict[tuple[int, int], bytes] = {}
    try:
        base = b"/proc/self/fd/%d/" % top
        waiting = [b"."]
        while waiting:
            path = waiting.pop()
            info = os.lstat(base + path)
            found[path] = _facts(base + path, info, first.setdefault((info.st_dev, info.st_ino), path), times)
            if stat.S_ISDIR(info.st_mode):
                waiting += [path + b"/" + name for name in sorted(os.listdir(base + path), reverse=True)]
    finally:
        os.close(top)
    return found


def _facts(path: bytes, info: os.stat_result, same: bytes, times: bool) -> tuple[Any, ...]:
    content: Any = None
    if stat.S_ISREG(info.st_mode):
        with open(path, "rb") as reader:
            content = hashlib.sha256(reader.read()).hexdigest()
    elif stat.S_ISLNK(info.st_mode):
        content = os.readlink(path)
    keys = sorted(os.listxattr(path, follow_symlinks=False))
    xattrs = {key: os.getxattr(path, key, follow_symlinks=False) for key in keys}
    size = 0 if stat.S_ISDIR(info.st_mode) else info.st_size
    device = info.st_rdev if stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode) else 0
    # A directory's own inode is never shared, and unlike a file's its number may differ between mounts.
    shared = None if stat.S_ISDIR(info.st_mode) or info.st_nlink == 1 else same
    return (
        info.st_mode, info.st_uid, info.st_gid, size, device, info.st_mtime_ns if times else 0, content, xattrs, shared,
    )  # fmt: skip
