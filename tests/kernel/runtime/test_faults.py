# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Processes killed at random moments, many starts at once, hostile neighbours."""

from __future__ import annotations

import os
import random
import signal
import threading
import time

import pytest
from module_utils._engine import process
from module_utils._engine.errors import WharfError
from module_utils._engine.kernel import procfs
from module_utils._engine.runtime import spawning, wire


def descendants_named(name):
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            stat = procfs.stat(int(entry))
            if stat is not None and stat.comm == name:
                found.append(int(entry))
    return found


def monitors_of(spawner):
    """The spawner's children: monitors, at whatever stage."""
    return procfs.children(spawner)


@pytest.mark.parametrize("seed", range(12))
def test_a_monitor_killed_at_any_moment_of_a_start_leaves_a_state_that_can_be_repaired(engine, seed):
    engine.start("true")  # the spawner is warm
    cid = engine.create(["/bin/sleep", "1000"])
    spawner = engine.spawner_pid()
    before = set(monitors_of(spawner))
    result = []

    def start():
        try:
            result.append(engine.runtime.start(cid))
        except WharfError as error:
            result.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    deadline = time.monotonic() + 2
    delay = random.Random(seed).uniform(0.0, 0.04)
    victim = None
    while victim is None and time.monotonic() < deadline:
        fresh = [pid for pid in monitors_of(spawner) if pid not in before]
        victim = fresh[0] if fresh else None
    time.sleep(delay)
    if victim is not None:
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:
            pass
    thread.join(30)
    assert not thread.is_alive() and result
    engine.until(lambda: victim is None or procfs.stat(victim) is None or procfs.stat(victim).state == "Z")
    # Whatever happened: the next start brings it up, and deleting it leaves nothing.
    assert engine.runtime.start(cid)["status"] == "running"
    assert engine.exec(cid, "echo", "ok").stdout == b"ok\n"
    pid = engine.runtime.state(cid)["pid"]
    engine.runtime.delete(cid)
    assert engine.leavings(cid) == []
    assert procfs.stat(pid) is None or procfs.stat(pid).state in "ZX"


def test_many_containers_start_and_stop_at_once(engine):
    ids = [engine.create(["/bin/sh", "-c", "echo %d; sleep 1000" % number]) for number in range(12)]
    errors = []

    def work(cid):
        try:
            engine.runtime.start(cid)
            engine.exec(cid, "true")
            engine.until(lambda: engine.output(cid))  # or it is killed before it could say anything
            engine.runtime.stop(cid, 9, 0)
        except WharfError as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(cid,)) for cid in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    for number, cid in enumerate(ids):
        assert engine.output(cid) == "%d\n" % number
        assert engine.leavings(cid) == []


def test_many_execs_at_once(engine):
    cid = engine.start("sleep 100")
    outputs = [b""] * 16

    def work(number):
        outputs[number] = engine.exec(cid, "sh", "-c", "cat; echo %d" % number, stdin=b"x" * 100000).stdout

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert outputs == [b"x" * 100000 + b"%d\n" % number for number in range(16)]


def test_a_neighbour_that_swaps_links_on_a_shared_volume_never_gets_a_mount_outside(engine, tmp_path):
    """CVE-2021-30465: the target's parent is exchanged for a link to the root while mounts are made."""
    shared, secret = tmp_path / "shared", tmp_path / "secret"
    (shared / "a").mkdir(parents=True)
    os.symlink("/", shared / "b")
    secret.mkdir()
    (secret / "s").write_text("s")
    volume = {"source": str(shared), "target": "/shared", "type": "bind"}
    swapper = engine.start("cd /shared; while :; do mv a c; mv b a; mv a b; mv c a; done", volumes=[volume])
    for _n in range(6):
        inner = {"source": str(secret), "target": "/shared/a/etc/sub", "type": "bind"}
        cid = engine.create(["/bin/sleep", "100"], volumes=[volume, inner])
        try:
            engine.runtime.start(cid)
        except WharfError:
            pass  # refused is as good: what counts is the host
        engine.runtime.delete(cid)
        assert not os.path.exists("/etc/sub")
    engine.runtime.stop(swapper, 9, 0)
    assert not [m for m in procfs.mountinfo() if str(secret) in m.root or str(shared) in m.root + m.target]


def test_a_container_that_floods_its_log_does_not_keep_the_monitor_from_stopping_it(engine):
    cid = engine.create(["/bin/yes"], run={"log": {"driver": "none"}})
    engine.runtime.start(cid)
    noisy = engine.create(["/bin/sh", "-c", "exec yes"])
    directory = engine.paths.container(noisy)
    import json

    with open(directory + "/run.json") as stream:
        run = json.load(stream)
    run["log"].update(max_size=1 << 20, max_file=2)
    with open(directory + "/run.json", "w") as stream:
        json.dump(run, stream)
    engine.runtime.start(noisy)
    time.sleep(0.3)
    assert engine.runtime.stop(noisy, 9, 0)["status"] == "exited"
    assert engine.runtime.stop(cid, 9, 0)["status"] == "exited"


