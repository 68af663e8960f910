# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A network namespace for the tests themselves: the engine's bridges, addresses and firewall never touch the host's."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator

from module_utils._engine.kernel.syscalls import CLONE_NEWNET, Kernel


@contextlib.contextmanager
def private_network() -> Iterator[None]:
    """Move this process (and whatever it starts from now on) into a fresh namespace with only a loopback."""
    kernel = Kernel()
    home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        kernel.unshare(CLONE_NEWNET)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        yield
    finally:
        kernel.setns(home, CLONE_NEWNET)
        os.close(home)
