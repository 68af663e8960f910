# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Processes by descriptor: a pidfd cannot come to mean another process, a number can."""

from __future__ import annotations

import os
import select
import signal
import time
from typing import Optional


def open_pid(pid: int, start: Optional[int] = None) -> Optional[int]:
    """A pidfd for ``pid``, or ``None`` when it is gone (also when the number now belongs to a process that did not
    start at ``start``, clock ticks as in ``procfs.start_time``). Raises ``OSError`` for anything else."""
    try:
        fd = os.pidfd_open(pid)
    except (ProcessLookupError, FileNotFoundError):
        return None
    except OSError as error:
        if error.errno == 22:  # EINVAL: pid is a thread, not a process; so the process we mean is gone
            return None
        raise
    if start is not None:
        from .procfs import start_time

        # Checked after opening: while this pidfd's process is unreaped its number cannot be given away.
        if start_time(pid) != start:
            os.close(fd)
            return None
    return fd


def send_signal(fd: int, number: int) -> bool:
    """False when the process has ended. Raises ``PermissionError``."""
    try:
        signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        return False
    return True


def wait(fd: int, timeout: Optional[float] = None) -> bool:
    """Wait until the process has ended: True; False after ``timeout`` seconds (monotonic; None waits for ever).

    Works for any process, not only for children; does not reap.
    """
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        # Rounded up: poll(0) in the last millisecond would spin.
        if poll.poll(None if left is None else int(left * 1000) + (1 if left else 0)):
            return True
        if deadline is not None and time.monotonic() >= deadline:
            return False


def has_ended(fd: int) -> bool:
    return wait(fd, 0)


def reap(fd: int, *, block: bool = True) -> Optional[int]:
    """Exit code of a child (128 + signal when it was killed by one), reaping it; ``None`` when ``block`` is false and
    it still runs. Raises ``ChildProcessError`` when it is no child of ours or was reaped already."""
    info = os.waitid(os.P_PIDFD, fd, os.WEXITED | (0 if block else os.WNOHANG))
    return None if info is None else exit_code(info.si_code, info.si_status)


def exit_code(code: int, status: int) -> int:
    """``waitid``'s pair as Docker tells it: the exit status, or 128 + the signal's number."""
    return status if code == os.CLD_EXITED else 128 + status


def stop(fd: int, timeout: float, number: int = signal.SIGTERM) -> bool:
    """Signal, wait ``timeout`` seconds, SIGKILL, wait 2 more. True when the process has ended."""
    if not send_signal(fd, number) or wait(fd, timeout):
        return True
    send_signal(fd, signal.SIGKILL)
    return wait(fd, 2.0)
