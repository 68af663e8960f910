# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The life of a container by runc's verbs: create, start, state, kill, delete, run, list, ps."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess

import pytest
from helpers.bundle import cgroup_directories

pytestmark = pytest.mark.root


def test_a_created_container_waits_for_start_and_then_runs_its_program(bundle):
    bundle.process["args"] = ["sh", "-c", "echo ran > /tmp/ran; exec sleep 1000"]
    name = bundle.create("--pid-file", bundle.path + "/pid")
    state = bundle.state(name)
    assert state["status"] == "created" and state["id"] == name and state["bundle"] == bundle.path
    with open(bundle.path + "/pid") as stream:
        assert stream.read() == str(state["pid"])
    assert not os.path.exists(bundle.path + "/rootfs/tmp/ran")
    bundle.must("start", name)
    assert bundle.state(name)["status"] == "running"
    bundle.must("kill", name, "KILL")
    stopped = bundle.wait_for(name, "stopped")
    assert stopped["pid"] == 0
    with open(bundle.path + "/rootfs/tmp/ran") as stream:
        assert stream.read() == "ran\n"
    bundle.must("delete", name)
    assert "does not exist" in bundle.refused("state", name)
    assert cgroup_directories(name) == []


def test_start_is_refused_for_what_runs_has_stopped_or_does_not_exist(bundle):
    name = bundle.start()
    assert "cannot start a container in the running state" in bundle.refused("start", name)
    bundle.must("kill", name, "9")
    bundle.wait_for(name, "stopped")
    assert "cannot start a container that has stopped" in bundle.refused("start", name)
    assert "does not exist" in bundle.refused("start", "nobody")


def test_start_says_what_keeps_the_program_from_running_and_create_what_is_missing(bundle):
    bundle.process["args"] = ["/nowhere"]
    assert "no such file or directory" in bundle.refused("create", bundle.new_id())
    bundle.process["args"] = ["no-such-program"]
    assert "executable file not found in $PATH" in bundle.refused("run", bundle.new_id())
    with open(bundle.path + "/rootfs/bin/broken", "w") as stream:
        stream.write("#!/no/such/interpreter\n")
    os.chmod(bundle.path + "/rootfs/bin/broken", 0o755)
    bundle.process["args"] = ["broken"]
    name = bundle.create()
    assert "broken" in bundle.refused("start", name)
    assert bundle.wait_for(name, "stopped")["pid"] == 0


def test_a_failed_create_leaves_no_state_no_cgroup_and_no_process(bundle):
    bundle.config["mounts"].append({"destination": "/x", "type": "bind", "source": "/no/such/source"})
    name = bundle.new_id()
    assert "/no/such/source" in bundle.refused("create", name)
    assert cgroup_directories(name) == []
    assert os.listdir(bundle.run_root) == []


def test_run_answers_with_the_status_of_the_program_and_deletes_the_container(bundle):
    bundle.process["args"] = ["sh", "-c", "exit 7"]
    name = bundle.new_id()
    assert bundle.call("run", name).returncode == 7
    assert "does not exist" in bundle.refused("state", name)
    bundle.process["args"] = ["sh", "-c", "kill -9 $$"]
    bundle.linux["namespaces"] = [n for n in bundle.linux["namespaces"] if n["type"] != "pid"]
    assert bundle.call("run", bundle.new_id()).returncode == 128 + 9


def test_run_with_keep_leaves_the_stopped_container(bundle):
    bundle.process["args"] = ["true"]
    name = bundle.new_id()
    bundle.must("run", "--keep", name)
    assert bundle.state(name)["status"] == "stopped"
    bundle.must("delete", name)


def test_run_forwards_signals_to_the_program(bundle):
    bundle.process["args"] = ["sh", "-c", "trap 'echo caught; exit 3' TERM; echo ready; while :; do sleep 0.05; done"]
    name = bundle.new_id()
    bundle.call("list")
    with subprocess.Popen(bundle.argv("run", name), stdout=subprocess.PIPE, text=True, cwd=bundle.path) as running:
        assert running.stdout.readline() == "ready\n"
        running.send_signal(signal.SIGTERM)
        assert running.stdout.read() == "caught\n"
        assert running.wait(60) == 3


def test_an_id_that_is_taken_or_malformed_is_refused(bundle):
    name = bundle.start()
    assert "container with id exists" in bundle.refused("run", name)
    for bad in ("a/b", "..", "", "a b", "x" * 2000):
        assert "invalid container ID" in bundle.refused("create", bad)
    assert bundle.state(name)["status"] == "running"


def test_a_second_container_in_the_same_cgroup_is_refused(bundle):
    name = bundle.start()
    path = bundle.linux["cgroupsPath"]
    other = bundle.new_id()
    bundle.linux["cgroupsPath"] = path
    assert "cgroup is not empty" in bundle.refused("create", other)
    assert bundle.state(name)["status"] == "running"


def test_delete_refuses_what_runs_unless_forced_and_takes_everything_along(bundle):
    name = bundle.start()
    assert "is not stopped" in bundle.refused("delete", name)
    bundle.must("delete", "--force", name)
    assert cgroup_directories(name) == []
    assert "does not exist" in bundle.refused("delete", name)
    bundle.must("delete", "--force", name)


def test_a_created_container_can_be_deleted(bundle):
    name = bundle.create()
    pid = bundle.state(name)["pid"]
    bundle.must("delete", name)
    assert not os.path.exists("/proc/%d/ns" % pid) or open("/proc/%d/stat" % pid).read().split()[2] == "Z"


