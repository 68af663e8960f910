# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a container says is in its log once, whole and in order, whatever happens to those who write it down."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile

import pytest
from helpers.log_receivers import Receiver
from module_utils._engine.kernel import procfs
from module_utils._engine.runtime import logs

DRIVERS = ["json-file", "local"]
LINES = 300_000


def settings(engine, cid, driver="json-file", **more):
    name = "/log.local" if driver == "local" else "/log"
    return {"driver": driver, "path": engine.paths.container(cid) + name, **more}


def create(engine, command, driver, **more):
    cid = engine.create(["/bin/sh", "-c", command])
    configure(engine, cid, settings(engine, cid, driver, **more))
    return cid


def configure(engine, cid, log):
    path = engine.paths.container(cid) + "/run.json"
    with open(path) as stream:
        run = json.load(stream)
    with open(path, "w") as stream:
        json.dump({**run, "log": log}, stream)


def said(engine, cid, stream="stdout"):
    return [r["log"] for r in logs.lines(engine.paths.container(cid) + "/log", logs.Choice(streams=(stream,)))]


def last(engine, cid):
    found = list(logs.read(engine.paths.container(cid) + "/log", tail=1))
    return found[0]["log"] if found else ""


def number(line):
    return int(line.split()[0]) if line else 0


def monitor(engine, cid):
    return engine.runtime.state(cid)["monitor_pid"]


def kill_monitor(engine, cid):
    """And wait for the next one."""
    before = monitor(engine, cid)
    os.kill(before, signal.SIGKILL)
    engine.until(lambda: monitor(engine, cid) != before and procfs.stat(monitor(engine, cid)) is not None)


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("seed", range(6))
def test_no_line_is_lost_or_repeated_when_the_monitor_is_killed_under_a_flood(engine, driver, seed):
    dice = random.Random(seed)
    rotated = {"max_size": 4 << 20, "max_file": 200, "compress": seed % 4 == 1} if seed % 2 else {}
    cid = create(engine, "seq 1 %d | busybox sed 's/$/ %s/'; exec sleep 1000" % (LINES, "x" * 90), driver, **rotated)
    engine.runtime.start(cid)
    in_mid_stream = 0
    for point in sorted(dice.randrange(LINES * 3 // 4) for _n in range(3)):
        engine.until(lambda point=point: number(last(engine, cid)) >= point, 60)
        kill_monitor(engine, cid)
        in_mid_stream += number(last(engine, cid)) < LINES
    assert in_mid_stream, "the flood was over before the first kill"
    engine.until(lambda: number(last(engine, cid)) == LINES, 60)
    lines = said(engine, cid)
    assert [number(line) for line in lines] == list(range(1, LINES + 1))
    assert all(len(line.split()[1]) == 90 for line in lines)
    if rotated:
        assert len(logs.files(settings(engine, cid, driver)["path"])) > 4
    engine.runtime.delete(cid)


_BOTH = """
i=0; long=$(head -c 40000 /dev/zero | busybox tr '\\0' x)
while [ $i -lt 3000 ]; do
    i=$((i+1)); echo $i out; echo $i err >&2
    [ $((i%50)) = 0 ] && echo $i $long && echo $i $long >&2
done
exec sleep 1000
"""


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("seed", range(3))
def test_long_lines_of_both_streams_are_whole_when_the_monitor_is_killed_between_their_parts(engine, driver, seed):
    dice = random.Random(seed)
    cid = create(engine, _BOTH, driver)
    engine.runtime.start(cid)
    path = settings(engine, cid, driver)["path"]
    for point in sorted(dice.randrange(2_000_000) for _n in range(3)):
        engine.until(lambda point=point: os.path.getsize(path) >= point, 60)
        kill_monitor(engine, cid)
    wanted = []
    for count in range(1, 3001):
        wanted += ["%d " % count] + (["%d %s" % (count, "x" * 40000)] if count % 50 == 0 else [])
    engine.until(lambda: all(len(said(engine, cid, stream)) >= len(wanted) for stream in ("stdout", "stderr")), 60)
    for stream in ("stdout", "stderr"):
        got = [line.replace("out", "").replace("err", "") for line in said(engine, cid, stream)]
        assert got == wanted
    engine.runtime.delete(cid)


# -- logs that do not take it --------------------------------------------------------------------------------------


@pytest.fixture
def small_disk():
    """A file system of 1 MiB."""
    directory = tempfile.mkdtemp(prefix="wl", dir="/run")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "small", directory], check=True)
    yield directory
    subprocess.run(["umount", "-l", directory], check=True)
    os.rmdir(directory)


