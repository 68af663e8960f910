# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""``init: true``: a PID 1 that forwards signals and reaps orphans, so that the program need not.

It is a fork of the engine inside the container, not a program of the host that the container could see or replace.
It runs with the container's user, capabilities and filter, and is not dumpable.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
from typing import NoReturn

_KEEP = (signal.SIGCHLD, signal.SIGKILL, signal.SIGSTOP)
# Stop signals of a terminal are for the program's group; PID 1 ignores them so that it is not stopped itself.
_IGNORE = (signal.SIGTTIN, signal.SIGTTOU, signal.SIGTSTP)


def fork_and_reap(sync: socket.socket, terminal: bool) -> None:
    """Returns in the child, which goes on to execve; in PID 1 it never returns."""
    watched: set[int] = {
        int(number) for number in signal.valid_signals() if number not in _KEEP and number not in _faults()
    }
    watched.add(signal.SIGCHLD)
    signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    for number in _IGNORE if terminal else ():
        signal.signal(number, signal.SIG_IGN)
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        if terminal:
            os.tcsetpgrp(0, os.getpid())
            for number in _IGNORE:
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        return
    _hide_arguments()
    sync.close()  # or the parent would never see that the child executed its program
    _reap(child, watched)


def _hide_arguments() -> None:
    """/proc/1/cmdline would show the spawner's: directories of the host. They are overwritten where the kernel reads
    them from (``arg_start`` and ``arg_end``, fields 48 and 49 of stat; 0 when they are not ours to know)."""
    try:
        with open("/proc/self/stat", "rb") as stream:
            fields = stream.read().rpartition(b")")[2].split()
        start, end = int(fields[45]), int(fields[46])
        with open("/proc/self/comm", "wb") as stream:
            stream.write(b"init")
    except (OSError, ValueError, IndexError):  # no /proc in this container: then nobody sees them either
        return
    if 0 < start < end:
        ctypes.memset(start, 0, end - start)
        ctypes.memmove(start, b"init", min(4, end - start - 1))


def _faults() -> tuple[int, ...]:
    """Blocking these does not stop them, it only makes them fatal without a handler."""
    return (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS)


def _reap(child: int, watched: set[int]) -> NoReturn:
    status = 255
    try:
        while True:
            number = signal.sigwait(watched)
            if number != signal.SIGCHLD:
                try:
                    os.kill(child, number)
                except ProcessLookupError:  # it ended; its SIGCHLD is on the way
                    pass
                continue
            while True:
                try:
                    pid, result = os.waitpid(-1, os.WNOHANG)
                except ChildProcessError:
                    break
                if pid == 0:
                    break
                if pid == child:
                    code = os.waitstatus_to_exitcode(result)
                    status = code if code >= 0 else 128 - code
                    os._exit(status)
    finally:
        os._exit(status)
