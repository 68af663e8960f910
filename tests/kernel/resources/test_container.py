# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The laws of the container module, held against the running kernel."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any, Optional

import pytest
from helpers.engine import Engine
from module_utils._engine.errors import Conflict, NotFound, StartError, UnhealthyError, UsageError

SLEEP = ["sleep", "1000"]


def cgroup_file(engine: Engine, name: str, controller: str, v1: str, v2: str) -> str:
    """A limit as the kernel has it, read without the engine's help."""
    for line in Path("/proc/%d/cgroup" % engine.pid(name)).read_text().splitlines():
        _number, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return Path("/sys/fs/cgroup/%s%s/%s" % (controller, path, v1)).read_text().strip()
    unified = "/sys/fs/cgroup/unified" if os.path.isdir("/sys/fs/cgroup/unified") else "/sys/fs/cgroup"
    path = next(
        line.split(":", 2)[2]
        for line in Path("/proc/%d/cgroup" % engine.pid(name)).read_text().splitlines()
        if line[:2] == "0:"
    )
    return Path("%s%s/%s" % (unified, path, v2)).read_text().strip()


def memory(engine: Engine, name: str) -> str:
    return cgroup_file(engine, name, "memory", "memory.limit_in_bytes", "../memory.max")


def test_the_first_run_creates_and_starts_and_the_second_changes_nothing(shared: Engine) -> None:
    first = shared.container("c1", command=SLEEP)
    assert first["changed"] and [action["how"] for action in first["actions"]] == ["create", "start"]
    assert first["container"]["State"]["Running"]
    again = shared.container("c1", command=SLEEP)
    assert not again["changed"] and again["actions"] == []
    assert again["container"]["Id"] == first["container"]["Id"]


def test_check_mode_predicts_and_touches_nothing(shared: Engine) -> None:
    planned = shared.container("c2", check=True, command=SLEEP)
    assert planned["changed"] and shared.run("container_info", name="c2")["exists"] is False
    applied = shared.container("c2", command=SLEEP)
    assert [a["how"] for a in planned["actions"]] == [a["how"] for a in applied["actions"]]


CHANGES: dict[str, tuple[Any, Any, str]] = {
    # option: (before, after, how the change is made)
    "env": ({"A": "1"}, {"A": "2"}, "replace"),
    "labels": ({"a": "1"}, {"a": "2"}, "live"),
    "hostname": ("one", "two", "replace"),
    "user": ("web", "1000:50", "replace"),
    "working_dir": ("/srv", "/var", "replace"),
    "read_only": (True, None, "replace"),
    "memory": ("64m", "96m", "live"),
    "cpus": (0.5, 0.75, "live"),
    "cpu_shares": (512, 256, "live"),
    "pids_limit": (50, 60, "live"),
    "cpuset_cpus": ("0", "0-1", "live"),
    "sysctls": ({"net.core.somaxconn": "100"}, {"net.core.somaxconn": "200"}, "replace"),
    "ulimits": (["nofile:100:200"], ["nofile:150:200"], "live"),
    "cap_drop": (["NET_RAW"], ["CHOWN"], "replace"),
    "restart_policy": ("always", "unless-stopped", "live"),
    "stop_signal": ("SIGINT", "SIGQUIT", "live"),
    "tmpfs": (["/t:size=1m"], ["/t:size=2m"], "replace"),
    "shm_size": ("1m", "2m", "replace"),
    "etc_hosts": ({"one": "10.0.0.1"}, {"one": "10.0.0.2"}, "live"),
    "dns_servers": (["10.0.0.1"], ["10.0.0.2"], "live"),
    "security_opts": (["no-new-privileges"], None, "replace"),
    "init": (True, None, "replace"),
    "log_options": ({"max-size": "1m"}, {"max-size": "2m"}, "live"),
}