def fill(directory, room=100 * 1024):
    """But for ``room`` bytes."""
    fd = os.open(directory + "/filler", os.O_WRONLY | os.O_CREAT)
    with contextlib.suppress(OSError):
        while True:
            os.write(fd, bytes(4096))
    os.truncate(fd, os.fstat(fd).st_size - room)
    os.close(fd)


def trouble(engine, cid):
    return engine.runtime.state(cid)["log_error"]


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_full_disk_makes_the_container_wait_says_so_once_and_loses_nothing(engine, small_disk, driver):
    cid = engine.create(["/bin/sh", "-c", "seq 1 60000; exec sleep 1000"])
    path = small_disk + "/log" + (".local" if driver == "local" else "")
    configure(engine, cid, {"driver": driver, "path": path})
    fill(small_disk)
    engine.runtime.start(cid)
    engine.until(lambda: "No space left on device" in trouble(engine, cid))
    with open(engine.paths.run + "/spawner.log") as stream:
        assert sum(cid[:12] in line for line in stream) == 1
    waiting = list(logs.read(small_disk + "/log"))
    assert [int(record["log"]) for record in waiting] == list(range(1, len(waiting) + 1)), "no half records"
    # The monitor does everything else meanwhile; and its successor goes on waiting.
    assert engine.exec(cid, "/bin/echo", "here").stdout == b"here\n"
    kill_monitor(engine, cid)
    engine.until(lambda: "No space left on device" in trouble(engine, cid))
    subprocess.run(["mount", "-o", "remount,size=16m", small_disk], check=True)
    engine.until(lambda: last_in(small_disk + "/log") == "60000\n")
    assert [int(record["log"]) for record in logs.read(small_disk + "/log")] == list(range(1, 60001))
    engine.until(lambda: not trouble(engine, cid))
    engine.runtime.kill(cid, signal.SIGKILL)


def last_in(path):
    return next((record["log"] for record in logs.read(path, tail=1)), "")


def test_a_container_whose_log_is_full_can_be_stopped_and_what_is_lost_then_is_told(engine, small_disk):
    cid = engine.create(["/bin/sh", "-c", "seq 1 60000; exec sleep 1000"])
    configure(engine, cid, {"driver": "json-file", "path": small_disk + "/log"})
    fill(small_disk)
    engine.runtime.start(cid)
    engine.until(lambda: trouble(engine, cid))
    engine.runtime.stop(cid, timeout=0.1)
    state = engine.runtime.wait(cid, timeout=20)
    assert state["status"] == "exited" and engine.leavings(cid) == []
    assert "bytes of its output are lost: " in state["log_error"]
    waiting = list(logs.read(small_disk + "/log"))
    assert [int(record["log"]) for record in waiting] == list(range(1, len(waiting) + 1))


def test_how_a_container_ended_is_recorded_on_a_full_disk_too(engine, small_disk):
    """Log and state.json mostly share one file system."""
    cid = engine.create(["/bin/sh", "-c", "seq 1 60000; exec sleep 1000"])
    directory = engine.paths.container(cid)
    shutil.copytree(directory, small_disk, dirs_exist_ok=True)
    subprocess.run(["mount", "--bind", small_disk, directory], check=True)
    try:
        engine.runtime.start(cid)
        pid = engine.runtime.state(cid)["pid"]
        fill(small_disk, room=0)
        engine.until(lambda: "No space left on device" in trouble(engine, cid))
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGKILL)
        engine.until(lambda: engine.runtime.state(cid)["status"] == "exited")
        state = engine.runtime.state(cid)
        assert state["exit_code"] == 137 and "bytes of its output are lost" in state["log_error"]
        assert state["finished_at"] > state["started_at"]
    finally:
        engine.runtime.delete(cid)
        subprocess.run(["umount", "-l", directory], check=True)


