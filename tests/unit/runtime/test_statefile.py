# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import errno
import os

import pytest
from module_utils._engine.runtime import statefile


@pytest.fixture
def full(monkeypatch):
    """No new file can be written."""

    def refuse(*_arguments, **_named):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(statefile, "write_json", refuse)


@pytest.mark.parametrize("error", ["", "x" * 50, "x" * 2000])
def test_on_a_full_disk_the_state_is_written_into_the_file_there_is(tmp_path, full, error):
    path = str(tmp_path / "state.json")
    first = {"status": "running", "error": "y" * 500}
    (tmp_path / "state.json").write_text('{"status": "running", "error": "%s"}' % ("y" * 500))
    assert statefile.read(path) == first
    statefile.replace(path, {"status": "exited", "error": error})
    assert statefile.read(path) == {"status": "exited", "error": error}
    statefile.replace(path, first)
    assert statefile.read(path) == first


def test_what_does_not_fit_into_the_file_leaves_it_as_it_is(tmp_path, full):
    path = str(tmp_path / "state.json")
    (tmp_path / "state.json").write_text('{"status": "running"}')
    with pytest.raises(OSError, match="No space left"):
        statefile.replace(path, {"status": "exited", "error": "x" * 5000})
    assert (tmp_path / "state.json").read_text() == '{"status": "running"}'


def test_another_failure_is_not_worked_around(tmp_path):
    with pytest.raises(FileNotFoundError):
        statefile.replace(str(tmp_path / "no" / "state.json"), {"status": "exited"})


def test_what_a_killed_writer_left_is_swept_and_nothing_else(tmp_path):
    for name in ("state.json", "state.json.%d.tmp" % os.getpid(), "json-file.log", "log.1.gz.tmp"):
        (tmp_path / name).write_text("{}")
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    (tmp_path / ("run.json.%d.tmp" % child)).write_text("{")
    statefile.sweep(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == [
        "json-file.log",
        "log.1.gz.tmp",
        "state.json",
        "state.json.%d.tmp" % os.getpid(),
    ]