def test_the_state_file_is_for_root_alone_and_a_reused_pid_is_no_container(bundle):
    name = bundle.start()
    path = "%s/%s/state.json" % (bundle.run_root, name)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    with open(path) as stream:
        state = json.load(stream)
    real = dict(state)
    state.update(pid=os.getpid())  # alive, but another process: it started at another time
    with open(path, "w") as stream:
        json.dump(state, stream)
    assert bundle.state(name)["status"] == "stopped"
    assert "not running" in bundle.refused("kill", name, "KILL")
    with open(path, "w") as stream:
        json.dump(real, stream)
    assert bundle.state(name)["status"] == "running"


def test_kill_takes_names_and_numbers_and_refuses_nonsense(bundle):
    bundle.process["args"] = [
        "sh",
        "-c",
        "trap 'echo got > /tmp/got' USR1; echo up > /tmp/up; while :; do sleep 0.05; done",
    ]
    name = bundle.start()
    _wait_for_file(bundle.path + "/rootfs/tmp/up")
    bundle.must("kill", name, "SIGUSR1")
    _wait_for_file(bundle.path + "/rootfs/tmp/got")
    for bad in ("SIGNOPE", "99", "-1", "SIG_DFL"):
        assert "unknown signal" in bundle.refused("kill", "--", name, bad)
    bundle.must("kill", name, "KILL")
    bundle.wait_for(name, "stopped")
    assert "container not running" in bundle.refused("kill", name)


def test_kill_all_reaches_every_process_of_a_container_without_pid_namespace(bundle):
    bundle.linux["namespaces"] = [n for n in bundle.linux["namespaces"] if n["type"] != "pid"]
    bundle.process["args"] = ["sh", "-c", "sleep 999 & echo up > /tmp/up; wait"]
    name = bundle.start()
    _wait_for_file(bundle.path + "/rootfs/tmp/up")
    pids = json.loads(bundle.must("ps", "--format", "json", name))
    assert len(pids) >= 2 and bundle.state(name)["pid"] in pids
    bundle.must("kill", "--all", name, "KILL")
    bundle.wait_for(name, "stopped")
    bundle.must("delete", name)
    assert all(not os.path.exists("/proc/%d/exe" % pid) for pid in pids)


def test_list_shows_every_container_as_table_json_and_ids(bundle):
    one = bundle.start()
    two = bundle.create()
    rows = {line.split()[0]: line.split() for line in bundle.must("list").splitlines()}
    assert rows["ID"] == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    assert rows[one][2] == "running" and rows[two][2] == "created"
    assert sorted(bundle.must("list", "-q").split()) == sorted([one, two])
    entries = {entry["id"]: entry for entry in json.loads(bundle.must("list", "--format=json"))}
    assert entries[one]["pid"] == bundle.state(one)["pid"] and entries[one]["owner"] == "root"


def test_ps_shows_the_processes_as_the_host_knows_them(bundle):
    name = bundle.start()
    pid = bundle.state(name)["pid"]
    lines = bundle.must("ps", name).splitlines()
    assert lines[0].split()[:2] == ["UID", "PID"]
    assert [line.split()[1] for line in lines[1:]] == [str(pid)]
    assert "sleep 1000" in lines[1]


def test_pause_stops_and_resume_lets_go_on(bundle):
    name = bundle.start()
    bundle.must("pause", name)
    assert bundle.state(name)["status"] == "paused"
    assert "cannot exec in a paused container" in bundle.refused("exec", name, "true", code=255)
    bundle.must("resume", name)
    assert bundle.state(name)["status"] == "running"
    assert "cannot resume" in bundle.refused("resume", name)
    bundle.must("pause", name)
    bundle.must("delete", "--force", name)


def test_a_create_that_is_killed_in_the_middle_leaves_nothing_that_delete_does_not_take(bundle):
    """SIGKILL while a hook runs: the first process is there and waits, the state has no pid yet."""
    bundle.config["hooks"] = {
        "createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", "echo $$ > %s/hook; exec sleep 600" % bundle.path]}]
    }
    name = bundle.new_id()
    bundle.call("list")
    with subprocess.Popen(bundle.argv("create", name), cwd=bundle.path, stdout=subprocess.DEVNULL) as creating:
        _wait_for_file(bundle.path + "/hook")
        assert bundle.state(name)["status"] == "creating"
        assert "cannot start" in bundle.refused("start", name)
        creating.kill()
    bundle.wait_for(name, "stopped")
    with open(bundle.path + "/hook") as stream:
        os.kill(int(stream.read()), signal.SIGKILL)
    bundle.must("delete", "--force", name)
    assert cgroup_directories(name) == [] and os.listdir(bundle.run_root) == []


def test_a_cgroup_of_systemds_making_is_refused_where_systemd_does_not_run(bundle):
    if os.path.isdir("/run/systemd/system"):
        pytest.skip("systemd runs here")
    name = bundle.new_id()
    bundle.linux["cgroupsPath"] = "system.slice:wharf:" + name
    assert "needs systemd" in bundle.refused("--systemd-cgroup", "create", name)


def _wait_for_file(path):
    import time

    deadline = time.monotonic() + 60
    while not os.path.exists(path):
        assert time.monotonic() < deadline, path
        time.sleep(0.01)