def test_a_container_that_must_not_wait_goes_on_and_keeps_its_newest_lines(engine, small_disk):
    command = "seq 1 400000; until [ -e /tmp/go ]; do sleep 0.02; done; echo after; exec sleep 1000"
    cid = engine.create(["/bin/sh", "-c", command])
    configure(engine, cid, {"driver": "json-file", "path": small_disk + "/log", "max_buffer": 100_000})
    fill(small_disk)
    engine.runtime.start(cid)
    spool = engine.paths.container_run(cid) + "/stdout.spool"
    size = sum(len("%d\n" % number) for number in range(1, 400001))
    engine.until(lambda: os.path.exists(spool) and os.path.getsize(spool) == size)  # it was not held up
    assert os.stat(spool).st_blocks * 512 < 400_000
    subprocess.run(["mount", "-o", "remount,size=16m", small_disk], check=True)
    assert engine.exec(cid, "/bin/touch", "/tmp/go").exit_code == 0
    engine.until(lambda: last_in(small_disk + "/log") == "after\n")
    numbers = [int(record["log"]) for record in list(logs.read(small_disk + "/log"))[:-1]]
    assert numbers == list(range(numbers[0], 400001)), "whole lines, the newest, none missing between them"
    assert sum(len("%d\n" % number) for number in numbers) <= 100_000
    engine.until(lambda: "oldest lines were given up" in trouble(engine, cid))
    assert "the %d oldest" % (400000 - len(numbers)) in trouble(engine, cid)
    engine.runtime.kill(cid, signal.SIGKILL)


def test_a_monitor_whose_syslog_is_down_is_replaced_all_the_same(engine):
    directory = tempfile.mkdtemp(prefix="wl", dir="/run")
    receiver = Receiver("unix", directory)
    cid = engine.create(["/bin/sh", "-c", "i=0; while true; do i=$((i+1)); echo $i; sleep 0.01; done"])
    configure(engine, cid, {"driver": "syslog", "address": receiver.url, "tag": "t"})
    engine.runtime.start(cid)
    got = [int(receiver.message().split()[-1]) for _n in range(5)]
    receiver.close()
    engine.until(lambda: trouble(engine, cid))
    kill_monitor(engine, cid)
    assert engine.exec(cid, "/bin/echo", "here").stdout == b"here\n"
    engine.until(lambda: trouble(engine, cid))
    receiver.open()
    got += [int(receiver.message().split()[-1]) for _n in range(50)]
    # What the old daemon had taken and not read is its own.
    assert got == sorted(set(got)) and len(range(got[4], got[5])) < 50
    assert got[5:] == list(range(got[5], got[5] + 50))
    engine.runtime.kill(cid, signal.SIGKILL)
    receiver.close()
    shutil.rmtree(directory)


def test_a_flood_of_one_container_does_not_delay_the_others(engine):
    """Each has a monitor of its own: while one floods, another's lines come through, and it can be talked to."""
    flood = create(engine, "exec yes flood", "json-file", max_size=1 << 20, max_file=2)
    quiet = create(engine, "i=0; while [ $i -lt 50 ]; do i=$((i+1)); echo $i; done; exec sleep 1000", "json-file")
    engine.runtime.start(flood)
    path = engine.paths.container(flood) + "/log"
    engine.until(lambda: os.path.exists(path + ".1"))
    inode = os.stat(path + ".1").st_ino
    engine.runtime.start(quiet)
    engine.until(lambda: last(engine, quiet) == "50\n")
    assert engine.exec(flood, "/bin/echo", "still").stdout == b"still\n"
    engine.until(lambda: os.stat(path + ".1").st_ino != inode)  # and it floods on
    for cid in (flood, quiet):
        engine.runtime.stop(cid, timeout=0.1)


def test_what_compressed_a_file_of_the_log_leaves_no_zombie(engine):
    script = "seq 1 5000; until [ -e /tmp/go ]; do sleep 0.02; done; seq 1 5000; exec sleep 1000"
    cid = create(engine, script, "json-file", max_size=300_000, max_file=3, compress=True)
    engine.runtime.start(cid)
    path = engine.paths.container(cid) + "/log"
    engine.until(lambda: os.path.exists(path + ".1.gz"))
    pid = monitor(engine, cid)

    def children():
        with open("/proc/%d/task/%d/children" % (pid, pid)) as stream:
            return [int(child) for child in stream.read().split()]

    engine.until(lambda: children() == [engine.runtime.state(cid)["pid"]])
    engine.exec(cid, "/bin/touch", "/tmp/go")
    engine.until(lambda: os.path.exists(path + ".2.gz"))
    engine.until(lambda: children() == [engine.runtime.state(cid)["pid"]])
    engine.runtime.kill(cid, signal.SIGKILL)


