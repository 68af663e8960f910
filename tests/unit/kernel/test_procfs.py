# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import signal
import time

import pytest
from module_utils._engine.kernel import pidfd, procfs


def test_a_process_name_with_parentheses_and_spaces_does_not_shift_the_fields(tmp_path):
    (tmp_path / "7").mkdir()
    fields = ["S", "3", *["0"] * 4, "5", *["0"] * 10, "4", "0", "999"]
    (tmp_path / "7" / "stat").write_text("7 (a) R 9 (b c) " + " ".join(fields) + " 1 2 3\n")
    found = procfs.stat(7, str(tmp_path))
    assert found == procfs.Stat(7, "a) R 9 (b c", "S", 3, 4, 999, 5)


def test_is_alive_needs_both_number_and_start_time():
    start = procfs.start_time(os.getpid())
    assert start is not None
    assert procfs.is_alive(os.getpid(), start)
    assert not procfs.is_alive(os.getpid(), start + 1)
    assert procfs.start_time(2**22 + 1) is None


def test_a_zombie_is_dead():
    pid = os.fork()
    if pid == 0:
        os._exit(3)
    fd = pidfd.open_pid(pid)
    start = procfs.start_time(pid)
    assert pidfd.wait(fd, 5)
    assert not procfs.is_alive(pid, start)
    assert pidfd.reap(fd) == 3
    os.close(fd)


def test_mountinfo_escapes_and_optional_fields():
    line = (
        r"36 35 98:0 /mnt\1341 /a\040b\011c rw,noatime shared:1 master:2 - ext3 /dev/r\012oot rw,errors=continue" + "\n"
    )
    (mount,) = procfs.parse_mountinfo(line)
    assert mount.target == "/a b\tc"
    assert mount.root == "/mnt\\1"
    assert mount.tags == ("shared:1", "master:2")
    assert (mount.fstype, mount.source, mount.super_options) == ("ext3", "/dev/r\noot", "rw,errors=continue")
    assert procfs.unescape("\\99x\\") == "\\99x\\"


def test_mountinfo_of_this_process_has_a_root_and_no_line_is_lost():
    with open("/proc/self/mountinfo") as stream:
        count = len(stream.readlines())
    mounts = procfs.mountinfo()
    assert len(mounts) == count
    assert any(m.target == "/" for m in mounts)


def test_a_pidfd_is_not_given_for_a_reused_number():
    start = procfs.start_time(os.getpid())
    assert pidfd.open_pid(os.getpid(), start + 1) is None
    fd = pidfd.open_pid(os.getpid(), start)
    assert fd is not None
    os.close(fd)
    assert pidfd.open_pid(2**22 + 1) is None


def test_wait_times_out_then_sees_the_end_and_the_signal():
    pid = os.fork()
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    fd = pidfd.open_pid(pid)
    began = time.monotonic()
    assert not pidfd.wait(fd, 0.05)
    assert time.monotonic() - began >= 0.05
    assert pidfd.reap(fd, block=False) is None
    assert pidfd.stop(fd, 5, signal.SIGTERM)
    assert pidfd.reap(fd) == 128 + signal.SIGTERM
    assert not pidfd.send_signal(fd, signal.SIGTERM)
    os.close(fd)


def test_the_mount_table_of_a_zombie_is_that_of_no_process() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(ProcessLookupError):
        procfs.mountinfo("/proc/%d/mountinfo" % pid)
    os.waitpid(pid, 0)
    with pytest.raises(FileNotFoundError):
        procfs.mountinfo("/proc/%d/mountinfo" % pid)