EFFECT = {
    "env": lambda e, n: e.sh(n, "echo $A"),
    "labels": lambda e, n: e.inspect(n)["Config"]["Labels"].get("a"),
    "hostname": lambda e, n: e.sh(n, "hostname"),
    "user": lambda e, n: e.sh(n, "id -u; id -g"),
    "working_dir": lambda e, n: e.sh(n, "pwd"),
    "read_only": lambda e, n: e.exec(n, "touch", "/x")["rc"] == 0,
    "memory": memory,
    "cpus": lambda e, n: cgroup_file(e, n, "cpu", "cpu.cfs_quota_us", "../cpu.max"),
    "cpu_shares": lambda e, n: cgroup_file(e, n, "cpu", "cpu.shares", "../cpu.weight"),
    "pids_limit": lambda e, n: cgroup_file(e, n, "pids", "pids.max", "../pids.max"),
    "cpuset_cpus": lambda e, n: cgroup_file(e, n, "cpuset", "cpuset.cpus", "../cpuset.cpus"),
    "sysctls": lambda e, n: e.sh(n, "cat /proc/sys/net/core/somaxconn"),
    "ulimits": lambda e, n: next(
        x for x in Path("/proc/%d/limits" % e.pid(n)).read_text().splitlines() if "open files" in x
    ),
    "cap_drop": lambda e, n: next(
        x for x in Path("/proc/%d/status" % e.pid(n)).read_text().splitlines() if "CapBnd" in x
    ),
    "restart_policy": lambda e, n: e.inspect(n)["HostConfig"]["RestartPolicy"]["Name"],
    "stop_signal": lambda e, n: e.inspect(n)["Config"]["StopSignal"],
    "tmpfs": lambda e, n: (
        [x for x in Path("/proc/%d/mountinfo" % e.pid(n)).read_text().splitlines() if " /t " in x][0:1]
        and e.sh(n, "df -k /t | sed -n 2p").split()[1]
    ),
    "shm_size": lambda e, n: e.sh(n, "df -k /dev/shm | sed -n 2p").split()[1],
    "etc_hosts": lambda e, n: [x for x in e.sh(n, "cat /etc/hosts").splitlines() if "one" in x],
    "dns_servers": lambda e, n: [x for x in e.sh(n, "cat /etc/resolv.conf").splitlines() if x.startswith("nameserver")],
    "security_opts": lambda e, n: e.sh(n, "grep NoNewPrivs /proc/1/status"),
    "init": lambda e, n: "sleep" in e.sh(n, "cat /proc/1/cmdline"),
    "log_options": lambda e, n: e.inspect(n)["HostConfig"]["LogConfig"]["Config"],
}


@pytest.mark.parametrize("option", sorted(CHANGES))
def test_an_option_is_set_kept_changed_restored_and_taken_away(shared: Engine, option: str) -> None:
    """Create / same again / change / back / remove from the task: changed, plan, and the effect in the kernel."""
    before, after, how = CHANGES[option]
    name, see = "opt-" + option.replace("_", "-"), EFFECT[option]

    def task(value: Any, check: bool = False) -> dict[str, Any]:
        return shared.container(name, check=check, command=SLEEP, **({} if value is None else {option: value}))

    assert task(before)["changed"]
    first = see(shared, name)
    assert not task(before)["changed"]
    planned, applied = task(after, check=True), task(after)
    assert [a["how"] for a in planned["actions"]] == [a["how"] for a in applied["actions"]] == [how]
    second = see(shared, name)
    assert second != first
    assert not task(after)["changed"]
    assert task(before)["changed"] and see(shared, name) == first
    assert task(None)["changed"]
    bare = see(shared, name)
    assert bare != first
    assert not task(None)["changed"]
    shared.run("container", name=name, state="absent", force_kill=True)


def test_a_live_change_keeps_the_process(shared: Engine) -> None:
    shared.container("live", command=SLEEP, memory="64m")
    pid = shared.pid("live")
    changed = shared.container("live", command=SLEEP, memory="128m", labels={"x": "y"}, restart_policy="always")
    assert {action["how"] for action in changed["actions"]} == {"live"}
    assert shared.pid("live") == pid
    assert memory(shared, "live") == str(128 << 20)


def test_a_limit_edited_by_hand_is_drift_and_only_that_is_repaired(shared: Engine) -> None:
    shared.container("drift", command=SLEEP, pids_limit=50)
    path = Path("/proc/%d/cgroup" % shared.pid("drift")).read_text()
    line = next(line for line in path.splitlines() if ":pids:" in line)
    file = Path("/sys/fs/cgroup/pids%s/pids.max" % line.split(":", 2)[2])
    file.write_text("33")
    found = shared.container("drift", command=SLEEP, pids_limit=50)
    assert [(a["how"], a["detail"]["option"], a["why"]) for a in found["actions"]] == [("live", "pids_limit", "drift")]
    assert file.read_text().strip() == "50"


