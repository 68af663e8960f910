# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whatever system call of a start fails, with whatever the kernel says when something has run out: a sentence, or a
container that runs all the same; and no process, descriptor, mount or cgroup stays."""

from __future__ import annotations

import errno
import json
import mmap
import os
import signal
import sys
import time
import traceback

import pytest
from module_utils._engine.errors import StartError, WharfError
from module_utils._engine.kernel import pidfd as pidfds
from module_utils._engine.kernel.cgroups import Cgroup, Layout
from module_utils._engine.kernel.syscalls import Kernel
from module_utils._engine.runtime import parent
from module_utils._engine.runtime.kept import Kept
from module_utils._engine.storage import overlay

ERRORS = (errno.ENOMEM, errno.EMFILE, errno.ENOSPC, errno.EAGAIN)
# WHARF_ROUNDS makes it every call with every error; else every call has its turn with one of them.
THOROUGH = int(os.environ.get("WHARF_ROUNDS", "0")) > 1000


class Failing(Kernel):
    """The ``at``-th system call of a start fails, whichever of its processes makes it; 0: none does."""

    def __init__(self, at: int, number: int) -> None:
        super().__init__()
        self.at = at
        self.number = number
        self.shared = mmap.mmap(-1, 64)  # anonymous and shared: the processes count together

    @property
    def count(self) -> int:
        return int.from_bytes(self.shared[:8], "little")

    def _turn(self, name: str) -> None:
        turn = self.count + 1
        self.shared[:8] = turn.to_bytes(8, "little")
        if turn == self.at:
            self.shared[8:40] = name.encode()[:32].ljust(32)
            raise OSError(self.number, os.strerror(self.number), name)

    def syscall(self, name, *args, what=None):
        self._turn(name)
        return super().syscall(name, *args, what=what)

    def _call(self, name, *args, what=None):
        self._turn(name)
        return super()._call(name, *args, what=what)

    def clone3(self, flags, cgroup_fd=None):
        self._turn("clone3")
        return super().clone3(flags, cgroup_fd)

    def failed(self) -> str:
        return bytes(self.shared[8:40]).decode().strip("\0 ")


def attempt(engine, cid, at, number):
    """One start, by a process of its own. ``{"calls", "failed", "error", "left"}``."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(read)
            os.write(write, json.dumps(_monitor(engine, cid, Failing(at, number))).encode())
        except BaseException:
            os.write(write, json.dumps({"trace": traceback.format_exc()}).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        answer = stream.read()
    os.waitpid(pid, 0)
    return json.loads(answer)


def _monitor(engine, cid, kernel):
    layout = Layout.detect()
    group = Cgroup(layout, "%s/%s" % (engine.paths.cgroup, cid))
    directory = engine.paths.container(cid)
    with open(directory + "/run.json") as stream:
        run = json.load(stream)
    null = os.open("/dev/null", os.O_RDWR)
    before = sorted(os.listdir("/proc/self/fd"))
    bundle = parent.Bundle(directory, run, (-1, null, null), Kept())
    error = None
    try:
        child = parent.launch(kernel, layout, group, bundle, lambda _pid, _start: None)
        os.kill(child.pid, signal.SIGKILL)
        pidfds.wait(child.pidfd)
        os.waitpid(child.pid, 0)
        for fd in (child.pidfd, child.terminal):
            if fd >= 0:
                os.close(fd)
    except StartError as failure:
        error = failure.msg
    left = ["descriptor %s" % fd for fd in sorted(os.listdir("/proc/self/fd")) if fd not in before]
    left += _children()
    group.remove()
    return {"calls": kernel.count, "failed": kernel.failed(), "error": error, "left": left}


def _children():
    """Of this process that have not been reaped."""
    try:
        os.waitpid(-1, os.WNOHANG)
        return ["a child"]
    except ChildProcessError:
        return []


@pytest.fixture(scope="module")
def learned():
    """What a monitor inherits from the spawner: which overlay this kernel has is found out before."""
    overlay.learn(Kernel())


ASKED = {"tty": True, "sysctls": {"net.ipv4.ip_forward": "0"}, "read_only": True, "user": "app"}


def test_no_system_call_of_a_start_can_fail_without_a_sentence_or_leave_anything(engine, learned):
    cid = engine.create(["/bin/sleep", "100"], **ASKED)
    whole = attempt(engine, cid, 0, 0)
    assert whole == {"calls": whole["calls"], "failed": "", "error": None, "left": []}, whole.get("trace")
    assert whole["calls"] > 50
    told = 0
    for at in range(1, whole["calls"] + 1):
        for number in ERRORS if THOROUGH else (ERRORS[at % len(ERRORS)],):
            result = attempt(engine, cid, at, number)
            where = "call %d (%s) failed with %s: %s" % (at, result.get("failed"), os.strerror(number), result)
            assert "trace" not in result, result.get("trace")
            assert result["left"] == [] and engine.leavings(cid) == [], where
            if result["error"] is not None:
                told += 1
                assert len(result["error"]) > 20 and "Traceback" not in result["error"], where
    assert told > whole["calls"] // 2, "most calls are needed"
    assert attempt(engine, cid, 0, 0)["error"] is None


def test_a_memory_limit_too_small_to_start_in_is_a_sentence_and_leaves_nothing(engine):
    cid = engine.create(["/bin/sleep", "100"])
    path = engine.paths.container(cid) + "/config.json"
    with open(path) as stream:
        config = json.load(stream)
    config["linux"].setdefault("resources", {})["memory"] = {"limit": 256 << 10, "swap": 256 << 10}
    with open(path, "w") as stream:
        json.dump(config, stream)
    with pytest.raises(WharfError) as caught:
        engine.runtime.start(cid)
    assert len(caught.value.msg) > 20
    assert engine.runtime.state(cid)["status"] != "running"
    deadline = time.monotonic() + 60
    while engine.leavings(cid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert engine.leavings(cid) == []


def test_a_task_whose_own_cgroup_has_no_process_left_is_told_so(engine):
    """``fork`` of the task itself, not of the engine's resident processes."""
    from .test_pressure import _pids_limited

    cid = engine.create(["/bin/sleep", "100"])
    engine.start("sleep 100")  # the spawner is there
    read, write = os.pipe()
    go, ready = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(go, 1)
        try:
            engine.runtime.start(cid)
            words = "started"
        except WharfError as error:
            words = error.msg
        except BaseException:
            words = "Traceback" + repr(sys.exc_info()[1])
        os.write(write, words.encode())
        os._exit(0)
    os.close(write)
    group, _target = _pids_limited(pid, 1)
    os.write(ready, b"x")
    with os.fdopen(read, "rb") as stream:
        words = stream.read().decode()
    os.waitpid(pid, 0)
    os.close(go)
    os.close(ready)
    group.remove()
    assert words and "Traceback" not in words
    if words == "started":  # it asked the spawner, which has a cgroup of its own
        assert engine.runtime.state(cid)["status"] == "running"
