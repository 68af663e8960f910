# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The log drivers journald and syslog, received by the test."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import tempfile

import pytest
from helpers.log_receivers import Journal, Receiver
from module_utils._engine.errors import StartError

FIELDS = {"CONTAINER_ID": "0123456789ab", "CONTAINER_NAME": "web", "CONTAINER_TAG": "a tag", "IMAGE_NAME": "img:1"}


@pytest.fixture
def directory():
    made = tempfile.mkdtemp(prefix="wl", dir="/run")
    yield made
    shutil.rmtree(made)


@pytest.fixture
def journal(directory):
    made = Journal(directory)
    yield made
    made.close()


def start(engine, command, log):
    cid = engine.create(["/bin/sh", "-c", command], run={"log": log})
    engine.runtime.start(cid)
    return cid


def journald(journal, **fields):
    return {"driver": "journald", "address": journal.place, "fields": {**FIELDS, **fields}}


def test_journald_gets_dockers_fields_with_each_line(engine, journal):
    start(engine, "echo one; echo two >&2; printf three", journald(journal))
    entries = sorted((journal.entry() for _n in range(3)), key=lambda e: [b"one", b"two", b"three"].index(e["MESSAGE"]))
    for entry, priority in zip(entries, (b"6", b"3", b"6")):
        assert {name: entry[name].decode() for name in FIELDS} == FIELDS
        assert entry["PRIORITY"] == priority and not any("PARTIAL" in name for name in entry)
        assert re.fullmatch(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", entry["SYSLOG_TIMESTAMP"])


def test_journald_gets_a_long_line_in_parts_that_say_so(engine, journal):
    start(engine, "head -c 40000 /dev/zero | busybox tr '\\0' x; echo; echo next", journald(journal))
    parts = [journal.entry() for _n in range(3)]
    assert b"".join(part["MESSAGE"] for part in parts) == b"x" * 40000
    assert [part["CONTAINER_PARTIAL_ORDINAL"] for part in parts] == [b"1", b"2", b"3"]
    assert [part["CONTAINER_PARTIAL_LAST"] for part in parts] == [b"false", b"false", b"true"]
    assert [part.get("CONTAINER_PARTIAL_MESSAGE") for part in parts] == [b"true", b"true", None]
    assert len({part["CONTAINER_PARTIAL_ID"] for part in parts}) == 1
    assert journal.entry()["MESSAGE"] == b"next"


def test_a_field_of_several_lines_reaches_journald_whole(engine, journal):
    start(engine, "echo one", journald(journal, NOTE="first\nsecond"))
    assert journal.entry()["NOTE"] == b"first\nsecond"


def test_what_is_too_large_for_a_datagram_reaches_journald_as_a_sealed_file(engine, journal):
    start(engine, "echo one; echo two", journald(journal, LARGE="y" * 1_000_000))
    for message in (b"one", b"two"):
        entry = journal.entry()
        assert entry["MESSAGE"] == message and entry["LARGE"] == b"y" * 1_000_000


def test_a_journald_that_is_slow_or_restarted_gets_every_line(engine, journal):
    cid = start(engine, "seq 1 20000; exec sleep 1000", journald(journal))
    got = [journal.entry()["MESSAGE"] for _n in range(5000)]
    while True:  # what the old one's queue holds is the old one's
        journal.sock.setblocking(False)
        try:
            got.append(journal.sock.recv(1 << 16).rpartition(b"MESSAGE=")[2].rstrip(b"\n"))
        except BlockingIOError:
            break
    journal.close()
    journal.open()
    last = int(got[-1])
    while last < 20000:
        last = int(journal.entry()["MESSAGE"])
        got.append(b"%d" % last)
    numbers = [int(line) for line in got]
    assert numbers == sorted(numbers) and len(set(numbers)) == len(numbers)
    assert len(numbers) >= 20000 - 300, "more is missing than the old one's queue can have held"
    engine.runtime.kill(cid, signal.SIGKILL)


@pytest.mark.parametrize("kind", ["udp", "tcp", "unix", "unixgram"])
@pytest.mark.parametrize(
    "form, pattern",
    [
        ("", rb"<%d>[A-Z][a-z]{2} [ 1-3]\d \d\d:\d\d:\d\d web\[\d+\]: %s"),
        ("rfc3164", rb"<%d>[A-Z][a-z]{2} [ 1-3]\d \d\d:\d\d:\d\d HOST web\[\d+\]: %s"),
        ("rfc5424", rb"<%d>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:Z|[+-]\d\d:\d\d) HOST web \d+ web - %s"),
        ("rfc5424micro", rb"<%d>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(?:Z|[+-]\d\d:\d\d) HOST web \d+ web - %s"),
    ],
)
def test_syslog_gets_each_line_in_the_format_and_over_the_transport_asked_for(engine, directory, kind, form, pattern):
    receiver = Receiver(kind, directory)
    log = {"driver": "syslog", "address": receiver.url, "format": form, "facility": "local3", "tag": "web"}
    start(engine, "echo one; echo two >&2", log)
    end = b"\n" if receiver.stream else b""
    found = sorted(receiver.messages(2), key=lambda message: b"two" in message)
    pattern = pattern.replace(b"HOST", re.escape(socket.gethostname().encode()))
    for message, severity, words in zip(found, (6, 3), (b"one", b"two")):
        assert re.fullmatch(pattern % (19 * 8 + severity, words) + end, message), message
    receiver.close()


@pytest.mark.parametrize("kind", ["tcp", "unix", "unixgram"])
def test_a_syslog_that_is_down_stalls_the_container_and_gets_everything_when_it_is_back(engine, directory, kind):
    receiver = Receiver(kind, directory)
    log = {"driver": "syslog", "address": receiver.url, "tag": "web"}
    cid = start(engine, "echo ready; until [ -e /tmp/go ]; do sleep 0.02; done; seq 1 3000; exec sleep 1000", log)
    assert b"ready" in receiver.message()
    receiver.close()
    assert engine.exec(cid, "/bin/touch", "/tmp/go").exit_code == 0
    engine.until(lambda: engine.runtime.state(cid)["log_error"])
    assert "The log cannot be written" in engine.runtime.state(cid)["log_error"]
    receiver.open()
    assert [int(receiver.message().split()[-1]) for _n in range(3000)] == list(range(1, 3001))
    engine.until(lambda: not engine.runtime.state(cid)["log_error"])
    engine.runtime.kill(cid, signal.SIGKILL)
    receiver.close()


@pytest.mark.parametrize("seed", range(3))
def test_a_monitor_that_is_killed_has_at_most_one_line_sent_twice(engine, directory, seed):
    receiver = Receiver("tcp", directory)
    log = {"driver": "syslog", "address": receiver.url, "tag": "web"}
    cid = start(engine, "seq 1 30000; exec sleep 1000", log)
    got, kills = [], 0
    while not got or got[-1] < 30000:
        got.append(int(receiver.message().split()[-1]))
        if kills < 3 and got[-1] == 5000 * (kills + 1) + 1000 * seed:
            os.kill(engine.runtime.state(cid)["monitor_pid"], signal.SIGKILL)
            kills += 1
    assert kills == 3 and set(got) == set(range(1, 30001)) and len(got) <= 30000 + kills
    engine.runtime.kill(cid, signal.SIGKILL)
    receiver.close()


def test_a_log_that_cannot_be_opened_is_why_the_container_does_not_start(engine, directory):
    for log in (
        {"driver": "journald", "address": directory + "/none", "fields": {}},
        {"driver": "syslog", "address": "tcp://127.0.0.1:1", "tag": "web"},
    ):
        cid = engine.create(["/bin/true"], run={"log": log})
        with pytest.raises(
            StartError, match="The log driver %s cannot write to %s: " % (log["driver"], log["address"])
        ):
            engine.runtime.start(cid)
        assert engine.leavings(cid) == []


def test_the_driver_is_changed_while_the_container_speaks(engine, directory, journal):
    receiver = Receiver("tcp", directory)
    cid = engine.start("i=0; while [ $i -lt 100000 ]; do i=$((i+1)); echo $i; done; exec sleep 1000")
    path = engine.paths.container(cid) + "/log"
    engine.until(lambda: os.path.getsize(path) > 10000)
    engine.runtime.update(cid, {"log": {"driver": "syslog", "address": receiver.url, "tag": "web"}})
    sent = [int(receiver.message().split()[-1]) for _n in range(100)]
    engine.runtime.update(cid, {"log": {"driver": "local", "path": path + ".local"}})
    engine.until(lambda: engine.output(cid).endswith("100000\n"))
    kept = [int(line) for line in engine.output(cid).split()]
    while sent[-1] + 1 not in kept:
        sent.append(int(receiver.message().split()[-1]))
    assert sorted(kept + sent) == list(range(1, 100001))
    with pytest.raises(StartError, match="cannot write to tcp:"):
        engine.runtime.update(cid, {"log": {"driver": "syslog", "address": "tcp://127.0.0.1:1", "tag": ""}})
    with open(engine.paths.container(cid) + "/run.json") as stream:
        assert json.load(stream)["log"]["driver"] == "local"
    engine.runtime.kill(cid, signal.SIGKILL)
    receiver.close()
