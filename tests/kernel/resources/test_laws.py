# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Laws 1 to 3 of the design, held over generated pairs of wishes against the running kernel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from helpers.engine import Engine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SLEEP = ["sleep", "1000"]

WISHES = st.fixed_dictionaries(
    {"command": st.sampled_from([SLEEP, ["sleep", "2000"]])},
    optional={
        "env": st.dictionaries(st.sampled_from(["A", "B"]), st.sampled_from(["1", "2"]), min_size=1),
        "labels": st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from(["1", "2"]), min_size=1),
        "memory": st.sampled_from(["64m", "128m"]),
        "pids_limit": st.sampled_from([50, 60]),
        "cpu_shares": st.sampled_from([256, 512]),
        "published_ports": st.lists(st.sampled_from(["18070:80", "18071:81"]), unique=True, min_size=1),
        "networks": st.sampled_from([[{"name": "law-a"}], [{"name": "law-a"}, {"name": "law-b", "aliases": ["x"]}]]),
        "volumes": st.lists(st.sampled_from(["law-data:/data", "/anon"]), unique=True, min_size=1),
        "restart_policy": st.sampled_from(["always", "on-failure"]),
        "hostname": st.just("named"),
        "read_only": st.just(True),
        "tmpfs": st.just(["/t"]),
    },
)


def picture(engine: Engine) -> dict[str, Any]:
    """What a container is, seen from inside and from the kernel: not from the engine's own answers."""
    pid = engine.pid("law")
    groups = {}
    for line in Path("/proc/%d/cgroup" % pid).read_text().splitlines():
        _number, controllers, path = line.split(":", 2)
        for controller, file in (("memory", "memory.limit_in_bytes"), ("pids", "pids.max"), ("cpu", "cpu.shares")):
            if controller in controllers.split(","):
                groups[controller] = Path("/sys/fs/cgroup/%s%s/%s" % (controller, path, file)).read_text().strip()
    mounts = sorted(
        line.split(" - ")[0].split()[4] + " " + line.split(" - ")[1].split()[0]
        for line in Path("/proc/%d/mountinfo" % pid).read_text().splitlines()
    )
    env = sorted(
        v for v in Path("/proc/%d/environ" % pid).read_text().split("\0") if v and not v.startswith("HOSTNAME=")
    )
    hostname = engine.sh("law", "hostname")
    return {
        "argv": Path("/proc/%d/cmdline" % pid).read_text(),
        "env": env,
        "groups": groups,
        "mounts": mounts,
        "links": len(engine.sh("law", "ls /sys/class/net").split()),
        "hostname": hostname if hostname == "named" else "",
        "labels": engine.inspect("law")["Config"]["Labels"],
        "ports": engine.inspect("law")["NetworkSettings"]["Ports"],
    }


@settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(WISHES, WISHES)
def test_check_predicts_apply_apply_is_idempotent_and_going_back_restores(
    shared: Engine, one: dict[str, Any], two: dict[str, Any]
) -> None:
    shared.run("network", name="law-a")
    shared.run("network", name="law-b")
    shared.container("law", **one)
    first = picture(shared)
    predicted = shared.container("law", check=True, **two)
    assert picture(shared) == first, "check mode changed something"
    applied = shared.container("law", **two)
    assert predicted["changed"] == applied["changed"]
    assert _shape(predicted) == _shape(applied)
    assert not shared.container("law", **two)["changed"]
    second = picture(shared)
    shared.container("law", **one)
    assert picture(shared) == first
    shared.container("law", **two)
    assert picture(shared) == second
    shared.run("container", name="law", state="absent", force_kill=True)
    shared.container("law", **two)
    assert picture(shared) == second, "what a wish leads to depends on where one came from"
    shared.run("container", name="law", state="absent", force_kill=True)


def _shape(result: dict[str, Any]) -> list[Any]:
    return [(action["how"], action["why"], sorted(action["detail"])) for action in result["actions"]]
