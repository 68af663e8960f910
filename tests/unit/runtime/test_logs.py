# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import gzip
import json
import os
import re

import pytest
from helpers.log_kit import Log
from hypothesis import given, settings
from hypothesis import strategies as st
from module_utils._engine.runtime import logfile, logs
from module_utils._engine.runtime.pump import MAX_RECORD

DRIVERS = ["json-file", "local"]


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "log")


def text(path, **more):
    return "".join(record["log"] for record in logs.read(path, **more))


def joined(path, tail=None):
    return [line["log"] for line in logs.lines(path, logs.Choice(), tail)]


@pytest.mark.parametrize("driver", DRIVERS)
@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=20), st.booleans())
def test_any_bytes_cut_anywhere_come_out_as_they_went_in(tmp_path_factory, driver, pieces, newlines):
    log = Log(tmp_path_factory.mktemp("log"), driver)
    if newlines:
        pieces = [piece.replace(b"a", b"\n") for piece in pieces]
    for piece in pieces:
        log.write("stdout", piece)
    log.close()
    whole = b"".join(pieces)
    assert text(log.path) == "\n".join(line.decode("utf-8", "replace") for line in whole.split(b"\n"))


def test_a_json_record_has_dockers_shape(tmp_path, path):
    log = Log(tmp_path, attrs={"app": "wéb"})
    log.write("stderr", b"line\n")
    raw = open(path, encoding="utf-8").read()
    assert re.fullmatch(r'\{"log":"line\\n","stream":"stderr","attrs":\{"app":"wéb"\},"time":"[^"]*"\}\n', raw)
    assert len(json.loads(raw)["time"]) == len("2026-01-01T00:00:00.000000000Z")


@pytest.mark.parametrize(
    "line",
    [b'{"json": "in json"}', b"back\\nslash", b"\x1b[1mcolour\x1b[0m\ttab", b"\xff\xfe", "ü\ud7ff\U0001f600".encode()],
)
def test_lines_that_json_must_escape_come_back_unchanged(tmp_path, path, line):
    log = Log(tmp_path)
    log.write("stdout", line + b"\n\n" + line + b"\n")
    for record in open(path, "rb").read().splitlines():
        json.loads(record)
    said = line.decode("utf-8", "replace") + "\n"
    assert [r["log"] for r in logs.read(path)] == [said, "\n", said]


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("size", [MAX_RECORD - 1, MAX_RECORD, MAX_RECORD + 1, 3 * MAX_RECORD, 100_000])
def test_a_long_line_is_cut_into_records_and_joined_by_readers(tmp_path, driver, size):
    log = Log(tmp_path, driver)
    line = b"x" * (size - 1) + b"\n"
    log.write("stdout", b"before\n" + line + b"after\n")
    records = list(logs.read(log.path))
    assert all(len(r["log"]) <= MAX_RECORD for r in records)
    assert len(records) == 2 + (size + MAX_RECORD - 1) // MAX_RECORD
    wanted = ["before", "x" * (size - 1), "after"]
    assert joined(log.path) == wanted
    for tail in (1, 2, 3, 4):
        assert joined(log.path, tail) == wanted[-tail:]


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_long_line_is_cut_at_character_boundaries(tmp_path, driver):
    log = Log(tmp_path, driver)
    line = "é" * 20000
    log.write("stdout", b"x" + line.encode() + b"\n")
    records = list(logs.read(log.path))
    assert "".join(r["log"] for r in records) == "x" + line + "\n"
    assert all(len(r["log"].encode()) <= MAX_RECORD and "\ufffd" not in r["log"] for r in records)
    assert not any(r["log"].endswith("\n") for r in records[:-1])


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_two_streams_do_not_mix_within_a_line(tmp_path, driver):
    log = Log(tmp_path, driver)
    for stream, data in (("stdout", b"a"), ("stderr", b"x"), ("stdout", b"b\n"), ("stderr", b"y\n")):
        log.write(stream, data)
    assert [(r["stream"], r["log"]) for r in logs.read(log.path)] == [("stdout", "ab\n"), ("stderr", "xy\n")]
    log.write("stdout", b"o" * 20000)
    log.write("stderr", b"e" * 20000 + b"\n")
    log.write("stdout", b"o\n")
    assert joined(log.path)[2:] == ["e" * 20000, "o" * 20001]
    assert sorted(joined(log.path, 2)) == ["e" * 20000, "o" * 20001]


