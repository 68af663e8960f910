# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The process that holds new namespaces for an instant, when the one that wants them is killed in that instant."""

from __future__ import annotations

import os
import select
import signal
import time

from module_utils._engine.kernel import idmap
from module_utils._engine.kernel.syscalls import Kernel


class KilledByItsChild(Kernel):
    """The first thing that the holder does comes too late: its parent is dead by then."""

    def __init__(self, tell: int) -> None:
        super().__init__()
        self.tell = tell

    def prctl(self, *arguments: int) -> int:
        parent = os.getppid()
        os.write(self.tell, b"%d" % os.getpid())
        os.kill(parent, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while os.getppid() == parent and time.monotonic() < deadline:
            time.sleep(0.001)
        return super().prctl(*arguments)


def test_a_holder_whose_parent_was_killed_first_does_not_stay() -> None:
    """It would have kept all descriptors of its parent, locks on containers among them."""
    read, write = os.pipe()
    task = os.fork()
    if task == 0:
        try:
            os.close(read)
            idmap.userns_fd(KilledByItsChild(write), (idmap.Range(0, 100000, 1000),), (idmap.Range(0, 100000, 1000),))
        finally:
            os._exit(1)
    os.close(write)
    assert os.waitstatus_to_exitcode(os.waitpid(task, 0)[1]) == -signal.SIGKILL
    holder = int(os.read(read, 16))
    gone = bool(select.select([read], [], [], 60)[0])  # its end of the pipe is closed
    if not gone:
        os.kill(holder, signal.SIGKILL)
    os.close(read)
    assert gone
