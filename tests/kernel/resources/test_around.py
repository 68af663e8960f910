# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Killing, renaming, restarting and waiting for containers."""

from __future__ import annotations

import os
import threading
import time
from typing import Any, Callable

import pytest
from helpers.engine import Engine
from helpers.option_laws import SLEEP
from module_utils._engine.errors import Conflict, InUse, NotFound, TimedOut, UnhealthyError, UsageError
from module_utils._engine.store.state import Store

TRAP = ["sh", "-c", "trap 'echo got' USR1; trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done"]


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("it did not happen")
        time.sleep(0.02)


def status(engine: Engine, name: str) -> str:
    return str(engine.inspect(name)["State"]["Status"])


def waiting(engine: Engine, **params: Any) -> tuple[threading.Thread, list[Any]]:
    """A ``container_wait`` in another thread; its result, or its error, is the list's one entry."""
    found: list[Any] = []

    def body() -> None:
        try:
            found.append(engine.run("container_wait", **params))
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    return thread, found


# -- kill --------------------------------------------------------------------------------------------------------


def test_a_signal_reaches_the_program_and_check_mode_sends_none(shared: Engine) -> None:
    shared.container("sig", command=TRAP)
    until(lambda: "ready" in shared.logs("sig"))
    planned = shared.run("container_kill", check=True, container="sig", signal="SIGUSR1")
    assert planned["changed"] and planned["actions"][0]["detail"] == {"signal": "SIGUSR1", "number": 10}
    sent = shared.run("container_kill", container="sig", signal="usr1")
    assert sent["changed"] and sent["diff"] == {"before": {"status": "running"}, "after": {"status": "running"}}
    until(lambda: "got" in shared.logs("sig"))
    assert shared.logs("sig").count("got") == 1 and status(shared, "sig") == "running"


def test_kill_has_ended_the_container_and_no_restart_policy_brings_it_back(shared: Engine) -> None:
    shared.container("end", command=SLEEP, restart_policy="always")
    result = shared.run("container_kill", container="end")
    assert result["diff"]["after"] == {"status": "exited"}
    assert shared.inspect("end")["State"]["Status"] == "exited" and shared.inspect("end")["State"]["ExitCode"] == 137
    with pytest.raises(Conflict, match="Cannot kill container end: it is exited, not running") as caught:
        shared.run("container_kill", container="end")
    assert "force_kill" in str(caught.value.hint)
    assert shared.run("container", name="end", state="started")["changed"]


def test_a_signal_that_is_not_the_stop_signal_leaves_the_restart_policy_alone(shared: Engine) -> None:
    shared.container("again", command=["sh", "-c", "trap 'exit 3' USR2; sleep 1000 & wait"], restart_policy="always")
    pid = shared.pid("again")
    until(lambda: b"sleep" in b"".join(open("/proc/%d/cmdline" % p, "rb").read() for p in children(pid)))
    shared.run("container_kill", container="again", signal="USR2")
    until(lambda: shared.inspect("again")["RestartCount"] and status(shared, "again") == "running")
    shared.run("container_kill", container="again", signal="TERM")
    shared.run("container_kill", container="again", signal="KILL")
    assert status(shared, "again") == "exited"


def test_the_images_stop_signal_is_what_counts_as_stopping_by_hand(shared: Engine) -> None:
    shared.busybox("quits:1", changes=["CMD sh", "STOPSIGNAL SIGQUIT"])
    script = "trap 'exit 0' QUIT; trap : TERM; echo ready; while :; do sleep 0.05; done"
    shared.container("quits", image="quits:1", command=["sh", "-c", script], restart_policy="always")
    until(lambda: "ready" in shared.logs("quits"))
    shared.run("container_kill", container="quits", signal="TERM")
    assert desired(shared, "quits") == "running"
    shared.run("container_kill", container="quits", signal="QUIT")
    assert shared.run("container_wait", container="quits", timeout=20)["exit_code"] == 0
    assert desired(shared, "quits") == "stopped"


def desired(engine: Engine, name: str) -> str:
    with Store.open(engine.paths) as store:
        record = store.containers.by_name(name)
        assert record is not None
        return str(record.desired)


def children(pid: int) -> list[int]:
    with open("/proc/%d/task/%d/children" % (pid, pid), encoding="ascii") as stream:
        return [int(word) for word in stream.read().split()]


def test_a_paused_container_can_be_killed(shared: Engine) -> None:
    shared.container("frozen", command=SLEEP, paused=True)
    shared.run("container_kill", container="frozen", signal="9")
    assert status(shared, "frozen") == "exited"


@pytest.mark.parametrize("signal", ["SIGNONE", "0", "65", "", "TERM+1000"])
def test_what_is_no_signal_is_refused_before_anything_is_sent(shared: Engine, signal: str) -> None:
    with pytest.raises(UsageError, match="is not a signal") as caught:
        shared.run("container_kill", container="whatever", signal=signal)
    assert caught.value.path == "signal"


