# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Kernels whose clone3 forgets a cgroup's processors: a process that must not run everywhere is moved in instead."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from module_utils._engine.kernel import old_clone, syscalls
from module_utils._engine.kernel.syscalls import Kernel
from module_utils._engine.oci import launch
from module_utils._engine.runtime import parent


def own(key: str) -> str:
    return next(
        line.split(":\t")[1].strip() for line in Path("/proc/self/status").read_text().splitlines() if key in line
    )


@pytest.fixture
def cgroup(tmp_path):
    """A directory that looks like the cgroup of a container that may run where we may."""
    (tmp_path / "cpuset.cpus.effective").write_text(own("Cpus_allowed_list") + "\n")
    (tmp_path / "cpuset.mems.effective").write_text(own("Mems_allowed_list") + "\n")
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield tmp_path, fd
    os.close(fd)


@pytest.mark.parametrize(
    ("text", "expected"), [("5.10.0-32-cloud-amd64", (5, 10)), ("6.12", (6, 12)), ("6.1.0+", (6, 1)), ("next", (0, 0))]
)
def test_the_release_is_two_numbers(text, expected):
    assert syscalls._release(text) == expected


def test_the_same_processors_cannot_be_forgotten(cgroup):
    assert not old_clone.loses_cpuset(cgroup[1])


@pytest.mark.parametrize("file", ["cpuset.cpus.effective", "cpuset.mems.effective"])
def test_others_are_forgotten(cgroup, file):
    path, fd = cgroup
    (path / file).write_text("77\n")
    assert old_clone.loses_cpuset(fd)


def test_without_the_controller_there_is_nothing_to_forget(tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert not old_clone.loses_cpuset(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize("clone_into", [parent.clone_into, launch.clone_into])
@pytest.mark.parametrize(("running", "joined"), [((5, 10), False), ((6, 2), False), ((6, 3), True), ((7, 0), True)])
def test_a_process_that_would_run_where_it_may_not_joins_by_itself(cgroup, clone_into, running, joined):
    class Recording(Kernel):
        """Forks nothing: says what would have been."""

        def clone3(self, flags, cgroup_fd=None):
            if cgroup_fd is not None:
                try:
                    super().clone3(flags, cgroup_fd)
                except OSError as error:
                    if error.errno == 95:
                        raise
                # EBADF of the real kernel: an ordinary directory is no cgroup
            return 1234, 99

    path, fd = cgroup
    (path / "cpuset.cpus.effective").write_text("77\n")
    kernel = Recording()
    kernel.release = running
    assert clone_into(kernel, 0, fd) == (1234, 99, joined)
