# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Killing, freezing and removing a cgroup and everything in it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Optional

from ...errors import KernelError
from ..pidfd import open_pid, send_signal
from .files import Files, keyed

if TYPE_CHECKING:
    from .group import Cgroup

_EBUSY = 16


def tree(files: Files, directory: str) -> list[str]:
    """``directory`` and all cgroups below it, children before parents. Not recursive: how deep they are nested is a
    privileged container's choice."""
    found = [directory]
    for path in found:
        found += [path + "/" + name for name in files.children(path)]
    found.reverse()
    return found


def processes_in(files: Files, directory: str) -> set[int]:
    found: set[int] = set()
    for path in tree(files, directory):
        text = files.value(path + "/cgroup.procs") or ""
        # 0 stands for a process outside our pid namespace, which has no number here.
        found.update(int(line) for line in text.split() if line != "0")
    return found


def processes(group: Cgroup) -> list[int]:
    found: set[int] = set()
    for directory in group.directories():
        found |= processes_in(group.files, directory)
    return sorted(found)


def kill_all(group: Cgroup, leaf: str = "", timeout: float = 10.0) -> bool:
    files, deadline = group.files, time.monotonic() + timeout
    unified = group.unified(leaf)
    pause = 0.001
    if unified is not None and files.exists(unified + "/cgroup.kill"):
        _write_if_there(files, unified + "/cgroup.kill", "1")  # atomic, also for processes being forked just now
        if leaf:
            return wait_empty(files, unified, deadline)
        if wait_empty(files, unified, deadline) and not processes(group):
            return True
    # Linux before 5.14, no unified hierarchy, or a process that joined a v1 hierarchy only: stop them all, so that
    # none can fork away, then signal each.
    while True:
        left = sorted(processes_in(files, unified)) if leaf and unified else processes(group)
        if not left:
            return True
        if time.monotonic() >= deadline:
            return False
        stopped = not leaf and _try_freeze(group)
        _signal(left, lambda: processes_in(files, unified) if leaf and unified else set(processes(group)))
        if stopped:
            thaw(group)
        time.sleep(pause)
        pause = min(pause * 2, 0.1)


def _signal(pids: list[int], members: Callable[[], set[int]]) -> None:
    """SIGKILL by descriptor, and only to what is still a member after the descriptor was opened: a number that was
    given away meanwhile belongs to somebody else."""
    held = [(pid, fd) for pid, fd in ((pid, open_pid(pid)) for pid in pids) if fd is not None]
    try:
        still = members()
        for pid, fd in held:
            if pid in still:
                send_signal(fd, signal.SIGKILL)
    finally:
        for _pid, fd in held:
            os.close(fd)


def _write_if_there(files: Files, path: str, value: str) -> None:
    try:
        files.write(path, value)
    except OSError as error:
        if error.errno not in (2, 19):
            raise KernelError.wrap(error, "Cannot write %s" % path, step="kill_cgroup") from error


def _try_freeze(group: Cgroup) -> bool:
    try:
        freeze(group, 0.2)
    except KernelError:  # killing goes on without: the loop sees what forked meanwhile
        return False
    return True


def wait_empty(files: Files, directory: str, deadline: float) -> bool:
    """Wait until no process is left in a v2 cgroup and its children."""
    from .events import wait_key

    return wait_key(files, directory + "/cgroup.events", "populated", 0, deadline)


def freeze(group: Cgroup, timeout: float = 10.0) -> None:
    unified = group.unified()
    try:
        if unified is not None and group.files.exists(unified + "/cgroup.freeze"):
            _freeze_v2(group.files, unified, timeout)
            return
        directory = _freezer(group)
        if directory is None:
            raise OSError(95, os.strerror(95), "cgroup.freeze")
        _freeze_v1(group.files, directory, timeout)
    except OSError as error:
        raise KernelError.wrap(
            error, "Cannot freeze the cgroup %s" % group.path, step="freeze", subject=group.path
        ) from error


def _freeze_v2(files: Files, directory: str, timeout: float) -> None:
    from .events import wait_key

    files.write(directory + "/cgroup.freeze", "1")
    if not wait_key(files, directory + "/cgroup.events", "frozen", 1, time.monotonic() + timeout):
        files.write(directory + "/cgroup.freeze", "0")
        raise OSError(110, os.strerror(110), directory)


def _freeze_v1(files: Files, directory: str, timeout: float) -> None:
    """A v1 freezer can stick in FREEZING (a process in a vfork, or in uninterruptible sleep): writing the state again
    retries, and thawing for a moment lets a stuck one move."""
    path, deadline, tries = directory + "/freezer.state", time.monotonic() + timeout, 0
    while True:
        files.write(path, "FROZEN")
        if files.read(path) == "FROZEN":
            return
        if time.monotonic() >= deadline:
            files.write(path, "THAWED")
            raise OSError(110, os.strerror(110), directory)
        tries += 1
        if tries % 50 == 0:
            files.write(path, "THAWED")
        time.sleep(0.001 if tries < 20 else 0.01)


def thaw(group: Cgroup) -> None:
    unified, directory = group.unified(), _freezer(group)
    try:
        if unified is not None and group.files.exists(unified + "/cgroup.freeze"):
            group.files.write(unified + "/cgroup.freeze", "0")
        elif directory is not None:
            group.files.write(directory + "/freezer.state", "THAWED")
    except FileNotFoundError:
        return  # removed meanwhile: nothing is frozen any more
    except OSError as error:
        raise KernelError.wrap(
            error, "Cannot thaw the cgroup %s" % group.path, step="thaw", subject=group.path
        ) from error


def is_frozen(group: Cgroup) -> bool:
    unified, directory = group.unified(), _freezer(group)
    if unified is not None:
        state = group.files.value(unified + "/cgroup.freeze")
        if state is not None:
            return state == "1"
    return directory is not None and (group.files.value(directory + "/freezer.state") or "THAWED") != "THAWED"


def _freezer(group: Cgroup) -> Optional[str]:
    found = group.layout.controllers.get("freezer")
    return group.directory("freezer") if found is not None and found[0] == 1 else None


def remove(group: Cgroup, timeout: float = 5.0) -> str:
    """Returns the first directory that could not be removed, or ""."""
    present = [directory for directory in group.directories() if group.files.exists(directory)]
    if not present:
        return ""
    deadline = time.monotonic() + timeout
    if is_frozen(group):
        thaw(group)
    kill_all(group, timeout=timeout)
    left = ""
    for directory in present:
        if not _remove_tree(group.files, directory, max(deadline, time.monotonic() + 0.5)):
            left = left or directory
    return left


def remove_leaf(group: Cgroup, leaf: str, timeout: float = 5.0) -> bool:
    directory = group.unified(leaf)
    if directory is None or not group.files.exists(directory):
        return True
    deadline = time.monotonic() + timeout
    kill_all(group, leaf, timeout)
    return _remove_tree(group.files, directory, deadline)


def _remove_tree(files: Files, directory: str, deadline: float) -> bool:
    """rmdir from the leaves up. EBUSY for a moment after the last process ended: tried again with growing pauses."""
    pause = 0.001
    while True:
        busy = False
        for path in tree(files, directory):
            try:
                files.rmdir(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno != _EBUSY:
                    raise KernelError.wrap(error, "Cannot remove the cgroup %s" % path, step="remove_cgroup") from error
                busy = True
        if not busy:
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause)
        pause = min(pause * 2, 0.1)


def populated(files: Files, directory: str) -> bool:
    return keyed(files.value(directory + "/cgroup.events")).get("populated", 0) == 1