def test_a_killed_process_is_started_again(shared: Engine) -> None:
    shared.container("killed", command=SLEEP)
    os.kill(shared.pid("killed"), 9)
    deadline = time.monotonic() + 5
    while shared.inspect("killed")["State"]["Running"] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert shared.inspect("killed")["State"]["ExitCode"] == 137
    again = shared.container("killed", command=SLEEP)
    assert [action["how"] for action in again["actions"]] == ["start"]


def test_state_operates_on_an_existing_container_without_describing_it(shared: Engine) -> None:
    shared.container("ops", command=SLEEP, env={"A": "1"})
    stopped = shared.run("container", name="ops", state="stopped", stop_timeout=1)
    assert stopped["changed"] and stopped["container"]["State"]["Status"] == "exited"
    assert not shared.run("container", name="ops", state="stopped")["changed"]
    started = shared.run("container", name="ops", state="started")
    assert started["changed"] and "A=1" in started["container"]["Config"]["Env"]
    assert shared.run("container", name="ops", state="absent", force_kill=True)["changed"]
    assert not shared.run("container", name="ops", state="absent")["changed"]


def test_present_creates_without_starting(shared: Engine) -> None:
    made = shared.container("present", state="present", command=SLEEP)
    assert made["container"]["State"]["Status"] == "created"
    assert not shared.container("present", state="present", command=SLEEP)["changed"]


def test_a_missing_command_is_127_and_leaves_nothing(shared: Engine) -> None:
    with pytest.raises(StartError) as caught:
        shared.container("nocmd", command=["/no/such/thing"])
    assert caught.value.details["exit_code"] == 127
    assert not shared.run("container_info", name="nocmd")["exists"]


def test_a_command_that_cannot_be_executed_is_126(shared: Engine) -> None:
    with pytest.raises(StartError) as caught:
        shared.container("noexec", command=["/etc/passwd"])
    assert caught.value.details["exit_code"] == 126
    assert not shared.run("container_info", name="noexec")["exists"]


def test_an_unknown_user_is_refused_by_name(shared: Engine) -> None:
    with pytest.raises(StartError, match="nosuch"):
        shared.container("nouser", command=SLEEP, user="nosuch")
    assert not shared.run("container_info", name="nouser")["exists"]


@pytest.mark.parametrize(
    ("params", "option"),
    [
        ({"memory": "1m"}, "memory"),
        ({"memory": "64m", "memory_swap": "32m"}, "memory_swap"),
        ({"cpus": 9999.0}, "cpus"),
        ({"cpuset_cpus": "999"}, "cpuset_cpus"),
        ({"published_ports": ["8080:99999"]}, r"published_ports\[0\]"),
        ({"published_ports": ["8080:80", "8080:81"]}, "published_ports"),
        ({"volumes": ["a b:/x"]}, r"volumes\[0\]"),
        ({"mounts": [{"type": "bind", "source": "/no/such/dir", "target": "/x"}]}, "mounts"),
        ({"security_opts": ["frobnicate=1"]}, "security_opts"),
        ({"sysctls": {"kernel.panic": "1"}}, "sysctls.kernel.panic"),
        ({"capabilities": ["NOPE"]}, "CAP_NOPE"),
        ({"ulimits": ["nofile:9:1"]}, r"ulimits\[0\]"),
        ({"network_mode": "host", "networks": [{"name": "x1"}]}, "network_mode"),
        ({"restart_retries": 3}, "restart_retries"),
        ({"stop_signal": "SIGNOPE"}, "stop_signal"),
        ({"user": "4294967296"}, "user"),
        ({"working_dir": "srv"}, "working_dir"),
        ({"devices": ["/no/such/device"]}, "devices"),
        ({"image": "case/UPPER:1"}, "UPPER"),
        ({"image": "a/../b"}, r"\.\."),
        ({"healthcheck": {"test": ["RUN", "x"]}}, "healthcheck"),
        ({"log_options": {"bogus": "1"}}, "log_options"),
    ],
)
def test_bad_input_fails_before_anything_changes(shared: Engine, params: dict[str, Any], option: str) -> None:
    with pytest.raises(UsageError, match=option):
        shared.container("bad", command=SLEEP, **params)
    assert not shared.run("container_info", name="bad")["exists"]


def test_an_unknown_image_or_network_is_named(shared: Engine) -> None:
    with pytest.raises(NotFound, match="nothere"):
        shared.container("noimage", image="nothere:1", pull="never")
    with pytest.raises(NotFound, match="nonet"):
        shared.container("nonet", command=SLEEP, networks=[{"name": "nonet"}])


