# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import signal
import threading
import time

import pytest
from module_utils._engine.errors import Conflict, StartError, TimedOut, UnhealthyError
from module_utils._engine.kernel import procfs
from module_utils._engine.runtime.exec import ExecSpec

FAST = {"interval": 50_000_000, "timeout": 300_000_000, "retries": 2}


def test_stop_sends_the_signal_and_the_program_may_answer(engine):
    cid = engine.start("trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.05; done")
    engine.until(lambda: engine.output(cid))
    state = engine.runtime.stop(cid)
    assert state["exit_code"] == 5 and state["status"] == "exited" and state["manually_stopped"]
    assert engine.output(cid) == "up\nbye\n"
    assert engine.leavings(cid) == []


def test_stop_kills_after_the_timeout(engine):
    cid = engine.start("trap '' TERM; echo up; while :; do sleep 0.05; done")
    engine.until(lambda: engine.output(cid))
    began = time.monotonic()
    state = engine.runtime.stop(cid, timeout=0.3)
    assert state["exit_code"] == 137 and time.monotonic() - began >= 0.3
    assert engine.leavings(cid) == []


def test_restarts_back_off_and_end_after_the_allowed_retries(engine):
    cid = engine.create(
        ["/bin/sh", "-c", "date +%s.%N >> /times; exit 1"], run={"restart": {"policy": "on-failure", "retries": 3}}
    )
    began = time.monotonic()
    engine.runtime.start(cid)
    state = engine.runtime.wait(cid, timeout=20)
    assert state["restart_count"] == 3 and state["exit_code"] == 1
    assert time.monotonic() - began >= 0.1 + 0.2 + 0.4
    with open(engine.paths.container(cid) + "/upper/times") as stream:
        assert len(stream.readlines()) == 4


def test_on_failure_does_not_restart_success(engine):
    state, _out, _err = engine.sh("exit 0", run={"restart": {"policy": "on-failure", "retries": 0}})
    assert state["restart_count"] == 0


def test_a_container_waiting_for_its_restart_can_be_stopped_and_started(engine):
    cid = engine.start("exit 1", run={"restart": {"policy": "always", "retries": 0}})
    engine.until(lambda: engine.runtime.state(cid)["restart_count"] >= 3)
    engine.until(lambda: engine.runtime.state(cid)["status"] == "restarting")
    engine.runtime.start(cid)
    state = engine.runtime.stop(cid)
    assert state["status"] == "exited" and state["manually_stopped"]
    assert engine.leavings(cid) == []


def test_a_stopped_container_is_not_restarted_whatever_the_policy(engine):
    cid = engine.start("sleep 100", run={"restart": {"policy": "always", "retries": 0}})
    engine.runtime.stop(cid, timeout=0)
    time.sleep(0.3)
    assert engine.runtime.state(cid)["status"] == "exited"


def test_a_new_policy_takes_effect_on_a_running_container(engine):
    cid = engine.start("sleep 0.3; exit 1", run={"restart": {"policy": "always", "retries": 0}})
    engine.runtime.update(cid, {"restart": {"policy": "no", "retries": 0}})
    assert engine.runtime.wait(cid, timeout=5)["restart_count"] == 0


def test_health_goes_from_starting_to_healthy_to_unhealthy(engine):
    check = {"test": ["CMD-SHELL", "echo probing; test -e /ok"], **FAST}
    cid = engine.start("touch /ok; sleep 100", run={"healthcheck": check})
    assert engine.runtime.state(cid)["health"]["status"] in ("starting", "healthy")
    state = engine.runtime.wait(cid, "healthy", timeout=5)
    assert state["health"]["log"][-1]["output"] == "probing\n"
    engine.exec(cid, "rm", "/ok")
    engine.until(lambda: engine.runtime.state(cid)["health"]["status"] == "unhealthy")
    with pytest.raises(UnhealthyError):
        engine.runtime.wait(cid, "healthy", timeout=5)
    engine.exec(cid, "touch", "/ok")
    engine.runtime.wait(cid, "running", timeout=1)
    engine.until(lambda: engine.runtime.state(cid)["health"]["status"] == "healthy")


def test_a_probe_that_hangs_is_killed_with_its_children(engine):
    check = {"test": ["CMD-SHELL", "sleep 77 & sleep 77"], **FAST, "retries": 1, "timeout": 200_000_000}
    cid = engine.start("sleep 100", run={"healthcheck": check})
    engine.until(lambda: engine.runtime.state(cid)["health"]["status"] == "unhealthy")
    entry = engine.runtime.state(cid)["health"]["log"][-1]
    assert entry["exit_code"] == -1 and "exceeded timeout" in entry["output"]
    engine.runtime.update(cid, {"healthcheck": None})
    time.sleep(0.3)
    assert b"sleep 77" not in engine.exec(cid, "ps").stdout


