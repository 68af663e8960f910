# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Many containers in one run: one plan, dependency order, results of each, and a failure that stops what follows."""

from __future__ import annotations

import os
from typing import Any

import pytest
from helpers.engine import Engine
from helpers.option_laws import SLEEP
from module_utils._engine.errors import NotFound, UnhealthyError, UsageError, WharfError


def entry(name: str, **params: Any) -> dict[str, Any]:
    return {"name": name, "image": "bb:1", "command": SLEEP, "stop_timeout": 1, **params}


def many(engine: Engine, *entries: dict[str, Any], check: bool = False, **params: Any) -> dict[str, Any]:
    return engine.run("containers", check, containers=list(entries), **params)


def test_a_list_is_made_kept_changed_and_removed(shared: Engine) -> None:
    wish = [entry("m%d" % n, labels={"n": str(n)}) for n in range(6)]
    planned = many(shared, *wish, check=True)
    assert planned["changed"] and not shared.run("container_info", name="m0")["exists"]
    made = many(shared, *wish)
    assert [c["name"] for c in made["containers"]] == ["m%d" % n for n in range(6)]
    assert all(c["changed"] and c["status"] == "running" for c in made["containers"])
    assert [a["how"] for a in planned["actions"]] == [a["how"] for a in made["actions"]] == ["create", "start"] * 6
    again = many(shared, *wish, inspect=True)
    assert not again["changed"] and again["containers"][3]["container"]["Config"]["Labels"] == {"n": "3"}
    wish[2]["labels"] = {"n": "two"}
    wish[4]["command"] = ["sleep", "999"]
    pids = [shared.pid("m%d" % n) for n in range(6)]
    changed = many(shared, *wish)
    assert [c["changed"] for c in changed["containers"]] == [False, False, True, False, True, False]
    assert [[a["how"] for a in c["actions"]] for c in changed["containers"]][2:5:2] == [["live"], ["replace"]]
    assert set(changed["diff"]["after"]) == {"m2", "m4"}
    assert [shared.pid("m%d" % n) == pids[n] for n in range(6)] == [True, True, True, True, False, True]
    gone = many(shared, *({"name": "m%d" % n, "state": "absent", "force_kill": True} for n in range(6)))
    assert all(c["changed"] and c["status"] == "absent" for c in gone["containers"])
    assert not many(shared, *({"name": "m%d" % n, "state": "absent"} for n in range(6)))["changed"]


def test_dependencies_wait_for_started_healthy_and_completed(shared: Engine) -> None:
    check = {"test": ["CMD", "test", "-e", "/tmp/ok"], "interval": "100ms", "retries": 50}
    slow = ["sh", "-c", "sleep 0.5; touch /tmp/ok; sleep 1000"]
    made = many(
        shared,
        entry("d-web", depends_on=[{"name": "d-job", "condition": "completed"}]),
        entry("d-job", command=["sh", "-c", "sleep 0.3"], depends_on=[{"name": "d-db", "condition": "healthy"}]),
        entry("d-db", command=slow, healthcheck=check),
        entry("d-side", network_mode="container:d-web"),
    )
    assert [c["status"] for c in made["containers"]] == ["running", "exited", "running", "running"]
    begun = {name: shared.inspect(name)["State"] for name in ("d-web", "d-job", "d-db", "d-side")}
    assert begun["d-db"]["Health"]["Log"][-1]["ExitCode"] == 0
    assert begun["d-db"]["StartedAt"] < begun["d-job"]["StartedAt"] < begun["d-web"]["StartedAt"]
    assert begun["d-job"]["FinishedAt"] < begun["d-web"]["StartedAt"] < begun["d-side"]["StartedAt"]
    one, two = (os.readlink("/proc/%d/ns/net" % shared.pid(name)) for name in ("d-web", "d-side"))
    assert one == two


def test_a_failure_stops_what_depends_on_it_at_once_and_says_how_far_each_came(shared: Engine) -> None:
    check = {"test": ["CMD", "false"], "interval": "100ms", "retries": 2}
    with pytest.raises(UnhealthyError, match=r"containers\[0\] \(f-db\)") as caught:
        many(
            shared,
            entry("f-db", state="healthy", healthcheck=check),
            entry("f-web", depends_on=[{"name": "f-db", "condition": "healthy"}]),
        )
    told = caught.value.details["containers"]
    assert told[0]["failed"] and told[1]["skipped"] and not shared.run("container_info", name="f-web")["exists"]


