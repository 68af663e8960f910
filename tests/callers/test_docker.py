# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""``dockerd --add-runtime``: containerd's shim drives the executable."""

from __future__ import annotations

import json
import os
import pty
import secrets
import subprocess

import pytest

pytestmark = pytest.mark.root

RUN = ("run", "--runtime", "wharf", "--network", "none")


@pytest.fixture
def running(docker):
    name = "t" + secrets.token_hex(4)
    docker.must(*RUN, "-d", "--name", name, "--memory", "64m", "--pids-limit", "50", "box", "sleep", "1000")
    yield name
    docker.call("rm", "-f", name)


def test_a_container_runs_and_its_output_and_status_come_back(docker):
    result = docker.call(*RUN, "--rm", "box", "sh", "-c", "echo out; echo err >&2; exit 5")
    assert (result.stdout, result.stderr, result.returncode) == ("out\n", "err\n", 5)


def test_a_program_that_is_not_there_is_127_and_said_so(docker):
    result = docker.call(*RUN, "--rm", "box", "nope")
    assert result.returncode == 127 and "executable file not found in $PATH" in result.stderr


def test_the_confinement_is_dockers(docker):
    script = "grep -E 'Cap|Seccomp:|NoNewPrivs|Groups' /proc/self/status"
    own, other = (
        docker.must("run", "--runtime", name, "--network", "none", "--rm", "box", "sh", "-c", script)
        for name in ("wharf", "runc")
    )
    assert own == other and "Seccomp:\t2" in own
    script = "cat /proc/kcore | wc -c; chmod 600 /proc/sys/vm/swappiness 2>&1; ls /sys/firmware | wc -l; true"
    shown = docker.must(*RUN, "--rm", "box", "sh", "-c", script).split("\n")
    assert shown[0] == "0" and "Read-only" in shown[1] and shown[2] == "0"


def test_mounts_devices_and_limits_are_the_same_as_under_runc(docker):
    # Which hierarchies of a hybrid host are shown is each runtime's own choice.
    script = "cut -d' ' -f2 /proc/mounts | grep -v -e unified -e systemd | sort; ls /dev | sort; "
    script += "cat /proc/self/limits; env | grep -v HOSTNAME | sort"
    own, other = (
        docker.must("run", "--runtime", name, "--network", "none", "--rm", "box", "sh", "-c", script)
        for name in ("wharf", "runc")
    )
    assert own == other


def test_exec_has_options_a_status_and_a_terminal(docker, running):
    shown = docker.must("exec", "-w", "/tmp", "-u", "5", "-e", "X=1", running, "sh", "-c", "pwd; id -u; echo $X")
    assert shown.split() == ["/tmp", "5", "1"]
    assert docker.call("exec", running, "sh", "-c", "exit 3").returncode == 3
    assert "executable file not found" in docker.call("exec", running, "nope").stdout
    master, slave = pty.openpty()
    with subprocess.Popen(
        [*docker.argv, "exec", "-t", running, "tty"], stdin=slave, stdout=slave, stderr=slave
    ) as client:
        os.close(slave)
        assert os.read(master, 100).startswith(b"/dev/pts/")
        assert client.wait(60) == 0
    os.close(master)


def test_pause_update_top_stats_restart_and_stop(docker, running):
    docker.must("pause", running)
    assert "Paused" in docker.must("ps", "--filter", "name=" + running, "--format", "{{.Status}}")
    docker.must("unpause", running)
    docker.must("update", "--memory", "96m", "--memory-swap", "96m", running)
    assert "sleep 1000" in docker.must("top", running)
    assert "96MiB" in docker.must("stats", "--no-stream", running)
    docker.must("restart", "-t", "0", running)
    assert docker.call("exec", running, "true").returncode == 0
    docker.must("stop", "-t", "0", running)
    state = json.loads(docker.must("inspect", running))[0]["State"]
    assert state["Status"] == "exited" and state["ExitCode"] == 137


def test_a_container_that_takes_too_much_memory_is_known_as_such(docker):
    name = "t" + secrets.token_hex(4)
    result = docker.call(*RUN, "--name", name, "-m", "16m", "box", "sh", "-c", "yes | tr '\\n' x | head -c 100m | sort")
    state = json.loads(docker.must("inspect", name))[0]["State"]
    docker.must("rm", "-f", name)
    assert result.returncode == 137 and state["OOMKilled"] is True


def test_volumes_tmpfs_read_only_init_and_privileged(docker, tmp_path):
    (tmp_path / "file").write_text("given")
    options = ("--rm", "-v", "%s:/data:ro" % tmp_path, "--tmpfs", "/x", "--read-only", "--init")
    shown = docker.must(
        *RUN,
        *options,
        "box",
        "sh",
        "-c",
        "cat /data/file; touch /x/y && echo ok; cat /proc/1/comm; touch /z 2>&1; true",
    )
    assert shown.startswith("givenok\n") and "init" in shown and "Read-only" in shown
    shown = docker.must(*RUN, "--rm", "--privileged", "box", "sh", "-c", "mount -t tmpfs none /tmp && ls /dev | wc -l")
    assert int(shown) > 12
