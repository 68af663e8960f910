# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Commands in running containers, as the module runs them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any, Callable

import pytest
from helpers.engine import Engine
from helpers.option_laws import SLEEP
from module_utils._engine.errors import Conflict, NotFound, StartError, TimedOut, UsageError
from module_utils._engine.kernel import capabilities
from module_utils._engine.kernel.cgroups import Cgroup, Layout


@pytest.fixture(scope="module")
def box(shared: Engine) -> Iterator[str]:
    shared.container("box", command=SLEEP, env={"A": "1", "B": "2"}, working_dir="/srv", user="web")
    yield "box"


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("it did not happen")
        time.sleep(0.02)


def leaves(engine: Engine, name: str) -> list[str]:
    """Cgroups of execs, empty ones too."""
    group = Cgroup(Layout.detect(), "%s/%s" % (engine.paths.cgroup, engine.inspect(name)["Id"]))
    return [entry for entry in os.listdir(group.unified() or "/") if entry.startswith("exec-")]


def command_lines() -> list[bytes]:
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open("/proc/%s/cmdline" % entry, "rb") as stream:
                    found.append(stream.read())
            except OSError:  # ended
                continue
    return found


@pytest.mark.parametrize(
    ("user", "shown"),
    [
        (None, "1000 1000 1000 50"),
        ("", "1000 1000 1000 50"),
        ("root", "0 0 0"),
        ("0:50", "0 50 50"),
        ("web:staff", "1000 50 50"),
        ("1000", "1000 1000 1000 50"),
        ("1234", "1234 0 0"),
        ("1234:4321", "1234 4321 4321"),
    ],
)
def test_users_and_groups_are_those_of_the_container_by_name_or_number(
    shared: Engine, box: str, user: Any, shown: str
) -> None:
    assert shared.exec(box, "sh", "-c", "echo $(id -u) $(id -g) $(id -G)", user=user)["stdout"] == shown


@pytest.mark.parametrize(
    "user", ["1a", "+1", "-1", "4294967295", "4294967296", "nobody-here", "web:nogroup", "1000:1a"]
)
def test_a_user_that_is_none_is_told_and_nothing_runs(shared: Engine, box: str, user: str) -> None:
    with pytest.raises(StartError, match=r"unable to find|in range"):
        shared.exec(box, "touch", "/tmp/ran", user=user)
    assert shared.exec(box, "test", "-e", "/tmp/ran")["rc"] == 1


def test_environment_and_directory_are_the_containers_unless_the_task_says_otherwise(shared: Engine, box: str) -> None:
    assert shared.exec(box, "sh", "-c", "pwd; echo $A $B")["stdout"].split() == ["/srv", "1", "2"]
    changed = shared.exec(box, "sh", "-c", "pwd; echo $A $B $C", chdir="/tmp", env={"B": "x y", "C": "=ä"})
    assert changed["stdout"] == "/tmp\n1 x y =ä"


def test_what_a_task_hands_to_a_command_is_in_no_argument_of_any_process(shared: Engine, box: str) -> None:
    secret = "s3cret-" + os.urandom(8).hex()
    script = "cat > /tmp/got; touch /tmp/read-it; while [ ! -e /tmp/enough ]; do sleep 0.05; done"
    shared.sh(box, "rm -f /tmp/enough")
    started = shared.exec(
        box, "sh", "-c", "while [ ! -e /tmp/enough ]; do sleep 0.05; done", env={"P": secret}, detach=True
    )
    assert not any(secret.encode() in line for line in command_lines())
    shared.sh(box, "touch /tmp/enough")
    until(lambda: not os.path.exists("/proc/%d" % started["pid"]))
    shared.exec(box, "sh", "-c", script, stdin=secret)
    assert shared.exec(box, "cat", "/tmp/got", strip_empty_ends=False)["stdout"] == secret + "\n"
    assert secret not in str(shared.run("container_info", name=box))


def test_input_has_a_newline_and_output_no_empty_ends_unless_the_task_says_otherwise(shared: Engine, box: str) -> None:
    assert shared.exec(box, "od", "-An", "-c", stdin="ab")["stdout"].split() == ["a", "b", "\\n"]
    assert shared.exec(box, "od", "-An", "-c", stdin="ab", stdin_add_newline=False)["stdout"].split() == ["a", "b"]
    assert shared.exec(box, "echo", "x\n\n")["stdout"] == "x"
    assert shared.exec(box, "echo", "x\n\n", strip_empty_ends=False)["stdout"] == "x\n\n\n"
    assert shared.exec(box, "cat")["stdout"] == ""
    large = "0123456789abcdef" * 200_000
    assert shared.exec(box, "cat", stdin=large, stdin_add_newline=False)["stdout"] == large


def test_a_command_is_split_as_a_shell_would_and_expands_nothing(shared: Engine, box: str) -> None:
    result = shared.run("container_exec", container=box, command="echo 'a  b' \"c$A\" *")
    assert result["stdout"] == "a  b c$A *"