def test_a_published_port_in_use_is_reported_before_anything_changes(shared: Engine) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        with pytest.raises(Conflict, match=str(taken.getsockname()[1])):
            shared.container("port", command=SLEEP, published_ports=["%d:80" % taken.getsockname()[1]])
    assert not shared.run("container_info", name="port")["exists"]


def test_a_port_of_another_container_names_it(shared: Engine) -> None:
    shared.container("owner", command=SLEEP, published_ports=["18080:80"])
    with pytest.raises(Conflict, match="owner"):
        shared.container("thief", command=SLEEP, published_ports=["18080:80"])
    shared.run("container", name="owner", state="absent", force_kill=True)


def test_volume_data_survives_replacing_the_container(shared: Engine) -> None:
    params: dict[str, Any] = {"command": SLEEP, "volumes": ["keep:/data", "/anon"]}
    shared.container("vols", **params)
    shared.sh("vols", "echo named > /data/f; echo anonymous > /anon/f")
    replaced = shared.container("vols", env={"NEW": "1"}, **params)
    assert replaced["actions"][0]["how"] == "replace"
    assert shared.sh("vols", "cat /data/f /anon/f") == "named\nanonymous"


def test_an_empty_volume_takes_the_images_content_once(shared: Engine) -> None:
    shared.container("copyup", command=SLEEP, volumes=["web-content:/srv"])
    assert shared.sh("copyup", "cat /srv/index.html") == "hello from the image"
    shared.sh("copyup", "rm /srv/index.html; touch /srv/other")
    shared.container("copyup", command=SLEEP, volumes=["web-content:/srv"], env={"A": "1"})
    assert shared.sh("copyup", "ls /srv") == "other"


def test_volumes_syntax_creates_a_missing_bind_source(shared: Engine, tmp_path: Path) -> None:
    shared.container("bind", command=SLEEP, volumes=["%s/made:/m" % tmp_path, "%s:/ro:ro" % tmp_path])
    shared.sh("bind", "echo x > /m/f")
    assert (tmp_path / "made/f").read_text() == "x\n"
    assert shared.exec("bind", "touch", "/ro/f")["rc"] != 0


def test_a_failed_replacement_leaves_the_old_one_running(shared: Engine) -> None:
    shared.container("safe", command=SLEEP, volumes=["safe-data:/data"])
    before = shared.inspect("safe")
    with pytest.raises(StartError):
        shared.container("safe", command=["/no/such/thing"], volumes=["safe-data:/data"])
    after = shared.inspect("safe")
    assert after["Id"] == before["Id"] and after["State"]["Running"]
    assert after["Config"]["Cmd"] == SLEEP
    names = [shown["Name"] for shown in shared.run("container_info")["containers"]]
    assert not [name for name in names if "wharf-" in name]


def test_without_shared_volumes_the_new_one_starts_before_the_old_one_stops(shared: Engine) -> None:
    shared.container("swap", command=SLEEP)
    old = shared.pid("swap")
    failed: Optional[StartError] = None
    try:
        shared.container("swap", command=["/no/such/thing"])
    except StartError as error:
        failed = error
    assert failed is not None and shared.pid("swap") == old
    replaced = shared.container("swap", command=["sleep", "999"])
    assert replaced["actions"][0]["detail"]["order"] == "start_first"
    assert shared.pid("swap") != old and not os.path.exists("/proc/%d" % old)


def test_healthy_waits_and_fails_fast(shared: Engine) -> None:
    check = {"test": ["CMD", "test", "-e", "/tmp/ok"], "interval": "100ms", "retries": 2}
    well = shared.container(
        "well", state="healthy", healthcheck=check, command=["sh", "-c", "touch /tmp/ok; sleep 1000"]
    )
    assert well["container"]["State"]["Health"]["Status"] == "healthy"
    with pytest.raises(UnhealthyError, match="unhealthy"):
        shared.container("sick", state="healthy", healthcheck=check, command=SLEEP)
    with pytest.raises(UnhealthyError, match="exited with code 3"):
        shared.container("dead", state="healthy", healthcheck=check, command=["sh", "-c", "echo bye; exit 3"])


