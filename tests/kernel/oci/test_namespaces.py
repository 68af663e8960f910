# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Namespaces: new ones, joined ones, user namespaces with their maps, clocks."""

from __future__ import annotations

import os

import pytest

pytestmark = pytest.mark.root


def _with(bundle, kind, path=None):
    spaces = [entry for entry in bundle.linux["namespaces"] if entry["type"] != kind]
    bundle.linux["namespaces"] = [*spaces, {"type": kind, **({"path": path} if path else {})}]


def _without(bundle, *kinds):
    bundle.linux["namespaces"] = [entry for entry in bundle.linux["namespaces"] if entry["type"] not in kinds]


def _ns(pid, kind):
    return os.readlink("/proc/%s/ns/%s" % (pid, kind))


def _map_user(bundle, host=200000, size=65536, container=0):
    _with(bundle, "user")
    entry = [{"containerID": container, "hostID": host, "size": size}]
    bundle.linux.update(uidMappings=entry, gidMappings=entry)
    for top, names, files in os.walk(bundle.path + "/rootfs"):
        for name in [*names, *files]:
            info = os.lstat(top + "/" + name)
            os.chown(top + "/" + name, info.st_uid + host, info.st_gid + host, follow_symlinks=False)
    os.chown(bundle.path + "/rootfs", host, host)


def test_every_namespace_is_new_unless_it_is_left_out(bundle):
    _with(bundle, "time")
    pid = bundle.state(bundle.start())["pid"]
    for kind in ("cgroup", "ipc", "mnt", "net", "pid", "time", "uts"):
        assert _ns(pid, kind) != _ns("self", kind), kind
    assert _ns(pid, "user") == _ns("self", "user")
    _without(bundle, "network", "ipc", "uts", "cgroup", "pid", "time")
    bundle.config.pop("hostname")
    bundle.config["mounts"] = [mount for mount in bundle.config["mounts"] if mount["type"] != "cgroup"]
    pid = bundle.state(bundle.start())["pid"]
    for kind in ("cgroup", "ipc", "net", "pid", "time", "uts", "user"):
        assert _ns(pid, kind) == _ns("self", kind), kind


@pytest.mark.parametrize(
    "kind,file",
    [("ipc", "ipc"), ("network", "net"), ("uts", "uts"), ("pid", "pid"), ("cgroup", "cgroup"), ("time", "time")],
)
def test_a_namespace_given_by_path_is_joined(bundle, kind, file):
    if kind == "time":
        _with(bundle, "time")
    first = bundle.state(bundle.start())["pid"]
    _with(bundle, kind, "/proc/%d/ns/%s" % (first, file))
    second = bundle.state(bundle.start())["pid"]
    assert _ns(second, file) == _ns(first, file)
    assert _ns(second, "mnt") != _ns(first, "mnt")


def test_a_path_of_another_kind_of_namespace_is_an_error(bundle):
    _with(bundle, "ipc", "/proc/self/ns/net")
    assert "Cannot join the ipc namespace" in bundle.refused("create", bundle.new_id())
    _with(bundle, "ipc", "/nowhere")
    assert "/nowhere" in bundle.refused("create", bundle.new_id())


def test_a_new_network_namespace_has_its_loopback_up(bundle):
    assert "LOOPBACK,UP" in bundle.sh("ip link show lo")


def test_hostname_and_domainname_are_the_containers_own(bundle):
    before = os.uname().nodename
    bundle.config.update(hostname="box", domainname="example.org")
    assert bundle.sh("hostname; cat /proc/sys/kernel/domainname") == "box\nexample.org\n"
    assert os.uname().nodename == before
    _without(bundle, "uts")
    assert "without a private UTS namespace" in bundle.refused("run", bundle.new_id())


def test_clocks_of_a_new_time_namespace_have_their_offsets(bundle):
    _with(bundle, "time")
    bundle.linux["timeOffsets"] = {"boottime": {"secs": 864000}, "monotonic": {"secs": 172800, "nanosecs": 5}}
    shown = bundle.sh("cut -d. -f1 /proc/uptime; cat /proc/self/timens_offsets")
    lines = shown.splitlines()
    with open("/proc/uptime") as stream:
        assert int(lines[0]) - 864000 <= float(stream.read().split()[0]) + 1
    assert int(lines[0]) >= 864000
    assert [line.split() for line in lines[1:]] == [["monotonic", "172800", "5"], ["boottime", "864000", "0"]]


