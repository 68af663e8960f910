# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Secrets of a container: files on a small read-only memory file system, and nowhere else it could see.

On the host their content lies in the container's directory, 0600 in 0700; config.json only names the files.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from ..errors import KernelError, StartError
from ..kernel import mounts
from ..kernel.syscalls import MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY, Kernel
from ..tuples import NamedTuple
from .userns import Mapped
from .users import Identity

DIRECTORY = "/run/secrets"
_LIMIT = 1 << 20


class Secret(NamedTuple):
    """``path`` is relative to ``/run/secrets``; ``uid`` and ``gid`` -1: the container's user."""

    path: str
    mode: int
    uid: int
    gid: int
    content: bytes


def load(directory: str, wanted: Sequence[Mapping[str, Any]]) -> tuple[Secret, ...]:
    """Read on the host, before anything of the container exists."""
    found = []
    for entry in wanted:
        try:
            with open("%s/secrets/%s" % (directory, entry["name"]), "rb") as stream:
                content = stream.read(_LIMIT + 1)
        except OSError as error:
            raise StartError(
                "Secret %s cannot be read: %s" % (entry["name"], error.strerror),
                step="secrets",
                path="secrets",
                hint="Run a task that gives the container's image and secrets again.",
            ) from None
        path = entry["target"][len(DIRECTORY) + 1 :]
        found.append(Secret(path, entry["mode"], entry.get("uid", -1), entry.get("gid", -1), content))
    return tuple(found)


def place(
    kernel: Kernel, rootfd: int, wanted: Sequence[Secret], identity: Identity, mapped: Optional[Mapped] = None
) -> None:
    """Fill the file system while it is mounted nowhere, then attach it: no link of the image is ever written through,
    and a secret is never there half."""
    if not wanted:
        return
    attrs = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC
    size = (sum(len(secret.content) for secret in wanted) // 4096 + 2 * len(wanted) + 4) * 4096
    fd = mounts.tmpfs(kernel, size=size, mode=0o755, attrs=attrs, source="secrets")
    try:
        for secret in wanted:
            _write(fd, secret, _owner(secret, identity, mapped))
        kernel.mount_setattr(fd, MOUNT_ATTR_RDONLY, what=DIRECTORY)
        mounts.attach_at(kernel, rootfd, DIRECTORY, fd, "dir")
    except OSError as error:
        raise KernelError.wrap(error, "Cannot place the secrets", step="secrets", hint=None) from error
    finally:
        os.close(fd)


def _owner(secret: Secret, identity: Identity, mapped: Optional[Mapped]) -> tuple[int, int]:
    uid = identity.uid if secret.uid < 0 else secret.uid
    gid = identity.gid if secret.gid < 0 else secret.gid
    return (mapped.uid(uid), mapped.gid(gid)) if mapped else (uid, gid)


def _write(base: int, secret: Secret, owner: tuple[int, int]) -> None:
    *above, name = secret.path.split("/")
    held = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=base)
    try:
        for part in above:
            try:
                os.mkdir(part, 0o755, dir_fd=held)
                os.chmod(part, 0o755, dir_fd=held)
            except FileExistsError:
                pass
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=held)
            os.close(held)
            held = below
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=held)
        try:
            view = memoryview(secret.content)
            while view:
                view = view[os.write(fd, view) :]
            os.fchown(fd, *owner)
            os.fchmod(fd, secret.mode)
        finally:
            os.close(fd)
    finally:
        os.close(held)
