# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import mmap
import os
import select
import time

import pytest
from module_utils._engine.errors import KernelError, UsageError
from module_utils._engine.kernel.cgroups import Cgroup, Layout
from module_utils._engine.kernel.cgroups.events import oom_source
from module_utils._engine.kernel.cgroups.resources import from_options
from module_utils._engine.kernel.syscalls import Kernel

pytestmark = pytest.mark.root

MIB = 1 << 20


@pytest.fixture(scope="module")
def layout():
    return Layout.detect()


@pytest.fixture
def group(layout):
    made = Cgroup(layout, "wharf-test-%d/%s" % (os.getpid(), os.urandom(4).hex()))
    made.create()
    yield made
    made.remove()
    assert not made.exists()
    Cgroup(layout, made.path.partition("/")[0]).remove()


def start(group, function, **how):
    """Run ``function`` in a child inside the group; returns its pid once it is inside."""
    read, write = os.pipe()
    fd = group.fd_v2()
    pid, pidfd = Kernel().clone3(0, fd) if fd is not None else (os.fork(), -1)
    if pid == 0:
        status = 99
        try:
            group.join_self(unified=False)
            os.write(write, b"x")
            status = function() or 0
        finally:
            os._exit(status)
    os.close(write)
    assert os.read(read, 1) == b"x"
    os.close(read)
    for n in (fd, pidfd):
        if n is not None and n >= 0:
            os.close(n)
    return pid


def test_what_is_set_is_read_back_and_nothing_drifts(group):
    options = {
        "memory": 64 * MIB + 5,
        "memory_reservation": 32 * MIB,
        "memory_swap": 100 * MIB,
        "cpus": 0.5,
        "cpu_shares": 512,
        "cpuset_cpus": "0",
        "pids_limit": 50,
    }
    assert group.apply(from_options(options)) == []
    found = group.read()
    assert found["memory"] == 64 * MIB
    assert found["cpus"] == 0.5
    assert (found["pids_limit"], found["cpuset_cpus"], found["cpu_shares"]) == (50, "0", 512)
    assert group.drift(options) == {}
    assert group.drift({**options, "memory": 65 * MIB, "pids_limit": None}) == {
        "memory": (65 * MIB, 64 * MIB),
        "pids_limit": (None, 50),
    }


def test_a_fresh_group_has_no_limits(group):
    assert set(group.read().values()) == {None}
    assert group.drift({}) == {}


@pytest.mark.parametrize("before, after", [(32, 128), (128, 32), (32, 33)])
def test_memory_and_swap_move_together_in_either_direction(group, before, after):
    for size in (before, after):
        options = {"memory": size * MIB, "memory_swap": size * MIB}
        group.update(from_options(options))
        assert group.drift(options) == {}


def test_update_takes_back_what_is_no_longer_asked(group):
    group.apply(from_options({"memory": 64 * MIB, "cpus": 0.5, "cpuset_cpus": "0", "pids_limit": 9, "cpu_shares": 7}))
    group.update(from_options({"cpus": 1.5}))
    assert group.drift({"cpus": 1.5}) == {}
    group.update({})
    assert set(group.read().values()) == {None}


def test_a_refused_limit_names_the_option_and_restores_the_others(group):
    group.apply(from_options({"pids_limit": 7}))
    with pytest.raises(KernelError) as caught:
        group.update(from_options({"pids_limit": 8, "cpuset_cpus": "4000"}))
    assert caught.value.path == "cpuset_cpus"
    assert caught.value.hint
    assert group.read()["pids_limit"] == 7


def test_the_pids_limit_stops_a_fork_bomb(group):
    group.apply({"pids": {"limit": 5}})

    def bomb():
        for count in range(20):
            try:
                if os.fork() == 0:
                    time.sleep(60)
                    os._exit(0)
            except BlockingIOError:
                return count
        return 77

    pid = start(group, bomb)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 4
    assert len(group.processes()) == 4
    assert group.kill_all()


def test_kill_all_ends_a_tree_that_keeps_forking(group):
    group.apply({"pids": {"limit": 60}})

    def forker():
        while True:
            try:
                if os.fork() == 0 and os.fork() == 0:
                    os.setsid()
            except BlockingIOError:
                time.sleep(0.001)

    pid = start(group, forker)
    time.sleep(0.1)
    assert group.kill_all()
    os.waitpid(pid, 0)
    assert group.processes() == []


def test_without_cgroup_kill_everything_is_frozen_and_signalled(group, monkeypatch):
    """Linux before 5.14."""
    real = group.files.exists
    monkeypatch.setattr(group.files, "exists", lambda path: not path.endswith("/cgroup.kill") and real(path))
    group.apply({"pids": {"limit": 40}})

    def forker():
        while True:
            try:
                if os.fork() == 0 and os.fork() == 0:
                    os.setsid()
            except BlockingIOError:
                time.sleep(0.001)

    pid = start(group, forker)
    time.sleep(0.05)
    assert group.kill_all()
    os.waitpid(pid, 0)
    assert group.processes() == []


