# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from module_utils._engine.runtime import logs


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "log")


def text(path, **more):
    return "".join(record["log"] for record in logs.read(path, **more))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=20), st.booleans())
def test_any_bytes_cut_anywhere_come_out_as_they_went_in(tmp_path_factory, pieces, newlines):
    path = str(tmp_path_factory.mktemp("log") / "log")
    if newlines:
        pieces = [piece.replace(b"a", b"\n") for piece in pieces]
    writer = logs.Writer(path)
    for piece in pieces:
        writer.write("stdout", piece)
    writer.flush()
    writer.close()
    whole = b"".join(pieces)
    assert text(path) == "\n".join(line.decode("utf-8", "replace") for line in whole.split(b"\n"))


def test_a_record_has_dockers_shape(path):
    writer = logs.Writer(path, labels={"app": "web"})
    writer.write("stderr", b"line\n")
    record = json.loads(open(path).read())
    assert record["log"] == "line\n" and record["stream"] == "stderr" and record["attrs"] == {"app": "web"}
    assert len(record["time"]) == len("2026-01-01T00:00:00.000000000Z")


def test_a_long_line_is_cut_into_records_at_character_boundaries(path):
    writer = logs.Writer(path)
    line = "é" * 20000
    writer.write("stdout", b"x" + line.encode() + b"\n")
    records = list(logs.read(path))
    assert "".join(r["log"] for r in records) == "x" + line + "\n"
    assert all(len(r["log"].encode()) <= logs.MAX_RECORD and "�" not in r["log"] for r in records)
    assert not any(r["log"].endswith("\n") for r in records[:-1])


def test_the_two_streams_do_not_mix_within_a_line(path):
    writer = logs.Writer(path)
    for stream, data in (("stdout", b"a"), ("stderr", b"x"), ("stdout", b"b\n"), ("stderr", b"y\n")):
        writer.write(stream, data)
    assert [(r["stream"], r["log"]) for r in logs.read(path)] == [("stdout", "ab\n"), ("stderr", "xy\n")]


def test_rotation_keeps_the_newest_files_and_their_order(path):
    writer = logs.Writer(path, max_size=500, max_file=3)
    for number in range(100):
        writer.write("stdout", b"%d\n" % number)
    assert [os.path.basename(name) for name in logs.files(path)] == ["log.2", "log.1", "log"]
    numbers = [int(r["log"]) for r in logs.read(path)]
    assert numbers == list(range(numbers[0], 100)) and len(numbers) > 5


def test_one_file_is_emptied_when_it_is_full(path):
    writer = logs.Writer(path, max_size=300, max_file=1)
    for number in range(50):
        writer.write("stdout", b"%d\n" % number)
    assert os.listdir(os.path.dirname(path)) == ["log"] and os.path.getsize(path) <= 300
    assert text(path).endswith("49\n")


@pytest.mark.parametrize("count", [0, 1, 3, 50, 99, 100, 1000])
def test_tail_is_the_end_of_the_whole(path, count):
    writer = logs.Writer(path, max_size=2000, max_file=100)
    for number in range(100):
        writer.write("stdout", b"%d\n" % number)
    everything = list(logs.read(path))
    assert list(logs.read(path, tail=count)) == (everything[-count:] if count else [])


def test_since_and_until_are_inclusive(path):
    with open(path, "w") as stream:
        for second in range(10):
            stamp = logs.timestamp(second * 1_000_000_000)
            stream.write(json.dumps({"log": "%d\n" % second, "stream": "stdout", "time": stamp}) + "\n")
    assert text(path, since=3, until=5) == "3\n4\n5\n"
    assert text(path, since=3, until=5, tail=2) == "4\n5\n"


def test_a_torn_line_is_skipped(path):
    writer = logs.Writer(path)
    writer.write("stdout", b"one\n")
    with open(path, "a") as stream:
        stream.write('{"log": "torn\n')
    writer.write("stdout", b"two\n")
    assert text(path) == "one\ntwo\n"
    assert text(path, tail=5) == "one\ntwo\n"


def test_a_full_disk_loses_records_and_says_so(path, monkeypatch):
    writer = logs.Writer(path)
    writer.write("stdout", b"before\n")
    real = os.write

    def full(fd, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(logs.os, "write", full)
    writer.write("stdout", b"lost 1\nlost 2\n")
    monkeypatch.setattr(logs.os, "write", real)
    writer.write("stdout", b"after\n")
    lines = text(path).split("\n")
    assert lines[0] == "before" and "2 log records were lost" in lines[1] and lines[2] == "after"


def test_a_missing_log_is_empty(path):
    assert list(logs.read(path)) == [] and list(logs.read(path + "/no", tail=3)) == []
