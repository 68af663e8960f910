# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Resources and cgroups: set at create, changed by update, shown by events."""

from __future__ import annotations

import glob
import json
import os

import pytest
from helpers.bundle import cgroup_directories

pytestmark = pytest.mark.root

MIB = 1 << 20


def _value(name, *files):
    """The first of ``files`` that the container's cgroup has, in whatever hierarchy."""
    for directory in cgroup_directories(name):
        for file in files:
            if os.path.exists(directory + "/" + file):
                with open(directory + "/" + file) as stream:
                    return stream.read().strip()
    raise AssertionError("%s has none of %s" % (name, files))


def test_limits_are_in_the_kernel_before_the_program_runs_and_update_changes_only_what_it_names(bundle):
    bundle.linux["resources"].update(
        memory={"limit": 64 * MIB, "reservation": 32 * MIB}, cpu={"shares": 512, "quota": 50000, "period": 100000},
        pids={"limit": 50},
    )  # fmt: skip
    name = bundle.create()
    assert _value(name, "memory.limit_in_bytes", "memory.max") == str(64 * MIB)
    assert _value(name, "pids.max") == "50"
    assert _value(name, "cpu.cfs_quota_us", "cpu.max").split()[0] == "50000"
    bundle.must("start", name)
    bundle.must("update", "--memory", "96m", "--pids-limit", "70", "--cpu-share=256", name)
    assert _value(name, "memory.limit_in_bytes", "memory.max") == str(96 * MIB)
    assert _value(name, "pids.max") == "70"
    assert _value(name, "cpu.cfs_quota_us", "cpu.max").split()[0] == "50000"
    with open(bundle.path + "/resources.json", "w") as stream:
        json.dump({"cpu": {"quota": 20000}, "pids": {"limit": -1}}, stream)
    bundle.must("update", "-r", bundle.path + "/resources.json", name)
    assert _value(name, "pids.max") == "max"
    assert _value(name, "cpu.cfs_quota_us", "cpu.max").split()[0] == "20000"
    bundle.must("update", "--resources", "-", name, input=json.dumps({"pids": {"limit": 9}}), stdin=None)
    assert _value(name, "pids.max") == "9"


def test_update_refuses_what_it_cannot_do_and_what_makes_no_sense(bundle):
    name = bundle.start()
    for words in (["--kernel-memory", "1m"], ["--l3-cache-schema", "L3:0=f"], ["--cpu-rt-period", "1000"]):
        assert words[0][2:] in bundle.refused("update", *words, name)
    assert "whole number" in bundle.refused("update", "--memory", "much", name)
    before = _value(name, "pids.max")
    assert bundle.refused("update", "--cpuset-cpus", "4000", "--pids-limit", "33", name)
    assert _value(name, "pids.max") == before  # all or nothing


def test_devices_that_are_not_allowed_cannot_be_used_and_the_usual_ones_can(bundle):
    caps = {key: ["CAP_MKNOD"] for key in ("bounding", "effective", "permitted")}
    bundle.process["capabilities"] = caps
    bundle.config["mounts"].append({"destination": "/t", "type": "tmpfs", "source": "tmpfs"})
    script = "mknod /t/fuse c 10 229; head -c 0 /t/fuse 2>&1; head -c 1 /dev/zero | wc -c"
    shown = bundle.sh(script).splitlines()
    assert "Operation not permitted" in shown[0] and shown[1] == "1"
    bundle.linux["resources"]["devices"].append({"allow": True, "type": "c", "major": 10, "minor": 229, "access": "r"})
    assert bundle.sh("mknod /t/fuse c 10 229; head -c 0 /t/fuse && echo opened") == "opened\n"


def test_the_cgroup_is_below_the_path_asked_for_or_carries_the_id(bundle):
    name = bundle.new_id()
    bundle.linux["cgroupsPath"] = "/%s/inner" % name
    bundle.must("run", "-d", name, stdout=-3, stderr=-3)
    assert all(os.path.isdir(path + "/inner") for path in cgroup_directories(name))
    assert len(cgroup_directories(name)) >= 1
    bundle.must("delete", "-f", name)
    for path in cgroup_directories(name):
        os.rmdir(path)
    for bad in ("/", "/..", "."):
        bundle.linux["cgroupsPath"] = bad
        assert "root cgroup" in bundle.refused("create", name)


def test_a_container_without_a_path_has_a_cgroup_of_its_id(bundle):
    name = bundle.new_id()
    del bundle.linux["cgroupsPath"]
    bundle.must("run", "-d", name, stdout=-3, stderr=-3)
    pid = bundle.state(name)["pid"]
    with open("/proc/%d/cgroup" % pid) as stream:
        paths = {line.strip().split(":", 2)[2] for line in stream}
    assert any(path.endswith("/" + name) for path in paths)
    bundle.must("delete", "-f", name)
    assert not glob.glob("/sys/fs/cgroup/*/" + name)


def test_events_stats_is_one_line_in_runcs_shape(bundle):
    bundle.linux["resources"]["pids"] = {"limit": 77}
    name = bundle.start()
    line = json.loads(bundle.must("events", "--stats", name))
    assert line["type"] == "stats" and line["id"] == name
    assert line["data"]["pids"] == {"current": 1, "limit": 77}
    assert line["data"]["memory"]["usage"]["usage"] > 0 and line["data"]["cpu"]["usage"]["total"] > 0
    assert "greater than 0" in bundle.refused("events", "--interval", "0s", name)


def test_unified_sets_files_of_cgroup_v2_or_says_that_there_are_none(bundle):
    bundle.linux["resources"]["unified"] = {"memory.high": str(32 * MIB)}
    result = bundle.call("run", "-d", bundle.new_id(), stdout=-3, stderr=None)
    name = bundle.ids[-1]
    if result.returncode == 0:
        assert _value(name, "memory.high") == str(32 * MIB)
    else:
        assert cgroup_directories(name) == []
    bundle.linux["resources"]["unified"] = {"../cgroup.procs": "1"}
    assert bundle.refused("create", bundle.new_id())


def test_sysctls_of_own_namespaces_are_set_and_others_refused(bundle):
    bundle.linux["sysctl"] = {"net.ipv4.ip_forward": "1", "kernel.shmmni": "123", "net/ipv4/ip_default_ttl": "33"}
    shown = bundle.sh("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmni /proc/sys/net/ipv4/ip_default_ttl")
    assert shown.split() == ["1", "123", "33"]
    for key in ("vm.swappiness", "kernel.hostname", "kernel.panic", "net.ipv4/../../kernel.panic"):
        bundle.linux["sysctl"] = {key: "1"}
        assert key in bundle.refused("create", bundle.new_id())
    bundle.linux["sysctl"] = {"net.ipv4.ip_forward": "1"}
    bundle.linux["namespaces"] = [entry for entry in bundle.linux["namespaces"] if entry["type"] != "network"]
    assert "without a network namespace" in bundle.refused("create", bundle.new_id())
