# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who shares a namespace with another container is never left behind in one that nobody is in any more."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest
from helpers.engine import Engine
from helpers.option_laws import SLEEP

MODES = {"network_mode": "net", "ipc_mode": "ipc", "pid_mode": "pid"}


def together(engine: Engine, kind: str, *names: str) -> bool:
    return len({os.readlink("/proc/%d/ns/%s" % (engine.pid(name), kind)) for name in names}) == 1


def hows(result: dict[str, Any]) -> list[tuple[str, str]]:
    return [(action["how"], action["name"]) for action in result["actions"]]


@pytest.mark.parametrize("option", sorted(MODES))
def test_who_shares_a_namespace_follows_when_its_owner_is_replaced_or_restarted(shared: Engine, option: str) -> None:
    owner, one, two = ("%s-%s" % (part, MODES[option]) for part in ("owner", "one", "two"))

    def own(check: bool = False, **params: Any) -> dict[str, Any]:
        return shared.container(owner, check=check, **{"command": SLEEP, "stop_timeout": 0, **params})

    own()
    for name, other in ((one, owner), (two, one)):  # the second by way of the first
        shared.container(name, command=SLEEP, stop_timeout=0, **{option: "container:" + other})
    started = {name: shared.inspect(name)["State"]["StartedAt"] for name in (one, two)}
    for change in ({"restart": True}, {"env": {"A": "1"}}):
        planned, applied = own(check=True, **change), own(**change)
        assert hows(planned) == hows(applied)
        assert hows(applied)[-2:] == [("restart", one), ("restart", two)]
        assert option in applied["actions"][-2]["why"] and owner in applied["actions"][-2]["why"]
        assert together(shared, MODES[option], owner, one, two)
        fresh = {name: shared.inspect(name)["State"]["StartedAt"] for name in (one, two)}
        assert all(fresh[name] > started[name] for name in fresh)
        started = fresh
        for name, other in ((one, owner), (two, one)):
            again = shared.container(name, command=SLEEP, stop_timeout=0, **{option: "container:" + other})
            assert not again["changed"]
    for name in (two, one, owner):
        shared.run("container", name=name, state="absent", force_kill=True)


def test_one_that_was_stopped_by_hand_does_not_come_back_with_its_owner(shared: Engine) -> None:
    shared.container("boss", command=SLEEP, stop_timeout=0)
    shared.container("idle", command=SLEEP, network_mode="container:boss", stop_timeout=0)
    shared.run("container", name="idle", state="stopped", force_kill=True)
    assert hows(shared.container("boss", command=SLEEP, stop_timeout=0, restart=True)) == [
        ("stop", "boss"),
        ("start", "boss"),
    ]
    assert shared.inspect("idle")["State"]["Status"] == "exited"


def test_one_whose_owner_was_restarted_by_its_policy_is_found_by_its_own_task(shared: Engine) -> None:
    shared.container("own", command=SLEEP, restart_policy="always")

    def follow(check: bool = False) -> dict[str, Any]:
        return shared.container("fol", check=check, command=SLEEP, ipc_mode="container:own", stop_timeout=0)

    follow()
    before = shared.pid("own")
    os.kill(before, 9)
    deadline = time.monotonic() + 10
    while shared.pid("own") in (0, before) and time.monotonic() < deadline:
        time.sleep(0.02)
    planned, applied = follow(check=True), follow()
    for found in (planned, applied):
        assert [(a["how"], a["why"]) for a in found["actions"]] == [("restart", "drift")]
        assert "ipc_mode" in found["actions"][0]["detail"]["option"]
    assert together(shared, "ipc", "own", "fol") and not follow()["changed"]


def test_in_a_list_the_follower_is_with_its_owner_when_the_task_ends(shared: Engine) -> None:
    def entries(answer: str) -> list[dict[str, Any]]:
        base = {"image": "bb:1", "command": SLEEP, "stop_timeout": 0}
        return [
            {**base, "name": "l-fol", "network_mode": "container:l-own"},
            {**base, "name": "l-own", "env": {"A": answer}},
        ]

    shared.run("containers", containers=entries("1"))
    changed = shared.run("containers", containers=entries("2"))
    assert hows(changed) == [("replace", "l-own"), ("restart", "l-fol")]
    assert together(shared, "net", "l-own", "l-fol")
    assert not shared.run("containers", containers=entries("2"))["changed"]


def test_a_stop_timeout_of_nothing_is_kept_and_makes_no_difference(shared: Engine) -> None:
    shared.container("patient", command=SLEEP, stop_timeout=30)
    assert not shared.container("patient", command=SLEEP, stop_timeout=0)["changed"]
    assert shared.inspect("patient")["Config"]["StopTimeout"] == 0
    assert not shared.container("patient", command=SLEEP, stop_timeout=7)["changed"]
    assert shared.inspect("patient")["Config"]["StopTimeout"] == 7
