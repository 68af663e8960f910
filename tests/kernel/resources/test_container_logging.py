# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""``log_driver`` and ``log_options`` as tasks ask for them, and ``container_logs``."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any, Callable

import pytest
from helpers.engine import Engine
from helpers.log_receivers import Journal, Receiver
from module_utils._engine.errors import StartError, TimedOut, UnhealthyError, UsageError
from module_utils._engine.runtime import logsocket

TALK = ["sh", "-c", "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.02; done"]
SLEEP = ["sleep", "1000"]


@pytest.fixture
def directory() -> Iterator[str]:
    made = tempfile.mkdtemp(prefix="wl", dir="/run")
    yield made
    shutil.rmtree(made)


@pytest.fixture
def journal(directory: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Journal]:
    made = Journal(directory)
    monkeypatch.setattr(logsocket, "JOURNAL", made.place)
    yield made
    made.close()


def until(condition: Callable[[], Any], timeout: float = 10.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "not within %g seconds" % timeout
        time.sleep(0.02)


def log_directory(engine: Engine, name: str) -> str:
    return engine.paths.container(engine.inspect(name)["Id"])


def lines(engine: Engine, name: str, **more: Any) -> list[str]:
    return [line["line"] for line in engine.run("container_logs", name=name, **more)["lines"]]


@pytest.mark.parametrize(
    "driver, options, words",
    [
        ("json-file", {"max-size": "lots"}, "log_options.max-size"),
        ("json-file", {"max-size": "0"}, "not a positive size"),
        ("json-file", {"max-file": "0"}, "at least 1"),
        ("json-file", {"compress": "true"}, "max-file is less than 2 or max-size is not set"),
        ("json-file", {"compress": "yes", "max-size": "1m", "max-file": "3"}, "neither true nor false"),
        ("json-file", {"syslog-address": "udp://h"}, "not an option of the log driver json-file"),
        ("json-file", {"labels-regex": "("}, "not a regular expression"),
        ("json-file", {"tag": "{{.Nope}}"}, "Nope"),
        ("json-file", {"tag": "{{.ID"}, "log_options.tag"),
        ("json-file", {"mode": "maybe"}, "neither blocking nor non-blocking"),
        ("json-file", {"max-buffer-size": "1m"}, "needs mode to be non-blocking"),
        ("local", {"max-size": "-1"}, "log_options.max-size"),
        ("local", {"labels": "a"}, "not an option of the log driver local"),
        ("none", {"max-size": "1m"}, "not an option of the log driver none"),
        ("syslog", {"syslog-address": "http://h"}, "does not begin with"),
        ("syslog", {"syslog-address": "tcp://h:port"}, "not HOST or HOST:PORT"),
        ("syslog", {"syslog-address": "tcp+tls://h:6514"}, "not supported"),
        ("syslog", {"syslog-address": "unix://relative"}, "not an absolute path"),
        ("syslog", {"syslog-address": "unixgram:///no/such/socket"}, "does not exist"),
        ("syslog", {"syslog-facility": "local9"}, "is none of kern"),
        ("syslog", {"syslog-format": "rfc1"}, "is none of rfc3164"),
        ("syslog", {"syslog-tls-cert": "/x"}, "is not supported"),
        ("journald", {"max-size": "1m"}, "not an option of the log driver journald"),
    ],
)
def test_a_log_that_makes_no_sense_is_refused_before_anything_changes(
    shared: Engine, driver: str, options: dict[str, str], words: str
) -> None:
    with pytest.raises(UsageError) as refused:
        shared.container("bad", command=SLEEP, log_driver=driver, log_options=options)
    assert words in refused.value.msg
    assert not shared.run("container_info", name="bad")["exists"]


def test_journald_is_refused_where_it_does_not_run(shared: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logsocket, "JOURNAL", "/no/such/socket")
    with pytest.raises(UsageError, match="needs systemd-journald, which does not run here: /no/such/socket is missing"):
        shared.container("bad", command=SLEEP, log_driver="journald")


def test_driver_and_options_change_on_the_running_container(shared: Engine, directory: str) -> None:
    receiver = Receiver("tcp", directory)
    shared.container("live", command=TALK)
    pid, where = shared.pid("live"), log_directory(shared, "live")
    until(lambda: len(lines(shared, "live")) > 3)
    wishes: list[dict[str, Any]] = [
        {"log_driver": "local", "log_options": {"max-size": "2k", "max-file": "3"}},
        {"log_driver": "syslog", "log_options": {"syslog-address": receiver.url, "tag": "{{.Name}}/{{.ImageName}}"}},
        {"log_driver": "syslog", "log_options": {"syslog-address": receiver.url, "tag": "other"}},
        {"log_driver": "json-file", "log_options": {"max-size": "2k", "max-file": "3", "compress": "true"}},
        {},
    ]
    for wish in wishes:
        planned = shared.container("live", check=True, command=TALK, **wish)
        done = shared.container("live", command=TALK, **wish)
        for result in (planned, done):
            assert {action["how"] for action in result["actions"]} == {"live"}, wish
        assert not shared.container("live", command=TALK, **wish)["changed"]
        config = shared.inspect("live")["HostConfig"]["LogConfig"]
        assert config == {"Type": wish.get("log_driver", "json-file"), "Config": wish.get("log_options", {})}
        if wish.get("log_driver") == "local":
            until(lambda: os.path.exists(where + "/log.local.1.gz"))
        elif wish.get("log_driver") == "syslog":
            expected = b"live/" if "{{" in wish["log_options"]["tag"] else b"other["
            until(lambda expected=expected: expected in receiver.message())
        elif wish:
            until(lambda: os.path.exists(where + "/log.1.gz"))
            with gzip.open(where + "/log.1.gz") as stream:
                assert json.loads(stream.readline())["log"].startswith("line ")
    assert shared.pid("live") == pid
    receiver.close()


def test_what_local_keeps_is_read_like_what_json_file_keeps(shared: Engine) -> None:
    script = "echo one; echo two >&2; head -c 40000 /dev/zero | busybox tr '\\0' x; echo; printf end"
    for driver in ("json-file", "local"):
        shared.container(driver, command=["sh", "-c", script], detach=False, log_driver=driver)
        assert sorted(lines(shared, driver)) == ["end", "one", "two", "x" * 40000]
        assert lines(shared, driver, stdout=False) == ["two"]
        assert lines(shared, driver, tail=2, stderr=False) == ["x" * 40000, "end"]
        path = shared.inspect(driver)["LogPath"]
        assert bool(path) is (driver == "json-file")


def test_labels_and_variables_go_along_as_attributes(shared: Engine) -> None:
    wish: dict[str, Any] = {
        "command": TALK,
        "env": {"REGION": "north", "OTHER": "x", "SECRET": "s"},
        "log_options": {
            "labels": "tier, none", "labels-regex": "^team", "env": "REGION", "env-regex": "^OTH", "tag": "{{.Name}}",
        },
    }  # fmt: skip
    shared.container("attrs", labels={"tier": "front end", "team.name": "a", "x": "y"}, **wish)
    until(lambda: lines(shared, "attrs"))
    found = shared.run("container_logs", name="attrs", details=True, tail=1)
    attrs = {"tier": "front end", "team.name": "a", "REGION": "north", "OTHER": "x", "tag": "attrs"}
    assert found["lines"][0]["attrs"] == attrs
    assert found["stdout"].startswith("OTHER=x,REGION=north,tag=attrs,team.name=a,tier=front%20end line ")
    assert "attrs" not in shared.run("container_logs", name="attrs", tail=1)["lines"][0]
    changed = shared.container("attrs", labels={"tier": "back"}, **wish)
    assert [action["how"] for action in changed["actions"]] == ["live"]
    until(
        lambda: shared.run("container_logs", name="attrs", details=True, tail=1)["lines"][0]["attrs"]["tier"] == "back"
    )


def test_journald_gets_what_docker_would_send(shared: Engine, journal: Journal) -> None:
    shared.container(
        "journal",
        command=["sh", "-c", "echo hello; sleep 1000"],
        labels={"com.example.tier": "front", "_SYSTEMD_UNIT": "forged"},
        log_driver="journald",
        log_options={"labels": "com.example.tier,_SYSTEMD_UNIT", "tag": "{{.ImageName}}/{{.Name}}/{{.ID}}"},
    )
    entry, shown = journal.entry(), shared.inspect("journal")
    short = shown["Id"][:12]
    assert entry["MESSAGE"] == b"hello" and entry["PRIORITY"] == b"6"
    assert entry["CONTAINER_ID"].decode() == short and entry["CONTAINER_ID_FULL"].decode() == shown["Id"]
    assert entry["CONTAINER_NAME"] == b"journal" and entry["IMAGE_NAME"] == b"bb:1"
    assert entry["CONTAINER_TAG"] == entry["SYSLOG_IDENTIFIER"] == ("bb:1/journal/" + short).encode()
    assert entry["COM_EXAMPLE_TIER"] == b"front"
    assert not any(name.startswith("_") for name in entry), "those are journald's own to say"
    with pytest.raises(UsageError, match="journalctl CONTAINER_NAME=journal"):
        shared.logs("journal")


@pytest.mark.parametrize("driver, words", [("none", "keeps no log"), ("syslog", "sends its output to syslog")])
def test_a_log_kept_elsewhere_is_refused_with_where_it_is(
    shared: Engine, directory: str, driver: str, words: str
) -> None:
    receiver = Receiver("unixgram", directory)
    options = {"syslog-address": receiver.url} if driver == "syslog" else {}
    shared.container("elsewhere", command=SLEEP, log_driver=driver, log_options=options)
    with pytest.raises(UsageError, match=words):
        shared.logs("elsewhere")
    shared.run("container", name="elsewhere", state="absent", force_kill=True)
    receiver.close()


def test_a_line_is_waited_for(shared: Engine) -> None:
    script = "echo starting; until [ -e /go ]; do sleep 0.02; done; echo ready on port 80 >&2; sleep 1000"
    shared.container("wait", command=["sh", "-c", script])
    begun = threading.Timer(0.2, lambda: shared.exec("wait", "touch", "/go"))
    begun.start()
    found = shared.run("container_logs", name="wait", wait_for="port ([0-9]+)$", wait_timeout=20, tail=0)
    begun.join()
    assert found["matched"]["line"] == "ready on port 80" and found["matched"]["stream"] == "stderr"
    assert found["stdout"] == "" and not found["changed"]
    assert shared.run("container_logs", name="wait", wait_for="^starting$")["matched"]["stream"] == "stdout"
    with pytest.raises(TimedOut, match=r"no line that matches 'nothing' within 0\.1 seconds") as failed:
        shared.run("container_logs", name="wait", wait_for="nothing", wait_timeout=0.1)
    assert failed.value.details["logs"] == ["starting", "ready on port 80"]
    with pytest.raises(TimedOut):
        shared.run("container_logs", name="wait", wait_for="ready", stderr=False, wait_timeout=0.1)
    with pytest.raises(UsageError, match="not a regular expression"):
        shared.run("container_logs", name="wait", wait_for="(")


def test_a_line_is_not_waited_for_in_vain_nor_found_in_an_earlier_run(shared: Engine) -> None:
    script = "[ -e /once ] || echo only once; echo > /once; sleep 0.1; echo last words"
    shared.container("vain", command=["sh", "-c", script], detach=False)
    shared.container("vain", command=["sh", "-c", script], restart=True)
    assert shared.run("container_logs", name="vain", wait_for="last")["matched"]["line"] == "last words"
    with pytest.raises(UnhealthyError, match="is not running, and it has written no line that matches 'only once'"):
        shared.run("container_logs", name="vain", wait_for="only once")
    assert shared.run("container_logs", name="vain", wait_for="only once", since="1h")["matched"]["line"] == "only once"


def test_a_log_that_cannot_be_written_is_seen_in_the_inspection(shared: Engine, directory: str) -> None:
    receiver = Receiver("unix", directory)
    options = {"syslog-address": receiver.url, "tag": "{{.Name}}"}
    shared.container("mute", command=TALK, log_driver="syslog", log_options=options)
    assert b" mute[" in receiver.message()
    shared.run("container_rename", container="mute", name="loud")
    until(lambda: b" loud[" in receiver.message())
    receiver.close()
    until(lambda: "The log cannot be written" in shared.inspect("loud")["State"]["Error"])
    assert shared.inspect("loud")["State"]["Running"]
    receiver.open()
    until(lambda: not shared.inspect("loud")["State"]["Error"])
    shared.run("container", name="loud", state="absent", force_kill=True)
    receiver.close()


def test_a_syslog_that_is_not_there_fails_the_task_and_leaves_the_log_as_it_was(shared: Engine) -> None:
    shared.container("kept", command=TALK)
    pid = shared.pid("kept")
    options = {"syslog-address": "tcp://127.0.0.1:1"}
    with pytest.raises(StartError, match=r"syslog cannot write to tcp://127\.0\.0\.1:1: Connection refused"):
        shared.container("kept", command=TALK, log_driver="syslog", log_options=options)
    before = len(lines(shared, "kept"))
    until(lambda: len(lines(shared, "kept")) > before)
    assert shared.pid("kept") == pid and shared.inspect("kept")["HostConfig"]["LogConfig"]["Type"] == "json-file"
