# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which extended attributes of an archive a layer keeps.

Setting an attribute on a file system makes the kernel check and sometimes rewrite it; an EROFS image is taken as it
is. So what setting would do is done here, once, for both forms: otherwise a layer would look different extracted, or
hold an ACL that makes every access to its file fail.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Mapping
from typing import Optional

from .tarstream import refuse

_SPACES = (b"user.", b"trusted.", b"security.")
_ACCESS, _DEFAULT = b"system.posix_acl_access", b"system.posix_acl_default"
_MAX_TOTAL = 200_000  # bytes per inode; EROFS has room for 262,144

_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 1, 2, 4, 8, 16, 32
_NOBODY = 0xFFFFFFFF
# Sizes of struct vfs_cap_data by revision (the top byte of its first word).
_CAPABILITY_SIZES = {1: 12, 2: 20, 3: 24}


def clean(found: Mapping[bytes, bytes], mode: int, name: bytes) -> dict[bytes, bytes]:
    """The attributes to keep of an inode with ``mode`` (type included). ``name`` is for messages.

    Dropped: ``trusted.overlay.*`` (what overlay understands about layers is not an archive's to say: a smuggled
    redirect or opaque mark would show or hide files); name spaces that no file system of ours has; what the kernel
    refuses on this type of file; malformed ACLs and file capabilities. Too long ones are refused.
    """
    kept: dict[bytes, bytes] = {}
    room = 12
    for key, value in found.items():
        if b"\0" in key or key.startswith(b"trusted.overlay."):
            continue
        if len(key) > 255 or len(value) > 65535 or key in _SPACES:
            refuse("%r has an attribute %r of %d bytes", name[:80], key[:40], len(value))
        fitting = _fit(key, value, mode)
        if fitting is not None:
            kept[key] = fitting
            room += 8 + len(key) + len(fitting)
    if room > _MAX_TOTAL:
        refuse("%r has %d bytes of attributes", name[:80], room)
    return kept


def _fit(key: bytes, value: bytes, mode: int) -> Optional[bytes]:
    """The value as the kernel would keep it, or None."""
    if key == _ACCESS:
        return None if stat.S_ISLNK(mode) else _access_acl(value, mode)
    if key == _DEFAULT:
        entries = _entries(value) if stat.S_ISDIR(mode) else None
        return None if not entries else _pack(entries)
    if not key.startswith(_SPACES):
        return None
    if key.startswith(b"user.") and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return None
    if key == b"security.capability":
        revision = value[3] if len(value) > 3 else 0
        return value if len(value) == _CAPABILITY_SIZES.get(revision) else None
    return value


Entries = list[tuple[int, int, int]]


def _access_acl(value: bytes, mode: int) -> Optional[bytes]:
    """chmod(2), which comes after the ACL, rewrites the entries that mirror the mode; an ACL that says no more than
    the mode is not kept."""
    entries = _entries(value)
    if not entries or len(entries) == 3:
        return None
    group = _MASK if any(tag == _MASK for tag, _perm, _who in entries) else _GROUP_OBJ
    mirrored = {_USER_OBJ: mode >> 6 & 7, group: mode >> 3 & 7, _OTHER: mode & 7}
    return _pack([(tag, mirrored.get(tag, perm), who) for tag, perm, who in entries])


def _entries(value: bytes) -> Optional[Entries]:
    """Tag, permissions and id of each entry; None unless the kernel's ``posix_acl_valid`` would accept it. Format:
    <linux/posix_acl_xattr.h>: version 2, then ``<HHI`` each."""
    if len(value) < 4 or (len(value) - 4) % 8 or value[:4] != b"\x02\0\0\0":
        return None
    entries: Entries = []
    last, named, masked = 0, False, False
    for tag, perm, who in struct.iter_unpack("<HHI", value[4:]):
        many = tag in (_USER, _GROUP)
        if tag not in (_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER) or perm > 7:
            return None
        if tag < last or (tag == last and not many) or (many and who == _NOBODY):
            return None
        named, masked, last = named or many, masked or tag == _MASK, tag
        entries.append((tag, perm, who if many else _NOBODY))
    tags = {tag for tag, _perm, _who in entries}
    if not {_USER_OBJ, _GROUP_OBJ, _OTHER} <= tags or (named and not masked):
        return None
    return entries


def _pack(entries: Entries) -> bytes:
    return b"\x02\0\0\0" + b"".join(struct.pack("<HHI", *entry) for entry in entries)
