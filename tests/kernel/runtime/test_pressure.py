# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""When processes, descriptors, memory or patience run out: a sentence, nothing leaked, and the next try works.

``WHARF_ROUNDS`` makes the long ones as long as they should be (10000 for clients that come and go).
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import resource
import socket
import time
from pathlib import Path

import pytest
from module_utils._engine.errors import WharfError
from module_utils._engine.kernel import procfs
from module_utils._engine.kernel.cgroups import Cgroup, Layout
from module_utils._engine.runtime.execspec import ExecSpec

ROUNDS = int(os.environ.get("WHARF_ROUNDS", "1000"))
ENGINE = Path(__file__).parents[3] / "plugins/module_utils/_engine"


def descriptors(pid):
    return len(os.listdir("/proc/%d/fd" % pid))


def processes(engine, cid):
    """Everything in the container's cgroup."""
    group = Cgroup(Layout.detect(), "%s/%s" % (engine.paths.cgroup, cid))
    found = set()
    for directory in group.directories():
        for root, _directories, files in os.walk(directory):
            if "cgroup.procs" in files:
                with open(root + "/cgroup.procs") as stream:
                    found |= {int(line) for line in stream}
    return found


# -- processes ---------------------------------------------------------------------------------------------------------


def test_a_fork_bomb_stays_within_its_limit_and_ends_with_its_container(engine):
    cid = engine.start("bomb() { bomb | bomb & }; bomb; sleep 1000", pids_limit=60)
    group = Cgroup(Layout.detect(), "%s/%s" % (engine.paths.cgroup, cid))
    engine.until(lambda: "can't fork" in engine.output(cid, "stderr"))
    assert len(processes(engine, cid)) <= 60
    other = engine.start("sleep 100")  # the host has processes left
    assert engine.exec(other, "echo", "hi").stdout == b"hi\n"
    engine.runtime.delete(cid)
    assert not group.exists() and processes(engine, cid) == set()


def test_an_exec_into_a_container_without_a_process_left_is_a_sentence_or_works_and_leaks_nothing(engine):
    """A v1 hierarchy lets a process that moves in exceed the limit, a unified one does not let it in."""
    cid = engine.start("exec sleep 1000", pids_limit=1)
    monitor = engine.runtime.state(cid)["monitor_pid"]

    def attempt():
        try:
            assert engine.exec(cid, "true").exit_code == 0
        except WharfError as error:
            assert "Resource temporarily unavailable" in error.msg

    attempt()
    before = descriptors(monitor)
    for _round in range(20):
        attempt()
    engine.until(lambda: descriptors(monitor) <= before)
    engine.until(lambda: processes(engine, cid) == {engine.runtime.state(cid)["pid"]})


def _pids_limited(pid, limit):
    """Put ``pid`` into a pids cgroup of the test's own; returns its directory."""
    layout = Layout.detect()
    group = Cgroup(layout, "wharf-test-pids-%d" % os.getpid())
    group.create()
    directory = group.directory("pids")
    if directory is None:
        group.remove()
        pytest.skip("no pids controller")
    target = directory + "/ctr" if os.path.isdir(directory + "/ctr") else directory
    with open(directory + "/pids.max", "w") as stream:
        stream.write(str(limit))
    with open(target + "/cgroup.procs", "w") as stream:
        stream.write(str(pid))
    return group, target


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_a_start_while_the_host_has_no_pid_left_is_a_sentence_and_the_next_one_works(engine, limit):
    """EAGAIN from clone, as when pid_max is reached: in the spawner, in the monitor, or in the starter."""
    engine.start("sleep 100")
    spawner = engine.spawner_pid()
    with open("/proc/%d/cgroup" % spawner) as stream:
        home = [line.strip().split(":", 2) for line in stream]
    group, _target = _pids_limited(spawner, limit)
    cid = engine.create(["/bin/sleep", "100"])
    try:
        engine.runtime.start(cid)  # another spawner, outside of that cgroup, may be the answer
    except WharfError as error:
        assert error.msg
        assert engine.leavings(cid) == []
    finally:
        controller = "pids" if any("pids" in controllers for _n, controllers, _p in home) else ""
        path = next(p for _n, c, p in home if (controller in c.split(",") if controller else c == ""))
        mountpoint = group.layout.controllers["pids"][1]
        with contextlib.suppress(ProcessLookupError), open("%s%s/cgroup.procs" % (mountpoint, path), "w") as stream:
            stream.write(str(spawner))
        engine.until(lambda: not any(procfs.stat(p) for p in _members(group)))
        group.remove()
    engine.runtime.start(cid)
    assert engine.runtime.state(cid)["status"] == "running"


def _members(group):
    found = []
    for directory in group.directories():
        for root, _directories, files in os.walk(directory):
            if "cgroup.procs" in files:
                with open(root + "/cgroup.procs") as stream:
                    found += [int(line) for line in stream]
    return found


