# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from module_utils._engine.errors import Unsupported, UsageError
from module_utils._engine.kernel.cgroups import resources, v1, v2
from module_utils._engine.kernel.cgroups.layout import Layout

MIB = 1 << 20


def nothing(_controller, _file):
    return None


def shown(writes):
    return [(w.file, w.value) for w in writes]


@pytest.mark.parametrize(
    "shares, weight",
    [(0, 0), (2, 1), (128, 21), (256, 35), (512, 59), (1000, 99), (1024, 100), (2048, 174), (4096, 303), (10240, 639)],
)
def test_shares_become_weights_as_in_runc(shares, weight):
    assert resources.shares_to_weight(shares) == weight
    assert resources.shares_to_weight(262144) == resources.shares_to_weight(10**9) == 10000


@given(st.integers(2, 262144))
def test_weights_have_shares_with_that_weight(shares):
    weight = resources.shares_to_weight(shares)
    assert resources.shares_to_weight(resources.weight_to_shares(weight)) == weight


@given(st.sets(st.integers(0, 300), min_size=1))
def test_lists_survive_a_round_trip(numbers):
    assert resources.parse_list(resources.format_list(numbers)) == numbers


def test_lists_are_spelled_as_the_kernel_does():
    assert resources.format_list(resources.parse_list("3, 0,1,2,7-8")) == "0-3,7-8"
    for bad in ("a", "1-", "-1", "3-1", "1;2", "9999"):
        with pytest.raises(UsageError):
            resources.parse_list(bad)


@pytest.mark.parametrize(
    "options, option",
    [
        ({"memory": 1024}, "memory"),
        ({"memory_swap": 64 * MIB}, "memory_swap"),
        ({"memory": 64 * MIB, "memory_swap": 32 * MIB}, "memory_swap"),
        ({"memory": 64 * MIB, "memory_reservation": 65 * MIB}, "memory_reservation"),
        ({"cpus": 0.001}, "cpus"),
        ({"cpuset_cpus": "zero"}, "cpuset_cpus"),
    ],
)
def test_contradictions_name_their_option(options, option):
    with pytest.raises(UsageError) as caught:
        resources.from_options(options)
    assert caught.value.path == option


def test_swap_defaults_to_as_much_again_as_memory():
    assert resources.from_options({"memory": 64 * MIB})["memory"] == {"limit": 64 * MIB, "swap": 128 * MIB}
    assert resources.from_options({"memory": 64 * MIB, "memory_swap": -1})["memory"]["swap"] == -1
    assert resources.from_options({"memory": None, "cpus": None, "pids_limit": 0}) == {}
    assert resources.from_options({"pids_limit": -1}) == {"pids": {"limit": -1}}


@pytest.mark.parametrize(
    "now, limit, swap, first",
    [
        (32 * MIB, 64 * MIB, 128 * MIB, "memory.memsw.limit_in_bytes"),
        (32 * MIB, -1, -1, "memory.memsw.limit_in_bytes"),
        (128 * MIB, 32 * MIB, 64 * MIB, "memory.limit_in_bytes"),
        (1 << 63, 32 * MIB, 64 * MIB, "memory.limit_in_bytes"),
    ],
)
def test_v1_keeps_memory_below_memory_plus_swap_at_every_step(now, limit, swap, first):
    found = v1.writes(
        {"memory": {"limit": limit, "swap": swap}}, lambda _c, file: str(now) if "memsw" in file else None
    )
    assert found[0].file == first
    assert len(found) == 2


