# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Mount options as runc reads them: ``ro`` is for the mount itself, ``rro`` for everything below it too."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Optional

from ..kernel import mounts
from ..kernel.syscalls import MOUNT_ATTR_NOATIME, MOUNT_ATTR_STRICTATIME, MS_PRIVATE, MS_SHARED, MS_SLAVE
from ..tuples import NamedTuple


class Parsed(NamedTuple):
    """``top``, ``all``: attributes to set and to clear on the mount, and on it and its submounts; ``propagation``:
    ``(MS_* flag, recursive)`` in order; ``data``: for the file system; ``idmap``: "", "idmap" or "ridmap"."""

    top: tuple[int, int]
    all: tuple[int, int]
    propagation: tuple[tuple[int, bool], ...]
    bind: bool
    recursive: bool
    remount: bool
    idmap: str
    copy_up: bool
    data: tuple[tuple[str, Optional[str]], ...]


ATTRIBUTES = {
    "ro": (1, True), "rw": (1, False), "nosuid": (2, True), "suid": (2, False), "nodev": (4, True), "dev": (4, False),
    "noexec": (8, True), "exec": (8, False), "nodiratime": (0x80, True), "diratime": (0x80, False),
    "nosymfollow": (0x200000, True), "symfollow": (0x200000, False),
}  # fmt: skip
ATIME = {
    "relatime": 0, "norelatime": 0, "noatime": MOUNT_ATTR_NOATIME, "atime": 0, "strictatime": MOUNT_ATTR_STRICTATIME,
    "nostrictatime": 0,
}  # fmt: skip
PROPAGATION = {
    "private": MS_PRIVATE, "slave": MS_SLAVE, "shared": MS_SHARED, "unbindable": mounts.MS_UNBINDABLE,
}  # fmt: skip
IGNORED = {
    "defaults",
    "async",
    "nomand",
    "mand",
    "iversion",
    "noiversion",
    "loud",
    "silent",
    "nofail",
    "lazytime",
    "nolazytime",
}


def parse(words: Iterable[str]) -> Parsed:
    """A later word overrides an earlier one."""
    top, below = [0, 0], [0, 0]
    propagation: list[tuple[int, bool]] = []
    bind = recursive = remount = copy_up = False
    idmap = ""
    data: list[tuple[str, Optional[str]]] = []
    for word in words:
        plain = word[1:] if word.startswith("r") and word[1:] in (*ATTRIBUTES, *ATIME, *PROPAGATION) else ""
        if word in ATTRIBUTES or plain in ATTRIBUTES:
            _attribute(top if word in ATTRIBUTES else below, *ATTRIBUTES[word if word in ATTRIBUTES else plain])
        elif word in ATIME or plain in ATIME:
            _access_time(top if word in ATIME else below, ATIME[word if word in ATIME else plain])
        elif word in PROPAGATION or plain in PROPAGATION:
            propagation.append((PROPAGATION[plain or word], bool(plain)))
        elif word in ("bind", "rbind"):
            bind, recursive = True, word == "rbind"
        elif word in ("idmap", "ridmap"):
            idmap = word
        elif word == "remount":
            remount = True
        elif word == "tmpcopyup":
            copy_up = True
        elif word not in IGNORED and word:
            key, equals, value = word.partition("=")
            data.append((key, value if equals else None))
    pairs = (top[0], top[1]), (below[0], below[1])
    return Parsed(*pairs, tuple(propagation), bind, recursive, remount, idmap, copy_up, tuple(data))


def _attribute(pair: list[int], bit: int, on: bool) -> None:
    """``pair``: what to set, what to clear."""
    pair[0] = pair[0] | bit if on else pair[0] & ~bit
    pair[1] = pair[1] & ~bit if on else pair[1] | bit


def _access_time(pair: list[int], value: int) -> None:
    """A field, not a bit: the kernel wants the whole field cleared when it is set."""
    pair[0] = pair[0] & ~mounts.MOUNT_ATTR_ATIME_MASK | value
    pair[1] |= mounts.MOUNT_ATTR_ATIME_MASK
