# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""``userns_mode``: which of the host's ids a container's are.

``auto`` reserves a range for the container: it stands in the container's row (``resolved["userns"]``) and is free again
when the row is gone; nothing else counts. Ranges come from the lines of the user ``wharf`` in /etc/subuid and
/etc/subgid (which have to be the same), or from ids that neither systemd nor shadow give to anybody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional

from ..errors import Conflict, UsageError
from ..kernel.idmap import Range
from ..reconcile.values import bad
from .task import Task

if TYPE_CHECKING:
    from ..storage.shifted import Owners
    from ..store.records import ContainerRecord

SIZE = 65536
_LEAST, _MOST = 1, 1 << 27
_USER = "wharf"
# systemd's users-and-groups table: container ranges end at 1879048191, the foreign range begins at 2147352576.
_OWN_POOL = ((1879048192, 2147352576 - 1879048192),)
_EVERYTHING = Range(0, 0, (1 << 32) - 1)


def check(spec: dict[str, Any]) -> None:
    """Canonical: absent for the host's, "auto", "auto:size=N", "keep-id". Raises ``UsageError``."""
    mode = spec["userns_mode"]
    if mode in ("", "host"):
        del spec["userns_mode"]
        return
    if mode.startswith("container:"):
        raise bad("userns_mode", mode, "cannot be shared: each container's range of ids is its own", "use auto in both")
    if mode != "keep-id":
        size = _size(mode)
        spec["userns_mode"] = "auto" if size == SIZE else "auto:size=%d" % size
    for option, value in (("privileged", True), ("network_mode", "host"), ("pid_mode", "host")):
        if spec.get(option) == value:
            raise bad(
                "userns_mode",
                mode,
                "cannot be combined with %s %s: that is about the host, where root inside is nobody"
                % (option, str(value).lower()),
            )


def _size(mode: str) -> int:
    word, colon, rest = mode.partition(":")
    key, _equals, number = rest.partition("=")
    if word != "auto" or (colon and (key != "size" or not number.isdigit())):
        raise bad("userns_mode", mode, "is none of host, auto, auto:size=N, keep-id")
    size = int(number) if colon else SIZE
    if not _LEAST <= size <= _MOST:
        raise bad("userns_mode", mode, "asks for a size outside %d to %d" % (_LEAST, _MOST))
    return size


def reserve(task: Task, spec: dict[str, Any]) -> dict[str, Any]:
    """``{"userns": {"first", "size"}}`` for a new container's ``resolved``, or ``{}``. Within the transaction that
    writes the row. Raises ``Conflict`` when no range of that size is left."""
    mode = spec.get("userns_mode")
    if not mode:
        return {}
    if mode == "keep-id":
        return {"userns": {"first": 0, "size": _EVERYTHING.size}}
    size = _size(mode)
    taken = []
    for record in task.store.containers.mentioning('"userns"'):
        other = record.resolved.get("userns")
        if other and other["first"]:
            taken.append((int(other["first"]), int(other["size"])))
    first = _gap(pool(), sorted(taken), size)
    if first is None:
        raise Conflict(
            "No range of %d ids is left for userns_mode %s" % (size, mode),
            step="reserve_ids",
            path="userns_mode",
            hint="Remove containers that have one, or give the user %s longer lines in /etc/subuid and /etc/subgid."
            % _USER,
        )
    return {"userns": {"first": first, "size": size}}


def _gap(ranges: list[tuple[int, int]], taken: list[tuple[int, int]], size: int) -> Optional[int]:
    for begin, length in ranges:
        at = begin
        for other, width in taken:
            if other + width <= at or other >= begin + length:
                continue
            if other - at >= size:
                break
            at = max(at, other + width)
        if at + size <= begin + length:
            return at
    return None


def pool(subuid: str = "/etc/subuid", subgid: str = "/etc/subgid") -> list[tuple[int, int]]:
    """``[(first, count)]``. The engine's own leaves out what the two files give to others. Raises ``UsageError``."""
    uids, gids = _lines(subuid), _lines(subgid)
    mine = [(first, count) for user, first, count in uids if user == _USER]
    also = [(first, count) for user, first, count in gids if user == _USER]
    if sorted(mine) != sorted(also):
        raise UsageError(
            "The lines of the user %s in %s and %s differ" % (_USER, subuid, subgid),
            step="reserve_ids",
            path="userns_mode",
            hint="A container has the same range of uids and gids: make them equal.",
        )
    if mine:
        return sorted(mine)
    others = sorted((first, count) for _user, first, count in [*uids, *gids])
    out = []
    for first, count in _OWN_POOL:
        at = first
        for other, width in others:
            if other + width <= at or other >= first + count:
                continue
            if other > at:
                out.append((at, other - at))
            at = max(at, other + width)
        if at < first + count:
            out.append((at, first + count - at))
    return out


def _lines(path: str) -> list[tuple[str, int, int]]:
    """subuid(5): ``user:first:count``."""
    found = []
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            for line in stream:
                fields = line.strip().split(":")
                if len(fields) == 3 and fields[1].isdigit() and fields[2].isdigit() and int(fields[2]):
                    found.append((fields[0], int(fields[1]), int(fields[2])))
    except FileNotFoundError:
        pass
    return found


def ranges(record: ContainerRecord) -> Optional[tuple[Range, ...]]:
    """Of uids and of gids alike; None for a container without a user namespace of its own."""
    found = record.resolved.get("userns")
    return (Range(0, int(found["first"]), int(found["size"])),) if found else None


def context(task: Task, record: ContainerRecord) -> Optional[dict[str, Any]]:
    """For ``runtime.spec.generate``: the namespace is the one that owns the network namespace, if that is the
    container's own."""
    found = ranges(record)
    if found is None:
        return None
    from .container_make import owns_network

    out: dict[str, Any] = {"uids": found, "gids": found}
    if owns_network(record.spec):
        out["path"] = "owner:" + task.paths.container_netns(record.id)
    return out


def owners(record: ContainerRecord) -> Optional[Owners]:
    """Between the ids in the container's writable layer and those of images."""
    found = ranges(record)
    if found is None or not found[0].outside:
        return None
    from ..storage.shifted import Owners as Pair

    return Pair(found, found)