def test_a_terminals_output_waits_for_its_log_like_any_other(engine, small_disk):
    cid = engine.create(["/bin/sh", "-c", "seq 1 60000; exec sleep 1000"], tty=True)
    configure(engine, cid, {"driver": "json-file", "path": small_disk + "/log"})
    fill(small_disk, room=0)
    os.truncate(small_disk + "/filler", os.path.getsize(small_disk + "/filler") - 4096)
    engine.runtime.start(cid)
    engine.until(lambda: "No space left on device" in trouble(engine, cid))
    subprocess.run(["mount", "-o", "remount,size=16m", small_disk], check=True)
    engine.until(lambda: last_in(small_disk + "/log") == "60000\r\n")
    assert [int(record["log"]) for record in logs.read(small_disk + "/log")] == list(range(1, 60001))
    engine.until(lambda: not trouble(engine, cid))
    engine.runtime.kill(cid, signal.SIGKILL)


def test_a_line_that_was_begun_before_the_monitor_died_is_whole_afterwards(engine):
    script = "printf be; printf er >&2; until [ -e /tmp/go ]; do sleep 0.02; done; echo gun; echo ror >&2; sleep 1000"
    cid = create(engine, script, "json-file")
    engine.runtime.start(cid)
    run = engine.paths.container_run(cid)
    engine.until(lambda: [os.path.getsize("%s/%s.spool" % (run, name)) for name in ("stdout", "stderr")] == [2, 2])
    kill_monitor(engine, cid)
    engine.exec(cid, "/bin/touch", "/tmp/go")
    engine.until(lambda: len(said(engine, cid)) + len(said(engine, cid, "stderr")) == 2)
    assert said(engine, cid) == ["begun"] and said(engine, cid, "stderr") == ["error"]
    engine.runtime.kill(cid, signal.SIGKILL)


def test_what_a_container_says_last_while_nobody_watches_is_in_its_log(engine):
    """Its monitor is killed, it ends, and only then somebody looks after it."""
    cid = create(
        engine, "echo first; until [ -e /tmp/go ]; do sleep 0.02; done; seq 1 3000; printf end >&2", "json-file"
    )
    engine.runtime.start(cid)
    engine.until(lambda: said(engine, cid) == ["first"])
    state, spawner = engine.runtime.state(cid), engine.spawner_pid()
    root = "/proc/%d/root" % state["pid"]
    os.kill(spawner, signal.SIGSTOP)
    try:
        os.kill(state["monitor_pid"], signal.SIGKILL)
        with open(root + "/tmp/go", "w"):
            pass
        engine.until(lambda: not procfs.is_alive(state["pid"], state["pid_start"]))
    finally:
        os.kill(spawner, signal.SIGCONT)
    engine.until(lambda: said(engine, cid, "stderr") == ["end"])
    assert said(engine, cid) == ["first", *(str(number) for number in range(1, 3001))]
    assert engine.runtime.state(cid)["status"] == "exited"


def test_a_restarted_container_is_watched_over_in_the_same_way(engine):
    script = "echo run >> /tmp/runs; until [ -e /tmp/go ]; do sleep 0.02; done; seq 1 3000; exit 1"
    cid = engine.create(["/bin/sh", "-c", script], run={"restart": {"policy": "on-failure", "retries": 1}})
    engine.runtime.start(cid)
    first = engine.runtime.state(cid)
    os.kill(first["pid"], signal.SIGKILL)

    def runs_again():
        state = engine.runtime.state(cid)
        return state["pid"] != first["pid"] and state["status"] == "running"

    engine.until(runs_again)
    state, spawner = engine.runtime.state(cid), engine.spawner_pid()
    root = "/proc/%d/root" % state["pid"]
    os.kill(spawner, signal.SIGSTOP)
    try:
        os.kill(state["monitor_pid"], signal.SIGKILL)
        with open(root + "/tmp/go", "w"):
            pass
        engine.until(lambda: not procfs.is_alive(state["pid"], state["pid_start"]))
    finally:
        os.kill(spawner, signal.SIGCONT)
    engine.until(lambda: len(said(engine, cid)) == 3000)


def test_the_spawner_keeps_nothing_of_containers_that_have_ended(engine):
    def held():
        links = []
        for fd in os.listdir("/proc/%d/fd" % spawner):
            try:
                links.append(os.readlink("/proc/%d/fd/%s" % (spawner, fd)))
            except FileNotFoundError:  # closed meanwhile
                continue
        return [link for link in links if link.endswith(("/stdout", "/stderr"))]

    cid = engine.start("exec sleep 1000")
    spawner = engine.spawner_pid()
    engine.until(lambda: len([link for link in held() if cid in link]) == 2)
    kill_monitor(engine, cid)
    engine.until(lambda: len([link for link in held() if cid in link]) == 2)
    engine.runtime.stop(cid, timeout=0.1)
    engine.until(lambda: not any(cid in link for link in held()))
