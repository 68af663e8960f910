# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A container is replaced without a client noticing, and when it cannot be, the old one has never been touched."""

from __future__ import annotations

import os
import random
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from helpers.engine import Engine
from helpers.traffic import PYTHON_BINDS, ask, hammering, served, server
from module_utils._engine.errors import Conflict, StartError, UnhealthyError, UsageError
from module_utils._engine.store.state import Store

SLEEP = ["sleep", "1000"]


def serve(engine: Engine, name: str, answer: str, port: int, check: bool = False, **params: Any) -> dict[str, Any]:
    wish = {"volumes": PYTHON_BINDS, "published_ports": ["%d:80" % port], "stop_timeout": 20, **params}
    return engine.container(name, check=check, command=server(answer), **wish)


def picture(engine: Engine, name: str) -> tuple[Any, ...]:
    shown = engine.inspect(name)
    pid = shown["State"]["Pid"]
    return shown["Id"], pid, Path("/proc/%d/stat" % pid).read_text().split()[21], shown["Config"]["Cmd"]


def traces(engine: Engine) -> dict[str, list[str]]:
    """Everything that the engine has on this host, by container where it is one's."""
    links = sorted(name for name in os.listdir("/sys/class/net") if name.startswith("wh"))
    groups = []
    for hierarchy in os.listdir("/sys/fs/cgroup"):
        path = "/sys/fs/cgroup/%s/%s" % (hierarchy, engine.paths.cgroup)
        if os.path.isdir(path):
            groups += ["%s/%s" % (hierarchy, name) for name in os.listdir(path) if os.path.isdir(path + "/" + name)]
    return {
        "links": links,
        "cgroups": sorted(groups),
        "states": sorted(os.listdir(engine.paths.containers)),
        "runs": sorted(os.listdir(engine.paths.run + "/containers")),
        "namespaces": sorted(os.listdir(engine.paths.netns)),
        "names": sorted(shown["Name"] for shown in engine.run("container_info")["containers"]),
        "volumes": sorted(shown["Name"] for shown in engine.run("volume_info")["volumes"]),
    }


def test_ten_replacements_under_load_refuse_and_lose_no_connection(shared: Engine) -> None:
    serve(shared, "busy", "0", 18100)
    assert served(18100) == "0"
    with hammering(18100) as found:
        for number in range(1, 11):
            made = serve(shared, "busy", str(number), 18100)
            assert [(a["how"], a["detail"]["order"]) for a in made["actions"]] == [("replace", "start_first")]
    assert found["errors"] == []
    assert len(found["answers"]) > 5, "the client saw too little to prove anything"


def test_clients_of_one_that_has_to_stop_first_wait_and_none_is_refused(shared: Engine) -> None:
    """Between two there is nobody to serve: a client's first packet is not answered, its second one is."""
    serve(shared, "gap", "0", 18130)
    assert served(18130) == "0"
    with hammering(18130) as found:
        for number in range(1, 4):
            made = serve(shared, "gap", str(number), 18130, update="stop_first")
            assert [(a["how"], a["detail"]["order"]) for a in made["actions"]] == [("replace", "stop_first")]
    assert found["errors"] == []
    assert set(found["answers"]) <= {"0", "1", "2", "3"} and len(found["answers"]) > 1
    assert served(18130) == "3", "clients of the host itself, too"
    assert not serve(shared, "gap", "3", 18130)["changed"]
    with socket.socket() as thief, pytest.raises(OSError):
        thief.bind(("0.0.0.0", 18130))
    shared.run("container", name="gap", state="absent", force_kill=True)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", 18130), timeout=20)


def test_one_killed_while_clients_wait_is_finished_by_the_next_task(shared: Engine) -> None:
    serve(shared, "cut", "old", 18131)
    assert served(18131) == "old"
    child = os.fork()
    if child == 0:
        try:
            shared.container(
                "cut", command=SLEEP, volumes=PYTHON_BINDS, published_ports=["18131:80"], update="stop_first"
            )
        finally:
            os._exit(0)
    deadline = time.monotonic() + 60
    while shared.inspect("cut")["Config"]["Cmd"] != SLEEP or not shared.inspect("cut")["State"]["Running"]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)
    serve(shared, "cut", "new", 18131)
    assert served(18131) == "new"
    assert [n for n in traces(shared)["names"] if "cut" in n] == ["/cut"]
    assert not serve(shared, "cut", "new", 18131)["changed"]


def test_one_that_does_not_come_up_leaves_the_old_one_serving_though_it_had_to_stop(shared: Engine) -> None:
    serve(shared, "back", "old", 18132)
    assert served(18132) == "old"
    with pytest.raises(StartError, match="exited with code 7 before it listened on port 80"):
        shared.container(
            "back",
            command=["sh", "-c", "sleep 0.3; exit 7"],
            volumes=PYTHON_BINDS,
            published_ports=["18132:80"],
            update="stop_first",
        )
    assert served(18132) == "old"


