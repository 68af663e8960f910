# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Doing something in a container's namespaces behind the engine's back, as an administrator with nsenter would."""

from __future__ import annotations

import os
from collections.abc import Callable

from module_utils._engine.kernel.syscalls import CLONE_NEWNET, Kernel


def inside(pid: int, work: Callable[[Kernel], None], flag: int) -> None:
    """``work`` in the network or mount namespace (``flag``) of a process; it must succeed."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            kernel = Kernel()
            name = "net" if flag == CLONE_NEWNET else "mnt"
            kernel.setns(os.open("/proc/%d/ns/%s" % (pid, name), os.O_RDONLY), flag)
            work(kernel)
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
