# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files, limits and processes that somebody changed behind the engine's back: seen, shown in the diff, put back."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from helpers.engine import Engine
from helpers.inside import inside
from helpers.option_laws import SLEEP, proc
from module_utils._engine.errors import UsageError
from module_utils._engine.kernel.syscalls import CLONE_NEWNS, MOUNT_ATTR_RDONLY, Kernel
from module_utils._engine.resources import container_etc


def told(result: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(a["how"], a["why"], a["detail"]["option"]) for a in result["actions"]]


def wait_until(holds: Any) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


@pytest.mark.parametrize("name", ["hosts", "resolv.conf", "hostname"])
@pytest.mark.parametrize("network", ["bridge", "files-net"])
def test_an_edited_file_is_drift_and_put_back_in_the_running_container(shared: Engine, name: str, network: str) -> None:
    if network != "bridge":
        shared.run("network", name=network)

    def task(check: bool = False) -> dict[str, Any]:
        return shared.container(
            "edited",
            check=check,
            command=SLEEP,
            stop_timeout=0,
            networks=[{"name": network}],
            etc_hosts={"db": "10.0.0.9"},
            dns_servers=["192.0.2.53"],
        )

    task()
    assert not task()["changed"]
    pid, before = shared.pid("edited"), shared.sh("edited", "cat /etc/%s" % name)
    shared.sh("edited", "echo 192.0.2.66 evil > /etc/%s" % name)
    for found in (task(check=True), task()):
        assert told(found) == [("live", "drift", "network")]
        assert found["actions"][0]["detail"]["before"] == ["/etc/%s is not as it was made" % name]
        assert found["diff"]["before"]["drift"]["network"] == ["/etc/%s is not as it was made" % name]
        assert found["diff"]["before"] != found["diff"]["after"]
    assert shared.sh("edited", "cat /etc/%s" % name) == before and shared.pid("edited") == pid
    assert not task()["changed"]


@pytest.mark.parametrize("name", ["hosts", "resolv.conf", "hostname"])
@pytest.mark.parametrize("mode", ["none", "host", "container:edited-owner"])
def test_an_edited_file_is_drift_whatever_network_the_container_is_in(shared: Engine, name: str, mode: str) -> None:
    shared.container("edited-owner", command=SLEEP, stop_timeout=0, etc_hosts={"db": "10.0.0.9"})

    def task(check: bool = False) -> dict[str, Any]:
        return shared.container("edited-in", check=check, command=SLEEP, stop_timeout=0, network_mode=mode)

    task()
    assert not task()["changed"]
    pid, before = shared.pid("edited-in"), shared.sh("edited-in", "cat /etc/%s" % name)
    shared.sh("edited-in", "echo 192.0.2.66 evil > /etc/%s" % name)
    for found in (task(check=True), task()):
        assert told(found) == [("live", "drift", "network")]
        assert found["actions"][0]["detail"]["before"] == ["/etc/%s is not as it was made" % name]
    assert shared.sh("edited-in", "cat /etc/%s" % name) == before and shared.pid("edited-in") == pid
    assert not task()["changed"]
    shared.run("container", name="edited-in", state="absent", force_kill=True)


