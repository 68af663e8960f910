# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options that test_container.py leaves out, each through the whole law, seen in the kernel."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from helpers.engine import Engine
from helpers.option_laws import SLEEP, cgroup, hold, mounts, proc, status

CHANGES: dict[str, tuple[Any, Any, str]] = {
    "entrypoint": (["env", "A=1"], ["env", "A=2"], "replace"),
    "groups": (["staff"], ["1234"], "replace"),
    "tty": (True, None, "replace"),
    "interactive": (True, None, "replace"),
    "domainname": ("one.example", "two.example", "replace"),
    "exposed_ports": (["81"], ["82/udp"], "live"),
    "volumes": (["opt-one:/data"], ["opt-two:/data"], "live|replace"),
    "mounts": (
        [{"type": "volume", "source": "opt-one", "target": "/data"}],
        [{"type": "volume", "source": "opt-one", "target": "/data", "read_only": True}],
        "live|replace",
    ),
    "devices": (["/dev/null:/dev/one"], ["/dev/null:/dev/two"], "replace"),
    "memory_reservation": ("32m", "48m", "live"),
    "cpuset_mems": ("0", None, "live"),
    "oom_score_adj": (100, 200, "replace"),
    "capabilities": (["NET_ADMIN"], ["SYS_PTRACE"], "replace"),
    "privileged": (True, None, "replace"),
    "dns_opts": (["ndots:2"], ["ndots:3"], "live|replace"),
    "dns_search_domains": (["one.example"], ["two.example"], "live|replace"),
    "healthcheck": ({"test": "true", "interval": "1m"}, {"test": "false", "interval": "1m"}, "live"),
    "log_driver": ("none", None, "live"),
}


def resolv(engine: Engine, name: str, word: str) -> list[str]:
    return [line for line in engine.sh(name, "cat /etc/resolv.conf").splitlines() if line.startswith(word)]


EFFECT = {
    "entrypoint": lambda e, n: [x for x in proc(e, n, "environ").split("\0") if x.startswith("A=")],
    "groups": lambda e, n: status(e, n, "Groups"),
    "tty": lambda e, n: os.readlink("/proc/%d/fd/1" % e.pid(n)).startswith("/dev/pts/"),
    "interactive": lambda e, n: os.readlink("/proc/%d/fd/0" % e.pid(n)),
    "domainname": lambda e, n: e.sh(n, "cat /proc/sys/kernel/domainname"),
    "exposed_ports": lambda e, n: sorted(e.inspect(n)["Config"]["ExposedPorts"]),
    "volumes": lambda e, n: mounts(e, n, "/data"),
    "mounts": lambda e, n: mounts(e, n, "/data"),
    "devices": lambda e, n: e.sh(n, "ls /dev/one /dev/two 2>/dev/null; true"),
    "memory_reservation": lambda e, n: cgroup(e, n, "memory", "memory.soft_limit_in_bytes", "../memory.low"),
    "cpuset_mems": lambda e, n: e.inspect(n)["HostConfig"]["CpusetMems"],
    "oom_score_adj": lambda e, n: proc(e, n, "oom_score_adj"),
    "capabilities": lambda e, n: status(e, n, "CapEff"),
    "privileged": lambda e, n: (status(e, n, "CapEff"), status(e, n, "Seccomp")),
    "dns_opts": lambda e, n: resolv(e, n, "options"),
    "dns_search_domains": lambda e, n: resolv(e, n, "search"),
    "healthcheck": lambda e, n: (e.inspect(n)["Config"]["Healthcheck"] or {}).get("Test"),
    "log_driver": lambda e, n: e.inspect(n)["HostConfig"]["LogConfig"]["Type"],
}


@pytest.mark.parametrize("option", sorted(CHANGES))
def test_an_option_is_set_kept_changed_restored_and_taken_away(shared: Engine, option: str) -> None:
    before, after, how = CHANGES[option]
    if option in ("cpuset_mems", "log_driver", "tty", "interactive", "privileged") and after is None:
        _hold_switch(shared, option, before, how)
        return
    hold(shared, option, before, after, how, EFFECT[option])


def _hold_switch(engine: Engine, option: str, value: Any, how: str) -> None:
    """Options with one value beside their default: on, kept, off, kept."""
    name, see = "opt-" + option.replace("_", "-"), EFFECT[option]
    assert engine.container(name, command=SLEEP, **{option: value})["changed"]
    on = see(engine, name)
    assert not engine.container(name, command=SLEEP, **{option: value})["changed"]
    off = engine.container(name, command=SLEEP)
    assert [action["how"] for action in off["actions"]] == [how]
    assert see(engine, name) != on
    assert not engine.container(name, command=SLEEP)["changed"]
    engine.run("container", name=name, state="absent", force_kill=True)


def test_memory_swap_is_the_sum_and_follows_memory(shared: Engine) -> None:
    def swap() -> str:
        return cgroup(shared, "swap", "memory", "memory.memsw.limit_in_bytes", "../memory.swap.max")

    shared.container("swap", command=SLEEP, memory="64m", memory_swap="96m")
    assert swap() in (str(96 << 20), str(32 << 20))
    changed = shared.container("swap", command=SLEEP, memory="64m", memory_swap="-1")
    assert [action["how"] for action in changed["actions"]] == ["live"]
    shared.container("swap", command=SLEEP, memory="64m")
    assert swap() in (str(128 << 20), str(64 << 20))
    assert not shared.container("swap", command=SLEEP, memory="64m")["changed"]


def test_an_env_file_is_env_and_env_wins(shared: Engine, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("A=file\nB=file\n")
    shared.container("envfile", command=SLEEP, env_file=str(tmp_path / "env"), env={"A": "task"})
    assert shared.sh("envfile", "echo $A $B") == "task file"
    assert not shared.container("envfile", command=SLEEP, env={"A": "task", "B": "file"})["changed"]
    (tmp_path / "env").write_text("A=file\nB=other\n")
    assert shared.container("envfile", command=SLEEP, env_file=str(tmp_path / "env"), env={"A": "task"})["changed"]


def test_restart_retries_count_and_end(shared: Engine) -> None:
    shared.container("retries", command=["false"], restart_policy="on-failure", restart_retries=2)
    deadline = time.monotonic() + 10
    while shared.inspect("retries")["State"]["Status"] != "exited" and time.monotonic() < deadline:
        time.sleep(0.05)
    shown = shared.inspect("retries")
    assert (shown["RestartCount"], shown["State"]["Status"], shown["State"]["ExitCode"]) == (2, "exited", 1)


def test_recreate_replaces_what_is_equal_and_force_kill_does_not_wait(shared: Engine) -> None:
    first = shared.container("again", command=SLEEP)["container"]["Id"]
    made = shared.container("again", command=SLEEP, recreate=True)
    assert made["actions"][0]["how"] == "replace" and made["container"]["Id"] != first
    shared.container("deaf", command=["sh", "-c", "trap '' TERM; while :; do sleep 1; done"])
    shared.run("container", name="deaf", state="stopped", force_kill=True, stop_timeout=3600)
    assert shared.inspect("deaf")["State"]["ExitCode"] == 137


def test_a_restart_is_asked_for_and_done_only_when_nothing_else_changed(shared: Engine) -> None:
    shared.container("bounce", command=SLEEP)
    pid = shared.pid("bounce")
    bounced = shared.container("bounce", command=SLEEP, restart=True)
    assert [action["how"] for action in bounced["actions"]] == ["stop", "start"]
    assert shared.pid("bounce") != pid
