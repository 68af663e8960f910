# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Limits, namespaces and files that only some tasks ask for, each through the whole law, seen in the kernel."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from helpers.engine import Engine
from helpers.option_laws import SLEEP, cgroup, hold, mounts, proc
from module_utils._engine.errors import NotFound, StartError, UsageError

V1 = os.path.isdir("/sys/fs/cgroup/memory")
BLOCK = next((path for path in ("/dev/vda", "/dev/sda", "/dev/nvme0n1", "/dev/zram0") if os.path.exists(path)), None)


def rates(number: str, word: str) -> Any:
    def see(engine: Engine, name: str) -> list[str]:
        v1 = "blkio.throttle.%s_device" % number
        text = cgroup(engine, name, "blkio", v1, "../io.max")
        return [w for w in text.split() if w.startswith(word) or (":" in w or w.isdigit())]

    return see


def at(rate: Any) -> list[dict[str, Any]]:
    return [{"path": BLOCK, "rate": rate}]


CHANGES: dict[str, tuple[Any, Any, str]] = {
    "cpu_quota": (20000, 30000, "live"),
    "blkio_weight": (100, 200, "live"),
    "device_read_bps": (at("1m"), at("2m"), "live"),
    "device_write_bps": (at("1m"), at("2m"), "live"),
    "device_read_iops": (at(100), at(200), "live"),
    "device_write_iops": (at(100), at(200), "live"),
    "memory_swappiness": (0, 10, "live"),
    "cgroup_parent": ("wharf-test/one", "/wharf-test/two", "replace"),
    "device_cgroup_rules": (["c 42:1 rw"], ["c 42:* rwm"], "replace"),
    "timezone": ("Asia/Tokyo", "America/New_York", "replace"),
    "umask": ("0077", "0000", "replace"),
    "etc_hosts": ({"one": "10.0.0.1"}, {"one": "10.0.0.2"}, "live"),
    "dns_servers": (["10.0.0.1"], ["10.0.0.2"], "live"),
    "secrets": (
        [{"name": "key", "content": "one"}],
        [{"name": "key", "content": "two"}],
        "replace",
    ),
}

EFFECT = {
    "cpu_quota": lambda e, n: cgroup(e, n, "cpu", "cpu.cfs_quota_us", "../cpu.max"),
    "blkio_weight": lambda e, n: (
        cgroup(e, n, "blkio", "blkio.bfq.weight", "../io.weight"),
        e.inspect(n)["HostConfig"]["BlkioWeight"],
    ),
    "device_read_bps": rates("read_bps", "rbps"),
    "device_write_bps": rates("write_bps", "wbps"),
    "device_read_iops": rates("read_iops", "riops"),
    "device_write_iops": rates("write_iops", "wiops"),
    "memory_swappiness": lambda e, n: cgroup(e, n, "memory", "memory.swappiness", ""),
    "cgroup_parent": lambda e, n: sorted(line.partition("wharf")[2][:10] for line in proc(e, n, "cgroup").splitlines()),
    # No driver has this number: opening is refused with EPERM by the device filter, and with ENXIO behind it.
    "device_cgroup_rules": lambda e, n: [
        "not permitted"
        in e.exec(n, "sh", "-c", "mknod /tmp/d c 42 %d; echo x > /tmp/d; rm -f /tmp/d" % minor)["stderr"]
        for minor in (1, 2)
    ],
    "timezone": lambda e, n: e.sh(n, "date -d @0 +%H"),
    "umask": lambda e, n: (e.sh(n, "umask"), next(x for x in proc(e, n, "status").splitlines() if "Umask" in x)),
    "etc_hosts": lambda e, n: [x for x in e.sh(n, "cat /etc/hosts").splitlines() if "one" in x],
    "dns_servers": lambda e, n: [x for x in e.sh(n, "cat /etc/resolv.conf").splitlines() if x.startswith("nameserver")],
    "secrets": lambda e, n: e.exec(n, "cat", "/run/secrets/key")["stdout"],
}


