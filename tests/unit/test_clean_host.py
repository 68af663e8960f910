# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The fixture that guards the host notices what is left, and knows when it cannot tell who left it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile

import pytest
from helpers import clean_host


def _new(before: clean_host.Snapshot) -> str:
    return "\n".join(clean_host.leftovers(before, clean_host.snapshot()))


def test_a_process_of_the_engine_is_noticed():
    before = clean_host.snapshot()
    code = "import time; time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", code, "module_utils._engine.runtime.spawner"])
    try:
        assert "process %d (" % child.pid in _new(before)
    finally:
        child.kill()
        child.wait()
    assert "process %d (" % child.pid not in _new(before)


def test_a_forgotten_fork_is_noticed():
    before = clean_host.snapshot()
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    try:
        assert "process %d (" % pid in _new(before)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.mark.skipif(not os.access("/run", os.W_OK), reason="cannot write to /run")
def test_a_run_directory_is_noticed():
    before = clean_host.snapshot()
    path = tempfile.mkdtemp(prefix="wharf", dir="/run")
    try:
        assert "run directory " + os.path.basename(path) in _new(before)
    finally:
        os.rmdir(path)


def test_a_run_is_alone_until_another_begins(tmp_path):
    log = str(tmp_path / "log")
    first = clean_host.Sessions(log)
    assert first.alone()
    second = clean_host.Sessions(log)
    assert not first.alone() and not second.alone()
    first.close()
    assert not second.alone()
    second.close()
    third = clean_host.Sessions(log)
    assert third.alone()
    third.close()
