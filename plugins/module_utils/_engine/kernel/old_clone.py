# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where clone3(CLONE_INTO_CGROUP) forgets the cgroup's processors and memory nodes (Linux before 6.3, and those of the
stable releases that did not get commit 42a11bf5c543): the child keeps its parent's. Moving a process in never does."""

from __future__ import annotations

import os


def loses_cpuset(cgroup_fd: int) -> bool:
    """Whether a child of ours, cloned into the cgroup, would run where it may not. ``cgroup_fd``: its directory."""
    with open("/proc/self/status") as stream:
        ours = dict(line.rstrip("\n").split(":\t", 1) for line in stream if "_allowed_list:" in line)
    for file, key in (("cpuset.cpus.effective", "Cpus_allowed_list"), ("cpuset.mems.effective", "Mems_allowed_list")):
        try:
            fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC, dir_fd=cgroup_fd)
        except FileNotFoundError:  # the controller is not on here: nothing to forget
            continue
        with open(fd) as stream:
            theirs = stream.read().strip()
        # A process that may run everywhere shows more processors than there are on hosts that could get some. It is
        # then moved in instead of cloned in, which costs a millisecond.
        if theirs != ours.get(key):
            return True
    return False
