# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Named network namespaces: a namespace held by a bind mount at ``run/netns/<container id>``.

The namespace outlives the container's processes, so a restart policy needs no network code at all. It is configured
*before* it gets its name: whatever is mounted there is complete, and a file without a mount is what a killed process
left behind, and is used again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Optional

from ..errors import KernelError

if TYPE_CHECKING:
    from ..kernel.syscalls import Kernel
    from ..paths import Paths

_CLONE_NEWNET, _MNT_DETACH, _MS_BIND = 0x40000000, 2, 4096  # kernel.syscalls has them, and costs an import of ctypes

# Docker's defaults for containers with their own network namespace (moby daemon/oci_linux.go), and ours:
# - no IPv6 address appears on an interface of a network that has no IPv6;
# - a container takes no routes from whoever sends router advertisements on its network;
# - an interface announces its addresses when told to (endpoint.announce), so that nobody keeps a dead owner's MAC.
_SYSCTLS = (
    ("ipv4/ping_group_range", "0 2147483647"),
    ("ipv4/ip_unprivileged_port_start", "0"),
    ("ipv4/conf/default/arp_notify", "1"),
    ("ipv6/conf/default/ndisc_notify", "1"),
    ("ipv6/conf/default/disable_ipv6", "1"),
    ("ipv6/conf/default/accept_ra", "0"),
)


def write_sysctl(name: str, value: str) -> bool:
    """``name`` below /proc/sys/net, in the calling thread's network namespace. False where the kernel has no such
    setting (no IPv6, old kernel)."""
    try:
        fd = os.open("/proc/sys/net/" + name, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)
    return True


def read_sysctl(name: str) -> str:
    """ "" where the kernel has no such setting."""
    try:
        fd = os.open("/proc/sys/net/" + name, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    try:
        return os.read(fd, 256).decode().strip()
    finally:
        os.close(fd)


def is_namespace(path: str) -> bool:
    """Whether a namespace is mounted at ``path`` (nsfs has one device number)."""
    try:
        return os.lstat(path).st_dev == os.stat("/proc/thread-self/ns/net").st_dev
    except FileNotFoundError:
        return False


def create(kernel: Kernel, paths: Paths, container_id: str, ids: Optional[Mapping[str, Any]] = None) -> str:
    """Make the namespace unless it is there; returns its path. Callers hold the container's lock. ``ids``:
    {"first", "size"} of the host's ids of a new user namespace that shall own it."""
    path = paths.container_netns(container_id)
    if is_namespace(path):
        return path
    try:
        _file(path)
        pid = process_of(paths, container_id)
        if not (pid and _adopt(kernel, path, pid)):
            _mount_new(kernel, path, (int(ids["first"]), int(ids["size"])) if ids else None)
    except OSError as error:
        raise KernelError.wrap(
            error, "Cannot make the network namespace of container %s" % container_id[:12], step="create_netns"
        ) from error
    return path


def _file(path: str) -> None:
    flags = os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, 0o444)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), mode=0o711, exist_ok=True)
        fd = os.open(path, flags, 0o444)
    os.close(fd)


def _mount_new(kernel: Kernel, path: str, ids: Optional[tuple[int, int]]) -> None:
    """This thread makes a namespace, configures it, names it, and returns home: no fork (about 1 ms for a process of
    our size, and not safe in one with threads)."""
    from ..kernel.netlink import Netlink
    from ..kernel.netns import inside

    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    made = -1 if ids is None else _owned(kernel, ids)
    try:
        with inside(home):  # brings us home again whatever happens after unshare
            if made < 0:
                kernel.unshare(_CLONE_NEWNET)
            else:
                kernel.setns(made, _CLONE_NEWNET)
            with Netlink() as netlink:
                netlink.set_link(1, up=True)  # lo
            for name, value in _SYSCTLS:
                write_sysctl(name, value)
            kernel.mount("/proc/thread-self/ns/net", path, None, _MS_BIND)
    finally:
        os.close(home)
        if made >= 0:
            os.close(made)


def _owned(kernel: Kernel, ids: tuple[int, int]) -> int:
    """A network namespace over which only root of a new user namespace has power. It keeps that alive."""
    from ..kernel import idmap

    ranges = [idmap.Range(0, *ids)]
    owner = idmap.userns_fd(kernel, ranges, ranges)
    try:
        return idmap.namespaces(kernel, owner, _CLONE_NEWNET)["net"]
    finally:
        os.close(owner)


def _adopt(kernel: Kernel, path: str, pid: int) -> bool:
    """Name the namespace of a container that runs: somebody unmounted or removed its name. False if it has gone, or
    lives in ours."""
    source = "/proc/%d/ns/net" % pid
    try:
        if os.stat(source).st_ino == os.stat("/proc/thread-self/ns/net").st_ino:
            return False
        kernel.mount(source, path, None, _MS_BIND)
    except FileNotFoundError:
        return False
    return True


def process_of(paths: Paths, container_id: str) -> int:
    """A pid that says that the container runs (its own, its monitor's between two tries of a restart policy), or 0. By
    the reader's rule of state.json: same boot, and that very process alive."""
    from ..kernel import procfs

    state = _state(paths, container_id)
    if state.get("status") not in ("running", "restarting", "paused") or state.get("boot_id") != procfs.boot_id():
        return 0
    waiting = state["status"] == "restarting"
    pid = int(state.get("monitor_pid" if waiting else "pid") or 0)
    start = int(state.get("monitor_start" if waiting else "pid_start") or 0)
    return pid if pid and procfs.is_alive(pid, start) else 0


def is_left_over(paths: Paths, container_id: str) -> bool:
    """Whether the namespace is that of a run that has ended without taking it down (its monitor was killed, or is about
    to do it): what the container did inside, rules and settings, must not meet its next run."""
    ran = _state(paths, container_id).get("status") not in (None, "created")
    return ran and not process_of(paths, container_id)


def _state(paths: Paths, container_id: str) -> dict[str, Any]:
    import json

    try:
        with open(paths.container(container_id) + "/state.json", encoding="utf-8") as file:
            state = json.load(file)
    except (OSError, ValueError):  # removed, or never ran
        return {}
    return state if isinstance(state, dict) else {}


def open_netns(path: str) -> int:
    """A descriptor for setns(2) and IFLA_NET_NS_FD."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise KernelError.wrap(error, "Cannot open the network namespace %s" % path, step="open_netns") from error


def remove(kernel: Kernel, paths: Paths, container_id: str) -> bool:
    """Drop the name; the namespace goes with its last process and socket. Returns whether there was anything."""
    path = paths.container_netns(container_id)
    if not os.path.lexists(path):
        return False
    try:
        while is_namespace(path):  # two processes may have mounted twice
            kernel.umount2(path, _MNT_DETACH)
        os.unlink(path)  # also detaches copies in other mount namespaces
    except FileNotFoundError:
        return False
    except OSError as error:
        raise KernelError.wrap(
            error, "Cannot remove the network namespace of container %s" % container_id[:12], step="remove_netns"
        ) from error
    return True
