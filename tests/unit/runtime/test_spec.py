# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest
from module_utils._engine.errors import UsageError
from module_utils._engine.runtime import spec

CONTEXT = {"id": "c", "name": "c", "netns_path": "/run/netns/c", "files_dir": "/f", "hostname": "h", "cgroup": "w/c"}


def generate(image=None, context=None, **asked):
    asked.setdefault("command", ["run"])
    return spec.generate(asked, image or {}, {**CONTEXT, **(context or {})})


def mount(config, target):
    return next((m for m in config["mounts"] if m["destination"] == target), None)


def test_the_config_is_json_and_has_the_oci_sections():
    config = generate()
    assert json.loads(json.dumps(config)) == config
    assert config["ociVersion"].startswith("1.2") and config["linux"]["cgroupsPath"] == "w/c"
    assert {n["type"] for n in config["linux"]["namespaces"]} == {"mount", "uts", "ipc", "pid", "cgroup", "network"}


@pytest.mark.parametrize(
    ("asked", "image", "argv"),
    [
        ({"command": ["a"]}, {"Entrypoint": ["e"], "Cmd": ["c"]}, ["e", "a"]),
        ({"command": None}, {"Entrypoint": ["e"], "Cmd": ["c"]}, ["e", "c"]),
        ({"command": None, "entrypoint": ["x"]}, {"Entrypoint": ["e"], "Cmd": ["c"]}, ["x"]),
        ({"command": ["a"], "entrypoint": ["x"]}, {"Entrypoint": ["e"], "Cmd": ["c"]}, ["x", "a"]),
        ({"command": ["a"], "entrypoint": [""]}, {"Entrypoint": ["e"]}, ["a"]),
    ],
)
def test_command_and_entrypoint(asked, image, argv):
    assert spec.command(asked, image) == argv


def test_no_command_at_all_is_an_error():
    with pytest.raises(UsageError, match="No command specified"):
        spec.command({}, {})


def test_environment_task_over_image_over_defaults_and_nothing_else():
    image = {"Env": ["PATH=/image", "A=1", "B=2", "BAD", "=x"]}
    lines = generate(image, env={"B": "3", "HOSTNAME": "mine"})["process"]["env"]
    assert lines == ["PATH=/image", "HOSTNAME=mine", "A=1", "B=3"]


def test_default_mounts_are_parents_first_and_one_per_target():
    targets = [m["destination"] for m in generate()["mounts"]]
    assert len(targets) == len(set(targets))
    assert [t.count("/") for t in targets] == sorted(t.count("/") for t in targets)


def test_a_mount_of_the_task_replaces_the_default():
    volumes = [{"source": "/s", "target": "/dev/shm", "type": "bind"}, {"source": "/h", "target": "/etc/hosts/"}]
    config = generate(context={"volumes": volumes})
    assert mount(config, "/dev/shm")["source"] == "/s" and mount(config, "/etc/hosts")["source"] == "/h"


def test_a_dev_of_the_task_drops_all_of_ours_in_it():
    config = generate(context={"volumes": [{"source": "/dev", "target": "/dev"}]})
    assert [m["destination"] for m in config["mounts"] if m["destination"].startswith("/dev")] == ["/dev"]


@pytest.mark.parametrize(
    "target", ["/", "/proc", "/proc/sys", "/proc/self/attr", "relative", "//", "/a/../proc", "/x\0y"]
)
def test_targets_that_would_undermine_the_engine_are_refused(target):
    with pytest.raises(UsageError):
        generate(context={"volumes": [{"source": "/s", "target": target}]})


def test_lxcfs_files_in_proc_are_allowed():
    assert mount(generate(context={"volumes": [{"source": "/s", "target": "/proc/meminfo"}]}), "/proc/meminfo")


def test_read_only():
    config = generate(read_only=True)
    assert config["root"]["readonly"] and "ro" in mount(config, "/etc/hosts")["options"]
    assert "ro" not in mount(config, "/dev")["options"] and "ro" not in mount(config, "/dev/shm")["options"]


def test_privileged_lifts_masks_filter_and_devices():
    config = generate(privileged=True)
    assert config["linux"]["maskedPaths"] == config["linux"]["readonlyPaths"] == []
    assert "seccomp" not in config["linux"]
    assert config["linux"]["resources"]["devices"][0]["allow"]
    assert "ro" not in mount(config, "/sys")["options"]


@pytest.mark.parametrize(
    ("sysctls", "netns"),
    [
        ({"kernel.hostname": "x"}, True), ({"vm.swappiness": "1"}, True), ({"net.ipv4.ip_forward": "1"}, False),
        ({"kernel.core_pattern": "|/x"}, True), ({"net.../../kernel/core_pattern": "x"}, True),
        ({"net.a b": "1"}, True),
        ({"net/../kernel/core_pattern": "x"}, True),
    ],
)  # fmt: skip
def test_sysctls_that_would_change_the_host_are_refused(sysctls, netns):
    with pytest.raises(UsageError) as caught:
        generate(sysctls=sysctls, context={"netns_path": "/n" if netns else None})
    assert caught.value.path == "sysctls"


def test_sysctls_of_the_containers_own_namespaces():
    found = generate(sysctls={"net.core.somaxconn": "9", "kernel/msgmax": "1", "fs.mqueue.msg_max": "2"})["linux"][
        "sysctl"
    ]
    assert found["net.core.somaxconn"] == "9" and found["kernel.msgmax"] == "1"
    assert found["net.ipv4.ip_unprivileged_port_start"] == "0"
    assert generate(context={"netns_path": None})["linux"]["sysctl"] == {}


def test_security_options():
    assert generate(security_opts=["no-new-privileges"])["process"]["noNewPrivileges"]
    assert generate(security_opts=["no-new-privileges:true"])["process"]["noNewPrivileges"]
    assert not generate(security_opts=["no-new-privileges=false"])["process"]["noNewPrivileges"]
    assert "seccomp" not in generate(security_opts=["seccomp=unconfined"])["linux"]
    for bad in ("nonsense", "no-new-privileges=maybe", "seccomp=/no/such/file"):
        with pytest.raises(UsageError):
            generate(security_opts=[bad])


@pytest.mark.parametrize("limit", [{"name": "nosuch", "soft": 1, "hard": 1}, {"name": "nofile", "soft": 2, "hard": 1}])
def test_bad_ulimits(limit):
    with pytest.raises(UsageError):
        generate(ulimits=[limit])


def test_ulimits_never_exceed_what_we_may_give():
    import resource

    limits = spec.rlimits([{"name": "nofile", "soft": -1, "hard": -1}])
    ceiling = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert limits[0]["hard"] == ceiling or limits[0]["hard"] == (1 << 64) - 1


def test_devices():
    config = generate(devices=[{"source": "/dev/null", "target": "/dev/other", "permissions": "r"}])
    node = config["linux"]["devices"][0]
    assert (node["path"], node["type"], node["major"], node["minor"]) == ("/dev/other", "c", 1, 3)
    assert config["linux"]["resources"]["devices"][-1] == {
        "allow": True, "type": "c", "major": 1, "minor": 3, "access": "r"
    }  # fmt: skip
    for bad in ("/dev/nosuch", "/etc/passwd"):
        with pytest.raises(UsageError):
            generate(devices=[{"source": bad}])


def test_nothing_of_the_images_labels_reaches_the_annotations():
    assert generate({"Labels": {"engine.secret": "1"}})["annotations"] == {}
