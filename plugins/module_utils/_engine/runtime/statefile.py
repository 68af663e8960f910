# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""``state.json``: what a container's monitor last knew; and what to believe of it.

Written atomically by the monitor alone. Readers need no monitor: "running" is believed only of a process that exists
now, in this boot, with the start time written down.
"""

from __future__ import annotations

import errno
import json
import os
from typing import Any, Optional

from ..kernel import procfs
from .logs import ZERO_TIME

LOST = "monitor was lost"
NEVER_RECORDED = 255
_BLOCK = 4096
_USUAL = 1 << 14  # bytes; a regular file is read whole by one call, unless it is larger


def blank(container_id: str) -> dict[str, Any]:
    """State of a container that never ran."""
    return {
        "id": container_id,
        "status": "created",
        "pid": 0,
        "pid_start": 0,
        "boot_id": "",
        "monitor_pid": 0,
        "monitor_start": 0,
        "started_at": ZERO_TIME,
        "finished_at": ZERO_TIME,
        "exit_code": 0,
        "error": "",
        "log_error": "",
        "oom_killed": False,
        "restart_count": 0,
        "manually_stopped": False,
        "health": None,
    }


def write_json(path: str, value: Any, *, sync: bool = False) -> None:
    """Replace ``path`` atomically; ``sync``: it must survive a power cut. Raises ``OSError``."""
    temporary = "%s.%d.tmp" % (path, os.getpid())
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        view = memoryview(json.dumps(value).encode())
        while view:
            view = view[os.write(fd, view) :]
        if sync:
            os.fsync(fd)
    except OSError:
        os.close(fd)
        os.unlink(temporary)
        raise
    os.close(fd)
    os.rename(temporary, path)


def sweep(directory: str) -> None:
    """Remove what writers left that were killed between their two steps (they are named after their process)."""
    for name in os.listdir(directory):
        if name.endswith(".tmp") and ".json." in name and not os.path.exists("/proc/" + name.split(".")[-2]):
            try:
                os.unlink("%s/%s" % (directory, name))
            except FileNotFoundError:  # somebody else was faster
                continue


def replace(path: str, value: Any, *, sync: bool = False) -> None:
    """``write_json``, also on a full disk, as long as there is a file: how a container ended must not be lost there.
    Raises ``OSError``."""
    try:
        write_json(path, value, sync=sync)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _overwrite(path, value)


def _overwrite(path: str, value: Any) -> None:
    """In place, with one write that stays within the blocks the file has."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        size = os.fstat(fd).st_size
        raw = json.dumps(value).encode().ljust(size)  # spaces behind the value are JSON, too
        if len(raw) > -(-size // _BLOCK) * _BLOCK:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        os.pwrite(fd, raw, 0)
    finally:
        os.close(fd)


def read(path: str) -> Optional[dict[str, Any]]:
    """The file's content; None when there is none, or it is no state (torn by a foreign hand)."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.read(fd, _USUAL)
            while len(data) % _USUAL == 0 and data:
                more = os.read(fd, _USUAL)
                if not more:
                    break
                data += more
            value = json.loads(data.decode())  # json would look for an encoding
        finally:
            os.close(fd)
    except (FileNotFoundError, ValueError):
        return None
    return value if isinstance(value, dict) and "status" in value else None


def monitor_alive(state: dict[str, Any]) -> bool:
    return state.get("boot_id") == procfs.boot_id() and procfs.is_alive(
        state.get("monitor_pid") or 0, state.get("monitor_start") or 0
    )


def process_alive(state: dict[str, Any]) -> bool:
    return living_parent(state) is not None


def living_parent(state: dict[str, Any]) -> Optional[int]:
    """The process whose child the container's is; None when that does not run. A process whose parent ends gets another
    one at once: as long as it is the monitor's child, the monitor lives, and no other has its number."""
    if not state.get("pid") or state.get("boot_id") != procfs.boot_id():
        return None
    return procfs.living_parent(state["pid"], state.get("pid_start") or 0)


def unrecorded(state: dict[str, Any]) -> bool:
    """The process has ended this instant, and its monitor is about to write down how."""
    return state["status"] in ("running", "paused") and not process_alive(state) and monitor_alive(state)


def present(state: dict[str, Any]) -> dict[str, Any]:
    """``state`` as it is now: what claims to run but does not is "exited", with the recorded code, or 255 when nobody
    was there to see it end."""
    status = state["status"]
    if status in ("running", "paused") and not process_alive(state):
        return {
            **state,
            "status": "exited",
            "pid": 0,
            "exit_code": NEVER_RECORDED,
            "error": state.get("error") or "died while nobody watched",
            "health": _stopped(state.get("health")),
        }
    if status == "restarting" and not monitor_alive(state):
        return {**state, "status": "exited", "pid": 0}
    if status == "created" and state.get("pid") and not monitor_alive(state):
        # Its monitor was killed between "run" and the note of it: the program may run all the same.
        return {**state, "status": "running"} if process_alive(state) else {**state, "pid": 0}
    return state


def _stopped(health: Optional[dict[str, Any]]) -> Optional[dict[str, Any]]:
    return {**health, "status": "unhealthy"} if health else health
