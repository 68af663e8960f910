# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What happened is told, in Docker's shape and order, also what containers did while no task ran."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from helpers.engine import Engine
from helpers.store_kit import wait_until
from module_utils._engine.errors import UsageError
from module_utils._engine.runtime import statefile

SLEEP = ["sleep", "1000"]


def told(instance: Engine, **params: Any) -> list[dict[str, Any]]:
    return list(instance.run("events_info", **params)["events"])


def short(events: list[dict[str, Any]]) -> list[str]:
    return ["%s %s" % (event["Type"], event["Action"]) for event in events]


def actions(instance: Engine, name: str) -> list[str]:
    return [event["Action"] for event in told(instance, filters={"container": name})]


def test_a_containers_life_is_told_in_dockers_order(fresh: Engine) -> None:
    fresh.run("network", name="shop")
    start = len(told(fresh))
    fresh.container("web", command=SLEEP, labels={"app": "shop"}, networks=[{"name": "shop"}], volumes=["data:/data"])
    fresh.sh("web", "true")
    fresh.container("web", command=SLEEP, labels={"app": "shop"}, networks=[{"name": "shop"}], volumes=["data:/data"],
                    paused=True)  # fmt: skip
    fresh.run("container", name="web", paused=False)
    fresh.run("container", name="web", state="stopped", force_kill=True)
    fresh.run("container", name="web", state="absent")
    fresh.run("network", name="shop", state="absent")
    fresh.run("volume", name="data", state="absent")
    events = told(fresh)[start:]
    assert short(events) == [
        "volume create", "container create", "network connect", "volume mount", "container start",
        "container exec_create", "container exec_start", "container exec_die", "container pause", "container unpause",
        "container kill", "container die", "network disconnect", "volume unmount", "container stop",
        "container destroy", "network destroy", "volume destroy",
    ]  # fmt: skip
    die = events[11]
    assert die["Actor"]["Attributes"] == {
        "app": "shop", "image": "bb:1", "name": "web", "exitCode": "137",
        "execDuration": die["Actor"]["Attributes"]["execDuration"],
    }  # fmt: skip
    assert (die["status"], die["id"], die["from"], die["scope"]) == ("die", die["Actor"]["ID"], "bb:1", "local")
    assert die["time"] == die["timeNano"] // 10**9
    assert events[10]["Actor"]["Attributes"]["signal"] == "9"
    assert events[-3]["Actor"]["Attributes"]["name"] == "web"  # known although it is gone
    assert events[2]["Actor"]["Attributes"]["container"] == die["id"] and "status" not in events[2]
    assert [event["timeNano"] for event in events] == sorted(event["timeNano"] for event in events)


def test_what_containers_did_while_no_task_ran_is_told_once(fresh: Engine) -> None:
    fresh.container("ends", command=SLEEP)
    pid = fresh.pid("ends")
    assert pid > 1
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: fresh.inspect("ends")["State"]["Status"] == "exited")
    for check in (True, False, True, False):
        dies = told(fresh, filters={"event": "die"}) if not check else fresh.run("events_info", check=True)["events"]
        dies = [event for event in dies if event["Action"] == "die"]
        assert [event["Actor"]["Attributes"]["exitCode"] for event in dies] == ["137"]


def test_an_automatic_restart_is_a_die_and_a_start_each_time(fresh: Engine) -> None:
    fresh.container("again", command=["sh", "-c", "exit 4"], restart_policy="on-failure", restart_retries=2)
    wait_until(lambda: fresh.inspect("again")["State"]["Status"] == "exited", 20)
    assert actions(fresh, "again") == ["create", "start", "die", "start", "die", "start", "die"]
    network = told(fresh, filters={"type": "network", "event": ["connect", "disconnect"]})
    assert [event["Action"] for event in network] == ["connect", "disconnect"]


def test_an_end_is_told_once_when_the_monitor_was_killed_before_it(fresh: Engine) -> None:
    fresh.container("web", command=SLEEP)
    record = fresh.inspect("web")
    state = statefile.read(fresh.paths.container(record["Id"]) + "/state.json")
    assert state is not None
    os.kill(state["monitor_pid"], signal.SIGKILL)

    def watched_again() -> bool:
        now = statefile.read(fresh.paths.container(record["Id"]) + "/state.json")
        return now is not None and now["monitor_pid"] != state["monitor_pid"] and statefile.monitor_alive(now)

    wait_until(watched_again, 10)
    os.kill(state["pid"], signal.SIGKILL)
    wait_until(lambda: "die" in actions(fresh, "web"), 10)
    fresh.run("container", name="web", state="absent")
    assert [action for action in actions(fresh, "web") if action == "die"] == ["die"]


def test_joining_and_leaving_a_network_while_running_is_told(fresh: Engine) -> None:
    fresh.run("network", name="one")
    fresh.run("network", name="two")
    fresh.container("web", command=SLEEP, networks=[{"name": "one"}])
    start = len(told(fresh))
    pid = fresh.pid("web")
    fresh.container("web", command=SLEEP, networks=[{"name": "one"}, {"name": "two"}])
    fresh.container("web", command=SLEEP, networks=[{"name": "two"}])
    assert fresh.pid("web") == pid
    events = [event for event in told(fresh)[start:] if event["Type"] == "network"]
    assert [(event["Action"], event["Actor"]["Attributes"]["name"]) for event in events] == [
        ("connect", "two"), ("disconnect", "one"),
    ]  # fmt: skip
    assert {event["Actor"]["Attributes"]["container"] for event in events} == {fresh.inspect("web")["Id"]}