@pytest.mark.parametrize("driver", DRIVERS)
def test_rotation_keeps_the_newest_files_and_their_order(tmp_path, driver):
    log = Log(tmp_path, driver, max_size=500, max_file=3)
    for number in range(100):
        log.write("stdout", b"%d\n" % number)
    names = logs.files(log.settings["path"])
    assert [name[len(log.settings["path"]) :] for name in names] == [".2", ".1", ""]
    assert all(os.path.getsize(name) <= 500 for name in names)
    numbers = [int(r["log"]) for r in logs.read(log.path)]
    assert numbers == list(range(numbers[0], 100)) and len(numbers) > 5


@pytest.mark.parametrize("driver", DRIVERS)
def test_many_lines_at_once_are_divided_among_the_files(tmp_path, driver):
    log = Log(tmp_path, driver, max_size=5000, max_file=1000)
    log.write("stdout", b"".join(b"%d\n" % number for number in range(20000)))
    assert [int(r["log"]) for r in logs.read(log.path)] == list(range(20000))
    assert all(os.path.getsize(name) <= 5000 for name in logs.files(log.settings["path"]))


@pytest.mark.parametrize("driver", DRIVERS)
def test_one_file_is_emptied_when_it_is_full(tmp_path, driver):
    log = Log(tmp_path, driver, max_size=300, max_file=1)
    for number in range(50):
        log.write("stdout", b"%d\n" % number)
    assert logs.files(log.settings["path"]) == [log.settings["path"]]
    assert os.path.getsize(log.settings["path"]) <= 300
    assert text(log.path).endswith("49\n")


@pytest.mark.parametrize("driver", DRIVERS)
def test_rotated_files_are_compressed_by_a_child_and_read_as_if_they_were_not(tmp_path, driver):
    log = Log(tmp_path, driver, max_size=20000, max_file=4, compress=True)
    for number in range(3000):
        log.write("stdout", b"%d\n" % number)
    log.settle()
    path = log.settings["path"]
    assert [name[len(path) :] for name in logs.files(path)] == [".3.gz", ".2.gz", ".1.gz", ""]
    for name in logs.files(path)[:-1]:
        assert os.path.getsize(name) < len(gzip.open(name).read()) <= 20000
    everything = [int(r["log"]) for r in logs.read(log.path)]
    assert everything == list(range(everything[0], 3000)) and len(everything) > 500
    assert [int(r["log"]) for r in logs.read(log.path, tail=len(everything) - 5)] == everything[5:]
    log.close()
    assert sorted(os.listdir(tmp_path)) == sorted(
        [os.path.basename(name) for name in logs.files(path)] + ["log.mark", "stdout.spool", "stderr.spool"]
    )


def test_a_file_in_both_forms_is_read_once(tmp_path, path):
    log = Log(tmp_path, max_size=400, max_file=3)
    for number in range(10):
        log.write("stdout", b"%d\n" % number)
    before = list(logs.read(path))
    with gzip.open(path + ".1.gz", "wb") as stream:
        stream.write(open(path + ".1", "rb").read())
    assert list(logs.read(path)) == before


def test_fewer_files_than_before_are_kept_from_the_next_rotation_on(tmp_path, path):
    log = Log(tmp_path, max_size=400, max_file=8)
    for number in range(60):
        log.write("stdout", b"%d\n" % number)
    assert len(logs.files(path)) == 8
    log.pump.configure({**log.settings, "max_file": 2})
    for number in range(10):
        log.write("stdout", b"%d\n" % number)
    assert [os.path.basename(name) for name in logs.files(path)] == ["log.1", "log"]


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("count", [0, 1, 3, 50, 99, 100, 1000])
def test_tail_is_the_end_of_the_whole(tmp_path, driver, count):
    log = Log(tmp_path, driver, max_size=2000, max_file=100)
    for number in range(100):
        log.write("stdout", b"%d\n" % number)
    everything = list(logs.read(log.path))
    assert list(logs.read(log.path, tail=count)) == (everything[-count:] if count else [])


def test_since_and_until_are_inclusive(path):
    with open(path, "w") as stream:
        for second in range(10):
            stamp = logs.timestamp(second * 1_000_000_000)
            stream.write(json.dumps({"log": "%d\n" % second, "stream": "stdout", "time": stamp}) + "\n")
    assert text(path, since=3, until=5) == "3\n4\n5\n"
    assert text(path, since=3, until=5, tail=2) == "4\n5\n"


