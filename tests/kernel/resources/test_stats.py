# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Figures and processes of containers are what the kernel says they are."""

from __future__ import annotations

import os
from typing import Any

import pytest
from helpers.engine import Engine
from helpers.store_kit import wait_until
from module_utils._engine.errors import UsageError

SLEEP = ["sleep", "1000"]


def look(instance: Engine, name: str, **params: Any) -> Any:
    return instance.run("container_info", name=name, **params)["container"]


def test_stats_say_what_a_container_uses(fresh: Engine) -> None:
    fresh.container("eater", command=["sh", "-c", "head -c 8000000 /dev/zero > /dev/shm/f; while :; do :; done"],
                    memory="64m", pids_limit=20)  # fmt: skip
    wait_until(lambda: "8000000" in fresh.sh("eater", "wc -c /dev/shm/f"))
    stats = look(fresh, "eater", stats=True, stats_interval=0.5)["Stats"]
    assert stats["name"] == "/eater" and stats["read"] > stats["preread"] > "2"
    assert stats["memory_stats"]["limit"] == 64 << 20
    assert 8_000_000 <= stats["memory_stats"]["usage"] <= 64 << 20
    assert 8_000_000 <= stats["memory_used"] <= stats["memory_stats"]["usage"]
    assert stats["memory_percent"] == round(100 * stats["memory_used"] / (64 << 20), 2)
    assert stats["memory_stats"]["stats"]["inactive_file"] >= 0
    assert stats["pids_stats"] == {"current": 1, "limit": 20}
    used = stats["cpu_stats"]["cpu_usage"]["total_usage"] - stats["precpu_stats"]["cpu_usage"]["total_usage"]
    assert used > 0 and stats["cpu_percent"] > 0
    assert stats["cpu_stats"]["online_cpus"] == os.cpu_count()
    assert stats["cpu_stats"]["system_cpu_usage"] > stats["precpu_stats"]["system_cpu_usage"]


def test_one_sample_has_no_percentage_and_a_container_that_does_not_run_no_stats(fresh: Engine) -> None:
    fresh.container("one", command=SLEEP)
    fresh.container("idle", command=SLEEP, state="present")
    stats = look(fresh, "one", stats=True)["Stats"]
    assert stats["cpu_percent"] is None and stats["preread"].startswith("0001")
    assert stats["precpu_stats"]["cpu_usage"]["total_usage"] == 0
    idle = look(fresh, "idle", stats=True, top=True)
    assert idle["Stats"] is None and idle["Top"] is None
    assert "Stats" not in look(fresh, "one") and "Top" not in look(fresh, "one")
    assert look(fresh, "idle", stats=True, format="{{if .Stats}}x{{else}}none{{end}}") == "none"


def test_network_counters_are_those_of_the_containers_own_links(fresh: Engine) -> None:
    fresh.container("net1", command=SLEEP)
    fresh.container("net2", command=SLEEP, network_mode="none")
    fresh.container("net3", command=SLEEP, network_mode="host")
    gateway = fresh.inspect("net1")["NetworkSettings"]["Gateway"]
    fresh.sh("net1", "ping -c 3 -s 500 -i 0.1 %s" % gateway)
    networks = look(fresh, "net1", stats=True)["Stats"]["networks"]
    assert list(networks) == ["eth0"]
    assert networks["eth0"]["tx_bytes"] > 1500 and networks["eth0"]["rx_packets"] >= 3
    said = fresh.sh("net1", "cat /sys/class/net/eth0/statistics/tx_packets")
    assert int(said) >= networks["eth0"]["tx_packets"] >= 3
    assert look(fresh, "net2", stats=True)["Stats"]["networks"] == {}
    assert look(fresh, "net3", stats=True)["Stats"]["networks"] == {}


def test_top_lists_the_containers_processes_with_the_hosts_numbers(fresh: Engine) -> None:
    fresh.container("web", command=["sh", "-c", "sleep 1001 & sleep 1002; :"], user="1234:1234")
    wait_until(lambda: len(look(fresh, "web", top=True)["Top"]["Processes"]) == 3)
    shown = look(fresh, "web", top=True)["Top"]
    assert shown["Titles"] == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    pid = str(fresh.pid("web"))
    first = next(row for row in shown["Processes"] if row[1] == pid)
    assert (first[0], first[7]) == ("1234", "sh -c sleep 1001 & sleep 1002; :")
    assert sorted((row[2], row[7]) for row in shown["Processes"] if row[1] != pid) == [
        (pid, "sleep 1001"), (pid, "sleep 1002"),
    ]  # fmt: skip
    rows = look(fresh, "web", top=True, ps_args="-o pid,comm=NAME,rss,uid,tty")["Top"]
    assert rows["Titles"] == ["PID", "NAME", "RSS", "UID", "TTY"]
    assert all(row[3:] == ["1234", "?"] and int(row[2]) >= 0 for row in rows["Processes"])
    assert len(look(fresh, "web", top=True, ps_args="aux")["Top"]["Titles"]) == 11


def test_what_a_process_calls_itself_cannot_steer_a_terminal(fresh: Engine) -> None:
    fresh.container("evil", command=["sh", "-c", "sleep 1000; : \x1b]0;owned\x07"])
    wait_until(lambda: len(look(fresh, "evil", top=True)["Top"]["Processes"]) == 2)
    shown = look(fresh, "evil", top=True)["Top"]["Processes"]
    assert not any("\x1b" in cell or "\x07" in cell for row in shown for cell in row)
    assert any("?]0;owned?" in row[7] for row in shown)


@pytest.mark.parametrize("arguments", ["-o", "-o pid,colour", "--forest", "-ef; rm -rf /", "-o pid -N"])
def test_arguments_for_ps_that_mean_nothing_here_are_refused(fresh: Engine, arguments: str) -> None:
    with pytest.raises(UsageError, match="ps_args"):
        fresh.run("container_info", top=True, ps_args=arguments)


def test_an_interval_out_of_range_is_refused(fresh: Engine) -> None:
    for interval in (-1, 4000, float("nan")):
        with pytest.raises(UsageError, match="stats_interval"):
            fresh.run("container_info", stats=True, stats_interval=interval)