# -- rename ------------------------------------------------------------------------------------------------------


def test_a_running_container_is_found_by_its_new_name_at_once_and_renaming_again_changes_nothing(fresh: Engine) -> None:
    fresh.run("network", name="net")
    made = fresh.container("old", command=SLEEP, networks=[{"name": "net"}])["container"]
    fresh.container("peer", command=SLEEP, networks=[{"name": "net"}])
    planned = fresh.run("container_rename", check=True, container="old", name="new")
    assert planned["changed"] and fresh.inspect("old")["Id"] == made["Id"]
    result = fresh.run("container_rename", container="old", name="new")
    assert result["changed"] and result["id"] == made["Id"] and result["name"] == "new"
    assert result["diff"] == {"before": {"name": "old"}, "after": {"name": "new"}}
    assert fresh.pid("new") == made["State"]["Pid"]
    assert "Address" in fresh.sh("peer", "nslookup new 127.0.0.11")
    assert fresh.exec("peer", "nslookup", "old", "127.0.0.11")["rc"] != 0
    assert not fresh.run("container_rename", container="old", name="new")["changed"]
    assert not fresh.run("container_rename", container=made["Id"], name="new")["changed"]
    assert not fresh.container("new", command=SLEEP, networks=[{"name": "net"}])["changed"]


def test_a_name_that_is_taken_or_needed_or_none_at_all_is_refused(shared: Engine) -> None:
    shared.container("first", command=SLEEP)
    shared.container("second", command=SLEEP)
    shared.container("joined", command=SLEEP, network_mode="container:first")
    with pytest.raises(Conflict, match="name second is already in use"):
        shared.run("container_rename", container="first", name="second")
    with pytest.raises(InUse, match=r"container joined refers to it by that name \(network_mode\)"):
        shared.run("container_rename", container="first", name="third")
    with pytest.raises(NotFound, match="No such container: nobody"):
        shared.run("container_rename", container="nobody", name="somebody")
    with pytest.raises(UsageError) as caught:
        shared.run("container_rename", container="second", name="no/name")
    assert caught.value.path == "name"
    assert shared.inspect("first")["State"]["Running"] and shared.inspect("second")["State"]["Running"]


# -- restart -----------------------------------------------------------------------------------------------------


def test_a_restart_on_demand_keeps_a_container_that_removes_itself_at_its_end(shared: Engine) -> None:
    made = shared.container("self", command=SLEEP, auto_remove=True)["container"]
    planned = shared.run("container", check=True, name="self", restart=True, stop_timeout=1)
    assert [a["how"] for a in planned["actions"]] == ["stop", "start"]
    again = shared.run("container", name="self", restart=True, force_kill=True)["container"]
    assert again["Id"] == made["Id"] and again["State"]["Running"] and again["State"]["Pid"] != made["State"]["Pid"]


def test_the_restart_module_stops_what_runs_and_starts_what_does_not(shared: Engine) -> None:
    made = shared.container("re", command=SLEEP, restart_policy="unless-stopped")["container"]
    planned = shared.run("container_restart", check=True, container="re")
    assert [a["how"] for a in planned["actions"]] == ["stop", "start"]
    assert shared.pid("re") == made["State"]["Pid"]
    again = shared.run("container_restart", container="re", force_kill=True)["container"]
    assert again["Id"] == made["Id"] and again["State"]["Running"] and again["State"]["Pid"] != made["State"]["Pid"]
    assert desired(shared, "re") == "running"
    shared.run("container", name="re", state="stopped", force_kill=True)
    started = shared.run("container_restart", container="re", stop_timeout=0)
    assert [a["how"] for a in started["actions"]] == ["start"] and started["container"]["State"]["Running"]
    with pytest.raises(UsageError, match="is not a signal"):
        shared.run("container_restart", container="re", force_kill=True, kill_signal="NOPE")
    assert shared.inspect("re")["State"]["Pid"] == started["container"]["State"]["Pid"]
    with pytest.raises(NotFound, match="No such container: nobody"):
        shared.run("container_restart", container="nobody")


def test_a_restart_gives_the_program_the_time_that_the_task_says(shared: Engine) -> None:
    script = "trap 'echo asked; exit 0' TERM; echo ready; while :; do sleep 0.05; done"
    shared.container("polite", command=["sh", "-c", script])
    until(lambda: "ready" in shared.logs("polite"))
    shared.run("container_restart", container="polite", stop_timeout=30)
    assert "asked" in shared.logs("polite")


# -- pause -------------------------------------------------------------------------------------------------------