def test_a_failing_command_fails_the_task_with_its_code_and_output(shared: Engine, box: str) -> None:
    result = shared.exec(box, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert result["failed"] and result["rc"] == 7 and (result["stdout"], result["stderr"]) == ("out", "err")
    assert result["error"]["kind"] == "exit_code"
    assert shared.exec(box, "sh", "-c", "kill -9 $$")["rc"] == 137


def test_a_timeout_kills_everything_that_the_command_has_started(shared: Engine, box: str) -> None:
    mark = "7%d" % (os.getpid() % 100000)
    away = "(busybox setsid sh -c 'trap : TERM HUP; sleep %s & wait; sleep %s' >/dev/null 2>&1 &) ; " % (mark, mark)
    with pytest.raises(TimedOut, match=r"did not end within 1 seconds and was killed") as caught:
        shared.exec(box, "sh", "-c", away + "echo begun; sleep %s" % mark, timeout=1)
    assert caught.value.details["result"]["stdout"] == "begun" and caught.value.details["result"]["rc"] == 137
    if any(hierarchy.version == 2 for hierarchy in Layout.detect().hierarchies):
        until(lambda: not any(line.startswith(b"sleep\0" + mark.encode()) for line in command_lines()))
        until(lambda: shared.inspect(box)["ExecIDs"] is None and not leaves(shared, box))
    assert shared.inspect(box)["State"]["Running"]


def test_a_detached_command_goes_on_in_a_cgroup_of_its_own(shared: Engine, box: str) -> None:
    result = shared.exec(box, "sleep", "1000", detach=True)
    assert result["changed"] and "rc" not in result and len(result["exec_id"]) == 64
    with open("/proc/%d/cgroup" % result["pid"], encoding="ascii") as stream:
        unified = [line.rstrip("\n") for line in stream if line.startswith("0::")]
    if unified and any(hierarchy.version == 2 for hierarchy in Layout.detect().hierarchies):
        assert unified[0].endswith("/exec-" + result["exec_id"])
        assert shared.inspect(box)["ExecIDs"] == [result["exec_id"]]
    os.kill(result["pid"], 9)
    until(lambda: shared.inspect(box)["ExecIDs"] is None)


def test_a_terminal_is_one(shared: Engine, box: str) -> None:
    result = shared.exec(box, "sh", "-c", "test -t 0 && test -t 1 && echo $TERM; echo err >&2", tty=True)
    assert result["stdout"].split() == ["xterm", "err"] and result["stderr"] == ""
    assert shared.exec(box, "sh", "-c", "test -t 0")["rc"] == 1


def test_privileged_has_every_capability_and_nothing_else_more(shared: Engine, box: str) -> None:
    read = ("grep", "-E", "^(CapEff|CapBnd|CapInh|Seccomp):", "/proc/self/status")

    def shown(**more: Any) -> dict[str, int]:
        lines = shared.exec(box, *read, user="root", **more)["stdout"].splitlines()
        return {line.split(":")[0]: int(line.split()[1], 16) for line in lines}

    plain, more = shown(), shown(privileged=True)
    everything = capabilities.to_mask(capabilities.available())
    assert more["CapEff"] == more["CapBnd"] == everything != plain["CapEff"]
    assert more["CapInh"] == 0 and more["Seccomp"] == plain["Seccomp"] == 2


def test_check_mode_runs_nothing(shared: Engine, box: str) -> None:
    result = shared.exec(box, "touch", "/tmp/checked", check=True)
    assert result["changed"] and "check mode" in result["skipped_reason"]
    assert shared.exec(box, "test", "-e", "/tmp/checked")["rc"] == 1


def test_a_container_that_does_not_run_is_told_and_what_to_do(shared: Engine) -> None:
    shared.container("idle", command=SLEEP, state="present")
    with pytest.raises(Conflict, match="Container idle is created, it must be running") as caught:
        shared.exec("idle", "true")
    assert "state started" in str(caught.value.hint)
    shared.container("idle", command=SLEEP, paused=True)
    with pytest.raises(Conflict, match="Container idle is paused, it must be running") as caught:
        shared.exec("idle", "true")
    assert "paused false" in str(caught.value.hint)
    shared.run("container_kill", container="idle")
    with pytest.raises(Conflict, match="Container idle is exited"):
        shared.exec("idle", "true")
    with pytest.raises(NotFound, match="No such container: nowhere"):
        shared.exec("nowhere", "true")


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({"argv": []}, "argv"),
        ({"command": ""}, "argv"),
        ({"argv": ["a\0b"]}, "argv"),
        ({"argv": ["true"], "chdir": "srv"}, "chdir"),
        ({"argv": ["true"], "chdir": "/s\0"}, "chdir"),
        ({"argv": ["true"], "user": "we\0b"}, "user"),
        ({"argv": ["true"], "timeout": 0.0}, "timeout"),
        ({"argv": ["true"], "timeout": float("nan")}, "timeout"),
        ({"argv": ["true"], "detach": True, "stdin": "x"}, "stdin"),
        ({"argv": ["true"], "env": {"A=B": "x"}}, "env.A=B"),
        ({"argv": ["true"], "env": {"A": "x\0"}}, "env.A"),
    ],
)
def test_bad_input_is_told_before_anything_runs(shared: Engine, box: str, params: dict[str, Any], path: str) -> None:
    with pytest.raises(UsageError) as caught:
        shared.run("container_exec", container=box, **params)
    assert caught.value.path == path


@pytest.mark.parametrize("number", [3, 7, 8, 9, 20])
def test_no_directory_of_the_host_can_be_worked_in(shared: Engine, box: str, number: int) -> None:
    """CVE-2024-21626."""
    for user in ("root", None):
        with pytest.raises(StartError, match="working directory"):
            shared.exec(box, "cat", "../../../../etc/hostname", chdir="/proc/self/fd/%d" % number, user=user)