def test_failures_in_the_start_period_do_not_count(engine):
    check = {"test": ["CMD", "false"], **FAST, "start_period": 60_000_000_000, "start_interval": 50_000_000}
    cid = engine.start("sleep 100", run={"healthcheck": check})
    engine.until(lambda: len(engine.runtime.state(cid)["health"]["log"]) >= 4)
    assert engine.runtime.state(cid)["health"]["status"] == "starting"


def test_pause_and_unpause(engine):
    cid = engine.start("while :; do date +%N; sleep 0.02; done")
    engine.until(lambda: engine.output(cid))
    assert engine.runtime.pause(cid)["status"] == "paused"
    time.sleep(0.1)
    before = engine.output(cid)
    time.sleep(0.2)
    assert engine.output(cid) == before
    with pytest.raises(Conflict, match="paused"):
        engine.exec(cid, "true")
    engine.runtime.unpause(cid)
    engine.until(lambda: engine.output(cid) != before)
    engine.runtime.pause(cid)
    assert engine.runtime.stop(cid, timeout=0)["status"] == "exited"


# -- exec --------------------------------------------------------------------------------------------------------------


def test_exec(engine):
    cid = engine.start("sleep 100", env={"A": "1"}, working_dir="/home")
    result = engine.exec(
        cid, "sh", "-c", "cat; pwd; echo $A $B; id -u; echo err >&2; exit 9", stdin=b"in\n", env=["B=2"]
    )
    assert result.stdout == b"in\n/home\n1 2\n0\n" and result.stderr == b"err\n" and result.exit_code == 9
    result = engine.exec(cid, "sh", "-c", "pwd; id -u; echo $HOME; echo x > /dev/stderr", user="app", cwd="/tmp")
    assert result.stdout == b"/tmp\n1000\n/home/app\n" and result.stderr == b"x\n"


def test_exec_moves_much_data_both_ways(engine):
    cid = engine.start("sleep 100")
    data = os.urandom(3 << 20)
    assert engine.exec(cid, "cat", stdin=data).stdout == data


def test_exec_timeout_kills_the_whole_of_it(engine):
    cid = engine.start("sleep 100")
    result = engine.exec(cid, "sh", "-c", "echo begun; sleep 66 & sleep 66", timeout=0.3)
    assert result.timed_out and result.exit_code == 137 and result.stdout == b"begun\n"
    engine.until(lambda: b"sleep 66" not in engine.exec(cid, "ps").stdout)


def test_exec_does_not_wait_for_what_it_left_in_the_background(engine):
    cid = engine.start("sleep 100")
    assert engine.exec(cid, "sh", "-c", "sleep 55 & echo done").stdout == b"done\n"
    assert b"sleep 55" in engine.exec(cid, "ps").stdout


def test_exec_with_a_terminal(engine):
    cid = engine.start("sleep 100")
    result = engine.exec(cid, "sh", "-c", "tty; read a; echo got $a; exit 3", stdin=b"word\n", tty=True)
    assert b"/dev/pts/" in result.stdout and b"got word" in result.stdout and result.exit_code == 3


def test_exec_detached(engine):
    cid = engine.start("sleep 100")
    result = engine.runtime.exec(cid, ExecSpec(["sh", "-c", "sleep 0.1; touch /made"]), detach=True)
    assert result.pid > 0
    engine.until(lambda: engine.exec(cid, "test", "-e", "/made").exit_code == 0)


@pytest.mark.parametrize(
    ("argv", "more", "code", "words"),
    [
        (["nosuch"], {}, 127, "executable file not found in $PATH"),
        (["/etc/passwd"], {}, 126, "permission denied"),
        (["/proc/self/exe"], {}, 126, "CVE-2019-5736"),
        (["true"], {"user": "nosuch"}, 126, "unable to find user nosuch"),
        (["true"], {"cwd": "/nowhere"}, 127, "Cannot change to the working directory /nowhere"),
        (["true"], {"cwd": "/proc/self/fd/7"}, 127, "working directory"),
        (["true"], {"cwd": "/proc/self/fd/3"}, 126, "working directory"),
    ],
)
def test_exec_failures(engine, argv, more, code, words):
    cid = engine.start("sleep 100")
    with pytest.raises(StartError) as caught:
        engine.exec(cid, *argv, **more)
    assert words in caught.value.msg
    assert caught.value.details["exit_code"] in (code, 126, 127)


def test_exec_in_a_container_that_does_not_run(engine):
    engine.sh("true")
    with pytest.raises(Conflict, match="is not running"):
        engine.exec(engine.ids[-1], "true")


def test_exec_ends_with_the_container(engine):
    cid = engine.start("sleep 0.5")
    result = engine.exec(cid, "sleep", "50")
    assert result.exit_code == 137


# -- faults ------------------------------------------------------------------------------------------------------------