def test_one_exec_leaf_is_killed_alone(group):
    if group.layout.unified is None:
        pytest.skip("no unified hierarchy")
    group.add_leaf("exec-1")
    first = start(group, lambda: time.sleep(60))
    second = os.fork()
    if second == 0:
        group.join_self("exec-1")
        time.sleep(60)
        os._exit(0)
    deadline = time.monotonic() + 5
    while second not in group.processes() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert set(group.processes()) == {first, second}
    assert group.remove_leaf("exec-1")
    os.waitpid(second, 0)
    assert group.processes() == [first]
    group.kill_all()
    os.waitpid(first, 0)


def test_join_moves_another_process(group):
    pid = os.fork()
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    group.join(pid)
    assert group.processes() == [pid]
    with open("/proc/%d/cgroup" % pid) as stream:
        lines = stream.read().split()
    assert sum(group.path in line for line in lines) == len(group.layout.hierarchies)
    group.kill_all()
    os.waitpid(pid, 0)


def test_freeze_stops_and_thaw_resumes_and_a_frozen_group_can_be_removed(group):
    read, write = os.pipe()
    os.set_blocking(read, False)

    def ticker():
        while True:
            os.write(write, b".")
            time.sleep(0.005)

    pid = start(group, ticker)
    group.freeze()
    assert group.is_frozen()
    while True:
        try:
            os.read(read, 65536)
        except BlockingIOError:
            break
    time.sleep(0.05)
    with pytest.raises(BlockingIOError):
        os.read(read, 10)
    group.thaw()
    assert select.select([read], [], [], 5)[0]
    group.freeze()
    group.remove()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -9
    os.close(read)
    os.close(write)


def test_an_oom_kill_is_counted_and_announced(group):
    options = {"memory": 16 * MIB, "memory_swap": 16 * MIB}
    group.apply(from_options(options))
    source = oom_source(group)
    poll = select.poll()
    poll.register(source, source.events)

    def glutton():
        block = mmap.mmap(-1, 64 * MIB)
        for offset in range(0, 64 * MIB, 4096):
            block[offset] = 1
        return 0

    pid = start(group, glutton)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -9
    assert poll.poll(5000)
    assert source.take() == 1
    assert source.take() == 0
    assert group.oom_kill_count() == 1
    source.close()


def test_lowering_memory_below_usage_is_refused_and_kills_nobody(group):
    group.apply(from_options({"memory": 128 * MIB, "memory_swap": 128 * MIB}))
    read, write = os.pipe()

    def holder():
        block = mmap.mmap(-1, 64 * MIB)
        for offset in range(0, 64 * MIB, 4096):
            block[offset] = 1
        os.write(write, b"x")
        time.sleep(60)

    pid = start(group, holder)
    os.read(read, 1)
    with pytest.raises(KernelError) as caught:
        group.update(from_options({"memory": 16 * MIB, "memory_swap": 16 * MIB}))
    assert caught.value.path == "memory"
    assert caught.value.errno == 16
    assert group.drift({"memory": 128 * MIB, "memory_swap": 128 * MIB}) == {}
    assert group.processes() == [pid]
    group.kill_all()
    os.waitpid(pid, 0)
    os.close(read)
    os.close(write)


def test_stats_have_every_section_with_plausible_figures(group):
    group.apply({"pids": {"limit": 30}})

    def busy():
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass

    os.waitpid(start(group, busy), 0)
    stats = group.stats()
    assert stats["cpu"]["usage_ns"] >= 40_000_000
    assert stats["pids"] == {"current": 0, "limit": 30}
    assert stats["memory"]["max_usage"] > 0
    assert isinstance(stats["io"], list)


def test_creating_twice_and_removing_twice_is_fine(group):
    group.create()
    group.remove()
    group.remove()
    assert group.read()["memory"] is None
    group.create()


def test_joining_itself_after_clone_into_the_cgroup_is_quick(group):
    """The slow path (cgroup.procs in seven v1 hierarchies) waits for RCU grace periods: 7 ms and more."""
    times = []
    for _n in range(5):
        read, write = os.pipe()

        def timed(write=write):
            return 0

        fd = group.fd_v2()
        if fd is None:
            pytest.skip("no unified hierarchy")
        pid, pidfd = Kernel().clone3(0, fd)
        if pid == 0:
            began = time.perf_counter()
            group.join_self(unified=False)
            os.write(write, b"%f" % (time.perf_counter() - began))
            os._exit(0)
        times.append(float(os.read(read, 99)))
        os.waitpid(pid, 0)
        for n in (fd, pidfd, read, write):
            os.close(n)
    assert min(times) < 0.004


@pytest.mark.parametrize("path", ["", "/x", "../x", "a//b", "a/../b", "."])
def test_paths_that_lead_elsewhere_are_refused(layout, path):
    with pytest.raises(UsageError):
        Cgroup(layout, path)
