# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The task's side of an exec, when the monitor does not live to see it."""

from __future__ import annotations

import os
import socket

import pytest
from module_utils._engine.errors import Interrupted
from module_utils._engine.runtime import exec_client
from module_utils._engine.runtime.execspec import ExecSpec


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("tty", [False, True])
def test_a_monitor_killed_before_the_request_is_told_in_a_sentence(detach: bool, tty: bool) -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    before = set(os.listdir("/proc/self/fd"))
    with ours, pytest.raises(Interrupted, match="monitor died before the exec"):
        exec_client.run(ours, ExecSpec(["true"], tty=tty), b"in", detach=detach, max_output=None, on_output=None)
    assert set(os.listdir("/proc/self/fd")) <= before, "descriptors are left open"