def test_what_the_host_changes_in_its_own_files_is_nobodys_edit(
    shared: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared.container("hosted", command=SLEEP, stop_timeout=0, network_mode="host")
    real = container_etc._read
    monkeypatch.setattr(container_etc, "_read", lambda path: "changed" if path == "/etc/hosts" else real(path))
    assert not shared.container("hosted", command=SLEEP, stop_timeout=0, network_mode="host")["changed"]
    assert shared.sh("hosted", "cat /etc/hosts") != "changed"


def test_who_shares_a_network_has_its_owners_files_as_they_change(shared: Engine) -> None:
    def own(**params: Any) -> dict[str, Any]:
        return shared.container("files-owner", command=SLEEP, stop_timeout=0, **params)

    own()
    shared.container("files-guest", command=SLEEP, stop_timeout=0, network_mode="container:files-owner")
    own(etc_hosts={"db": "10.0.0.9"}, dns_servers=["192.0.2.53"])
    assert "10.0.0.9\tdb" in shared.sh("files-guest", "cat /etc/hosts")
    assert "192.0.2.53" in shared.sh("files-guest", "cat /etc/resolv.conf")
    with pytest.raises(UsageError, match=r"etc_hosts.*cannot be combined with network_mode container:files-owner"):
        shared.container(
            "files-guest", command=SLEEP, network_mode="container:files-owner", etc_hosts={"db": "10.0.0.10"}
        )


def test_an_edit_does_not_outlive_a_stop_and_the_task_that_starts_it_is_the_last_to_change_anything(
    shared: Engine,
) -> None:
    shared.container("again", command=SLEEP, stop_timeout=0)
    before = shared.sh("again", "cat /etc/resolv.conf")
    shared.sh("again", "echo nameserver 192.0.2.66 > /etc/resolv.conf")
    shared.run("container", name="again", state="stopped", force_kill=True)
    shared.container("again", command=SLEEP, stop_timeout=0)
    assert shared.sh("again", "cat /etc/resolv.conf") == before
    assert not shared.container("again", command=SLEEP, stop_timeout=0)["changed"]


def secret(engine: Engine, check: bool = False) -> dict[str, Any]:
    wish = [{"name": "key", "content": "s3cret-one"}, {"name": "other", "content": "s3cret-two"}]
    return engine.container("keeper", check=check, command=SLEEP, stop_timeout=0, secrets=wish)


def test_a_secret_changed_where_it_is_kept_is_put_back_and_the_container_goes_on(shared: Engine) -> None:
    secret(shared)
    pid = shared.pid("keeper")
    path = Path(shared.paths.container(shared.inspect("keeper")["Id"]) + "/secrets/key")
    path.write_text("forged")
    for found in (secret(shared, check=True), secret(shared)):
        assert told(found) == [("live", "drift", "secrets")] and "s3cret" not in repr(found)
        assert found["actions"][0]["detail"]["before"] == ["secret key is not as it was stored"]
    assert path.read_text() == "s3cret-one" and path.stat().st_mode & 0o777 == 0o600
    assert shared.pid("keeper") == pid and not secret(shared)["changed"]


def test_a_secret_changed_in_the_container_is_placed_again_by_a_new_start(shared: Engine) -> None:
    secret(shared)

    def forge(kernel: Kernel) -> None:
        kernel.mount_setattr(os.open("/run/secrets", os.O_PATH), 0, MOUNT_ATTR_RDONLY)
        Path("/run/secrets/other").write_text("forged")

    inside(shared.pid("keeper"), forge, CLONE_NEWNS)
    assert shared.sh("keeper", "cat /run/secrets/other") == "forged"
    for found in (secret(shared, check=True), secret(shared)):
        assert told(found) == [("restart", "drift", "secrets")] and "s3cret" not in repr(found)
    assert shared.sh("keeper", "cat /run/secrets/other") == "s3cret-two"
    assert not secret(shared)["changed"]


def test_a_killed_resolver_is_drift_and_names_are_answered_again(shared: Engine) -> None:
    shared.run("network", name="asked")

    def task(check: bool = False) -> dict[str, Any]:
        return shared.container("asker", check=check, command=SLEEP, networks=[{"name": "asked"}])

    task()
    assert not task()["changed"]
    resolvers = [pid for pid in shared.resident() if b"resolver" in Path("/proc/%d/cmdline" % pid).read_bytes()]
    assert resolvers
    for pid in resolvers:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not set(resolvers) & set(shared.resident()))
    for found in (task(check=True), task()):
        assert told(found) == [("live", "drift", "network")]
        assert found["actions"][0]["detail"]["before"] == ["nobody answers names at 127.0.0.11"]
    assert "Address" in shared.sh("asker", "nslookup asker")
    assert not task()["changed"]


LIMITS: dict[str, tuple[Any, str, str, str]] = {
    # option: (asked, controller, file of v1, what somebody wrote into it)
    "memory": ("64m", "memory", "memory.limit_in_bytes", str(48 << 20)),
    "memory_reservation": ("32m", "memory", "memory.soft_limit_in_bytes", str(16 << 20)),
    "cpus": (0.5, "cpu", "cpu.cfs_quota_us", "20000"),
    "cpu_shares": (512, "cpu", "cpu.shares", "100"),
    "cpuset_cpus": ("0", "cpuset", "cpuset.cpus", "0-1"),
    "pids_limit": (50, "pids", "pids.max", "33"),
    "cpu_quota": (30000, "cpu", "cpu.cfs_quota_us", "20000"),
    "memory_swappiness": (10, "memory", "memory.swappiness", "77"),
    "oom_killer": (True, "memory", "memory.oom_control", "0"),
}


@pytest.mark.parametrize("option", sorted(LIMITS))
def test_a_limit_edited_by_hand_is_set_back_and_shown_as_it_was_found(shared: Engine, option: str) -> None:
    asked, controller, file, forged = LIMITS[option]
    line = next((x for x in proc_self() if controller in x.split(":")[1].split(",")), None)
    if line is None:
        pytest.skip("written for the hierarchies of cgroup v1")
    name = "limit-" + option.replace("_", "-")

    def task(check: bool = False) -> dict[str, Any]:
        return shared.container(name, check=check, command=SLEEP, stop_timeout=0, **{option: asked})

    task()
    group = next(x for x in proc(shared, name, "cgroup").splitlines() if controller in x.split(":")[1].split(","))
    path = Path("/sys/fs/cgroup/%s%s/%s" % (controller, group.split(":", 2)[2], file))
    before, pid = path.read_text(), shared.pid(name)
    path.write_text(forged)
    for found in (task(check=True), task()):
        assert told(found) == [("live", "drift", option)]
        assert found["diff"]["before"].get(option) != found["diff"]["after"][option]
    assert path.read_text() == before and shared.pid(name) == pid
    assert not task()["changed"]
    shared.run("container", name=name, state="absent", force_kill=True)


def proc_self() -> list[str]:
    return Path("/proc/self/cgroup").read_text().splitlines()