@pytest.fixture(scope="module", autouse=True)
def no_left_overs() -> Any:
    yield
    for top in ("/sys/fs/cgroup", *("/sys/fs/cgroup/" + name for name in os.listdir("/sys/fs/cgroup"))):
        for name in ("wharf-test/one", "wharf-test/two", "wharf-test"):
            if os.path.isdir("%s/%s" % (top, name)):
                os.rmdir("%s/%s" % (top, name))


@pytest.mark.parametrize("option", sorted(CHANGES))
def test_an_option_is_set_kept_changed_restored_and_taken_away(shared: Engine, option: str) -> None:
    before, after, how = CHANGES[option]
    if option.startswith("device_") and option != "device_cgroup_rules" and BLOCK is None:
        pytest.skip("no block device here")
    if option == "memory_swappiness" and not V1:
        pytest.skip("cgroup v2 has none")
    if option == "blkio_weight" and not _has_weight():
        pytest.skip("this kernel weighs no I/O")
    hold(shared, option, before, after, how, EFFECT[option])


def _has_weight() -> bool:
    return any(os.path.exists("/sys/fs/cgroup/" + name) for name in ("blkio/blkio.bfq.weight", "io.weight"))


# on or off: (value, how it is switched, what is seen)
SWITCHES: dict[str, tuple[Any, str]] = {
    "cgroupns_mode": ("host", "replace"),
    "ipc_mode": ("host", "replace"),
    "pid_mode": ("host", "replace"),
    "uts": ("host", "replace"),
    "publish_all_ports": (True, "live"),
    "auto_remove": (True, "live"),
    "oom_killer": (True, "live"),
    "cpu_period": (50000, "live"),
}


def namespace(kind: str) -> Any:
    return lambda e, n: os.readlink("/proc/%d/ns/%s" % (e.pid(n), kind)) == os.readlink("/proc/self/ns/" + kind)


SEEN = {
    "cgroupns_mode": namespace("cgroup"),
    "ipc_mode": namespace("ipc"),
    "pid_mode": namespace("pid"),
    "uts": namespace("uts"),
    "publish_all_ports": lambda e, n: bool(e.inspect(n)["NetworkSettings"]["Ports"].get("8099/tcp")),
    "auto_remove": lambda e, n: e.inspect(n)["HostConfig"]["AutoRemove"],
    "oom_killer": lambda e, n: "oom_kill_disable 1" in cgroup(e, n, "memory", "memory.oom_control", ""),
    "cpu_period": lambda e, n: "50000" in cgroup(e, n, "cpu", "cpu.cfs_period_us", "../cpu.max"),
}


@pytest.mark.parametrize("option", sorted(SWITCHES))
def test_an_option_is_switched_on_kept_off_and_on_again(shared: Engine, option: str) -> None:
    if option == "oom_killer" and not V1:
        pytest.skip("cgroup v2 has none")
    value, how = SWITCHES[option]
    name, see = "sw-" + option.replace("_", "-"), SEEN[option]
    base: dict[str, Any] = {"exposed_ports": ["8099"]} if option == "publish_all_ports" else {}

    def task(on: bool, check: bool = False) -> dict[str, Any]:
        return shared.container(name, check=check, command=SLEEP, **base, **({option: value} if on else {}))

    task(True)
    assert see(shared, name) is True and not task(True)["changed"]
    planned, applied = task(False, check=True), task(False)
    assert [a["how"] for a in planned["actions"]] == [a["how"] for a in applied["actions"]] == [how]
    assert see(shared, name) is False and not task(False)["changed"]
    assert [a["how"] for a in task(True)["actions"]] == [how] and see(shared, name) is True
    shared.run("container", name=name, state="absent", force_kill=True)