def test_a_kill_and_a_rename_are_told_once_each(fresh: Engine) -> None:
    fresh.container("web", command=["sh", "-c", "trap : USR1; while :; do sleep 0.1; done"])
    fresh.run("container_kill", container="web", signal="USR1")
    fresh.run("container_rename", container="web", name="new")
    assert actions(fresh, "new") == ["rename"] and actions(fresh, "web") == ["create", "start", "kill"]
    assert told(fresh, filters={"event": "kill"})[0]["Actor"]["Attributes"]["signal"] == "10"
    assert told(fresh, filters={"event": "rename"})[0]["Actor"]["Attributes"]["oldName"] == "web"


def test_a_restart_is_told_after_what_it_is_made_of(fresh: Engine) -> None:
    fresh.container("web", command=SLEEP)
    fresh.run("container", name="web", restart=True, force_kill=True)
    assert actions(fresh, "web")[2:] == ["kill", "die", "stop", "start", "restart"]


def test_a_replacement_is_told_as_what_it_is_made_of(fresh: Engine) -> None:
    fresh.container("web", command=SLEEP)
    old = fresh.inspect("web")["Id"]
    start = len(told(fresh))
    fresh.container("web", command=["sleep", "999"])
    new = fresh.inspect("web")["Id"]
    events = [event for event in told(fresh)[start:] if event["Type"] == "container"]
    assert [e["Action"] for e in events if e["id"] == new] == ["create", "start", "rename", "replace"]
    mine = [e["Action"] for e in events if e["id"] == old]
    assert mine[0] == "rename" and mine[-1] == "destroy" and "die" in mine
    assert events[-1]["Actor"]["Attributes"]["old"] == old and events[-1]["Actor"]["Attributes"]["name"] == "web"


def test_health_and_lack_of_memory_are_told(fresh: Engine) -> None:
    fresh.container(
        "sick",
        command=SLEEP,
        healthcheck={"test": ["CMD-SHELL", "test ! -e /ill"], "interval": "50ms", "retries": 1},
        state="healthy",
    )
    fresh.sh("sick", "touch /ill")
    wait_until(lambda: fresh.inspect("sick")["State"]["Health"]["Status"] == "unhealthy", 20)
    assert [a for a in actions(fresh, "sick") if a.startswith("health")] == [
        "health_status: healthy", "health_status: unhealthy",
    ]  # fmt: skip
    assert len(told(fresh, filters={"event": "health_status"})) == 2
    greedy = "head -c 100000000 /dev/zero | tail -c 90000000 >/dev/null; exec sleep 100"
    fresh.container("eater", command=["sh", "-c", greedy], memory="16m", memory_swap="16m")
    wait_until(lambda: "oom" in actions(fresh, "eater"), 20)


def test_images_are_told_of_with_their_names(fresh: Engine, tmp_path: Path) -> None:
    fresh.run(
        "image", name="bb:1", source="import", path=str(tmp_path / "busybox.tar"), changes=["CMD sh"], tags=["x:2"]
    )
    fresh.run("image_export", names=["bb:1"], path=str(tmp_path / "a.tar"))
    fresh.run("image", name="x:2", state="absent")
    fresh.run("image", name="bb:1", state="absent")
    fresh.run("image", name="bb:1", source="load", path=str(tmp_path / "a.tar"))
    got = [event["Action"] for event in told(fresh, filters={"type": "image"})]
    assert got == ["import", "tag", "save", "untag", "delete", "load"]
    assert {e["Action"] for e in told(fresh, filters={"image": "x:2"})} == {"tag", "untag"}
    assert {e["Actor"]["Attributes"].get("name") for e in told(fresh, filters={"image": "x"})} == {"x:2"}
    assert len(told(fresh, filters={"image": "bb"})) >= 3


def test_prune_is_told_with_what_it_freed(fresh: Engine) -> None:
    fresh.container("old", command=["true"], state="present")
    fresh.run("prune", containers=True, volumes=True)
    pruned = {event["Type"]: event["Actor"]["Attributes"] for event in told(fresh, filters={"event": "prune"})}
    assert pruned == {"container": {"reclaimed": "0"}, "volume": {"reclaimed": "0"}}
    assert "destroy" in actions(fresh, "old")


def test_filters_times_and_limits_choose_events(fresh: Engine) -> None:
    for name in ("web1", "web2"):
        fresh.container(name, command=SLEEP, state="present", labels={"n": name})
    assert {e["Actor"]["Attributes"]["name"] for e in told(fresh, filters={"container": "web"})} == {"web1", "web2"}
    assert short(told(fresh, filters={"label": "n=web2"})) == ["container create"]
    assert told(fresh, filters={"type": "container"}, limit=1)[0]["Actor"]["Attributes"]["name"] == "web2"
    moment = told(fresh, limit=1)[0]
    assert told(fresh, since="1h") == told(fresh) and told(fresh, until="1h") == []
    assert told(fresh, since=str(moment["time"] + 100)) == []
    assert told(fresh, filters={"event": "create"}, format="{{.Actor.Attributes.name}}")[-2:] == ["web1", "web2"]
    for params in (
        {"filters": {"colour": "red"}},
        {"filters": {"type": "plugin"}},
        {"since": "soon"},
        {"limit": 0},
        {"filters": {"scope": "swarm"}},
    ):
        with pytest.raises(UsageError):
            told(fresh, **params)