# -- descriptors and memory ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", [0, 1, 3, 6, 10, 16])
def test_a_start_without_descriptors_left_is_a_sentence_and_leaks_none(engine, room):
    engine.start("sleep 100")
    spawner = engine.spawner_pid()
    before = descriptors(spawner)
    cid = engine.create(["/bin/sleep", "100"])
    soft, hard = resource.prlimit(spawner, resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/%d/fd" % spawner))
    resource.prlimit(spawner, resource.RLIMIT_NOFILE, (highest + 1 + room, hard))
    try:
        engine.runtime.start(cid)
    except WharfError as error:
        assert error.msg
        engine.until(lambda: engine.leavings(cid) == [])
        if os.path.exists("/proc/%d/fd" % spawner):
            engine.until(lambda: descriptors(spawner) <= before)
    finally:
        with contextlib.suppress(ProcessLookupError):  # one without any left gives way to another
            resource.prlimit(spawner, resource.RLIMIT_NOFILE, (soft, hard))
    engine.runtime.start(cid)
    assert engine.exec(cid, "echo", "hi").stdout == b"hi\n"


def test_an_exec_killed_for_lack_of_memory_is_137_and_the_container_lives(engine):
    cid = engine.start("sleep 1000", memory=24 << 20, memory_swap=24 << 20)
    result = engine.exec(cid, "/bin/sh", "-c", "x=a; while :; do x=$x$x; done")
    assert result.exit_code == 137 and not result.timed_out
    state = engine.runtime.state(cid)
    assert state["status"] == "running" and procfs.is_alive(state["pid"], state["pid_start"])
    monitor = Path("/proc/%d/cgroup" % state["monitor_pid"]).read_text()
    assert cid not in monitor  # what runs out inside is not the monitor's


# -- clients and time --------------------------------------------------------------------------------------------------


def _resident(pid):
    return int(Path("/proc/%d/statm" % pid).read_text().split()[1]) * resource.getpagesize()


def test_clients_that_come_and_go_cost_the_monitor_nothing(engine):
    """CVE-2022-23471, CVE-2025-64329: each attach left something behind. Half of them leave without a word."""
    cid = engine.start("sleep 1000")
    monitor = engine.runtime.state(cid)["monitor_pid"]
    path = engine.paths.container_run(cid) + "/monitor.sock"

    def visit(number):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(path)
            if number % 2:
                sock.sendall(json.dumps({"op": "wait", "condition": "exited"}).encode() + b"\n")
            if number % 4 == 2:
                sock.sendall(b'{"op": "state"}\n')
                assert b"running" in sock.recv(65536)

    for number in range(100):
        visit(number)
    engine.exec(cid, "true")
    engine.until(lambda: descriptors(monitor) < 40)
    before, memory = descriptors(monitor), _resident(monitor)
    for number in range(ROUNDS):
        visit(number)
    assert engine.exec(cid, "echo", "hi").stdout == b"hi\n"
    engine.until(lambda: descriptors(monitor) <= before)
    assert _resident(monitor) < memory + (2 << 20)


def test_execs_whose_client_goes_away_leave_nothing(engine):
    cid = engine.start("sleep 1000")
    monitor = engine.runtime.state(cid)["monitor_pid"]
    engine.exec(cid, "true")
    before = descriptors(monitor)
    for _round in range(min(ROUNDS, 10000) // 20):
        engine.runtime.exec(cid, ExecSpec(["true"]), detach=True)
    engine.until(lambda: descriptors(monitor) <= before)
    engine.until(lambda: processes(engine, cid) == {engine.runtime.state(cid)["pid"]})


def test_no_timer_of_the_engine_follows_the_wall_clock():
    """A clock that jumps an hour must not end a container, stretch a back-off or time out a probe: what waits uses the
    monotonic clock. The wall clock is for what is shown."""
    found = set()
    for path in [*ENGINE.glob("runtime/*.py"), *ENGINE.glob("kernel/**/*.py"), *ENGINE.glob("network/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in ("time.time", "time.time_ns"):
                found.add(str(path.relative_to(ENGINE)))
    stamps = {"runtime/logs.py", "runtime/pump.py", "network/definition.py"}  # of log lines, and when it was made
    assert found <= stamps


@pytest.mark.parametrize("jump", [-3600.0, 3600.0])
def test_a_wall_clock_that_jumps_moves_no_timer(monkeypatch, jump):
    from module_utils._engine.runtime.loop import Loop

    real = time.time
    loop, fired = Loop(), []
    loop.after(0.02, lambda: fired.append(1))
    monkeypatch.setattr(time, "time", lambda: real() + jump)
    monkeypatch.setattr(time, "time_ns", lambda: int((real() + jump) * 1e9))
    begun = time.monotonic()
    while not fired:
        loop.once()
    assert time.monotonic() - begun < 60


def test_a_monitor_shares_all_but_about_a_megabyte_with_the_spawner(engine):
    ids = [engine.start("exec sleep 1000") for _n in range(8)]
    own = []
    for cid in ids:
        with open("/proc/%d/smaps_rollup" % engine.runtime.state(cid)["monitor_pid"]) as stream:
            own += [int(line.split()[1]) for line in stream if line.startswith("Private_Dirty:")]
    assert sorted(own)[len(own) // 2] < 1300, "KiB"