def test_pausing_twice_is_pausing_once_and_check_mode_pauses_nothing(shared: Engine) -> None:
    shared.container("still", command=SLEEP)
    planned = shared.run("container_pause", check=True, container="still")
    assert planned["changed"] and planned["diff"] == {"before": {"paused": False}, "after": {"paused": True}}
    assert status(shared, "still") == "running"
    assert shared.run("container_pause", container="still")["changed"] and status(shared, "still") == "paused"
    assert not shared.run("container_pause", container="still")["changed"]
    assert [a["how"] for a in shared.run("container_pause", container="still", paused=False)["actions"]] == ["unpause"]
    assert not shared.run("container_pause", container="still", paused=False)["changed"]
    assert status(shared, "still") == "running"
    shared.run("container_kill", container="still")
    assert not shared.run("container_pause", container="still", paused=False)["changed"]
    with pytest.raises(Conflict, match="Cannot pause container still: it is exited, not running"):
        shared.run("container_pause", container="still")


# -- wait --------------------------------------------------------------------------------------------------------


def test_waiting_for_the_end_returns_the_exit_code_and_changes_nothing(shared: Engine) -> None:
    shared.container("job", command=["sh", "-c", "while [ ! -e /go ]; do sleep 0.05; done; exit 5"])
    thread, found = waiting(shared, container="job")
    shared.sh("job", "touch /go")
    thread.join(20)
    assert found[0] == {"changed": False, "exit_code": 5, "status": "exited", "oom_killed": False, "reason": None}
    assert shared.run("container_wait", container="job")["exit_code"] == 5


def test_next_exit_is_that_of_the_run_at_hand_even_if_another_follows(shared: Engine) -> None:
    script = "while [ ! -e /go ]; do sleep 0.05; done; rm /go; exit 4"
    shared.container("loop", command=["sh", "-c", script], restart_policy="always")
    thread, found = waiting(shared, container="loop", condition="next-exit")
    until(thread.is_alive)
    while thread.is_alive():  # the wait may begin after the first of these
        shared.exec("loop", "touch", "/go")
        thread.join(0.5)
    assert found[0]["exit_code"] == 4
    with pytest.raises(TimedOut, match=r"Container loop did not end within 0\.2 seconds"):
        shared.run("container_wait", container="loop", timeout=0.2)


def test_waiting_for_removal_ends_with_the_container_and_at_once_without_one(shared: Engine) -> None:
    shared.container("going", command=SLEEP)
    thread, found = waiting(shared, container="going", condition="removed")
    shared.run("container", name="going", state="absent", force_kill=True)
    thread.join(20)
    assert not found[0]["changed"]
    assert shared.run("container_wait", container="going", condition="removed")["status"] == "absent"


def test_waiting_for_health_fails_as_soon_as_it_cannot_come(shared: Engine) -> None:
    check = {"test": ["CMD", "test", "-e", "/ok"], "interval": "100ms", "retries": 3}
    shared.container("well", command=SLEEP, healthcheck=check)
    thread, found = waiting(shared, container="well", condition="healthy")
    shared.sh("well", "touch /ok")
    thread.join(20)
    assert found[0]["status"] == "running" and found[0]["exit_code"] is None
    shared.sh("well", "rm /ok")
    thread, found = waiting(shared, container="well", condition="not-running")
    until(lambda: shared.inspect("well")["State"]["Health"]["Status"] == "unhealthy")
    with pytest.raises(UnhealthyError, match="Container well is unhealthy"):
        shared.run("container_wait", container="well", condition="healthy")
    shared.run("container_kill", container="well")
    thread.join(20)
    assert found[0]["exit_code"] == 137
    with pytest.raises(UnhealthyError, match="exited with code 137"):
        shared.run("container_wait", container="well", condition="healthy")


def test_waiting_for_a_start_that_somebody_else_makes(shared: Engine) -> None:
    shared.container("later", command=SLEEP, state="present")
    thread, found = waiting(shared, container="later", condition="running")
    shared.run("container", name="later", state="started")
    thread.join(20)
    assert found[0]["status"] == "running"


def test_a_container_that_is_removed_while_its_end_is_not_what_is_waited_for_is_an_error(shared: Engine) -> None:
    shared.container("vanish", command=SLEEP, state="present")
    thread, found = waiting(shared, container="vanish", condition="running")
    until(thread.is_alive)
    shared.run("container", name="vanish", state="absent")
    thread.join(20)
    assert isinstance(found[0], NotFound)


def test_in_check_mode_nothing_is_waited_for_and_nothing_has_to_exist(shared: Engine) -> None:
    result = shared.run("container_wait", check=True, container="unborn", condition="healthy")
    assert not result["changed"] and result["status"] == "absent" and "check mode" in result["skipped_reason"]
    assert not os.path.exists(shared.paths.container("unborn"))
    with pytest.raises(NotFound):
        shared.run("container_wait", container="unborn", timeout=1)
    with pytest.raises(UsageError, match="no time to wait"):
        shared.run("container_wait", container="unborn", timeout=-1)
