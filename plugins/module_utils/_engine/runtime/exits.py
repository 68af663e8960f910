# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a process ended, or whether it has become the container's program: asked of the kernel by the monitor."""

from __future__ import annotations

import os
import time
from typing import Optional

from ..kernel import pidfd as pidfds


def became_program(pid: int, pidfd: int) -> bool:
    """A monitor killed in mid-start: its child either was told to run, and executes the program, or was not, and ends
    because nobody is left to tell it. (A reaper stays what it is: then not ending has to do.)"""
    ours = os.readlink("/proc/self/exe")
    for _attempt in range(20):
        if pidfds.wait(pidfd, 0.02):
            return False
        try:
            if os.readlink("/proc/%d/exe" % pid) != ours:
                return True
        except OSError:  # ended this moment
            return False
    return True


def exit_code(pidfd: int) -> Optional[int]:
    """Exit code of an ended process; None when it cannot be known any more.

    An adopted container is no child of ours. Since Linux 6.15 a pidfd keeps the code of a reaped process
    (PIDFD_GET_INFO with PIDFD_INFO_EXIT); the spawner (a subreaper) or the host's init does the reaping.
    """
    try:
        return pidfds.reap(pidfd)
    except ChildProcessError:
        return _recorded_exit(pidfd)


def _recorded_exit(pidfd: int) -> Optional[int]:
    import fcntl
    import struct

    wants_exit = 8
    for _attempt in range(100):
        buffer = bytearray(struct.pack("=Q56x", wants_exit))
        try:
            fcntl.ioctl(pidfd, 0xC040FF0B, buffer)  # PIDFD_GET_INFO, 64 bytes
        except OSError:  # an older kernel; or reaped before anybody opened a pidfd
            return None
        if struct.unpack_from("=Q", buffer)[0] & wants_exit:
            status: int = struct.unpack_from("=i", buffer, 60)[0]
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        time.sleep(0.01)  # still a zombie: its new parent has not reaped it yet
    return None