def test_sigterm_to_the_monitor_stops_the_container_but_not_by_hand(engine):
    cid = engine.start("trap 'exit 8' TERM; echo up; while :; do sleep 0.05; done")
    engine.until(lambda: engine.output(cid))
    os.kill(engine.runtime.state(cid)["monitor_pid"], signal.SIGTERM)
    state = engine.runtime.wait(cid, timeout=10)
    assert state["exit_code"] == 8 and not state["manually_stopped"]


def test_a_spawner_of_another_bundle_gives_way(engine, monkeypatch):
    from module_utils._engine.runtime import wire

    cid = engine.start("sleep 100")
    first = engine.spawner_pid()
    with wire.connect(engine.paths.spawner_socket, 5) as sock:
        wire.send_line(sock, {"op": "start", "id": cid, "engine": "/some/other/bundle"})
        assert wire.LineReader(sock).wait() is None
    second = engine.start("sleep 100")
    assert engine.spawner_pid() != first
    assert engine.exec(cid, "true").exit_code == engine.exec(second, "true").exit_code == 0


def spawner_that(script, engine, monkeypatch):
    """The next spawner is started by a shell script, in which ``"$@"`` is what it would have been."""
    engine.sh("true")  # so that there is one to end
    pid = engine.spawner_pid()
    start = procfs.stat(pid).start
    os.kill(pid, signal.SIGKILL)
    engine.until(lambda: not procfs.is_alive(pid, start))
    command = process.engine_command
    monkeypatch.setattr(process, "engine_command", lambda *words: ["/bin/sh", "-c", script, "sh", *command(*words)])
    monkeypatch.setattr(spawning, "_TIMEOUT", 0.5)  # of which a start on a crowded machine may need many


def test_a_spawner_that_is_slow_is_waited_for(engine, monkeypatch):
    spawner_that('sleep 2; exec "$@"', engine, monkeypatch)
    monkeypatch.setattr(wire, "connect", lambda path, _seconds, connect=wire.connect: connect(path, 60.0))
    assert engine.sh("echo here")[1].strip() == "here"


def test_a_spawner_that_said_why_it_does_not_start_is_not_waited_for(engine, monkeypatch):
    spawner_that("echo no more memory >&2", engine, monkeypatch)
    with pytest.raises(WharfError, match="spawner process did not start: no more memory"):
        engine.sh("true")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_more_clients_at_once_than_the_backlog_holds_all_get_an_answer(engine):
    cid = engine.start("sleep 100")
    pid = engine.runtime.state(cid)["monitor_pid"]
    os.kill(pid, signal.SIGSTOP)
    answers = []

    def ask():
        answers.append(engine.runtime._ask(cid, {"op": "state"}, 20)["state"]["status"])

    threads = [threading.Thread(target=ask) for _n in range(300)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    os.kill(pid, signal.SIGCONT)
    for thread in threads:
        thread.join(30)
    # Beyond 256 connections the monitor refuses; those that got one got their answer.
    assert len(answers) >= 250


def test_a_container_being_removed_cannot_be_started_by_a_request_that_was_on_its_way(engine):
    """A task is killed after it asked for a start; the next one removes the container before that start begins."""
    engine.sh("true")  # the spawner runs, so the request is accepted at once
    spawner = engine.spawner_pid()

    def starters():
        return [child for monitor in monitors_of(spawner) for child in monitors_of(monitor)]

    cid = engine.create(["/bin/sleep", "1000"])
    with engine.runtime.removing(cid):
        sock = wire.connect(engine.paths.spawner_socket, 5.0)
        wire.send_line(sock, {"op": "start", "id": cid, "engine": wire.ENGINE})
        engine.until(lambda: any(_has_open(pid, cid) for pid in starters()))
        os.rename(engine.paths.container(cid), engine.paths.container(cid) + ".gone")
    with sock:
        answer = wire.LineReader(sock).wait()
    assert "was removed while its start was on the way" in answer["error"]["msg"]
    assert engine.leavings(cid) == []
    os.rename(engine.paths.container(cid) + ".gone", engine.paths.container(cid))


def _has_open(pid, cid):
    """Whether a process waits for the container's monitor lock."""
    try:
        return any(
            os.readlink("/proc/%d/fd/%s" % (pid, n)).endswith(cid + "/monitor.lock")
            for n in os.listdir("/proc/%d/fd" % pid)
        )
    except OSError:
        return False
