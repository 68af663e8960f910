# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Building a machine can be ended at any moment: nothing of it stays mounted, and none of its processes runs on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.root
ROOT = Path(__file__).parents[3]
# As mmdebstrap does it: mounts below the root, and package scripts in sessions of their own.
MMDEBSTRAP = """#!/bin/bash
for word; do [[ $word != */root ]] || root=$word; done
mkdir -p "$root/proc" "$root/dev"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/dev"
touch "$root/dev/null"
trap 'exit 1' TERM
setsid sleep 98765 &
echo ready >>%s
wait
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGKILL"])
def test_an_ended_build_leaves_nothing(tmp_path: Path, name: str) -> None:
    ready = tmp_path / "ready"
    programs = tmp_path / "bin"
    programs.mkdir()
    for program, text in (("mmdebstrap", MMDEBSTRAP % ready), ("qemu-system-x86_64", ""), ("qemu-img", "")):
        (programs / program).write_text(text)
        (programs / program).chmod(0o755)
    env = {
        **os.environ,
        "PATH": "%s:%s" % (programs, os.environ["PATH"]),
        "PYTHONPATH": str(ROOT / "tests"),
        "WHARF_LAB": str(tmp_path / "lab"),
    }
    with open(tmp_path / "log", "wb") as log:
        # Whoever runs this in the background of a shell has SIGINT ignored, and all below it.
        argv = ["env", "--default-signal=INT", sys.executable, "-m", "lab", "build", "debian13"]
        process = subprocess.Popen(argv, env=env, stdout=log, stderr=log)
    until(ready.exists, tmp_path)
    assert "/lab/debian13/root" not in Path("/proc/self/mountinfo").read_text()
    process.send_signal(getattr(signal, name))
    process.wait()
    until(lambda: not running(str(tmp_path)), tmp_path)
    if name == "SIGINT":
        assert not (tmp_path / "lab/debian13/root").exists()
    assert os.path.exists("/dev/null") and os.listdir("/proc")


def running(path: str) -> list[str]:
    """Processes that have to do with ``path``, by their command lines or mounts."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            texts = Path("/proc/%s/cmdline" % pid).read_bytes(), Path("/proc/%s/mountinfo" % pid).read_bytes()
        except OSError:
            continue
        if any(path.encode() in text for text in texts):
            found.append(pid)
    return found


def until(condition: object, tmp_path: Path) -> None:
    deadline = time.monotonic() + 90
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, (tmp_path / "log").read_text()
        time.sleep(0.05)
