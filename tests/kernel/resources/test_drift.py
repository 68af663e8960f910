# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What somebody broke behind the engine's back: seen by the next task, reported, and repaired alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.engine import Engine
from helpers.inside import inside
from module_utils._engine.kernel.netlink import Netlink
from module_utils._engine.kernel.syscalls import CLONE_NEWNET, CLONE_NEWNS, MNT_DETACH, Kernel

SLEEP = ["sleep", "1000"]


def link_down(pid: int) -> None:
    def work(_kernel: Kernel) -> None:
        with Netlink() as netlink:
            netlink.set_link(netlink.link("eth0").ifindex, up=False)

    inside(pid, work, CLONE_NEWNET)


def link_deleted(pid: int) -> None:
    def work(_kernel: Kernel) -> None:
        with Netlink() as netlink:
            netlink.delete_link(netlink.link("eth0").ifindex)

    inside(pid, work, CLONE_NEWNET)


def address_removed(pid: int) -> None:
    inside(pid, lambda _kernel: subprocess.run(["ip", "addr", "flush", "dev", "eth0"], check=True), CLONE_NEWNET)


def route_removed(pid: int) -> None:
    inside(pid, lambda _kernel: subprocess.run(["ip", "route", "del", "default"], check=True), CLONE_NEWNET)


def bridge_deleted(_pid: int) -> None:
    with Netlink() as netlink:
        for link in netlink.links():
            if link.kind == "bridge":
                netlink.delete_link(link.ifindex)


def firewall_flushed(_pid: int) -> None:
    subprocess.run(["nft", "flush", "ruleset"], check=True)


DAMAGE: dict[str, tuple[Callable[[int], None], str]] = {
    "link down": (link_down, "is down"),
    "link deleted": (link_deleted, "is missing"),
    "address removed": (address_removed, "has lost its address"),
    "route removed": (route_removed, "default route"),
    "bridge deleted": (bridge_deleted, "bridge of network"),
    "firewall flushed": (firewall_flushed, "is not in the firewall"),
}


def task(engine: Engine, check: bool = False) -> dict[str, Any]:
    return engine.container("net", check=check, command=SLEEP, published_ports=["127.0.0.1:18091:80"])


@pytest.mark.parametrize("damage", sorted(DAMAGE))
def test_damage_to_the_network_is_drift_and_only_that_is_repaired(shared: Engine, damage: str) -> None:
    task(shared)
    assert not task(shared)["changed"]
    pid = shared.pid("net")
    breaks, sentence = DAMAGE[damage]
    breaks(pid)
    for found in (task(shared, check=True), task(shared, check=True), task(shared)):
        assert [(a["how"], a["why"], a["detail"]["option"]) for a in found["actions"]] == [("live", "drift", "network")]
        assert any(sentence in text for text in found["actions"][0]["detail"]["before"]), found["actions"]
    assert shared.pid("net") == pid
    assert not task(shared)["changed"]
    assert (
        shared.sh("net", "ping -c1 -w2 $(ip route | sed -n 's/default via \\([^ ]*\\).*/\\1/p') >/dev/null; echo $?")
        == "0"
    )


def test_a_sound_network_is_told_without_netlink_or_firewall_code(shared: Engine) -> None:
    """The thorough check runs once after a change; from then on a task that changes nothing imports none of it."""
    import sys

    task(shared)
    task(shared)
    before = {
        name: sys.modules.pop(name) for name in list(sys.modules) if name.endswith((".firewall", ".kernel.netlink"))
    }
    try:
        assert not task(shared)["changed"]
        loaded = [name for name in sys.modules if name.endswith((".firewall", ".kernel.netlink"))]
    finally:
        sys.modules.update(before)
    assert loaded == []


def test_a_mount_taken_away_inside_is_put_back(shared: Engine, tmp_path: Path) -> None:
    def run(check: bool = False) -> dict[str, Any]:
        return shared.container(
            "lost", check=check, command=SLEEP, volumes=["lost-data:/data", "%s:/bind:ro" % tmp_path], tmpfs=["/t"]
        )

    run()
    shared.sh("lost", "echo kept > /data/f")
    pid = shared.pid("lost")

    def unmount(kernel: Kernel) -> None:
        for target in ("/data", "/bind", "/t"):
            kernel.umount2(target, MNT_DETACH)

    inside(pid, unmount, CLONE_NEWNS)
    assert shared.exec("lost", "cat", "/data/f")["rc"] != 0
    planned, applied = run(check=True), run()
    for found in (planned, applied):
        assert [(a["how"], a["why"], a["detail"]["option"]) for a in found["actions"]] == [("live", "drift", "mounts")]
    assert shared.pid("lost") == pid and shared.sh("lost", "cat /data/f") == "kept"
    assert shared.exec("lost", "touch", "/bind/x")["rc"] != 0 and shared.sh("lost", "touch /t/x; echo ok") == "ok"
    assert not run()["changed"]


def test_a_target_that_is_a_link_in_the_image_is_no_drift(shared: Engine) -> None:
    shared.container("linked", command=["sh", "-c", "sleep 1000"], volumes=["linked-a:/bin/../srv"])
    assert not shared.container("linked", command=["sh", "-c", "sleep 1000"], volumes=["linked-a:/srv"])["changed"]


def test_a_container_that_nobody_watches_gets_a_new_monitor_and_goes_on(fresh: Engine) -> None:
    """Monitor and spawner were killed, so nobody was left to notice."""
    fresh.busybox()

    def run(check: bool = False) -> dict[str, Any]:
        return fresh.container("alone", check=check, command=SLEEP)

    run()
    pid = fresh.pid("alone")
    for process in sorted(fresh.resident()):  # the spawner first, or it would see its monitor die
        os.kill(process, signal.SIGKILL)
    while fresh.resident():
        time.sleep(0.01)
    for found in (run(check=True), run()):
        assert [(a["how"], a["why"], a["detail"]["option"]) for a in found["actions"]] == [("live", "drift", "monitor")]
    assert fresh.pid("alone") == pid and not run()["changed"]
    os.kill(pid, signal.SIGKILL)
    assert recorded(fresh, "alone", "status") == "exited", "the new monitor saw that it ended"
    # It is not the process's parent, and the kernel tells only parents how: no code is made up.
    assert fresh.inspect("alone")["State"]["ExitCode"] == 255


def recorded(engine: Engine, name: str, field: str) -> Any:
    """``field`` of the state that the monitor wrote down, once it has written that it ended."""
    path = engine.paths.container(engine.inspect(name)["Id"]) + "/state.json"
    deadline = time.monotonic() + 10
    while True:
        state = json.loads(Path(path).read_text())
        if state["status"] != "running" or time.monotonic() > deadline:
            return state[field]
        time.sleep(0.01)