@pytest.mark.parametrize("torn", ['{"log": "torn\n', '{"log":"torn'])
def test_a_torn_line_is_skipped_and_cut_off_by_the_next_run(tmp_path, path, torn):
    log = Log(tmp_path)
    log.write("stdout", b"one\n")
    log.close()
    for name in ("log.mark", "stdout.spool", "stderr.spool"):
        os.unlink(str(tmp_path / name))
    with open(path, "a") as stream:
        stream.write(torn)
    assert text(path) == text(path, tail=5) == "one\n"
    log = Log(tmp_path)
    log.write("stdout", b"two\n")
    assert text(path) == text(path, tail=5) == "one\ntwo\n"


def test_a_torn_block_is_skipped_and_cut_off_by_the_next_run(tmp_path, path):
    log = Log(tmp_path, "local")
    log.write("stdout", b"one\n")
    whole = open(path + ".local", "rb").read()
    for cut in range(1, len(whole)):
        with open(path + ".local", "wb") as stream:
            stream.write(whole + whole[:cut])
        assert text(path) == text(path, tail=5) == "one\n", cut
    os.unlink(str(tmp_path / "log.mark"))
    log = Log(tmp_path, "local")
    log.write("stdout", b"two\n")
    assert text(path).endswith("one\ntwo\n") and text(path) == text(path, tail=50)


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_full_disk_loses_nothing_and_leaves_no_half_record(tmp_path, driver, monkeypatch):
    log = Log(tmp_path, driver)
    log.write("stdout", b"before\n")
    real = os.write

    def full(fd, data):
        if len(data) > 5:
            return real(fd, data[:5])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(logfile.os, "write", full)
    for _attempt in range(3):
        with pytest.raises(OSError, match="No space left"):
            log.write("stdout", b"lost 1\n")
    assert text(log.path) == "before\n"
    monkeypatch.setattr(logfile.os, "write", real)
    log.write("stdout", b"after\n")
    assert text(log.path) == "before\nlost 1\nlost 1\nlost 1\nafter\n"


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_rotation_that_the_disk_does_not_allow_changes_nothing(tmp_path, driver, monkeypatch):
    log = Log(tmp_path, driver, max_size=300, max_file=3)
    for number in range(8):
        log.write("stdout", b"%d\n" % number)
    before, names = list(logs.read(log.path)), logs.files(log.settings["path"])
    real = logfile.LogFile._create

    def full(self, path, how):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(logfile.LogFile, "_create", full)
    for _attempt in range(5):
        with pytest.raises(OSError, match="No space left"):
            log.write("stdout", b"x" * 200 + b"\n")
    assert list(logs.read(log.path)) == before and logs.files(log.settings["path"]) == names
    monkeypatch.setattr(logfile.LogFile, "_create", real)
    log.write("stdout", b"after\n")
    assert text(log.path, tail=1) == "after\n"


def dying_after(calls, work):
    """``work``, so many times; then the process dies."""
    left = [calls]

    def run():
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        work()

    return run


@pytest.mark.parametrize("driver", DRIVERS)
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_crash_after_any_byte_of_a_write_repeats_and_loses_nothing(tmp_path_factory, driver, data):
    """The log may hold any part of what was written since the last mark; the spool holds it all."""
    directory = tmp_path_factory.mktemp("log")
    small = data.draw(st.booleans())
    log = Log(directory, driver, **({"max_size": 2000, "max_file": 1000} if small else {}))
    numbers = iter(range(10**6))
    for _round in range(data.draw(st.integers(1, 5))):
        for _n in range(data.draw(st.integers(0, 3))):
            log.write("stdout", b"%d\n" % next(numbers) + b"%d" % next(numbers))
            log.write("stdout", b"\n")
        note, left = log.pump.note, data.draw(st.integers(0, 6))

        log.pump.note = dying_after(left, note)
        chunk = b"".join(b"%d\n" % next(numbers) for _n in range(data.draw(st.integers(1, 400))))
        chunk += b"x" * data.draw(st.sampled_from([0, 0, 20000])) + b"\n%d" % next(numbers)
        try:
            log.write("stdout", chunk)
        except KeyboardInterrupt:
            size = os.path.getsize(log.settings["path"])
            noted = log.pump._noted[1] if log.pump._noted[0] == os.stat(log.settings["path"]).st_ino else size
            os.truncate(log.settings["path"], data.draw(st.integers(min(noted, size), size)))
        log.crash()
        log = log.successor()
        log.work("stdout")
        log.write("stdout", b"\n")
    log.close()
    said = [line for line in joined(log.path) if not line.startswith("x") and line]
    assert said == [str(number) for number in range(next(numbers))]


