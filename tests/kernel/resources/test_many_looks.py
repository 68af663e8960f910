# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A look at many containers asks once for what they share, and still sees what a look at each would see."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from helpers.bundle import PLUGINS
from helpers.engine import Engine
from helpers.inside import inside
from helpers.option_laws import SLEEP
from module_utils._engine.kernel.cgroups import Cgroup, Layout
from module_utils._engine.kernel.syscalls import CLONE_NEWNET
from module_utils._engine.network import endpoint, glance
from module_utils._engine.store.db import Database


def wish(count: int) -> list[dict[str, Any]]:
    return [
        {"name": "look-%d" % n, "image": "bb:1", "command": SLEEP, "stop_timeout": 1, "env": {"N": str(n)}}
        for n in range(count)
    ]


def many(engine: Engine, count: int, check: bool = False) -> dict[str, Any]:
    return engine.run("containers", check, containers=wish(count))


class Counted:
    """How often each thing is asked for while a task runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.numbers: dict[str, int] = {}
        for owner, name in (
            (os, "open"),
            (os, "stat"),
            (Database, "execute"),
            (glance, "_link"),
            (glance, "_links_on"),
            (glance, "generation"),
        ):
            self._count(monkeypatch, owner, name)

    def _count(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.numbers[name] = self.numbers.get(name, 0) + 1
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, counted)

    def take(self) -> dict[str, int]:
        taken, self.numbers = self.numbers, {}
        return taken


def test_one_more_container_costs_thirteen_files_and_no_question_to_database_or_netlink(
    shared: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    many(shared, 14)
    for _again in range(2):  # the first look after a change is a thorough one
        assert not many(shared, 14)["changed"]
    with monkeypatch.context() as patch:
        counted = Counted(patch)
        assert not many(shared, 8)["changed"]
        few = counted.take()
        assert not many(shared, 14)["changed"]
        lots = counted.take()
    more = {name: lots.get(name, 0) - few.get(name, 0) for name in lots}
    # state.json, /proc/pid/stat, eight limits, routes and addresses, what was seen last
    assert more["open"] <= 13 * 6
    assert more["stat"] <= 4 * 6, "the namespace, and the container's three files"
    assert {name: more.get(name, 0) for name in ("execute", "_link", "_links_on", "generation")} == {
        "execute": 0,
        "_link": 0,
        "_links_on": 0,
        "generation": 0,
    }
    assert lots["_links_on"] == 1


def host_end(engine: Engine, name: str) -> str:
    container_id = engine.inspect(name)["Id"]
    network = engine.run("network_info", name="bridge")["network"]["Id"]
    return endpoint.host_link(container_id, network)


def limit(engine: Engine, name: str, controller: str, v1: str, v2: str, value: str) -> None:
    group = Cgroup(Layout.detect(), "%s/%s" % (engine.paths.cgroup, engine.inspect(name)["Id"]))
    old = group.layout.controllers[controller][0] == 1
    with open("%s/%s" % (group.directory(controller), v1 if old else v2), "w") as stream:
        stream.write(value)


def test_each_of_many_that_somebody_changed_by_hand_is_seen_and_no_other(shared: Engine) -> None:
    count = 14
    many(shared, count)
    assert not many(shared, count)["changed"]
    limit(shared, "look-1", "memory", "memory.limit_in_bytes", "memory.max", str(64 << 20))
    limit(shared, "look-2", "pids", "pids.max", "pids.max", "99")
    limit(shared, "look-9", "pids", "pids.max", "pids.max", "77")
    subprocess.run(["ip", "link", "set", host_end(shared, "look-3"), "down"], check=True)
    subprocess.run(["ip", "link", "set", host_end(shared, "look-11"), "nomaster"], check=True)
    inside(
        shared.pid("look-12"),
        lambda _kernel: subprocess.run(["ip", "addr", "flush", "dev", "eth0"], check=True),
        CLONE_NEWNET,
    )
    inside(
        shared.pid("look-5"),
        lambda _kernel: subprocess.run(["ip", "route", "del", "default"], check=True),
        CLONE_NEWNET,
    )
    shared.sh("look-6", "echo 192.0.2.1 evil >> /etc/hosts")
    expected = {
        "look-1": "memory",
        "look-2": "pids_limit",
        "look-3": "network",
        "look-5": "network",
        "look-6": "network",
        "look-9": "pids_limit",
        "look-11": "network",
        "look-12": "network",
    }
    for found in (many(shared, count, check=True), many(shared, count)):
        told = {action["name"]: (action["why"], action["detail"]["option"]) for action in found["actions"]}
        assert told == {name: ("drift", option) for name, option in expected.items()}
        assert found["diff"]["before"].keys() == expected.keys()
    assert found["diff"]["before"]["look-9"]["pids_limit"] == 77
    assert not many(shared, count)["changed"]


def test_a_kernel_that_does_not_filter_links_is_asked_for_each(shared: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    many(shared, 14)
    many(shared, 14)
    with monkeypatch.context() as patch:
        counted = Counted(patch)
        patch.setattr(glance, "_links_on", lambda _sock, _index: None)
        assert not many(shared, 14)["changed"]
    assert counted.numbers["_link"] == 15, "the bridge, and each container's link"


_ONE = """
import gc, json, sys
sys.path.insert(0, sys.argv[1])
from module_utils._engine.entry import dispatch
gc.collect()
collections = []
gc.callbacks.append(lambda phase, info: collections.append(phase))
result = dispatch("container", json.loads(sys.argv[2]))
print(json.dumps({"changed": result["changed"], "collections": len(collections), "modules": sorted(sys.modules)}))
"""


def test_one_that_is_as_asked_is_told_without_what_makes_containers(shared: Engine) -> None:
    """A fresh interpreter, as on a target: a module that is imported again shows here."""
    wanted = {"name": "one", "image": "bb:1", "command": SLEEP, "memory": "64m", "published_ports": ["18097:80"]}
    shared.container(**wanted)
    shared.container(**wanted)
    params = json.dumps(shared.filled("container", **wanted, stop_timeout=1))
    done = subprocess.run(
        [sys.executable, "-I", "-c", _ONE, PLUGINS, params], capture_output=True, text=True, check=True
    )
    told = json.loads(done.stdout)
    assert not told["changed"]
    assert told["collections"] <= 1, "nothing that a task reads becomes garbage before its end"
    ours = "module_utils._engine."
    makers = {
        "sqlite3.dbapi2", "ctypes", "module_utils._args.network", "module_utils._args.volume",
        *(ours + name for name in (
            "kernel.devices", "kernel.capabilities", "kernel.netlink", "kernel.mounts", "kernel.syscalls",
            "network.firewall", "network.ipam", "runtime.spec_devices", "runtime.wire", "runtime.starter",
            "resources.container_run", "resources.container_live", "resources.container_differences",
            "resources.container_replace", "resources.containers", "process",
        )),
    }  # fmt: skip
    assert not makers & set(told["modules"])
    assert len([name for name in told["modules"] if name.startswith("module_utils.")]) <= 75
