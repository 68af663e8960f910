# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The executable below real callers, each with directories of its own and without touching the host's network."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time

import pytest
from helpers.bundle import make_root

REPOSITORY = os.path.normpath(os.path.join(os.path.dirname(__file__), "../.."))


@pytest.fixture(scope="session")
def runtime():
    """A build of its own: the checkout's may be in use."""
    if os.geteuid() != 0 or not os.path.exists("/bin/busybox"):
        pytest.skip("needs root and a busybox")
    directory = tempfile.mkdtemp(prefix="wt-oci-", dir="/var/tmp")
    tool = os.path.join(REPOSITORY, "tools/oci.py")
    subprocess.run([sys.executable, tool, directory], check=True, stdout=subprocess.DEVNULL)
    yield directory + "/wharf-oci"
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def root_directory():
    directory = tempfile.mkdtemp(prefix="wt-root-", dir="/var/tmp")
    os.chmod(directory, 0o755)
    yield make_root(directory + "/rootfs")
    shutil.rmtree(directory)


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


@pytest.fixture(scope="session")
def docker(runtime, root_directory):
    """A dockerd of its own with the runtime beside runc."""
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
        "-H", "unix://%s/s" % run, "--add-runtime", "wharf=" + runtime, "--containerd-namespace", "wharf-test",
        "--cgroup-parent", "/wharf-callers",
    ]  # fmt: skip
    with open(data + "/log", "w") as log:
        daemon = subprocess.Popen(argv, stdout=log, stderr=log)
    caller = Caller([client, "-H", "unix://%s/s" % run])
    try:
        deadline = time.monotonic() + 90
        while caller.call("version").returncode:
            assert daemon.poll() is None and time.monotonic() < deadline, open(data + "/log").read()[-3000:]
            time.sleep(0.2)
        archive = subprocess.run(["tar", "-C", root_directory, "-c", "."], capture_output=True, check=True).stdout
        caller.must("import", "-", "box", input=archive, text=False, stdin=None)
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
        _remove_cgroups("wharf-callers")


@pytest.fixture(scope="session")
def podman(runtime):
    program = shutil.which("podman")
    if program is None:
        pytest.skip("needs podman")
    data = tempfile.mkdtemp(prefix="wt-podman-", dir="/var/tmp")
    run = "/run/wt" + secrets.token_hex(3)
    caller = Caller(
        [
            program, "--root", data + "/root", "--runroot", run, "--tmpdir", run + "-tmp", "--runtime", runtime,
            "--cgroup-manager", "cgroupfs", "--events-backend", "none", "--storage-driver", "vfs",
        ]
    )  # fmt: skip
    yield caller
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
