# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is known of each container: ``<root>/<id>/`` (0711) with ``state.json`` (0600, replaced as a whole) and, between
create and start, ``exec.fifo``.

``state.json``: ``ociVersion id bundle rootfs created annotations owner`` as callers see them; ``pid`` and ``start``
(clock ticks after boot; both 0 until the container is created); ``config`` as it was read at create, for exec and the
hooks; ``cgroup``, see ``group``. A number alone says nothing: the process is the container's only if it started when
the container's did.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Optional

from ..errors import Conflict, KernelError, NotFound, StateError, UsageError
from ..kernel import procfs

if TYPE_CHECKING:
    from ..kernel.cgroups import Cgroup

FIFO = "exec.fifo"
CREATING, CREATED, RUNNING, PAUSED, STOPPED = "creating", "created", "running", "paused", "stopped"
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")
_LONGEST = 1024


def check_id(name: str) -> str:
    """The id becomes a directory's name. Raises ``UsageError``."""
    if not name or len(name) > _LONGEST or not set(name) <= _LETTERS or name in (".", ".."):
        raise UsageError(
            "invalid container ID %r" % name[:100], path="id", hint="Ids are made of letters, digits, _, +, - and dots."
        )
    return name


def directory(root: str, name: str) -> str:
    return "%s/%s" % (root, check_id(name))


def claim(root: str, name: str) -> str:
    """Make the directory of a new container. Raises ``Conflict`` when the id is taken."""
    path = directory(root, name)
    try:
        os.makedirs(root, 0o711, exist_ok=True)
        os.mkdir(path, 0o711)
    except FileExistsError:
        raise Conflict(
            "container with id exists: %s" % name, subject=name, hint="Delete it first, or use another id."
        ) from None
    except OSError as error:
        raise KernelError.wrap(error, "Cannot create %s" % path, step="state", subject=name) from error
    return path


def save(path: str, state: Mapping[str, Any]) -> None:
    """``path``: the container's directory."""
    temporary = "%s/.state.json.%d" % (path, os.getpid())
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, json.dumps(state).encode())
        finally:
            os.close(fd)
        os.rename(temporary, path + "/state.json")
    except OSError as error:
        raise KernelError.wrap(error, "Cannot save the container's state", step="state") from error


def load(root: str, name: str) -> dict[str, Any]:
    """Raises ``NotFound``, ``StateError``."""
    path = directory(root, name) + "/state.json"
    try:
        with open(path, "rb") as stream:
            state: dict[str, Any] = json.loads(stream.read())
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound("container %s does not exist" % name, subject=name) from None
    except OSError as error:
        raise KernelError.wrap(error, "Cannot read %s" % path, step="state", subject=name) from error
    except ValueError as error:
        raise StateError(
            "%s is damaged: %s" % (path, error), subject=name, hint="delete --force removes it."
        ) from error
    return state


def is_alive(state: Mapping[str, Any]) -> bool:
    pid = int(state.get("pid") or 0)
    return pid > 0 and procfs.is_alive(pid, int(state["start"]))


def status(root: str, state: Mapping[str, Any]) -> str:
    if not state.get("pid"):
        return CREATING if _creator_lives(state) else STOPPED
    if not is_alive(state):
        return STOPPED
    if os.path.exists("%s/%s" % (directory(root, state["id"]), FIFO)):
        return CREATED
    group = cgroup(state)
    return PAUSED if group is not None and group.is_frozen() else RUNNING


def _creator_lives(state: Mapping[str, Any]) -> bool:
    pid, start = state.get("creator") or (0, 0)
    return bool(pid) and procfs.is_alive(pid, start)


def cgroup(state: Mapping[str, Any]) -> Optional[Cgroup]:
    """The container's cgroup, without looking at the mount table again; None for one without."""
    found = state.get("cgroup")
    if not found:
        return None
    from . import group

    return group.restore(found)


def public(root: str, state: Mapping[str, Any]) -> dict[str, Any]:
    """What ``state`` prints and hooks get to read."""
    now = status(root, state)
    shown = {
        "ociVersion": state["ociVersion"],
        "id": state["id"],
        "pid": 0 if now in (STOPPED, CREATING) else state["pid"],
        "status": now,
        "bundle": state["bundle"],
        "rootfs": state["rootfs"],
        "created": state["created"],
        "owner": state.get("owner") or "",
    }
    if state.get("annotations"):
        shown["annotations"] = state["annotations"]
    return shown


def names(root: str) -> list[str]:
    """Ids of the containers below ``root``, sorted."""
    try:
        with os.scandir(root) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []
