# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who a container's process is: ``user[:group]`` looked up in the container's own passwd and group.

Never through NSS: the host's ``pwd`` module would answer about the host, and a chrooted one would load the image's
shared objects into the engine (CVE-2019-14271). The files are opened through the rootfs descriptor.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Optional

from ..errors import StartError
from ..tuples import NamedTuple

if TYPE_CHECKING:
    from ..kernel.syscalls import Kernel

# 2^31-1: beyond it some programs wrap to 0, that is root (CVE-2024-40635); and 2^32-1 means "leave it" to setresuid.
MAX_ID = (1 << 31) - 1
_MAX_FILE = 16 << 20


class Identity(NamedTuple):
    """``groups``: supplementary group ids, ``gid`` first: without it a program could drop its primary group and with it
    what files deny to that group (CVE-2022-36109). ``home``: from passwd, "/" when there is none."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    name: str


class _User(NamedTuple):
    name: str
    uid: int
    gid: int
    home: str


class _Group(NamedTuple):
    name: str
    gid: int
    members: tuple[str, ...]


def parse_id(text: str) -> Optional[int]:
    """A decimal id, or ``None`` when ``text`` is a name.

    Strict: "1a" is a name and not 1 (CVE-2026-30892), "+1" and "-1" are names. Raises ``StartError`` for digits
    beyond ``MAX_ID``.
    """
    if not text.isascii() or not text.isdigit():
        return None
    number = int(text) if len(text) < 20 else MAX_ID + 1
    if number > MAX_ID:
        raise StartError(
            "uids and gids must be in range 0-%d, not %s" % (MAX_ID, text),
            step="resolve_user",
            path="user",
            details={"exit_code": 126},
        )
    return number


def resolve(kernel: Kernel, rootfd: int, wanted: str, extra_groups: Sequence[str] = ()) -> Identity:
    """``wanted``: "", "user", "uid", "user:group", "uid:gid"... Raises ``StartError`` in Docker's words.

    A numeric uid need not be in passwd; its gid is 0 then. Supplementary groups come from the group file unless a
    group is asked for; ``extra_groups`` are added in any case.
    """
    user_part, colon, group_part = wanted.partition(":")
    users = list(_users(_read(kernel, rootfd, "etc/passwd")))
    groups = list(_groups(_read(kernel, rootfd, "etc/group")))
    found = _find_user(users, user_part or "0")
    gid = found.gid
    supplementary: list[int] = []
    if colon and group_part:
        gid = _find_group(groups, group_part)
    elif found.name:
        supplementary = [group.gid for group in groups if found.name in group.members]
    supplementary += [_find_group(groups, name) for name in extra_groups]
    unique = tuple(dict.fromkeys([gid, *supplementary]))
    return Identity(found.uid, gid, unique, found.home or "/", found.name)


def _find_user(users: Sequence[_User], wanted: str) -> _User:
    # A name made of digits only can't be told from an id; like Docker, an entry with that very name wins.
    for user in users:
        if user.name == wanted:
            return user
    number = parse_id(wanted)
    if number is None:
        raise StartError(
            "unable to find user %s: no matching entries in passwd file" % wanted,
            step="resolve_user",
            path="user",
            details={"exit_code": 126},
            hint="The user must exist in the image's /etc/passwd, or be given as a number.",
        )
    for user in users:
        if user.uid == number:
            return user
    return _User("", number, 0, "/")


def _find_group(groups: Sequence[_Group], wanted: str) -> int:
    for group in groups:
        if group.name == wanted:
            return group.gid
    number = parse_id(wanted)
    if number is None:
        raise StartError(
            "unable to find group %s: no matching entries in group file" % wanted,
            step="resolve_user",
            path="user",
            details={"exit_code": 126},
            hint="The group must exist in the image's /etc/group, or be given as a number.",
        )
    return number


def _users(text: str) -> Iterator[_User]:
    for line in text.split("\n"):
        fields = line.strip().split(":")
        if len(fields) >= 4 and fields[0] and fields[0][0] not in "#+-":
            uid, gid = _file_id(fields[2]), _file_id(fields[3])
            if uid is not None and gid is not None:
                yield _User(fields[0], uid, gid, fields[5] if len(fields) > 5 else "/")


def _groups(text: str) -> Iterator[_Group]:
    for line in text.split("\n"):
        fields = line.strip().split(":")
        if len(fields) >= 3 and fields[0] and fields[0][0] not in "#+-":
            gid = _file_id(fields[2])
            if gid is not None:
                members = fields[3].split(",") if len(fields) > 3 else []
                yield _Group(fields[0], gid, tuple(name.strip() for name in members if name.strip()))


def _file_id(text: str) -> Optional[int]:
    """An id written in an image's file; malformed or oversized ones make the line count as absent."""
    if not text.isascii() or not text.isdigit() or len(text) > 10:
        return None
    number = int(text)
    return number if number <= MAX_ID else None


def _read(kernel: Kernel, rootfd: int, path: str) -> str:
    """Text of a file in the rootfs; "" when it is missing or no regular file.

    O_NONBLOCK and S_ISREG: a FIFO there would hang the start, a device could do anything (CVE-2024-9676 is the
    oversized variant).
    """
    try:
        fd = kernel.open_in_root(rootfd, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:  # no such file, a loop, a device without driver: an image without users
        return ""
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode) or info.st_size > _MAX_FILE:
            return ""
        chunks = []
        left = _MAX_FILE
        while left > 0:
            data = os.read(fd, min(left, 1 << 20))
            if not data:
                break
            chunks.append(data)
            left -= len(data)
        return b"".join(chunks).decode("utf-8", "surrogateescape")
    finally:
        os.close(fd)