def test_namespaces_are_shared_with_another_container_and_found_again_after_its_restart(shared: Engine) -> None:
    shared.container("ns-a", command=SLEEP)
    shared.sh("ns-a", "echo shared > /dev/shm/f")
    shared.container("ns-b", command=SLEEP, ipc_mode="container:ns-a", pid_mode="container:ns-a")
    for kind in ("ipc", "pid"):
        one, two = (os.readlink("/proc/%d/ns/%s" % (shared.pid(name), kind)) for name in ("ns-a", "ns-b"))
        assert one == two
    assert shared.sh("ns-b", "cat /dev/shm/f") == "shared"
    assert "sleep 1000" in shared.sh("ns-b", "ps")
    shared.run("container", name="ns-b", state="stopped", force_kill=True)
    shared.run("container", name="ns-a", state="stopped", force_kill=True)
    with pytest.raises(StartError, match="non running container"):
        shared.container("ns-b", command=SLEEP, ipc_mode="container:ns-a", pid_mode="container:ns-a")
    shared.run("container", name="ns-a", state="started")
    shared.container("ns-b", command=SLEEP, ipc_mode="container:ns-a", pid_mode="container:ns-a")
    assert os.readlink("/proc/%d/ns/ipc" % shared.pid("ns-b")) == os.readlink("/proc/%d/ns/ipc" % shared.pid("ns-a"))
    with pytest.raises(NotFound, match="ipc_mode: No such container"):
        shared.container("ns-c", command=SLEEP, ipc_mode="container:nobody")


def test_uts_host_never_renames_the_host(shared: Engine) -> None:
    before = os.uname().nodename
    shared.container("uts", command=SLEEP, uts="host")
    assert os.uname().nodename == before == shared.sh("uts", "hostname")
    with pytest.raises(UsageError, match="would rename the host"):
        shared.container("uts", command=SLEEP, uts="host", hostname="evil")
    shared.run("container", name="uts", state="absent", force_kill=True)


def test_ipc_none_has_no_shm(shared: Engine) -> None:
    shared.container("noshm", command=SLEEP, ipc_mode="none")
    assert mounts(shared, "noshm", "/dev/shm") == []


def test_a_secret_is_a_file_of_its_reader_and_nowhere_else(shared: Engine, tmp_path: Path) -> None:
    (tmp_path / "from").write_text("s3cret-from-file")
    wish = [
        {"name": "key", "content": "s3cret-inline"},
        {"name": "cert", "source": str(tmp_path / "from"), "mode": "0440"},
    ]
    made = shared.container("secret", command=SLEEP, user="web", secrets=wish)
    assert shared.sh("secret", "cat /run/secrets/key /run/secrets/cert") == "s3cret-inlines3cret-from-file"
    assert shared.sh("secret", "stat -c %a:%u /run/secrets/key") == "400:1000"
    assert shared.exec("secret", "sh", "-c", "echo x > /run/secrets/new", user="root")["rc"] != 0
    assert " ro," in " ".join(mounts(shared, "secret", "/run/secrets")) + ","
    wish[0]["content"] = "s3cret-other"
    changed = shared.container("secret", command=SLEEP, user="web", secrets=wish)
    for text in (repr(made), repr(changed), proc(shared, "secret", "environ"), proc(shared, "secret", "cmdline")):
        assert "s3cret" not in text
    assert "s3cret" not in repr(shared.inspect("secret"))
    found = []
    for directory, _dirs, names in os.walk(shared.paths.state):
        for name in names:
            path = os.path.join(directory, name)
            if b"s3cret" in Path(path).read_bytes():
                found.append(path)
                assert os.stat(path).st_mode & 0o077 == 0 and os.stat(directory).st_mode & 0o077 == 0
    assert len(found) == 2  # of the container that there is, none of the one it replaced
    shared.run("container", name="secret", state="stopped", force_kill=True)
    shared.run("container", name="secret", state="started")
    assert shared.sh("secret", "cat /run/secrets/key") == "s3cret-other"


def test_mac_address_and_default_host_ip_are_folded_into_their_lists(shared: Engine) -> None:
    shared.container(
        "folded",
        command=SLEEP,
        mac_address="02:42:00:00:00:77",
        default_host_ip="127.0.0.1",
        published_ports=["18077:80"],
    )
    assert shared.sh("folded", "cat /sys/class/net/eth0/address") == "02:42:00:00:00:77"
    assert shared.inspect("folded")["HostConfig"]["PortBindings"]["80/tcp"][0]["HostIp"] == "127.0.0.1"
    same = shared.container(
        "folded",
        command=SLEEP,
        networks=[{"name": "bridge", "mac_address": "02:42:00:00:00:77"}],
        published_ports=["127.0.0.1:18077:80"],
    )
    assert not same["changed"]


