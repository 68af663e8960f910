# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hooks: when each runs, what it sees, and what happens when one fails."""

from __future__ import annotations

import json
import os

import pytest
from helpers.bundle import cgroup_directories

pytestmark = pytest.mark.root

SCRIPT = """#!/bin/sh
state=$(cat)
{ printf '{"hook":"%s","mnt":"%s","net":"%s","root":"%s","state":%s}\\n' "$1" "$(readlink /proc/self/ns/mnt)" \
"$(readlink /proc/self/ns/net)" "$(ls -d /var/tmp 2>/dev/null)" "$state"; } >> "$2"
"""


def _hook(bundle, name, **more):
    path = bundle.path + "/hook.sh"
    if not os.path.exists(path):
        with open(path, "w") as stream:
            stream.write(SCRIPT)
        os.chmod(path, 0o755)
    env = ["PATH=/usr/bin:/bin"]
    return {"path": path, "args": ["hook", name, bundle.path + "/log"], "env": env, **more}


def _log(bundle):
    with open(bundle.path + "/log") as stream:
        return [json.loads(line) for line in stream]


def test_hooks_run_in_their_order_and_namespaces_with_the_state_on_their_input(bundle):
    host = {kind: os.readlink("/proc/self/ns/" + kind) for kind in ("mnt", "net")}
    stages = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
    bundle.config["hooks"] = {stage: [_hook(bundle, stage)] for stage in stages}
    with open(bundle.path + "/rootfs/bin/inside.sh", "w") as stream:
        stream.write("#!/bin/sh\ncat > /tmp/start-container\n")
    os.chmod(bundle.path + "/rootfs/bin/inside.sh", 0o755)
    bundle.config["hooks"]["startContainer"] = [{"path": "/bin/inside.sh", "env": ["PATH=/bin"]}]
    bundle.config["annotations"] = {"org.example": "yes"}
    name = bundle.create()
    pid = bundle.state(name)["pid"]
    assert [entry["hook"] for entry in _log(bundle)] == ["prestart", "createRuntime", "createContainer"]
    assert not os.path.exists(bundle.path + "/rootfs/tmp/start-container")
    bundle.must("start", name)
    bundle.must("kill", name, "KILL")
    bundle.wait_for(name, "stopped")
    bundle.must("delete", name)
    log = {entry["hook"]: entry for entry in _log(bundle)}
    assert list(log) == list(stages)
    for stage in ("prestart", "createRuntime", "poststart", "poststop"):
        assert log[stage]["mnt"] == host["mnt"] and log[stage]["net"] == host["net"]
    assert log["createContainer"]["mnt"] != host["mnt"] and log["createContainer"]["net"] != host["net"]
    assert log["createContainer"]["root"] == "/var/tmp"  # its path is one of the host's
    status = {stage: log[stage]["state"]["status"] for stage in log}
    assert status == {
        "prestart": "creating", "createRuntime": "creating", "createContainer": "creating", "poststart": "running",
        "poststop": "stopped",
    }  # fmt: skip
    for stage in ("prestart", "createRuntime", "poststart"):
        assert log[stage]["state"]["pid"] == pid
    assert log["poststop"]["state"]["id"] == name and log["poststop"]["state"]["bundle"] == bundle.path
    assert log["prestart"]["state"]["annotations"] == {"org.example": "yes"}
    with open(bundle.path + "/rootfs/tmp/start-container") as stream:
        assert json.load(stream)["status"] == "created"


@pytest.mark.parametrize("stage", ["prestart", "createRuntime", "createContainer"])
def test_a_hook_that_fails_before_the_container_is_created_takes_everything_back(bundle, stage):
    failing = {"path": "/bin/sh", "args": ["sh", "-c", "echo why >&2; exit 3"]}
    bundle.config["hooks"] = {stage: [failing, _hook(bundle, "never")], "poststop": [_hook(bundle, "poststop")]}
    name = bundle.new_id()
    error = bundle.refused("create", name)
    assert "error running %s hook #0" % stage in error and "exit status 3" in error and "why" in error
    assert [entry["hook"] for entry in _log(bundle)] == ["poststop"]
    assert os.listdir(bundle.run_root) == [] and cgroup_directories(name) == []


def test_a_failing_start_container_hook_keeps_the_program_from_running(bundle):
    bundle.config["hooks"] = {"startContainer": [{"path": "/bin/false"}]}
    bundle.process["args"] = ["touch", "/tmp/ran"]
    name = bundle.create()
    assert "startContainer hook #0" in bundle.refused("start", name)
    assert bundle.wait_for(name, "stopped")
    assert not os.path.exists(bundle.path + "/rootfs/tmp/ran")


def test_a_failing_poststart_hook_stops_the_container_and_runs_poststop(bundle):
    bundle.config["hooks"] = {"poststart": [{"path": "/bin/false"}], "poststop": [_hook(bundle, "poststop")]}
    name = bundle.create()
    assert "poststart hook #0" in bundle.refused("start", name)
    assert "does not exist" in bundle.refused("state", name)
    assert [entry["hook"] for entry in _log(bundle)] == ["poststop"]


def test_failing_poststop_hooks_are_logged_and_do_not_keep_the_others_from_running(bundle):
    bundle.config["hooks"] = {"poststop": [{"path": "/bin/false"}, _hook(bundle, "second")]}
    name = bundle.start()
    result = bundle.call("delete", "--force", name)
    assert result.returncode == 0 and "poststop hook #0" in result.stderr
    assert [entry["hook"] for entry in _log(bundle)] == ["second"]


def test_a_hook_that_takes_longer_than_its_timeout_is_killed(bundle):
    slow = {"path": "/bin/sh", "args": ["sh", "-c", "sleep 600"], "env": ["PATH=/bin:/usr/bin"], "timeout": 1}
    bundle.config["hooks"] = {"createRuntime": [slow]}
    assert "longer than 1 seconds" in bundle.refused("create", bundle.new_id())


def test_a_hook_without_env_gets_an_empty_environment(bundle):
    script = "tr '\\0' ' ' < /proc/self/environ > %s/env" % bundle.path
    bundle.config["hooks"] = {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]}
    bundle.create()
    with open(bundle.path + "/env") as stream:
        assert "HOME" not in stream.read()


def test_malformed_hooks_are_refused_before_anything_is_made(bundle):
    for bad in ({"path": "relative"}, {}, {"path": "/bin/true", "timeout": 0}, {"path": "/bin/true", "args": "x"}):
        bundle.config["hooks"] = {"prestart": [bad]}
        assert "hooks.prestart[0]" in bundle.refused("create", bundle.new_id())
    assert not os.path.exists(bundle.run_root) or os.listdir(bundle.run_root) == []