def test_offsets_without_a_new_time_namespace_are_refused(bundle):
    bundle.linux["timeOffsets"] = {"boottime": {"secs": 1}}
    assert "need a new time namespace" in bundle.refused("create", bundle.new_id())


# -- user namespaces -----------------------------------------------------------------------------------------------


def test_root_of_a_user_namespace_is_nobody_special_on_the_host(bundle):
    _map_user(bundle)
    bundle.process["args"] = ["sh", "-c", "cat /proc/self/uid_map /proc/self/setgroups > /tmp/seen; exec sleep 1000"]
    name = bundle.create()
    pid = bundle.state(name)["pid"]
    with open("/proc/%d/status" % pid) as stream:
        ids = {line.split()[0]: line.split()[1:] for line in stream}
    assert ids["Uid:"] == ["200000"] * 4 and ids["Gid:"] == ["200000"] * 4
    for kind in ("user", "ipc", "net", "uts", "pid", "mnt", "cgroup"):
        assert _ns(pid, kind) != _ns("self", kind)
    bundle.must("start", name)
    script = "id -u; hostname inner && hostname"
    assert bundle.must("exec", "--cap", "CAP_SYS_ADMIN", name, "sh", "-c", script) == "0\ninner\n"
    assert bundle.must("exec", name, "cat", "/tmp/seen").split() == ["0", "200000", "65536", "allow"]
    assert os.stat(bundle.path + "/rootfs/tmp/seen").st_uid == 200000


def test_a_user_namespace_has_working_devices_proc_sys_and_cgroup(bundle):
    _map_user(bundle)
    script = (
        "echo x > /dev/null && head -c 4 /dev/urandom | wc -c && ls -l /dev/zero | cut -c1 && cat /proc/self/comm && "
        "ls /sys/class/net && ls -d /sys/fs/cgroup/* | head -1 && mount -t tmpfs none /tmp && echo mounted"
    )
    bundle.process["capabilities"] = {key: ["CAP_SYS_ADMIN"] for key in ("bounding", "effective", "permitted")}
    lines = bundle.sh(script).splitlines()
    assert lines[:4] == ["4", "c", "cat", "lo"] and lines[-1] == "mounted"


def test_a_program_of_a_user_namespace_has_the_ids_and_groups_asked_for(bundle):
    _map_user(bundle)
    bundle.process["user"] = {"uid": 1000, "gid": 1001, "additionalGids": [5, 7]}
    assert bundle.sh("id -u; id -g; grep Groups /proc/self/status") == "1000\n1001\nGroups:\t5 7 \n"


def test_a_container_joins_the_user_namespace_of_another_with_its_namespaces(bundle):
    _map_user(bundle)
    first = bundle.state(bundle.start())["pid"]
    spaces = {"user": "user", "network": "net", "ipc": "ipc", "uts": "uts"}
    for kind, file in spaces.items():
        _with(bundle, kind, "/proc/%d/ns/%s" % (first, file))
    bundle.linux.pop("uidMappings")
    bundle.linux.pop("gidMappings")
    bundle.config.pop("hostname")
    second = bundle.state(bundle.start())["pid"]
    for file in spaces.values():
        assert _ns(second, file) == _ns(first, file)
    assert _ns(second, "pid") != _ns(first, "pid")
    assert os.stat("/proc/%d" % second).st_uid == 200000


def test_a_new_user_namespace_can_join_the_hosts_network(bundle):
    """The network belongs to the host: it must be joined while the host's rights are still there."""
    first = bundle.state(bundle.start())["pid"]
    _map_user(bundle)
    _with(bundle, "network", "/proc/%d/ns/net" % first)
    bundle.config["mounts"] = [mount for mount in bundle.config["mounts"] if mount["destination"] != "/sys"]
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["destination"] != "/sys/fs/cgroup"]
    second = bundle.state(bundle.start())["pid"]
    assert _ns(second, "net") == _ns(first, "net") and _ns(second, "user") != _ns("self", "user")


def test_mappings_and_user_namespaces_belong_together(bundle):
    bundle.linux["uidMappings"] = bundle.linux["gidMappings"] = [{"containerID": 0, "hostID": 1, "size": 1}]
    assert "user namespace isn't enabled" in bundle.refused("create", bundle.new_id())
    _with(bundle, "user")
    bundle.linux["uidMappings"] = []
    assert "needs uidMappings" in bundle.refused("create", bundle.new_id())
    bundle.linux["uidMappings"] = [
        {"containerID": 0, "hostID": 1, "size": 5},
        {"containerID": 3, "hostID": 90, "size": 5},
    ]
    assert "overlap" in bundle.refused("create", bundle.new_id())
