# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The executable below real callers, each with directories of its own and without touching the host's network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile

import pytest
from helpers import real_engines
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


@pytest.fixture(scope="session")
def docker(runtime, root_directory):
    """A dockerd of its own with the runtime beside runc."""
    with real_engines.dockerd("--add-runtime", "wharf=" + runtime) as caller:
        archive = subprocess.run(["tar", "-C", root_directory, "-c", "."], capture_output=True, check=True).stdout
        caller.must("import", "-", "box", input=archive, text=False, stdin=None)
        yield caller


@pytest.fixture(scope="session")
def podman(runtime):
    with real_engines.podman("--runtime", runtime) as caller:
        yield caller
