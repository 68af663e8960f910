# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a foreign config.json may ask for, and that what is not supported is refused by its name."""

from __future__ import annotations

import copy
import os

import pytest
from module_utils._engine.errors import NotFound, Unsupported, UsageError, WharfError
from module_utils._engine.oci import config, limits, options, template


@pytest.fixture
def good(tmp_path):
    os.mkdir(tmp_path / "rootfs")
    return copy.deepcopy(template.template())


def _set(holder, path, value):
    *way, last = path.split(".")
    for key in way:
        holder = holder.setdefault(key, {})
    holder[last] = value


def test_what_spec_writes_is_valid(good, tmp_path):
    config.check(good, str(tmp_path))


UNSUPPORTED = {
    "linux.intelRdt": {"closID": "x"},
    "linux.netDevices": {"eth0": {}},
    "linux.memoryPolicy": {"mode": "MPOL_BIND"},
    "linux.mountLabel": "system_u:object_r:x",
    "process.selinuxLabel": "system_u:system_r:x",
    "linux.resources.rdma": {"mlx5_1": {}},
    "linux.resources.network": {"classID": 1},
    "linux.resources.cpu": {"realtimeRuntime": 1000},
    "linux.resources.memory": {"kernel": 1 << 20},
    "linux.personality": {"domain": "LINUX", "flags": ["X"]},
    "windows": {"layerFolders": ["x"]},
    "vm": {"kernel": {}},
    "solaris": {"milestone": "x"},
}


@pytest.mark.parametrize("field", UNSUPPORTED)
def test_what_is_not_supported_is_refused_with_its_name(good, tmp_path, field):
    _set(good, field, UNSUPPORTED[field])
    with pytest.raises(Unsupported) as caught:
        config.check(good, str(tmp_path))
    assert field.split(".")[-1] in caught.value.msg


BAD = [
    ("ociVersion", "2.0.0"), ("ociVersion", 1), ("process", None), ("process", []), ("process.args", []),
    ("process.args", "sh"), ("process.cwd", "relative"), ("process.cwd", None), ("process.env", {"A": "b"}),
    ("process.user.uid", "1a"), ("process.user.uid", -1), ("process.user.uid", 1 << 32), ("process.user.uid", True),
    ("process.oomScoreAdj", 1001), ("process.rlimits", [{"type": "RLIMIT_NOPE", "soft": 1, "hard": 1}]),
    ("process.rlimits", [{"type": "RLIMIT_CORE", "soft": -1, "hard": 1}]), ("process.capabilities", ["CAP_KILL"]),
    ("process.scheduler", {"policy": "SCHED_NOPE"}), ("process.ioPriority", {"class": "X"}),
    ("process.execCPUAffinity", {"initial": "a-b"}), ("root.path", ""), ("root", None), ("hostname", "x" * 65),
    ("mounts", [{"type": "tmpfs"}]), ("mounts", [{"destination": "/x", "type": "bind"}]), ("mounts", {}),
    ("mounts", [{"destination": "/x", "options": "ro"}]), ("linux.namespaces", [{"type": "nope"}]),
    ("linux.namespaces", [{"type": "mount"}, {"type": "mount"}]), ("linux.namespaces", {}),
    ("linux.namespaces", [{"type": "mount"}, {"type": "ipc", "path": "relative"}]),
    ("linux.rootfsPropagation", "sometimes"), ("linux.devices", [{"type": "x", "path": "/d"}]),
    ("linux.devices", [{"type": "c", "path": "relative"}]), ("linux.cgroupsPath", 7),
    ("linux.personality", {"domain": "OS2"}), ("linux.resources.memory", {"limit": "64m"}),
    ("linux.resources.devices", [{"allow": True, "type": "z"}]), ("linux.sysctl", {"kernel.panic": "1"}),
    ("linux.maskedPaths", "x"), ("linux.seccomp", {"defaultAction": "SCMP_ACT_NOPE"}),
    ("linux.seccomp", {"defaultAction": "SCMP_ACT_ALLOW", "flags": ["X"]}),
    ("linux.uidMappings", [{"containerID": 0, "hostID": 0, "size": 1}]), ("hooks", {"prestart": [{"path": "x"}]}),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(BAD)))
def test_malformed_fields_are_refused_with_their_name(good, tmp_path, number):
    field, value = BAD[number]
    _set(good, field, value)
    with pytest.raises(UsageError) as caught:
        config.check(good, str(tmp_path))
    assert field.split(".")[-1] in caught.value.msg or field.split(".")[0] in caught.value.msg


def test_fields_nobody_knows_are_left_alone(good, tmp_path):
    good["future"] = {"x": 1}
    good["linux"]["future"] = [1]
    good["process"]["future"] = True
    config.check(good, str(tmp_path))


def test_a_root_that_is_not_there_and_a_mount_namespace_by_path_are_refused(good, tmp_path):
    good["root"]["path"] = "elsewhere"
    with pytest.raises(NotFound):
        config.check(good, str(tmp_path))
    good["root"]["path"] = "rootfs"
    good["linux"]["namespaces"] = [{"type": "mount", "path": "/proc/self/ns/mnt"}]
    with pytest.raises(Unsupported, match="mount namespace"):
        config.check(good, str(tmp_path))


def test_every_failure_is_a_sentence_and_never_a_traceback(good, tmp_path):
    for value in (None, 1, "x", [], [1], {"a": 1}, True):
        for field in (
            "process",
            "root",
            "mounts",
            "linux",
            "hooks",
            "process.user",
            "linux.resources",
            "linux.seccomp",
        ):
            broken = copy.deepcopy(good)
            _set(broken, field, value)
            try:
                config.check(broken, str(tmp_path))
            except WharfError as error:
                assert error.msg


def test_ro_and_rro_rprivate_and_the_data_of_a_file_system_are_told_apart():
    parsed = options.parse(["rbind", "ro", "rnosuid", "rprivate", "size=1m", "noatime", "mode=755"])
    assert parsed.top == (0x11, 0x70) and parsed.all == (0x02, 0) and parsed.bind and parsed.recursive
    assert parsed.propagation == ((1 << 18, True),) and parsed.data == (("size", "1m"), ("mode", "755"))
    assert options.parse(["ro", "rw"]).top == (0, 1)


def test_zeroes_by_which_callers_say_nothing_set_no_limit():
    wanted = limits.for_cgroup(
        {"memory": {"limit": 0, "swappiness": 0}, "cpu": {"shares": 0, "quota": 0, "cpus": ""}, "pids": {"limit": 0}}
    )
    assert wanted == {"memory": {"swappiness": 0}, "cpu": {}, "pids": {}}


def test_device_rules_end_with_what_every_container_needs():
    from module_utils._engine.kernel.devices import permits

    rules = limits.device_rules({"devices": [{"allow": False, "access": "rwm"}]})
    assert permits(rules, "c", 1, 3, "rw") and permits(rules, "c", 136, 9, "rw") and permits(rules, "b", 8, 0, "m")
    assert not permits(rules, "b", 8, 0, "r") and not permits(rules, "c", 10, 229, "rw")
