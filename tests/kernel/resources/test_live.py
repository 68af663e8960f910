# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the kernel can change in a container that runs is changed there: set, changed, changed back and taken away, and
through all of it the process is the same."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.engine import Engine
from helpers.option_laws import SLEEP, cgroup, mounts, proc
from module_utils._engine.errors import UnhealthyError

V1 = os.path.isdir("/sys/fs/cgroup/memory")
BLOCK = next((path for path in ("/dev/vda", "/dev/sda", "/dev/nvme0n1", "/dev/zram0") if os.path.exists(path)), None)


def same_process(engine: Engine, name: str) -> tuple[int, str]:
    """Pid and start time: a number alone may be somebody else's by now."""
    pid = engine.pid(name)
    return pid, Path("/proc/%d/stat" % pid).read_text().rpartition(")")[2].split()[19]


def told(result: dict[str, Any]) -> set[tuple[str, str]]:
    return {(action["how"], action["why"]) for action in result["actions"]}


def published(_engine: Engine, _name: str) -> list[str]:
    """The elements of the maps of published ports, in the kernel's words by way of nft."""
    text = subprocess.run(["nft", "list", "ruleset"], check=True, capture_output=True, text=True).stdout
    return sorted(set(re.findall(r"(?:[\d.]+ \. )?(?:tcp|udp) \. 182\d\d : [\d.]+ \. \d+", text)))


def addresses(engine: Engine, name: str) -> list[str]:
    """Local IPv4 addresses that the container's kernel has, loopback apart."""
    trie = proc(engine, name, "net/fib_trie")
    return sorted(set(re.findall(r"\|-- ([\d.]+)\n\s+/32 host LOCAL", trie)) - {"127.0.0.1"})


def text(path: str, word: str) -> Callable[[Engine, str], list[str]]:
    return lambda e, n: [line for line in e.sh(n, "cat " + path).splitlines() if word in line]


def limit(word: str) -> Callable[[Engine, str], list[str]]:
    return lambda e, n: next(line.split()[-3:-1] for line in proc(e, n, "limits").splitlines() if line.startswith(word))


def file(controller: str, v1: str, v2: str) -> Callable[[Engine, str], str]:
    return lambda e, n: cgroup(e, n, controller, v1, "../" + v2)


def rate(v1: str) -> Callable[[Engine, str], str]:
    return file("blkio", "blkio.throttle.%s_device" % v1, "io.max")


def at(value: Any) -> list[dict[str, Any]]:
    return [{"path": BLOCK, "rate": value}]


def points(*targets: str) -> Callable[[Engine, str], list[list[str]]]:
    return lambda e, n: [mounts(e, n, target) for target in targets]


def answered(name: str) -> Callable[[Engine, str], list[str]]:
    return lambda e, n: sorted(set(re.findall(r"10\.99\.\d+\.\d+", e.exec("lv-asker", "nslookup", name)["stdout"])))


def _chosen(engine: Engine, name: str) -> int:
    """How many elements lead to the container's address, whatever port was chosen."""
    text = subprocess.run(["nft", "list", "ruleset"], check=True, capture_output=True, text=True).stdout
    own = engine.inspect(name)["NetworkSettings"]["IPAddress"]
    return len(set(re.findall(r"(?:tcp|udp) \. \d+ : %s \. 809[89]" % re.escape(own), text)))


