# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""``Cgroup`` on a directory tree that behaves like cgroup2 (machines with v1 controllers have no other)."""

from __future__ import annotations

import os
import shutil

import pytest
from module_utils._engine.errors import InUse, KernelError, Unsupported, UsageError
from module_utils._engine.kernel.cgroups import Cgroup, Layout
from module_utils._engine.kernel.cgroups.files import Files
from module_utils._engine.kernel.cgroups.layout import Hierarchy
from module_utils._engine.kernel.cgroups.resources import from_options

MIB = 1 << 20

CONTROLS = {
    "memory": {
        "memory.max": "max", "memory.swap.max": "max", "memory.low": "0", "memory.current": "0",
        "memory.stat": "anon 0", "memory.events": "oom 0\noom_kill 0", "memory.high": "max",
    },
    "cpu": {"cpu.weight": "100", "cpu.max": "max 100000", "cpu.stat": "usage_usec 7"},
    "cpuset": {"cpuset.cpus": "", "cpuset.mems": ""},
    "pids": {"pids.max": "max", "pids.current": "0"},
    "io": {"io.max": "", "io.stat": "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0"},
}  # fmt: skip


class FakeV2(Files):
    """Enforces what matters: controllers come from the parent, no processes in inner nodes, what is busy stays."""

    def __init__(self, root, controllers=tuple(CONTROLS)):
        self.root = str(root)
        self.log = []
        self.refuse = {}
        self._fill(self.root, controllers)

    def _fill(self, path, controllers):
        plain = {
            "cgroup.controllers": " ".join(controllers), "cgroup.subtree_control": "", "cgroup.procs": "",
            "cgroup.events": "populated 0\nfrozen 0", "cgroup.kill": "", "cgroup.freeze": "0",
        }  # fmt: skip
        for name, value in plain.items():
            self._put(path + "/" + name, value)
        if path != self.root:
            for controller in controllers:
                for name, value in CONTROLS[controller].items():
                    if not os.path.exists(path + "/" + name):
                        self._put(path + "/" + name, value)

    def _put(self, path, value):
        with open(path, "w") as stream:
            stream.write(value + "\n")

    def mkdir(self, path):
        made = super().mkdir(path)
        if made:
            self._fill(path, self.read(os.path.dirname(path) + "/cgroup.subtree_control").split())
        return made

    def rmdir(self, path):
        if not os.path.isdir(path):
            raise FileNotFoundError(2, "No such file or directory", path)
        if self.children(path) or self.read(path + "/cgroup.procs"):
            raise OSError(16, "Device or resource busy", path)
        shutil.rmtree(path)

    def write(self, path, value):
        self.log.append((path[len(self.root) + 1 :], value))
        directory, name = os.path.split(path)
        if (name, value) in self.refuse:
            errno = self.refuse[name, value]
            raise OSError(errno, os.strerror(errno), path)
        if not os.path.exists(path):
            raise FileNotFoundError(2, "No such file or directory", path)
        if name == "cgroup.subtree_control":
            self._enable(directory, value)
        elif name == "cgroup.procs":
            self._enter(directory, value)
        elif name == "cgroup.kill":
            for parent, _dirs, _files in os.walk(directory):
                self._put(parent + "/cgroup.procs", "")
        elif name == "cgroup.freeze":
            self._put(path, value)
            self._put(directory + "/cgroup.events", "populated 0\nfrozen " + value)
        elif name in ("memory.max", "memory.swap.max") and value.isdigit():
            self._put(path, str(int(value) // 4096 * 4096))
        else:
            self._put(path, value)

    def _enable(self, directory, value):
        on = self.read(directory + "/cgroup.subtree_control").split()
        there = self.read(directory + "/cgroup.controllers").split()
        names = [word[1:] for word in value.split()]
        if not set(names) <= set(there):
            raise OSError(2, "No such file or directory", directory)
        if any(("+", name) in self.refuse for name in names):
            raise OSError(22, "Invalid argument", directory)
        if directory != self.root and self.read(directory + "/cgroup.procs"):
            raise OSError(16, "Device or resource busy", directory)
        self._put(directory + "/cgroup.subtree_control", " ".join(sorted({*on, *names})))
        for child in self.children(directory):
            self._fill(directory + "/" + child, sorted({*on, *names}))

    def _enter(self, directory, value):
        if directory != self.root and self.read(directory + "/cgroup.subtree_control"):
            raise OSError(16, "Device or resource busy", directory)
        self._put(directory + "/cgroup.procs", (self.read(directory + "/cgroup.procs") + "\n" + value).strip())


@pytest.fixture
def files(tmp_path):
    return FakeV2(tmp_path)


@pytest.fixture
def group(files):
    return make(files)


def make(files, base="", path="wharf/abc"):
    controllers = tuple(files.read(files.root + "/cgroup.controllers").split())
    layout = Layout([Hierarchy("", 2, files.root, controllers)], base=base, files=files)
    assert layout.kind == "v2"
    return Cgroup(layout, path)


def test_controllers_are_enabled_from_the_top_down_and_the_leaf_has_them(group, files, tmp_path):
    group.create()
    for inner in ("", "wharf", "wharf/abc"):
        assert (tmp_path / inner / "cgroup.subtree_control").read_text().split() == sorted(CONTROLS)
    assert (tmp_path / "wharf/abc/ctr/memory.max").exists()
    assert (tmp_path / "wharf/abc/ctr/cgroup.subtree_control").read_text().strip() == ""
    files.log.clear()
    group.create()
    assert files.log == []  # the second time nothing is written


def test_one_controller_that_cannot_be_had_does_not_cost_the_others(files, tmp_path):
    files.refuse["+", "cpu"] = 22
    group = make(files)
    group.create()
    assert (tmp_path / "wharf/abc/cgroup.controllers").read_text().split() == sorted(set(CONTROLS) - {"cpu"})


def test_processes_enter_leaves_never_the_inner_node(group, files, tmp_path):
    group.create()
    group.join(41)
    group.add_leaf("exec-1")
    group.join(42, "exec-1")
    assert (tmp_path / "wharf/abc/cgroup.procs").read_text().strip() == ""
    assert (tmp_path / "wharf/abc/ctr/cgroup.procs").read_text().split() == ["41"]
    assert group.processes() == [41, 42]
    with pytest.raises(KernelError) as caught:
        group.join(43, "")
    assert caught.value.errno == 16


def test_a_base_with_processes_in_it_is_told(files, tmp_path):
    files.mkdir(files.root + "/system")
    files.write(files.root + "/cgroup.subtree_control", "+memory")
    files.write(files.root + "/system/cgroup.procs", "7")
    group = make(files, base="system")
    with pytest.raises(KernelError) as caught:
        group.create()
    assert (caught.value.errno, caught.value.step) == (16, "create_cgroup")
    assert not (tmp_path / "system/wharf/abc").exists()


def test_limits_are_set_mirrored_in_the_leaf_and_read_back(group, tmp_path):
    group.create()
    options = {
        "memory": 64 * MIB + 5, "memory_swap": 96 * MIB, "memory_reservation": 8192, "cpus": 1.5, "cpu_shares": 512,
        "cpuset_cpus": "0,1", "pids_limit": 9,
    }  # fmt: skip
    assert group.apply(from_options(options)) == []
    assert (tmp_path / "wharf/abc/memory.swap.max").read_text().strip() == str(32 * MIB - 4096)
    assert (tmp_path / "wharf/abc/ctr/memory.max").read_text().strip() == str(64 * MIB)
    assert (tmp_path / "wharf/abc/ctr/pids.max").read_text().strip() == "9"
    assert (tmp_path / "wharf/abc/ctr/cpu.weight").read_text().strip() == "100"
    assert group.read()["cpus"] == 1.5
    assert group.drift(options) == {}
    assert group.drift({**options, "cpus": 2}) == {"cpus": (2.0, 1.5)}


def test_update_resets_what_is_no_longer_named_and_writes_only_what_changes(group, files):
    group.create()
    group.apply(from_options({"memory": 64 * MIB, "cpus": 1, "pids_limit": 9, "cpu_shares": 2048, "cpuset_cpus": "0"}))
    files.log.clear()
    group.update(from_options({"memory": 64 * MIB}))
    assert {name.rpartition("/")[2] for name, _value in files.log} == {
        "cpu.max",
        "pids.max",
        "cpu.weight",
        "cpuset.cpus",
    }
    assert group.drift({"memory": 64 * MIB}) == {}
    group.update({})
    assert set(group.read().values()) == {None}


def test_a_refused_limit_restores_what_was_set_before_it(group, files):
    group.create()
    group.apply(from_options({"memory": 64 * MIB, "pids_limit": 9}))
    files.refuse["pids.max", "10"] = 22
    with pytest.raises(KernelError) as caught:
        group.update(from_options({"memory": 128 * MIB, "pids_limit": 10}))
    assert caught.value.path == "pids_limit"
    assert group.drift({"memory": 64 * MIB, "pids_limit": 9}) == {}


def test_lowering_memory_below_what_cannot_be_reclaimed_is_refused(group, files, tmp_path):
    group.create()
    (tmp_path / "wharf/abc/memory.current").write_text(str(64 * MIB))
    (tmp_path / "wharf/abc/memory.stat").write_text("anon 1\nactive_file %d\ninactive_file 0" % (16 * MIB))
    with pytest.raises(KernelError) as caught:
        group.update(from_options({"memory": 32 * MIB}))
    assert (caught.value.path, caught.value.errno) == ("memory", 16)
    assert group.read()["memory"] is None
    group.update(from_options({"memory": 50 * MIB}))


def test_a_missing_controller_is_told_with_the_option(tmp_path):
    group = make(FakeV2(tmp_path, ("cpu", "memory")))
    group.create()
    with pytest.raises(Unsupported, match="pids") as caught:
        group.apply(from_options({"pids_limit": 5}))
    assert caught.value.path == "pids_limit"
    group.update(from_options({"memory": 64 * MIB}))  # resets of what is not there are no matter


def test_without_swap_accounting_a_swap_limit_is_a_warning(group, files, tmp_path):
    group.create()
    for path in ("wharf/abc", "wharf/abc/ctr"):
        (tmp_path / path / "memory.swap.max").unlink()
    warnings = group.apply(from_options({"memory": 64 * MIB, "memory_swap": 96 * MIB}))
    assert len(warnings) == 1 and "memory_swap" in warnings[0]
    assert group.apply(from_options({"memory": 64 * MIB, "memory_swap": -1})) == []
    assert group.drift({"memory": 64 * MIB, "memory_swap": 96 * MIB}) == {}


def test_memory_swap_without_memory_is_refused(group):
    group.create()
    with pytest.raises(UsageError):
        group.apply({"memory": {"swap": 5 * MIB}})


def test_remove_kills_and_takes_children_first(group, tmp_path):
    group.create()
    group.join(4194303)
    group.add_leaf("exec-1")
    (tmp_path / "wharf/abc/ctr/nested").mkdir()
    group.files._fill(str(tmp_path / "wharf/abc/ctr/nested"), ())
    group.remove()
    assert not group.exists()
    assert (tmp_path / "wharf").exists()
    group.remove()


def test_a_group_that_stays_busy_is_told(group, tmp_path, monkeypatch):
    group.create()

    def stuck(path):
        raise OSError(16, "Device or resource busy", path)

    monkeypatch.setattr(group.files, "rmdir", stuck)
    with pytest.raises(InUse, match="wharf/abc"):
        group.remove(timeout=0.05)


def test_joining_is_tried_again_while_the_task_is_new(group, monkeypatch):
    group.create()
    answers = [22, 22, 0]
    write = group.files.write

    def flaky(path, value):
        errno = answers.pop(0)
        if errno:
            raise OSError(errno, os.strerror(errno), path)
        write(path, value)

    monkeypatch.setattr(group.files, "write", flaky)
    group.join(41)
    assert answers == []


def test_freezing_waits_for_the_kernel_and_thaws_when_it_does_not_come(group, files, tmp_path):
    group.create()
    group.freeze()
    assert group.is_frozen()
    group.thaw()
    assert not group.is_frozen()
    (tmp_path / "wharf/abc/cgroup.events").unlink()
    os.mkfifo(tmp_path / "unused")
    (tmp_path / "wharf/abc/cgroup.events").write_text("populated 1\nfrozen 0")
    files._put = lambda path, value: None if path.endswith("cgroup.events") else FakeV2._put(files, path, value)
    with pytest.raises(KernelError, match="freeze"):
        group.freeze(timeout=0.05)
    assert not group.is_frozen()


def test_stats_and_oom_count(group, tmp_path):
    group.create()
    (tmp_path / "wharf/abc/memory.events").write_text("oom 3\noom_kill 2\n")
    stats = group.stats()
    assert group.oom_kill_count() == 2
    assert stats["io"] == [{"major": 8, "minor": 0, "read_bytes": 1, "write_bytes": 2, "read_ops": 3, "write_ops": 4}]
    assert stats["cpu"]["usage_ns"] == 7000
    assert stats["memory"]["oom_kills"] == 2


def test_a_failed_creation_never_touches_an_older_cgroup_of_that_name(group, files, tmp_path):
    group.create()
    group.join(4194303)
    files._put(str(tmp_path / "wharf/abc/cgroup.subtree_control"), "")
    files._put(str(tmp_path / "wharf/abc/cgroup.procs"), "4194302")
    with pytest.raises(KernelError):
        group.create("other")
    assert group.processes() == [4194302, 4194303]


def test_nesting_deeper_than_pythons_recursion_is_walked():
    from module_utils._engine.kernel.cgroups import control

    class Deep(Files):
        def children(self, path):
            return ["x"] if path.count("/") < 5000 else []

    found = control.tree(Deep(), "/r")
    assert len(found) == 5000 and found[-1] == "/r" and len(found[0]) > len(found[1])