def test_a_container_survives_its_monitor_and_gets_another(engine, kill):
    script = "trap 'echo term; exit 6' TERM; i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done"
    cid = engine.start(script)
    engine.until(lambda: engine.output(cid))
    first = engine.runtime.state(cid)
    kill(first["monitor_pid"])
    engine.until(lambda: engine.runtime.state(cid)["monitor_pid"] != first["monitor_pid"])
    state = engine.runtime.state(cid)
    assert state["status"] == "running" and state["pid"] == first["pid"]
    assert engine.exec(cid, "echo", "hi").stdout == b"hi\n"
    state = engine.runtime.stop(cid)
    assert engine.output(cid).endswith("term\n")
    numbers = [int(line) for line in engine.output(cid).split()[:-1]]
    assert numbers == list(range(1, len(numbers) + 1))  # not one line was lost
    assert state["exit_code"] in (6, 255)
    assert engine.leavings(cid) == []


def test_monitors_survive_the_spawner_and_a_new_one_is_started_on_demand(engine, kill):
    cid = engine.start("sleep 100; exit 4")
    pid = engine.spawner_pid()
    kill(pid)
    engine.until(lambda: procfs.stat(pid) is None or procfs.stat(pid).state == "Z")
    assert engine.exec(cid, "echo", "hi").stdout == b"hi\n"
    second = engine.start("sleep 100")
    assert engine.spawner_pid() != pid
    assert engine.runtime.stop(cid, signal.SIGKILL)["exit_code"] == 137
    engine.runtime.stop(second, signal.SIGKILL)


def test_spawner_and_monitor_killed_then_adopted_by_the_next_task(engine, kill):
    cid = engine.start("sleep 1; exit 4")
    kill(engine.spawner_pid())
    monitor = engine.runtime.state(cid)["monitor_pid"]
    kill(monitor)
    engine.until(lambda: procfs.stat(monitor) is None or procfs.stat(monitor).state == "Z")
    assert engine.runtime.state(cid)["status"] == "running"
    assert not engine.runtime.is_monitored(cid)
    assert engine.runtime.start(cid)["status"] == "running"
    assert engine.runtime.is_monitored(cid)
    state = engine.runtime.wait(cid, timeout=10)
    assert state["exit_code"] in (4, 255)


def test_a_container_that_died_unwatched_is_exited_with_255_and_can_start_again(engine, kill):
    cid = engine.start("sleep 0.3")
    kill(engine.spawner_pid())
    state = engine.runtime.state(cid)
    kill(state["monitor_pid"])
    engine.until(lambda: engine.runtime.state(cid)["status"] == "exited")
    assert engine.runtime.state(cid)["exit_code"] == 255
    assert engine.runtime.start(cid)["status"] == "running"
    engine.runtime.delete(cid)
    assert engine.leavings(cid) == []


def test_deleting_a_container_without_any_process_of_ours(engine, kill):
    cid = engine.start("sleep 100")
    pid = engine.runtime.state(cid)["pid"]
    kill(engine.spawner_pid())
    kill(engine.runtime.state(cid)["monitor_pid"])
    engine.runtime.delete(cid)
    assert engine.leavings(cid) == []
    assert not procfs.is_alive(pid, procfs.start_time(pid) or 0)


def test_waiting_has_a_timeout(engine):
    cid = engine.start("sleep 100")
    with pytest.raises(TimedOut):
        engine.runtime.wait(cid, timeout=0.2)


def test_two_hundred_bad_requests_do_not_disturb_the_monitor(engine):
    import socket

    cid = engine.start("sleep 100")
    path = engine.paths.container_run(cid) + "/monitor.sock"
    for number in range(200):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(path)
            sock.sendall([b"", b"{", b"nonsense\n", b'{"op": "nosuch"}\n', b'{"op": "kill"}\n', b"[]\n"][number % 6])
    assert engine.exec(cid, "echo", "hi").stdout == b"hi\n"


def test_a_container_that_ends_while_it_is_updated_is_updated_all_the_same(engine):
    cid = engine.start("sleep 100")
    monitor = engine.runtime.state(cid)["monitor_pid"]
    os.kill(monitor, signal.SIGSTOP)  # it takes the request and answers nothing
    result = []

    def update():
        engine.runtime.update(cid, {"stop_timeout": 77})
        result.append(True)

    thread = threading.Thread(target=update)
    thread.start()
    try:
        engine.until(lambda: _unread(engine.paths.container_run(cid) + "/monitor.sock"))
    finally:
        os.kill(engine.runtime.state(cid)["pid"], signal.SIGKILL)
        os.kill(monitor, signal.SIGKILL)
    thread.join(30)
    assert result == [True]
    with open(engine.paths.container(cid) + "/run.json") as stream:
        assert json.load(stream)["stop_timeout"] == 77


def _unread(path):
    """Whether somebody has connected to the socket and waits to be accepted."""
    with open("/proc/net/unix") as lines:
        return sum(line.rstrip().endswith(path) for line in lines) > 1
