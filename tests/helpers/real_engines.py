# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real dockerd and podman, each with directories of its own and without touching the host's network."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import tempfile
import time

import pytest


class Caller:
    def __init__(self, argv, env=None):
        self.argv = argv
        self.env = {**os.environ, **(env or {})}

    def call(self, *words, **more):
        options = {"capture_output": True, "text": True, "timeout": 180, "stdin": subprocess.DEVNULL}
        options.update(more)
        return subprocess.run([*self.argv, *words], env=self.env, check=False, **options)

    def must(self, *words, **more):
        result = self.call(*words, **more)
        assert result.returncode == 0, (result.stdout, result.stderr)
        return result.stdout


@contextlib.contextmanager
def dockerd(*options, name="wharf-callers"):
    """A dockerd of its own, and its client as a ``Caller``. Containers are below the cgroup ``name``."""
    program = shutil.which("dockerd", path="/usr/sbin:/usr/bin:/usr/local/bin:/sbin")
    client = next((path for path in ("/usr/bin/docker", "/usr/local/bin/docker") if os.access(path, os.X_OK)), None)
    if program is None or client is None:
        pytest.skip("needs dockerd and docker")
    data = tempfile.mkdtemp(prefix="wt-docker-", dir="/var/tmp")
    run = "/run/wt" + secrets.token_hex(3)
    os.makedirs(run)
    argv = [
        program, "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false", "--bridge=none",
        "--data-root", data + "/data", "--exec-root", run + "/exec", "--pidfile", run + "/pid",
        "-H", "unix://%s/s" % run, "--containerd-namespace", "wharf-test",
        "--cgroup-parent", "/" + name, *options,
    ]  # fmt: skip
    with open(data + "/log", "w") as log:
        daemon = subprocess.Popen(argv, stdout=log, stderr=log)
    caller = Caller([client, "-H", "unix://%s/s" % run])
    try:
        deadline = time.monotonic() + 90
        while caller.call("version").returncode:
            assert daemon.poll() is None and time.monotonic() < deadline, open(data + "/log").read()[-3000:]
            time.sleep(0.2)
        yield caller
    finally:
        ids = caller.call("ps", "-aq").stdout.split()
        if ids:
            caller.call("rm", "-f", *ids)
        daemon.terminate()
        daemon.wait(60)
        _unmount_below(data, run)
        shutil.rmtree(data, ignore_errors=True)
        shutil.rmtree(run, ignore_errors=True)
        _remove_cgroups(name)


@contextlib.contextmanager
def podman(*options):
    """podman with a storage of its own."""
    program = shutil.which("podman")
    if program is None:
        pytest.skip("needs podman")
    data = tempfile.mkdtemp(prefix="wt-podman-", dir="/var/tmp")
    run = "/run/wt" + secrets.token_hex(3)
    caller = Caller(
        [
            program, "--root", data + "/root", "--runroot", run, "--tmpdir", run + "-tmp", *options,
            "--cgroup-manager", "cgroupfs", "--events-backend", "none", "--storage-driver", "vfs",
        ]
    )  # fmt: skip
    try:
        yield caller
    finally:
        caller.call("rm", "-fa", "-t", "0")
        _unmount_below(data, run)
        for path in (data, run, run + "-tmp"):
            shutil.rmtree(path, ignore_errors=True)
        _remove_cgroups("libpod_parent")


def _unmount_below(*directories):
    """What the callers themselves leave mounted: a network namespace of dockerd's, podman's overlays."""
    with open("/proc/self/mountinfo") as lines:
        points = [line.split(" ")[4] for line in lines]
    for point in reversed(points):
        if point.startswith(tuple(directory + "/" for directory in directories)):
            subprocess.run(["umount", "-l", point], check=False)


def _remove_cgroups(name):
    with open("/proc/self/mountinfo") as lines:
        points = [line.split(" ")[4] for line in lines if " - cgroup" in line]
    for point in points:
        for top, _names, _files in os.walk("%s/%s" % (point, name), topdown=False):
            try:
                os.rmdir(top)
            except OSError:  # somebody else's containers are below it
                continue
