# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Into a pid namespace that others are in already, who may be hostile and hold CAP_SYS_PTRACE.

A process of the engine in there could be opened by them: ``/proc/<pid>/root`` and ``/proc/<pid>/fd`` lead to whatever
it still has of the host, and with ptrace(2) its privileges are theirs (CVE-2016-9962). Not being dumpable keeps away
who lacks that capability, nobody else. So the process that does the work stays in the host's pid namespace, where they
cannot see it, and gives up everything first: root, descriptors, namespaces, user, capabilities. What then appears among
them, as its last act, is a copy that has nothing but what the container has, and executes the program.
"""

from __future__ import annotations

import fcntl
import os
import socket
import termios
from typing import Any

from ..errors import KernelError
from ..kernel.syscalls import Kernel
from . import wire

MARK = "pid-shared"  # in a container's directory: somebody in its pid namespace may have more rights than it has itself


def mark(directory: str) -> None:
    """From now on execs into the container of that directory know that they may be looked at. Raises
    ``KernelError``."""
    try:
        os.close(os.open(directory + "/" + MARK, os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise KernelError.wrap(error, "Cannot note that a pid namespace is shared", step="join_namespace") from error


def move(kernel: Kernel, sync: socket.socket, message: dict[str, Any], terminal: int = -1) -> None:
    """Returns in the new process, once whoever is at the other end of ``sync`` knows its pid and has said "run"; the
    calling one ends here. The new one is its sibling: the monitor's child.

    ``message`` is sent with ``pid`` in it, and with ``terminal``, the master of a pty (-1: none). Raises
    ``KernelError``.
    """
    try:
        pid = kernel.fork_sibling()
    except OSError as error:
        raise KernelError.wrap(
            error,
            "Cannot create a process in the container's pid namespace",
            step="join_pid",
            hint="Its seccomp profile has to allow clone, and its pids_limit one process more.",
        ) from error
    if pid:
        try:
            wire.send_packet(sync, {**message, "pid": pid}, (terminal,) if terminal >= 0 else ())
        finally:
            os._exit(0)
    if terminal >= 0:
        os.close(terminal)
    said, _fds = wire.recv_packet(sync)
    if said is None or not said.get("run"):
        os._exit(1)  # nobody waits for us any more
    os.setsid()
    if terminal >= 0:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
