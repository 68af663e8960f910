# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a container says is in its log once, whole and in order, whatever happens to those who write it down."""

from __future__ import annotations

import json
import os
import random
import signal

import pytest
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
