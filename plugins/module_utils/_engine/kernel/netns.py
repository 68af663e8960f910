# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Visiting another network namespace for as long as it takes to make a socket."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Optional

from .syscalls import CLONE_NEWNET, Kernel

_kernel: Optional[Kernel] = None


def _shared_kernel() -> Kernel:
    global _kernel
    if _kernel is None:
        _kernel = Kernel()
    return _kernel


class inside:
    """``with inside(fd):`` the calling thread is in that network namespace, and back afterwards.

    Sockets keep the namespace they were made in, so nothing else needs to happen inside. setns(2) concerns only the
    calling thread. A thread that could not go back would act on a container's network in the host's name: that
    failure is not to be survived, hence the exit.
    """

    __slots__ = ("_fd", "_home")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._home = -1

    def __enter__(self) -> None:
        self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _shared_kernel().setns(self._fd, CLONE_NEWNET)
        except OSError:
            os.close(self._home)
            raise

    def __exit__(
        self, kind: Optional[type[BaseException]], value: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        try:
            _shared_kernel().setns(self._home, CLONE_NEWNET)
        except OSError:
            os._exit(70)
        finally:
            os.close(self._home)