def test_a_connection_that_is_open_stays_with_the_container_it_was_made_to(shared: Engine) -> None:
    serve(shared, "open", "old", 18101)
    assert served(18101) == "old"
    reader, writer = os.pipe()
    with socket.create_connection(("127.0.0.1", 18101), timeout=20) as kept:
        assert ask(kept) == "old"
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.close(reader)
                serve(shared, "open", "new", 18101)
                code = 0
            finally:
                os._exit(code)
        os.close(writer)
        seen = ""
        while seen != "new":
            with socket.create_connection(("127.0.0.1", 18101), timeout=20) as fresh:
                seen = ask(fresh)
        assert ask(kept) == "old", "the flow went elsewhere"
    os.read(reader, 1)
    os.close(reader)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_port_is_reserved_by_the_same_socket_before_and_after(shared: Engine) -> None:
    """A program of the host that tries to bind all the time never gets it."""
    serve(shared, "held", "one", 18102)
    stop, stopped = os.pipe()
    child = os.fork()
    if child == 0:
        won = 0
        try:
            os.close(stopped)
            os.set_blocking(stop, False)
            while True:
                with socket.socket() as thief:
                    thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    try:
                        thief.bind(("0.0.0.0", 18102))
                        won = 1
                    except OSError:
                        pass
                try:
                    if os.read(stop, 1) == b"":
                        break
                except BlockingIOError:
                    continue
        finally:
            os._exit(won)
    os.close(stop)
    try:
        for number in range(3):
            serve(shared, "held", "n%d" % number, 18102)
    finally:
        os.close(stopped)
        won = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert won == 0


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "command not found": ({"command": ["/no/such/thing"]}, StartError, "/no/such/thing"),
    "ends at once": (
        {"command": ["sh", "-c", "echo what went wrong; exit 7"], "published_ports": ["18103:80"]},
        StartError,
        "exited with code 7.*what went wrong",
    ),
    "unhealthy": (
        {
            "command": ["sh", "-c", "echo about to fail; sleep 1000"],
            "healthcheck": {"test": ["CMD", "false"], "interval": "50ms", "retries": 2},
        },
        UnhealthyError,
        "unhealthy.*about to fail",
    ),
    "port taken": ({"published_ports": ["18104:80"]}, Conflict, "18104"),
    "unknown user": ({"user": "nobody-here"}, StartError, "nobody-here"),
    "secret mount over a file": ({"working_dir": "/srv/index.html"}, StartError, "index.html"),
}


@pytest.mark.parametrize(
    ("reason", "order"),
    [
        (reason, order)
        for reason in sorted(BAD)
        for order in ("start_first", "stop_first")
        # started after the old one stopped, nothing says that it may not end
        if (reason, order) != ("ends at once", "stop_first")
    ],
)
def test_whatever_the_new_one_dies_of_the_old_one_serves_and_nothing_else_is_left(
    shared: Engine, reason: str, order: str
) -> None:
    change, kind, words = BAD[reason]
    serve(shared, "safe", "old", 18103)
    assert served(18103) == "old"
    before, left = picture(shared, "safe"), traces(shared)
    wish: dict[str, Any] = {"volumes": PYTHON_BINDS, "published_ports": ["18103:80"], "command": server("new")}
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 18104))
        taken.listen()
        with pytest.raises(kind, match="(?s)" + words) as caught:
            shared.container("safe", update=order, **{**wish, **change})
    assert "wharf-new" not in str(caught.value.msg)
    after = picture(shared, "safe")
    if order == "start_first" or reason == "port taken":
        assert after == before
    else:
        assert (after[0], after[3]) == (before[0], before[3])
    assert traces(shared) == left
    assert served(18103) == "old"
    assert not serve(shared, "safe", "old", 18103)["changed"]


@pytest.mark.parametrize("seed", [20261124])
def test_a_replacement_killed_at_any_point_is_finished_or_taken_back_and_the_port_always_answers(
    fresh: Engine, seed: int
) -> None:
    rng = random.Random(seed)
    serve(fresh, "victim", "0", 18105)
    assert served(18105) == "0"
    begin = time.monotonic()
    serve(fresh, "victim", "1", 18105)
    length, kills = time.monotonic() - begin, 0
    for number in range(2, 22):
        pid = os.fork()
        if pid == 0:
            try:
                serve(fresh, "victim", str(number), 18105)
            finally:
                os._exit(0)
        time.sleep(rng.uniform(0, length * 1.1))
        os.kill(pid, 9)
        kills += os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -9
        before = served(18105)
        assert before in (str(number - 1), str(number))
        wanted = rng.choice((number - 1, number))  # finished by one who wants the same, taken back by one who does not
        serve(fresh, "victim", str(wanted), 18105)
        if wanted != number:
            serve(fresh, "victim", str(number), 18105)
        assert served(18105) == str(number)
        found = traces(fresh)
        assert found["names"] == ["/victim"]
        assert all(len(found[kind]) == 1 for kind in ("states", "runs", "namespaces")), found
        assert not serve(fresh, "victim", str(number), 18105)["changed"]
    assert kills >= 10, "the kills came too late to prove anything: %d" % kills


