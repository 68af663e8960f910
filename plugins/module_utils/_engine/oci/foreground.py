# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Waiting for a program in the foreground: signals go on to it, its terminal is ours, its status becomes ours."""

from __future__ import annotations

import os
import select
import signal
from typing import TYPE_CHECKING, Any

from ..kernel import pidfd as pidfds

if TYPE_CHECKING:
    from .launch import Child

_NOT_FORWARDED = frozenset(
    (
        signal.SIGCHLD, signal.SIGURG, signal.SIGPIPE, signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV, signal.SIGFPE,
        signal.SIGILL, signal.SIGBUS,
    )
)  # fmt: skip


class Catcher:
    """Keeps signals for the program to come: one that arrived before anybody waits must not end us and leave it."""

    def __init__(self) -> None:
        self.read, self.write = os.pipe()
        for fd in (self.read, self.write):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(self.write, warn_on_full_buffer=False)
        for number in range(1, signal.NSIG):
            if number not in _NOT_FORWARDED and number not in (32, 33):  # those two are glibc's own
                signal.signal(number, _nothing)
        signal.signal(signal.SIGCHLD, _nothing)

    def close(self) -> None:
        signal.set_wakeup_fd(-1)
        os.close(self.read)
        os.close(self.write)


def follow(child: Child, catcher: Catcher) -> int:
    """Until ``child`` has ended; its exit status, or 128 + the signal's number."""
    relay = None
    if child.terminal >= 0:
        from .terminal import Relay

        relay = Relay(child.terminal)
    try:
        _loop(child, catcher.read, relay)
    finally:
        if relay is not None:
            relay.close()
        catcher.close()
    code = pidfds.reap(child.pidfd)
    os.close(child.pidfd)
    _reap_others()
    return 0 if code is None else code


def _nothing(_number: int, _frame: Any) -> None:
    """Its number is in the wake-up pipe."""


def _loop(child: Child, signals: int, relay: Any) -> None:
    poll = select.poll()
    poll.register(child.pidfd, select.POLLIN)
    poll.register(signals, select.POLLIN)
    if relay is not None:
        relay.register(poll)
    while True:
        for fd, events in poll.poll():
            if fd == child.pidfd:
                return
            if fd == signals:
                for number in os.read(signals, 512):
                    _forward(child, number, relay)
            elif relay is not None:
                relay.handle(poll, fd, events)


def _forward(child: Child, number: int, relay: Any) -> None:
    if number == signal.SIGCHLD:
        _reap_others(child.pid)
    elif number == signal.SIGWINCH and relay is not None:
        relay.resize()
    else:
        pidfds.send_signal(child.pidfd, number)


def _reap_others(but: int = 0) -> None:
    """As subreaper we get the container's orphans. The container's own process is left for the caller to ask about."""
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None or found.si_pid == but:
            return
        os.waitpid(found.si_pid, 0)
