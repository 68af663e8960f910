# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A file system with project quotas: a real one where this kernel has them, else the calls of ``kernel/quota`` kept in
memory."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from module_utils._engine.kernel import quota
from module_utils._engine.kernel.syscalls import Kernel


@contextlib.contextmanager
def mounted(directory: str) -> Iterator[bool]:
    """An ext4 of 256 MiB with project quotas at ``directory``; false where the kernel has none."""
    image = directory + ".img"
    with open(image, "wb") as file:
        file.truncate(256 << 20)
    features = ["-O", "quota,project", "-E", "quotatype=prjquota"]
    subprocess.run(["mkfs.ext4", "-q", *features, image], check=True)
    os.mkdir(directory)
    done = subprocess.run(["mount", "-o", "loop,prjquota", image, directory], capture_output=True, check=False)
    try:
        yield done.returncode == 0
    finally:
        if done.returncode == 0:
            subprocess.run(["umount", directory], check=True)
        os.unlink(image)


class InMemory:
    """What a file system with project quotas would remember."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.limits: dict[int, int] = {}
        self.projects: dict[int, int] = {}  # by inode
        for name in ("is_enforced", "get", "set_limit", "project", "assign"):
            patch.setattr(quota, name, getattr(self, name))

    def is_enforced(self, _kernel: Kernel, _fd: int) -> bool:
        return True

    def get(self, _kernel: Kernel, _fd: int, project: int) -> quota.Quota:
        return quota.Quota(self.limits.get(project, 0), 0, 0)

    def set_limit(self, _kernel: Kernel, _fd: int, project: int, size: int) -> None:
        self.limits[project] = size

    def project(self, fd: int) -> int:
        return self.projects.get(os.fstat(fd).st_ino, 0)

    def assign(self, fd: int, project: int) -> None:
        self.projects[os.fstat(fd).st_ino] = project


def in_force(limits: dict[int, int]) -> dict[int, Any]:
    return {project: size for project, size in limits.items() if size}