def test_v1_files():
    found = v1.writes(
        {
            "memory": {"reservation": 7, "swappiness": 60, "disableOOMKiller": True},
            "cpu": {"shares": 512, "quota": 50000, "period": 100000, "burst": 10, "cpus": "0-1", "mems": "0"},
            "pids": {"limit": 0},
            "blockIO": {"weight": 300, "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 5}]},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 4}],
        },
        nothing,
    )
    assert shown(found) == [
        ("memory.soft_limit_in_bytes", "7"), ("memory.swappiness", "60"), ("memory.oom_control", "1"),
        ("cpu.shares", "512"), ("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "50000"),
        ("cpu.cfs_burst_us", "10"), ("cpuset.cpus", "0-1"), ("cpuset.mems", "0"), ("pids.max", "max"),
        ("blkio.weight", "300"), ("blkio.throttle.read_bps_device", "8:0 5"), ("hugetlb.2MB.limit_in_bytes", "4"),
    ]  # fmt: skip


def test_v2_files():
    found = v2.writes(
        {
            "memory": {"limit": 64 * MIB, "swap": 96 * MIB, "reservation": 7},
            "cpu": {"shares": 1024, "quota": 50000, "period": 100000, "cpus": "0-1"},
            "pids": {"limit": 9},
            "blockIO": {"weight": 1000, "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 5}]},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 4}],
            "unified": {"memory.high": "1000"},
        },
        nothing,
    )
    assert shown(found) == [
        ("memory.max", str(64 * MIB)), ("memory.swap.max", str(32 * MIB)), ("memory.low", "7"), ("cpu.weight", "100"),
        ("cpu.max", "50000 100000"), ("cpuset.cpus", "0-1"), ("pids.max", "9"), ("io.weight", "default 10000"),
        ("io.max", "8:0 wiops=5"), ("hugetlb.2MB.max", "4"), ("hugetlb.2MB.rsvd.max", "4"), ("memory.high", "1000"),
    ]  # fmt: skip


@pytest.mark.parametrize("swap, value", [(64 * MIB, "0"), (-1, "max")])
def test_v2_swap_counts_swap_alone_and_is_never_empty(swap, value):
    found = v2.writes({"memory": {"limit": 64 * MIB, "swap": swap}}, nothing)
    assert ("memory.swap.max", value) in shown(found)


def test_v2_keeps_the_half_of_cpu_max_that_is_not_set():

    def read(_controller, file):
        return "5000 20000" if file == "cpu.max" else None

    assert shown(v2.writes({"cpu": {"quota": -1}}, read)) == [("cpu.max", "max 20000")]
    assert shown(v2.writes({"cpu": {"period": 50000}}, read)) == [("cpu.max", "5000 50000")]


@pytest.mark.parametrize("name", ["cgroup.procs", "../x.y", "memory/max", "plain", "cgroup.kill"])
def test_unified_takes_resource_files_only(name):
    with pytest.raises(UsageError):
        v2.writes({"unified": {name: "1"}}, nothing)


@pytest.mark.parametrize("size", ["2MB/../x", "", "MB", "2mb", "2 MB"])
def test_page_sizes_cannot_smuggle_a_path(size):
    for module in (v1, v2):
        with pytest.raises(UsageError):
            module.writes({"hugepageLimits": [{"pageSize": size, "limit": 1}]}, nothing)


def test_expected_is_rounded_as_each_version_rounds():
    options = {"memory": 64 * MIB + 4095, "memory_swap": 128 * MIB + 1, "cpu_shares": 1000, "cpuset_cpus": "1,0"}
    one = resources.expected(options, version={"memory": 1, "cpu": 1, "cpuset": 1})
    assert (one["memory"], one["memory_swap"], one["cpu_shares"]) == (64 * MIB, 128 * MIB, 1000)
    assert one["cpuset_cpus"] == "0-1"
    two = resources.expected(options, version={"memory": 2, "cpu": 2, "cpuset": 2})
    assert (two["memory"], two["memory_swap"]) == (64 * MIB, 128 * MIB - 4096)
    assert resources.shares_to_weight(two["cpu_shares"]) == resources.shares_to_weight(1000)
    assert resources.expected({"cpu_shares": 1024}, version={})["cpu_shares"] is None


MOUNTINFO = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/net_cls rw,relatime - cgroup cgroup rw,net_cls
99 31 0:32 / /srv/root/sys/fs/cgroup/memory/x ro,relatime - cgroup cgroup rw,memory
"""


def test_a_v1_host_is_recognised_and_mounts_elsewhere_are_not_mistaken_for_it(tmp_path):
    (tmp_path / "mountinfo").write_text(MOUNTINFO)
    layout = Layout.detect(str(tmp_path / "mountinfo"))
    assert (layout.kind, layout.unified) == ("v1", None)
    assert layout.controllers == {
        "cpu": (1, "/sys/fs/cgroup/cpu,cpuacct"),
        "cpuacct": (1, "/sys/fs/cgroup/cpu,cpuacct"),
        "memory": (1, "/sys/fs/cgroup/memory"),
    }
    assert layout.view() == [("cpu,cpuacct", 1, ("cpu", "cpuacct")), ("memory", 1, ("memory",))]


def test_hybrid_and_v2_hosts_are_told_apart(tmp_path):
    unified = tmp_path / "unified"
    unified.mkdir()
    (unified / "cgroup.controllers").write_text("hugetlb\n")
    line = "41 31 0:38 / %s rw - cgroup2 cgroup2 rw\n" % unified
    (tmp_path / "a").write_text(MOUNTINFO + line)
    hybrid = Layout.detect(str(tmp_path / "a"))
    assert (hybrid.kind, hybrid.unified, hybrid.controllers["memory"][0]) == ("hybrid", str(unified), 1)
    (tmp_path / "b").write_text(line)
    assert Layout.detect(str(tmp_path / "b")).kind == "v2"
    (tmp_path / "c").write_text("")
    with pytest.raises(Unsupported):
        Layout.detect(str(tmp_path / "c"))