def test_the_order_is_the_tasks_or_what_suits_and_says_why(shared: Engine) -> None:
    shared.run("network", name="fixed", ipam_config=[{"subnet": "10.88.7.0/24"}])
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({}, "start_first", "nothing forbids"),
        ({"volumes": ["order-data:/data"]}, "stop_first", "both would write to /data"),
        ({"volumes": ["order-data:/data:ro"]}, "start_first", "nothing forbids"),
        ({"volumes": ["order-data:/data"], "update": "start_first"}, "start_first", "update says so"),
        ({"update": "stop_first"}, "stop_first", "update says so"),
        ({"networks": [{"name": "fixed", "ipv4_address": "10.88.7.7"}]}, "stop_first", "10.88.7.7"),
        ({"network_mode": "host"}, "stop_first", "network of the host"),
    ]
    for number, (wish, order, why) in enumerate(cases):
        wish = {"stop_timeout": 0, **wish}
        shared.container("order", command=["sleep", "1000"], **wish)
        planned = shared.container("order", check=True, command=["sleep", str(number)], **wish)
        detail = planned["actions"][0]["detail"]
        assert detail["order"] == order and why in detail["order_why"]
    with pytest.raises(UsageError, match=r"10\.88\.7\.7"):
        shared.container(
            "order",
            command=["sleep", "5"],
            update="start_first",
            networks=[{"name": "fixed", "ipv4_address": "10.88.7.7"}],
        )


def test_a_port_that_was_chosen_stays_through_replacements_good_and_bad(shared: Engine) -> None:
    def port() -> str:
        return str(shared.inspect("chosen")["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"])

    shared.container("chosen", command=SLEEP, published_ports=["80"], stop_timeout=0)
    first = port()
    shared.container("chosen", command=["sleep", "999"], published_ports=["80"], stop_timeout=0)
    assert port() == first
    with pytest.raises(StartError):
        shared.container("chosen", command=["/no/such"], published_ports=["80"], stop_timeout=0)
    assert port() == first


def test_a_new_one_that_is_not_well_yet_answers_to_no_name(shared: Engine) -> None:
    shared.run("network", name="named")
    base: dict[str, Any] = {"networks": [{"name": "named", "aliases": ["svc"]}], "stop_timeout": 0}
    shared.container("asker", command=SLEEP, networks=[{"name": "named"}])
    shared.container("svc-1", command=SLEEP, **base)
    address = shared.inspect("svc-1")["NetworkSettings"]["Networks"]["named"]["IPAddress"]
    check = {"test": ["CMD", "test", "-e", "/tmp/ok"], "interval": "50ms", "retries": 2, "start_period": "0s"}
    child = os.fork()
    if child == 0:
        try:
            shared.container("svc-1", command=["sleep", "999"], healthcheck={**check, "retries": 1000}, **base)
        finally:
            os._exit(0)
    try:
        while len(os.listdir(shared.paths.netns)) < 3:  # the new one has its network
            os.sched_yield()
        for _n in range(5):
            assert address in shared.sh("asker", "nslookup svc | grep Address")
            assert shared.sh("asker", "nslookup svc | grep -c ^Address") == "2", "its server's address and one more"
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    again = shared.container("svc-1", command=SLEEP, **base)
    assert [a["how"] for a in again["actions"]] == ["repair"]
    assert not shared.container("svc-1", command=SLEEP, **base)["changed"]


@pytest.mark.parametrize("noun", ["container", "containers"])
def test_what_a_replacement_that_was_cut_short_left_is_told_and_cleared_by_the_next_task(
    shared: Engine, noun: str
) -> None:
    name = "half-" + noun
    entry = {"name": name, "image": "bb:1", "command": ["sleep", "1000"]}

    def run(check: bool = False) -> dict[str, Any]:
        if noun == "container":
            return shared.run("container", check, **entry)
        return shared.run("containers", check, containers=[entry])

    run()
    shared.container(name + "-before", command=["sleep", "1000"])
    with Store.open(shared.paths) as store:
        old = store.containers.by_name(name + "-before")
        store.containers.rename(old.id, name + ".wharf-old")
    for found in (run(check=True), run()):
        assert [(a["how"], a["why"]) for a in found["actions"]] == [("repair", "a replacement was cut short")]
    assert [c["Name"] for c in shared.run("container_info")["containers"] if name in c["Name"]] == ["/" + name]
    assert not run()["changed"]