def test_one_that_fails_takes_along_those_that_wait_for_it_and_nobody_else(shared: Engine) -> None:
    after_bad = {"depends_on": [{"name": "o-bad"}]}
    wish = [
        entry("o-bad", command=["/no/such/thing"]),
        entry("o-one", **after_bad),
        entry("o-two", depends_on=[{"name": "o-one"}]),
        entry("o-late", depends_on=[{"name": "o-job", "condition": "completed"}]),
        entry("o-job", command=["sh", "-c", "sleep 0.5"]),
        entry("o-sick", state="healthy", healthcheck={"test": ["CMD", "false"], "interval": "50ms", "retries": 1}),
    ]
    with pytest.raises(WharfError) as caught:
        many(shared, *wish)
    told = {c["name"]: c for c in caught.value.details["containers"]}
    assert told["o-bad"]["failed"] and "/no/such/thing" in told["o-bad"]["msg"]
    assert told["o-sick"]["failed"] and "unhealthy" in told["o-sick"]["msg"]
    assert told["o-one"]["skipped"] and told["o-two"]["skipped"]
    assert not any(shared.run("container_info", name=name)["exists"] for name in ("o-one", "o-two"))
    assert told["o-late"]["changed"] and told["o-late"]["status"] == "running"
    for word in ("o-bad", "also failed: o-sick", "depend on it: o-one, o-two"):
        assert word in caught.value.msg
    wish[0]["command"], wish[5]["healthcheck"] = SLEEP, None
    done = many(shared, *wish)
    assert {c["name"] for c in done["containers"] if c["changed"]} >= {"o-bad", "o-one", "o-two", "o-sick"}
    again = {c["name"] for c in many(shared, *wish)["containers"] if c["changed"]}
    assert again <= {"o-job"}, "a job that has ended is started again, the others stay"


def test_waiting_for_the_health_of_another_ends_after_the_time_that_the_entry_allows(shared: Engine) -> None:
    never = {"test": ["CMD", "false"], "interval": "1s", "start_period": "1h", "start_interval": "1h"}
    with pytest.raises(WharfError, match=r"\(t-web\): depends_on: t-db was not healthy within 0.5 seconds"):
        many(
            shared,
            entry("t-db", healthcheck=never),
            entry("t-web", depends_on=[{"name": "t-db", "condition": "healthy"}], healthy_wait_timeout=0.5),
        )
    assert shared.inspect("t-db")["State"]["Running"] and not shared.run("container_info", name="t-web")["exists"]


def test_one_bad_entry_fails_before_anything_changes(shared: Engine) -> None:
    with pytest.raises(UsageError, match=r"containers\[1\] \(b-two\): memory"):
        many(shared, entry("b-one"), entry("b-two", memory="1k"))
    with pytest.raises(UsageError, match="given twice"):
        many(shared, entry("b-one"), entry("b-one"))
    with pytest.raises(UsageError, match="wait for each other: b-one → b-two → b-one"):
        many(shared, entry("b-one", depends_on=[{"name": "b-two"}]), entry("b-two", depends_on=[{"name": "b-one"}]))
    with pytest.raises(NotFound, match="No such container: nobody"):
        many(shared, entry("b-one", depends_on=[{"name": "nobody"}]))
    with pytest.raises(WharfError, match="No such image"):
        many(shared, entry("b-one"), entry("b-two", image="not-there:1"), pull="never")
    assert not shared.run("container_info", name="b-one")["exists"]


def test_a_start_that_fails_leaves_the_others_that_had_begun(shared: Engine) -> None:
    with pytest.raises(WharfError, match=r"\(s-bad\)") as caught:
        many(shared, entry("s-good"), entry("s-bad", command=["/no/such/thing"]))
    told = {c["name"]: c for c in caught.value.details["containers"]}
    assert told["s-bad"]["failed"] and (told["s-good"]["changed"] or told["s-good"].get("skipped"))
    fixed = many(shared, entry("s-good"), entry("s-bad"))
    assert all(c["status"] == "running" for c in fixed["containers"])


def test_secrets_of_entries_are_their_own(shared: Engine) -> None:
    many(
        shared,
        entry("x-one", secrets=[{"name": "key", "content": "s3cret-one"}]),
        entry("x-two", secrets=[{"name": "key", "content": "s3cret-two"}]),
    )
    assert [shared.sh(name, "cat /run/secrets/key") for name in ("x-one", "x-two")] == ["s3cret-one", "s3cret-two"]
