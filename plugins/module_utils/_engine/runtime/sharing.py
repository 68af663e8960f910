# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Namespaces that a container has in common with another container or with the host.

config.json names another container by its ID (``"path": "container:<id>"``), never by a process: it is looked up at
every start, also at those the restart policy makes. The descriptor is opened between two looks at the process, so that
a reused pid cannot put a container into a namespace of the host.
"""

from __future__ import annotations

import os
from typing import Any

from ..errors import KernelError, StartError
from ..kernel import pidfd as pidfds
from ..kernel.syscalls import Kernel
from ..paths import Paths
from . import joined, statefile

PREFIX = "container:"
OWNER = "owner:"  # of a user namespace: whichever owns the network namespace at that path
_FILES = {"ipc": "ipc", "pid": "pid", "uts": "uts", "network": "net", "mount": "mnt"}


def resolve(kernel: Kernel, paths: Paths, config: dict[str, Any]) -> dict[str, Any]:
    """``config`` with descriptors of this process (inherited by the clone) in the place of containers. Raises
    ``StartError`` when the other one does not run."""
    namespaces = []
    processes: list[str] = []  # whose /proc is shown: the pid namespace, and a mount namespace that has it
    for namespace in config["linux"]["namespaces"]:
        path = namespace.get("path", "")
        if path.startswith(PREFIX):
            fd = _open(paths, path[len(PREFIX) :], namespace["type"])
            namespace = {**namespace, "path": "/proc/self/fd/%d" % fd}
            if namespace["type"] == "pid":
                joined.mark(paths.container(path[len(PREFIX) :]))
                processes.append("/proc/self/fd/%d" % _open(paths, path[len(PREFIX) :], "mount"))
        elif path.startswith(OWNER):
            namespace = _owner(namespace, path[len(OWNER) :])
        if namespace["type"] == "pid" and namespace.get("path"):
            processes.insert(0, namespace["path"])
        namespaces.append(namespace)
    mounts = []
    for mount in config["mounts"]:
        if mount.get("from", "").startswith(PREFIX):
            mount = {**mount, "from": "/proc/self/fd/%d" % _open(paths, mount["from"][len(PREFIX) :], "mount")}
        if mount["type"] == "proc" and processes:
            mount = {**mount, "of": processes}
        mounts.append(mount)
    return {**config, "linux": {**config["linux"], "namespaces": namespaces}, "mounts": mounts}


def _owner(namespace: dict[str, Any], path: str) -> dict[str, Any]:
    """The network namespace was made inside the user namespace that the container shall have. One that belongs to the
    host (found again after it had lost its name, say) leaves the container with a new user namespace, which then has
    no power over its network."""
    from ..kernel import idmap

    try:
        network = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fd = idmap.owner_fd(network)
        finally:
            os.close(network)
    except OSError as error:
        raise KernelError.wrap(
            error, "Cannot find the user namespace that owns %s" % path, step="join_namespace"
        ) from error
    if os.fstat(fd).st_ino == os.stat("/proc/self/ns/user").st_ino:
        os.close(fd)
        return {"type": "user"}
    return {"type": "user", "path": "/proc/self/fd/%d" % fd}


def _open(paths: Paths, container_id: str, kind: str) -> int:
    state = statefile.read(paths.container(container_id) + "/state.json")
    pidfd = pidfds.open_pid(state["pid"], state["pid_start"]) if state and statefile.process_alive(state) else None
    if state is None or pidfd is None:
        raise StartError(
            "cannot join the %s namespace of a non running container: %s" % (kind, container_id[:12]),
            step="join_namespace",
            hint="start it first",
        )
    try:
        fd = os.open("/proc/%d/ns/%s" % (state["pid"], _FILES[kind]), os.O_RDONLY | os.O_CLOEXEC)
        if pidfds.wait(pidfd, 0):
            os.close(fd)
            raise StartError("container %s ended while it was joined" % container_id[:12], step="join_namespace")
        return fd
    finally:
        os.close(pidfd)