def test_healthy_waits_for_one_that_was_healthy_and_is_being_started_again(shared: Engine) -> None:
    task: dict[str, Any] = {
        "state": "healthy",
        "restart_policy": "always",
        "healthcheck": {"test": ["CMD", "true"], "interval": "50ms"},
        "command": SLEEP,
    }
    shared.container("back", **task)
    for _time in range(4):
        os.kill(shared.pid("back"), signal.SIGKILL)
        shared.container("back", **task)
        shared.run("containers", containers=[{"name": "back", "image": "bb:1", **task}])
        assert shared.inspect("back")["State"]["Health"]["Status"] == "healthy"


def test_healthy_does_not_wait_for_one_that_always_ends(shared: Engine) -> None:
    check = {"test": ["CMD", "true"], "interval": "30s"}
    with pytest.raises(UnhealthyError):
        shared.container(
            "loop", state="healthy", healthcheck=check, restart_policy="always", command=["sh", "-c", "exit 3"]
        )


def test_exec_returns_code_and_streams(shared: Engine) -> None:
    shared.container("exec", command=SLEEP, env={"A": "1"})
    result = shared.exec("exec", "sh", "-c", "echo $A; echo err >&2; exit 7")
    assert (result["rc"], result["stdout"], result["stderr"]) == (7, "1", "err")
    assert shared.exec("exec", "cat", stdin="in")["stdout"] == "in"
    assert shared.exec("exec", "pwd", chdir="/srv")["stdout"] == "/srv"
    assert shared.exec("exec", "id", "-u", user="web")["stdout"] == "1000"


def test_logs_hold_what_was_written_by_stream_and_tail(shared: Engine) -> None:
    shared.container("logs", command=["sh", "-c", "echo one; echo two >&2; echo three; sleep 1000"])
    deadline = time.monotonic() + 5
    while "three" not in shared.logs("logs") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert sorted(shared.logs("logs").splitlines()) == ["one", "three", "two"]
    assert shared.run("container_logs", name="logs", tail=1)["lines"][0]["line"] in ("two", "three")
    assert shared.run("container_logs", name="logs", stdout=False)["stdout"] == "two"


def test_two_tasks_creating_the_same_container_make_one(fresh: Engine) -> None:
    pids = []
    for _n in range(4):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                fresh.container("same", command=SLEEP)
                code = 0
            finally:
                os._exit(code)
        pids.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    assert codes == [0, 0, 0, 0]
    assert len(fresh.run("container_info")["containers"]) == 1


def test_removing_a_container_removes_its_anonymous_volumes_only_when_asked(shared: Engine) -> None:
    shared.container("anon", command=SLEEP, volumes=["/x", "named-stays:/y"])
    name = next(m["Name"] for m in shared.inspect("anon")["Mounts"] if m["Destination"] == "/x")
    shared.run("container", name="anon", state="absent", force_kill=True, keep_volumes=False)
    assert not shared.run("volume_info", name=name)["exists"]
    assert shared.run("volume_info", name="named-stays")["exists"]


def test_secrets_in_env_are_hidden_in_the_diff(shared: Engine) -> None:
    shared.container("hidden", command=SLEEP, env={"PASSWORD": "hunter2-old"})
    changed = shared.container("hidden", command=SLEEP, env={"PASSWORD": "hunter2-new"})
    assert "hunter2" not in repr((changed["diff"], changed["actions"]))
    assert changed["diff"]["before"]["env"] != changed["diff"]["after"]["env"]


def test_network_mode_none_host_and_container(shared: Engine) -> None:
    shared.container("alone", command=SLEEP, network_mode="none")
    assert shared.sh("alone", "ls /sys/class/net") == "lo"
    shared.container("hosted", command=SLEEP, network_mode="host")
    assert os.readlink("/proc/%d/ns/net" % shared.pid("hosted")) == os.readlink("/proc/self/ns/net")
    shared.container("first", command=SLEEP)
    shared.container("second", command=SLEEP, network_mode="container:first")
    one, two = (os.readlink("/proc/%d/ns/net" % shared.pid(name)) for name in ("first", "second"))
    assert one == two


def test_the_hosts_mount_table_is_not_touched_by_containers(shared: Engine) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    shared.container("mounts", command=SLEEP, volumes=["m-data:/data"], tmpfs=["/t"], network_mode="none")
    after = Path("/proc/self/mountinfo").read_text()
    new = [line for line in after.splitlines() if line not in before.splitlines()]
    assert all(" nsfs " in line for line in new), new