HARD = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
# option: (one value, another, what is seen of it, what else the task says)
LIVE: dict[str, tuple[Any, Any, Callable[[Engine, str], Any], dict[str, Any]]] = {
    "memory": ("64m", "96m", file("memory", "memory.limit_in_bytes", "memory.max"), {}),
    "memory_swap": (
        "96m",
        "-1",
        file("memory", "memory.memsw.limit_in_bytes", "memory.swap.max"),
        {"memory": "64m"},
    ),
    "memory_reservation": ("32m", "48m", file("memory", "memory.soft_limit_in_bytes", "memory.low"), {}),
    "cpus": (0.5, 0.75, file("cpu", "cpu.cfs_quota_us", "cpu.max"), {}),
    "cpu_quota": (20000, 30000, file("cpu", "cpu.cfs_quota_us", "cpu.max"), {}),
    "cpu_period": (50000, 60000, file("cpu", "cpu.cfs_period_us", "cpu.max"), {"cpu_quota": 20000}),
    "cpu_shares": (512, 256, file("cpu", "cpu.shares", "cpu.weight"), {}),
    "cpuset_cpus": ("0", "1", file("cpuset", "cpuset.cpus", "cpuset.cpus"), {}),
    "pids_limit": (50, 60, file("pids", "pids.max", "pids.max"), {}),
    "memory_swappiness": (10, 20, file("memory", "memory.swappiness", ""), {}),
    "oom_killer": (True, None, lambda e, n: cgroup(e, n, "memory", "memory.oom_control", "").split()[1], {}),
    "device_read_bps": (at("1m"), at("2m"), rate("read_bps"), {}),
    "device_write_bps": (at("1m"), at("2m"), rate("write_bps"), {}),
    "device_read_iops": (at(100), at(200), rate("read_iops"), {}),
    "device_write_iops": (at(100), at(200), rate("write_iops"), {}),
    # Only the soft ones: the hard ones can be raised again only with CAP_SYS_RESOURCE.
    "ulimits": (["nofile:100:%d" % HARD], ["nofile:150:%d" % HARD], limit("Max open files"), {}),
    "etc_hosts": ({"one": "10.0.0.1"}, {"one": "10.0.0.2", "two": "10.0.0.3"}, text("/etc/hosts", "10.0.0."), {}),
    "dns_servers": (["192.0.2.1"], ["192.0.2.2", "192.0.2.3"], text("/etc/resolv.conf", "nameserver"), {}),
    "dns_opts": (["ndots:2"], ["ndots:3"], text("/etc/resolv.conf", "options"), {}),
    "dns_search_domains": (["one.example"], ["two.example"], text("/etc/resolv.conf", "search"), {}),
    "links": (["lv-peer:db"], ["lv-peer:cache"], text("/etc/hosts", "172.17."), {}),
    "published_ports": (["18201:80"], ["18201:81", "127.0.0.1:18202:80/udp"], published, {}),
    "publish_all_ports": (True, None, _chosen, {"exposed_ports": ["8099", "8098/udp"]}),
    "volumes": (
        ["lv-a:/data"],
        ["lv-a:/data", "lv-b:/more:ro", "/etc:/host:ro"],
        points("/data", "/more", "/host"),
        {},
    ),
    "mounts": (
        [{"type": "volume", "source": "lv-a", "target": "/data"}],
        [{"type": "tmpfs", "target": "/fast", "tmpfs_size": "1m"}],
        points("/data", "/fast"),
        {},
    ),
    "tmpfs": (["/t:size=1m"], ["/u:size=2m"], points("/t", "/u"), {}),
    "networks": (
        [{"name": "lv-one"}, {"name": "lv-two", "ipv4_address": "10.99.2.9"}],
        [{"name": "lv-one"}, {"name": "lv-two", "ipv4_address": "10.99.2.10"}],
        addresses,
        {},
    ),
}


@pytest.fixture(scope="module")
def lively(shared: Engine) -> Engine:
    shared.run("network", name="lv-one", ipam_config=[{"subnet": "10.99.1.0/24"}])
    shared.run("network", name="lv-two", ipam_config=[{"subnet": "10.99.2.0/24"}])
    shared.container("lv-peer", command=SLEEP)
    return shared


@pytest.mark.parametrize("option", sorted(LIVE))
def test_it_comes_changes_changes_back_and_goes_while_the_process_stays(lively: Engine, option: str) -> None:
    one, two, see, base = LIVE[option]
    if option.startswith("device_") and BLOCK is None:
        pytest.skip("no block device here")
    if option in ("memory_swappiness", "oom_killer") and not V1:
        pytest.skip("cgroup v2 has none")
    name = "lv-" + option.replace("_", "-")

    def task(value: Any, check: bool = False) -> dict[str, Any]:
        wish = {**base, **({} if value is None else {option: value})}
        return lively.container(name, check=check, command=SLEEP, stop_timeout=0, **wish)

    task(None)
    process, bare = same_process(lively, name), see(lively, name)
    seen = {"None": bare}
    for value in (one, two, one, None):
        before = see(lively, name)
        planned = task(value, check=True)
        assert see(lively, name) == before, "check mode changed something"
        if value is None and seen[repr(None)] == before:
            continue  # the other value was no value
        applied = task(value)
        assert told(planned) == told(applied) == {("live", "asked")}
        assert {a["detail"]["option"] for a in applied["actions"]} <= {option, "mounts"}
        now = see(lively, name)
        assert now == seen.setdefault(repr(value), now), "what it leads to depends on where it came from"
        assert now != before
        assert same_process(lively, name) == process
        assert not task(value)["changed"]
    lively.run("container", name=name, state="absent", force_kill=True)