def test_volumes_from_takes_the_volumes_of_another(shared: Engine, tmp_path: Path) -> None:
    shared.container("vf-a", command=SLEEP, volumes=["vf:/data", "%s:/bind" % tmp_path, "/anon"], tmpfs=["/t"])
    shared.sh("vf-a", "echo x > /data/f; echo y > /anon/f")
    shared.container("vf-b", command=SLEEP, volumes_from=["vf-a:ro"], volumes=["other:/bind"])
    assert shared.sh("vf-b", "cat /data/f /anon/f") == "x\ny"
    assert shared.exec("vf-b", "touch", "/data/g")["rc"] != 0
    assert mounts(shared, "vf-b", "/t") == []
    assert not shared.container("vf-b", command=SLEEP, volumes_from=["vf-a:ro"], volumes=["other:/bind"])["changed"]


def test_links_are_names_in_hosts(shared: Engine) -> None:
    shared.container("ln-a", command=SLEEP)
    shared.container("ln-b", command=SLEEP, links=["ln-a:db"])
    address = shared.inspect("ln-a")["NetworkSettings"]["IPAddress"]
    assert [address, "db"] in [line.split() for line in shared.sh("ln-b", "cat /etc/hosts").splitlines()]
    assert [a["how"] for a in shared.container("ln-b", command=SLEEP)["actions"]] == ["live"]
    assert "db" not in shared.sh("ln-b", "cat /etc/hosts").split()


REFUSED: dict[str, tuple[Any, str]] = {
    "kernel_memory": ("1m", "kernel memory"),
    "runtime": ("runc", "its own runtime"),
    "storage_opts": ({"dm.basesize": "1g"}, "only the size is set"),
    "userns_mode": ("automatic", "is none of"),
    "device_requests": ([{"driver": "nvidia", "count": -1}], "'nvidia'"),
    "volume_driver": ("nfs", "no driver"),
    "mac_address": ("01:00:00:00:00:01", "multicast"),
    "cgroup_parent": ("../../etc", "not the path of a cgroup"),
    "device_cgroup_rules": (["x 1:1 r"], "not a device rule"),
    "device_read_bps": ([{"path": "/dev/null", "rate": "1m"}], "not a block device"),
    "pid_mode": ("container:", "is none of"),
    "ipc_mode": ("hots", "is none of"),
    "timezone": ("../../etc/shadow", "not the name of a time zone"),
    "umask": ("1777", "not a umask"),
    "cpu_quota": (10, "below 1000"),
    "blkio_weight": (5, "outside 10 to 1000"),
    "links": (["nobody:x"], "No such container"),
    "volumes_from": (["nobody"], "No such container"),
    "secrets": ([{"name": "../x", "content": "a"}], "not a file name"),
}


@pytest.mark.parametrize("option", sorted(REFUSED))
def test_a_bad_value_is_refused_with_its_option_named_and_nothing_left(shared: Engine, option: str) -> None:
    value, words = REFUSED[option]
    with pytest.raises((UsageError, NotFound), match=words) as caught:
        shared.container("refused", command=SLEEP, **{option: value})
    assert option in caught.value.msg
    if shared.run("container_info", name="refused")["exists"]:
        shared.run("container", name="refused", state="absent", force_kill=True)
        assert option == "links"  # known only once its network is


def test_what_means_the_default_is_no_difference(shared: Engine) -> None:
    shared.container("default", command=SLEEP)
    again = shared.container(
        "default",
        command=SLEEP,
        ipc_mode="private",
        cgroupns_mode="private",
        userns_mode="host",
        volume_driver="local",
        auto_remove=False,
        publish_all_ports=False,
        platform=None,
    )
    assert not again["changed"]


def test_another_platform_is_another_image(shared: Engine) -> None:
    with pytest.raises(NotFound):
        shared.container("platform", command=SLEEP, platform="linux/s390x", pull="never")
    image = shared.run("image_info", name=["bb:1"])["images"][0]
    shared.container("platform", command=SLEEP, platform="linux/%s" % image["Architecture"], pull="never")
