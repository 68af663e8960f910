# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where systemd is in charge, everything of ours is below one unit that systemd leaves alone."""

from __future__ import annotations

import os

import pytest
from module_utils._engine.errors import KernelError
from module_utils._engine.kernel.cgroups import Cgroup, Layout, delegation
from module_utils._engine.kernel.cgroups.files import Files
from module_utils._engine.kernel.cgroups.layout import Hierarchy
from module_utils._engine.process import Completed
from module_utils._engine.runtime import halt

BASE = "system.slice/wharf-containers.service"


class Tree(Files):
    """cgroup.procs as the kernel has it: a process that is written into one leaves the other."""

    def write(self, path, value):
        for directory, _names, files in os.walk(os.path.dirname(os.path.dirname(path))):
            if "cgroup.procs" in files:
                file = directory + "/cgroup.procs"
                left = [pid for pid in self.read(file).split() if pid != value]
                self.put(file, [*left, value] if file == path else left)

    def mkdir(self, path):
        os.makedirs(path)
        return True

    def put(self, path, pids):
        with open(path, "w") as stream:
            stream.write("".join(pid + "\n" for pid in pids))


def unified(root, base=BASE):
    return Layout([Hierarchy("", 2, str(root), ("memory",))], base=base, files=Tree())


def unit(root, *pids):
    """What systemd makes."""
    top = root / BASE
    top.mkdir(parents=True)
    (top / "cgroup.procs").write_text("".join(pid + "\n" for pid in pids))
    return top


def test_without_systemd_nothing_is_asked_for_and_cgroups_are_at_the_root(tmp_path):
    assert delegation.base(str(tmp_path / "absent")) == ""
    layout = unified(tmp_path, "")
    assert delegation.ensure(layout) == []
    assert Cgroup(layout, "wharf/abc").unified() == str(tmp_path / "wharf/abc")


def test_with_systemd_containers_are_below_the_unit(tmp_path):
    assert delegation.base(str(tmp_path)) == BASE
    assert Cgroup(unified(tmp_path), "wharf/abc").unified("ctr") == str(tmp_path / BASE / "wharf/abc/ctr")


def test_the_unit_is_started_once_and_its_process_moved_out_of_the_inner_node(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(delegation, "_start", lambda: started.append(unit(tmp_path, "7")))
    layout = unified(tmp_path)
    procs = delegation.ensure(layout)
    assert procs == [str(tmp_path / BASE / "engine/cgroup.procs")]
    (tmp_path / BASE / "engine/cgroup.procs").write_text("7\n")
    assert delegation.ensure(layout) == procs
    assert len(started) == 1


def test_only_the_hierarchies_that_systemd_keeps_are_shared_with_it(tmp_path):
    for name in ("systemd", "memory", "unified"):
        (tmp_path / name).mkdir()
    layout = Layout(
        [
            Hierarchy("systemd", 1, str(tmp_path / "systemd"), ("name=systemd",)),
            Hierarchy("memory", 1, str(tmp_path / "memory"), ("memory",)),
            Hierarchy("unified", 2, str(tmp_path / "unified"), ()),
        ],
        base=BASE,
        files=Tree(),
    )
    where = Cgroup(layout, "wharf/abc").directories()
    assert where == [
        str(tmp_path / "unified" / BASE / "wharf/abc"),
        str(tmp_path / "systemd" / BASE / "wharf/abc"),
        str(tmp_path / "memory" / "wharf/abc"),
    ]


def test_what_systemd_says_reaches_the_user(monkeypatch):
    monkeypatch.setattr(delegation, "_write_stop_script", lambda: None)
    monkeypatch.setattr("module_utils._engine.process.run", lambda *_a, **_n: Completed(1, b"", b"Access denied"))
    with pytest.raises(KernelError, match="Access denied"):
        delegation._start()


def test_a_task_that_was_slower_goes_on(monkeypatch):
    monkeypatch.setattr(delegation, "_write_stop_script", lambda: None)
    answer = Completed(
        1, b"", b"Failed to start transient service unit: Unit wharf-containers.service was already loaded"
    )
    monkeypatch.setattr("module_utils._engine.process.run", lambda *_a, **_n: answer)
    delegation._start()


def test_a_killed_main_process_takes_nobody_along():
    argv = delegation.command("/usr/bin/python3")
    assert "KillMode=process" in argv and "Delegate=yes" in argv
    assert argv[-2:] == ["sleep", "infinity"]


@pytest.mark.parametrize("suffix", ["", "/.control"])
def test_the_stop_script_finds_the_unit_it_runs_in(tmp_path, suffix):
    leaf = tmp_path / BASE / "engine"
    leaf.mkdir(parents=True)
    (leaf / "cgroup.procs").write_text("12\n11\n")
    cgroup = tmp_path / "cgroup"
    cgroup.write_text("0::/%s%s\n" % (BASE, suffix))
    assert halt.own_processes(str(cgroup), str(tmp_path)) == [11, 12]


def test_the_stop_script_needs_nothing_of_the_engine():
    with open(halt.__file__) as stream:
        assert not [line for line in stream if line.startswith("from .")]