def test_of_each_difference_the_plan_says_live_replace_or_noise_and_why(lively: Engine) -> None:
    lively.busybox("bb:other")
    base: dict[str, Any] = {"command": SLEEP, "stop_timeout": 0, "pids_limit": 50, "volumes": ["lv-a:/data"]}
    lively.container("lv-told", **base)
    pids = next(x for x in proc(lively, "lv-told", "cgroup").splitlines() if (V1 and ":pids:" in x) or x[:3] == "0::")

    def differences(check: bool, **params: Any) -> dict[str, tuple[str, str, str]]:
        result = lively.container("lv-told", check=check, **{**base, **params})
        return {d["option"]: (d["change"], d["cause"], d["why"]) for d in result.get("differences", [])}

    assert differences(True) == {}
    told = differences(
        True, env={"A": "1"}, labels={"a": "1"}, volumes=["lv-a:/data:ro"], stop_timeout=3, image="bb:other"
    )
    assert told == {
        "env": ("replace", "asked", "a container is made with it"),
        "labels": ("live", "asked", "the running container takes it"),
        "mounts": ("replace", "asked", "/data stays a mountpoint and gets something else"),
        "stop_timeout": ("noise", "asked", "it is for the next stop, and changes nothing until then"),
        "image": ("noise", "asked", "it is another name of the same image"),
    }
    again = lively.container("lv-told", **{**base, "stop_timeout": 3, "image": "bb:other"})
    assert not again["changed"] and {d["change"] for d in again["differences"]} == {"noise"}
    assert differences(True, stop_timeout=3, image="bb:other") == {}, "noise is told once"
    if V1:
        Path("/sys/fs/cgroup/pids%s/pids.max" % pids.split(":", 2)[2]).write_text("33")
        assert differences(False, stop_timeout=3, image="bb:other") == {
            "pids_limit": ("live", "drift", "the running container takes it")
        }


def test_aliases_come_and_go_while_the_process_stays(lively: Engine) -> None:
    lively.container("lv-asker", command=SLEEP, networks=[{"name": "lv-one"}])

    def task(*aliases: str) -> dict[str, Any]:
        return lively.container("lv-alias", command=SLEEP, networks=[{"name": "lv-one", "aliases": list(aliases)}])

    task()
    process = same_process(lively, "lv-alias")
    for aliases in (("web",), ("web", "api"), ("api",), ()):
        assert told(task(*aliases)) == {("live", "asked")}
        for name in ("web", "api"):
            assert bool(answered(name)(lively, "")) == (name in aliases), (name, aliases)
        assert same_process(lively, "lv-alias") == process and not task(*aliases)["changed"]