def test_a_pipe_goes_into_the_spool_without_os_splice_too(tmp_path, monkeypatch):
    """Python 3.9 has none."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    for lacking in (False, True):
        if lacking:
            monkeypatch.delattr(os, "splice")
        log = Log(tmp_path)
        os.write(write, b"one\ntwo\n")
        assert log.pump.take(read, 1) == 8 and log.pump.take(read, 1) is None
        log.work("stdout")
        log.close()
    os.close(write)
    assert Log(tmp_path).pump.take(read, 1) == 0
    os.close(read)
    assert text(str(tmp_path / "log")) == "one\ntwo\n" * 2


def test_output_is_given_back_from_the_spool_once_it_is_in_the_log(tmp_path):
    log = Log(tmp_path)
    for _n in range(64):
        log.write("stdout", b"x" * 99999 + b"\n")
    status = os.stat(str(tmp_path / "stdout.spool"))
    assert status.st_size == 6_400_000 and status.st_blocks * 512 <= 262144


@pytest.mark.parametrize("change", [("json-file", "local"), ("local", "json-file")])
def test_what_was_written_before_the_driver_changed_can_still_be_read(tmp_path, change):
    log = Log(tmp_path, change[0])
    log.write("stdout", b"one\ntw")
    path = log.path + (".local" if change[1] == "local" else "")
    log.pump.configure({"driver": change[1], "path": path})
    log.write("stdout", b"o\nthree\n")
    assert text(log.path) == "one\ntwo\nthree\n"
    assert text(log.path, tail=2) == "two\nthree\n" and text(log.path, tail=3) == "one\ntwo\nthree\n"


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_follower_sees_each_record_once_through_rotation(tmp_path, driver):
    log = Log(tmp_path, driver, max_size=1000, max_file=50)
    log.write("stdout", b"old\n")
    follower = logs.Follower(log.path, logs.Choice())
    seen = [record["log"] for record in follower.new()]
    for number in range(100):
        log.write("stdout", b"%d\n" % number)
        if number % 7 == 0:
            seen += [record["log"] for record in follower.new()]
    seen += [record["log"] for record in follower.new()]
    assert seen == ["old\n"] + ["%d\n" % number for number in range(100)]


def test_times_do_not_step_back_with_a_clock_that_is_corrected(tmp_path, path, monkeypatch):
    log = Log(tmp_path)
    times = iter([5_000_000_000, 4_500_000_000, 6_000_000_000, 1_000_000_000])
    monkeypatch.setattr("module_utils._engine.runtime.pump.time.time_ns", lambda: next(times))
    for number in range(4):
        log.write("stdout", b"%d\n" % number)
    assert [r["time"][17:23] for r in logs.read(path)] == ["05.000", "05.000", "06.000", "01.000"]


def test_a_missing_log_is_empty(path):
    assert list(logs.read(path)) == [] and list(logs.read(path + "/no", tail=3)) == []


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("when", range(4))
def test_what_is_rotated_while_it_is_being_opened_is_read_once_and_whole(tmp_path, driver, compress, when, monkeypatch):
    log = Log(tmp_path, driver, max_size=1500, max_file=100, compress=compress)
    numbers = iter(range(10**6))

    def rotate():
        before = logs.files(log.settings["path"])
        while logs.files(log.settings["path"]) == before:
            log.write("stdout", b"%d\n" % next(numbers))

    for _n in range(3):
        rotate()
    last = next(numbers)
    log.write("stdout", b"%d\n" % last)
    calls = []

    def late(name, mode):
        calls.append(name)
        if len(calls) == when + 1:  # those before are open, those after are somewhere else by the time
            rotate()
        return open(name, mode)

    monkeypatch.setattr(logs, "open", late, raising=False)
    for reading in (logs.read(log.path), reversed(list(logs.backward(log.path, logs.choice(None, None, ("stdout",)))))):
        found = [int(record["log"]) for record in reading]
        assert found == list(range(len(found))) and len(found) > last
        calls.clear()
    log.settle()
    log.close()
