# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""``podman --runtime``: conmon drives the executable."""

from __future__ import annotations

import os
import secrets

import pytest

pytestmark = pytest.mark.root

# A host that lacks CAP_SYS_RESOURCE cannot give podman's default limits, whatever the runtime.
RUN = ("run", "--network", "none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000")


@pytest.fixture
def running(podman, root_directory):
    name = "t" + secrets.token_hex(4)
    podman.must(*RUN, "-d", "--name", name, "--rootfs", root_directory, "sleep", "1000")
    yield name
    podman.call("rm", "-f", "-t", "0", name)


def test_a_container_runs_and_its_output_and_status_come_back(podman, root_directory):
    result = podman.call(*RUN, "--rm", "--rootfs", root_directory, "sh", "-c", "echo out; echo err >&2; exit 5")
    assert (result.stdout, result.returncode) == ("out\n", 5) and "err" in result.stderr


def test_a_program_that_is_not_there_is_127(podman, root_directory):
    result = podman.call(*RUN, "--rm", "--rootfs", root_directory, "nope")
    assert result.returncode == 127 and "executable file not found" in result.stderr


def test_exec_pause_top_and_stop(podman, running):
    assert podman.call("exec", running, "sh", "-c", "exit 3").returncode == 3
    assert podman.must(
        "exec", "-u", "5", "-e", "X=1", "-w", "/tmp", running, "sh", "-c", "id -u; echo $X; pwd"
    ).split() == ["5", "1", "/tmp"]
    podman.must("pause", running)
    assert podman.must("inspect", "--format", "{{.State.Status}}", running) == "paused\n"
    podman.must("unpause", running)
    assert "sleep 1000" in podman.must("top", running)
    podman.must("stop", "-t", "0", running)
    shown = podman.must("inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", running)
    assert shown.split() == ["exited", "137"]


def test_a_terminal_is_the_containers(podman, root_directory):
    shown = podman.must(*RUN, "--rm", "-t", "--rootfs", root_directory, "sh", "-c", "tty; ls -l /dev/console | cut -c1")
    assert shown.split() == ["/dev/pts/0", "c"]


def test_a_read_only_root_has_podmans_writable_places(podman, root_directory):
    script = "touch /tmp/x && echo ok; touch /y 2>&1; true"
    shown = podman.must(*RUN, "--rm", "--read-only", "--rootfs", root_directory, "sh", "-c", script)
    assert shown.startswith("ok") and "Read-only" in shown


def test_user_namespaces_have_their_maps(podman, root_directory):
    maps = ("--uidmap", "0:200000:65536", "--gidmap", "0:200000:65536")
    shown = podman.must(
        *RUN, "--rm", *maps, "--rootfs", root_directory + ":O", "sh", "-c", "cat /proc/self/uid_map; id -u"
    )
    assert shown.split() == ["0", "200000", "65536", "0"]


def test_namespaces_of_another_container_are_shared(podman, running, root_directory):
    shared = [word for kind in ("pid", "ipc") for word in ("--" + kind, "container:" + running)]
    options = [word for word in RUN if word not in ("--network", "none")]
    shown = podman.must(
        *options, "--network", "container:" + running, *shared, "--rm", "--rootfs", root_directory, "sh", "-c",
        "cat /proc/1/comm; readlink /proc/self/ns/net",
    ).split()  # fmt: skip
    pid = podman.must("inspect", "--format", "{{.State.Pid}}", running).strip()
    assert shown == ["sleep", os.readlink("/proc/%s/ns/net" % pid)]
