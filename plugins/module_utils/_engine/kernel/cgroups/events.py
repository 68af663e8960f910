# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Being told by the kernel: a cgroup ran empty, froze, or lost a process to the OOM killer."""

from __future__ import annotations

import os
import select
import time
from typing import TYPE_CHECKING, Optional

from ...errors import KernelError
from .control import tree
from .files import Files, keyed

if TYPE_CHECKING:
    from .group import Cgroup


def wait_key(files: Files, path: str, key: str, value: int, deadline: float) -> bool:
    """Wait until ``key`` in a ``cgroup.events`` file is ``value`` (or the cgroup is gone). False past ``deadline``
    (monotonic seconds). The kernel signals changes as POLLPRI on the open file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        poll = select.poll()
        poll.register(fd, select.POLLPRI)
        while True:
            try:
                text = os.pread(fd, 4096, 0).decode()
            except OSError as error:
                if error.errno == 19:  # ENODEV: removed
                    return True
                raise KernelError.wrap(error, "Cannot read %s" % path, step="wait_cgroup") from error
            if keyed(text.strip()).get(key, value) == value:
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            poll.poll(min(left, 1.0) * 1000 + 1)
    finally:
        os.close(fd)


def oom_kills(group: Cgroup) -> int:
    """v2 counts a cgroup with its children, v1 each alone."""
    found = group.layout.controllers.get("memory")
    directory = group.directory("memory")
    if found is None or directory is None:
        return 0
    if found[0] == 2:
        return keyed(group.files.value(directory + "/memory.events")).get("oom_kill", 0)
    return sum(
        keyed(group.files.value(path + "/memory.oom_control")).get("oom_kill", 0)
        for path in tree(group.files, directory)
    )


class OomSource:
    """A descriptor to poll for OOM kills: register ``fileno()`` for ``events``, call ``take()`` when it fires.

    v2: ``memory.events`` itself (POLLPRI). v1: an eventfd registered with the cgroup (POLLIN). ``others`` are kept open
    with it; ``seen``: how many kills are old news (those that have happened, by default).
    """

    __slots__ = ("_group", "events", "fd", "kind", "others", "seen")

    def __init__(
        self, group: Cgroup, fd: int, kind: str, others: tuple[int, ...] = (), seen: Optional[int] = None
    ) -> None:
        self._group = group
        self.others = others
        self.seen = oom_kills(group) if seen is None else seen
        self.fd = fd
        self.kind = kind
        self.events = select.POLLPRI if kind == "v2" else select.POLLIN

    def fileno(self) -> int:
        return self.fd

    def take(self) -> int:
        """How many processes were killed since the last call; consumes the event. 0 when it only was the removal of
        the cgroup. Call it once more when the container has ended: the last event may still be pending."""
        try:
            if self.kind == "v1":
                os.read(self.fd, 8)
            else:
                os.pread(self.fd, 4096, 0)  # reading is what arms the next POLLPRI
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno != 19:
                raise KernelError.wrap(error, "Cannot read the OOM counter", step="watch_oom") from error
        now = oom_kills(self._group)
        fresh, self.seen = max(0, now - self.seen), max(now, self.seen)
        return fresh

    def close(self) -> None:
        if self.fd >= 0:
            for fd in (self.fd, *self.others):
                os.close(fd)
            self.fd = -1


def oom_source(group: Cgroup) -> Optional[OomSource]:
    """``None`` where the host has no memory controller, or (real-time kernels) no notification for it."""
    found, directory = group.layout.controllers.get("memory"), group.directory("memory")
    if found is None or directory is None:
        return None
    try:
        if found[0] == 2:
            return OomSource(group, os.open(directory + "/memory.events", os.O_RDONLY | os.O_CLOEXEC), "v2")
        return _v1_source(group, directory)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KernelError.wrap(error, "Cannot watch %s for OOM kills" % directory, step="watch_oom") from error


def _v1_source(group: Cgroup, directory: str) -> Optional[OomSource]:
    control = os.open(directory + "/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
    event = -1
    try:
        event = _eventfd()
        group.files.write(directory + "/cgroup.event_control", "%d %d" % (event, control))
    except OSError as error:
        os.close(control)
        if event >= 0:
            os.close(event)
        if error.errno in (22, 38, 95):  # PREEMPT_RT kernels offer no v1 notification
            return None
        raise
    return OomSource(group, event, "v1", (control,))


def _eventfd() -> int:
    """os.eventfd came with Python 3.10."""
    make = getattr(os, "eventfd", None)
    if make is not None:
        fd: int = make(0, os.O_CLOEXEC | os.O_NONBLOCK)
        return fd
    from ..syscalls import Kernel

    return Kernel().syscall("eventfd2", 0, os.O_CLOEXEC | os.O_NONBLOCK)