def wait_until(holds: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 15
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def test_a_restart_policy_given_and_taken_decides_what_happens_when_the_process_dies(lively: Engine) -> None:
    def task(**params: Any) -> dict[str, Any]:
        return lively.container("lv-policy", command=SLEEP, stop_timeout=0, **params)

    task()
    process = same_process(lively, "lv-policy")
    assert told(task(restart_policy="always")) == {("live", "asked")}
    assert same_process(lively, "lv-policy") == process
    os.kill(process[0], 9)
    wait_until(lambda: lively.pid("lv-policy") not in (0, process[0]))
    process = same_process(lively, "lv-policy")
    assert told(task()) == {("live", "asked")} and same_process(lively, "lv-policy") == process
    os.kill(process[0], 9)
    wait_until(lambda: lively.inspect("lv-policy")["State"]["Status"] == "exited")
    assert lively.inspect("lv-policy")["State"]["ExitCode"] == 137


def test_a_health_check_comes_changes_and_goes_while_the_process_stays(lively: Engine) -> None:
    def task(mark: str = "") -> dict[str, Any]:
        check = {"test": ["CMD", "touch", "/tmp/" + mark], "interval": "50ms"}
        return lively.container("lv-health", command=SLEEP, **({"healthcheck": check} if mark else {}))

    def probed(mark: str) -> bool:
        return lively.exec("lv-health", "rm", "/tmp/" + mark)["rc"] == 0

    task()
    process = same_process(lively, "lv-health")
    for mark in ("one", "two", "one"):
        assert told(task(mark)) == {("live", "asked")}
        wait_until(lambda mark=mark: probed(mark))
    assert told(task()) == {("live", "asked")} and same_process(lively, "lv-health") == process
    assert not lively.inspect("lv-health")["State"].get("Health")


def test_health_is_what_the_check_of_now_says_and_stays_when_something_else_changes(lively: Engine) -> None:
    def task(test: str, **params: Any) -> dict[str, Any]:
        check = {"test": ["CMD", test], "interval": "50ms", "retries": 1, "start_period": "0s"}
        return lively.container("lv-well", command=SLEEP, stop_timeout=0, healthcheck=check, **params)

    def status() -> str:
        return str(lively.inspect("lv-well")["State"]["Health"]["Status"])

    task("true", state="healthy")
    assert told(task("true", restart_policy="always", stop_signal="SIGINT")) == {("live", "asked")}
    assert status() == "healthy"
    with pytest.raises(UnhealthyError):
        task("false", restart_policy="always", stop_signal="SIGINT", state="healthy")
    task("true", restart_policy="always", stop_signal="SIGINT", state="healthy")
    assert status() == "healthy"


def test_a_stop_signal_and_the_size_of_logs_change_while_the_process_stays(lively: Engine) -> None:
    script = (
        "trap 'echo got INT; exit 1' INT; trap 'echo got USR1; exit 2' USR1; echo ready; while :; do sleep 0.05; done"
    )

    def task(**params: Any) -> dict[str, Any]:
        return lively.container("lv-signal", command=["sh", "-c", script], stop_timeout=10, **params)

    task()
    wait_until(lambda: "ready" in lively.logs("lv-signal"))
    process = same_process(lively, "lv-signal")
    assert told(task(stop_signal="SIGINT")) == {("live", "asked")}
    assert told(task(stop_signal="SIGUSR1", log_options={"max-size": "2k", "max-file": "2"})) == {("live", "asked")}
    assert same_process(lively, "lv-signal") == process
    lively.exec("lv-signal", "sh", "-c", "seq 1 1000 > /proc/1/fd/1")
    directory = lively.paths.container(lively.inspect("lv-signal")["Id"])
    wait_until(lambda: len([name for name in os.listdir(directory) if name.startswith("log")]) > 1)
    lively.run("container", name="lv-signal", state="stopped")
    assert lively.inspect("lv-signal")["State"]["ExitCode"] == 2


def test_auto_remove_and_labels_change_while_the_process_stays(lively: Engine) -> None:
    def task(**params: Any) -> dict[str, Any]:
        return lively.container("lv-gone", command=SLEEP, stop_timeout=0, **params)

    task()
    process = same_process(lively, "lv-gone")
    assert told(task(labels={"a": "1"}, auto_remove=True)) == {("live", "asked")}
    assert told(task(labels={"a": "2"})) == {("live", "asked")}
    assert lively.inspect("lv-gone")["Config"]["Labels"] == {"a": "2"}
    assert told(task(auto_remove=True)) == {("live", "asked")}
    assert same_process(lively, "lv-gone") == process
    os.kill(process[0], 9)
    wait_until(lambda: not lively.run("container_info", name="lv-gone")["exists"])


def test_the_log_driver_changes_while_the_process_stays(lively: Engine) -> None:
    def task(**params: Any) -> dict[str, Any]:
        return lively.container("lv-log", command=SLEEP, stop_timeout=0, **params)

    def say(word: str) -> None:
        lively.exec("lv-log", "sh", "-c", "echo %s > /proc/1/fd/1" % word)

    task()
    process = same_process(lively, "lv-log")
    say("one")
    wait_until(lambda: "one" in lively.logs("lv-log"))
    assert told(task(log_driver="none")) == {("live", "asked")}
    say("two")
    assert told(task()) == {("live", "asked")}
    say("three")
    wait_until(lambda: "three" in lively.logs("lv-log"))
    assert "two" not in lively.logs("lv-log") and same_process(lively, "lv-log") == process
