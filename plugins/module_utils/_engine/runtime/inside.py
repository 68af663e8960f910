# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A container's file tree as its processes see it, for a process of ours that ends when its work is done.

Of a running one: the root of its PID 1, by descriptor. Who changes it also joins the mount namespace: from outside, a
rename over a mountpoint does not fail but takes the mount away. Nothing of ours joins the pid namespace, so nothing in
the container sees, traces or signals us, and whoever has joined can import nothing any more (CVE-2019-14271).

Of a stopped one: its root and what would be mounted in it, in a mount namespace of this process alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from ..errors import Conflict, KernelError
from ..kernel import idmap, mounts, procfs
from ..kernel import pidfd as pidfds
from ..kernel.syscalls import CLONE_NEWNS, Kernel
from ..storage import overlay, shifted
from ..tuples import NamedTuple
from . import rootfs, userns

_ROOT = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# What looks like files and is the kernel talking. A tmpfs on /dev holds device nodes.
_TALK = "proc sysfs cgroup cgroup2 devpts devtmpfs mqueue debugfs tracefs securityfs bpf configfs efivarfs fusectl"
_KERNELS = frozenset(_TALK.split())


class View(NamedTuple):
    """``root``: descriptor of ``/``; ``refused``: devices of the kernel's file systems in it; ``namespace``: descriptor
    of the mount namespace of a running container, -1 without; it keeps volumes mounted even if the container ends
    during the copy, so that what is meant for one does not land in the directory below."""

    root: int
    refused: frozenset[int]
    namespace: int = -1


class Stopped(NamedTuple):
    """As in run.json and config.json: ``layers`` as ``(directory, form)``, ``mounts`` the binds among the OCI mounts,
    ``place`` where a copy of an image with other ids lies, ``ids`` of a user namespace (() without), ``scratch`` a
    directory that may be covered."""

    layers: Sequence[tuple[str, str]]
    upper: str
    work: str
    mounts: Sequence[Mapping[str, Any]]
    read_only: bool
    place: str
    ids: Sequence[idmap.Range]
    scratch: str


def running(kernel: Kernel, pid: int, start: int) -> View:
    """Raises ``Conflict`` when it has ended."""
    pidfd = pidfds.open_pid(pid, start)
    if pidfd is None:
        raise Conflict("The container has ended meanwhile", step="open_root")
    held = [pidfd]
    try:
        held.append(os.open("/proc/%d/ns/mnt" % pid, os.O_RDONLY | os.O_CLOEXEC))
        held.append(os.open("/proc/%d/root" % pid, _ROOT))
        refused = _refused(procfs.mountinfo("/proc/%d/mountinfo" % pid))
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        refused = frozenset()
    if len(held) < 3 or pidfds.wait(pidfd, 0):  # all of that was of this process, and no other of its number
        for fd in held:
            os.close(fd)
        raise Conflict("The container has ended meanwhile", step="open_root")
    os.close(pidfd)
    return View(held[2], refused, held[1])


def _refused(table: Sequence[procfs.Mount]) -> frozenset[int]:
    found = set()
    for mount in table:
        if mount.fstype in _KERNELS or mount.target == "/dev":
            major, _colon, minor = mount.device.partition(":")
            found.add(os.makedev(int(major), int(minor)))
    return frozenset(found)


def stopped(kernel: Kernel, tree: Stopped, *, writable: bool) -> View:
    """In the caller's own new mount namespace, from which there is no way back. Without ``writable`` nothing that is
    done to the view, mountpoints that are made for it included, reaches the container. Raises ``KernelError``."""
    mapped = None
    if tree.ids:
        mapped = userns.Mapped(idmap.userns_fd(kernel, tree.ids, tree.ids), tuple(tree.ids), tuple(tree.ids))
    sources = rootfs.open_sources(kernel, tree.mounts, mapped)
    root = _writable_root(kernel, tree, mapped) if writable or mapped else -1
    try:
        kernel.unshare(CLONE_NEWNS)
        rootfs.isolate(kernel)
        _cover(kernel, tree.scratch, mounts.tmpfs(kernel, size=64 << 20, inodes=4096))
        for name in ("root", "upper", "work"):
            os.mkdir("%s/%s" % (tree.scratch, name), 0o755)
        if root < 0:
            layers = [*tree.layers, (tree.upper, "upper")]
            root = overlay.mount_rootfs(kernel, layers, tree.scratch + "/upper", tree.scratch + "/work")
        _cover(kernel, tree.scratch + "/root", root)
        fd = os.open(tree.scratch + "/root", _ROOT)
    except OSError as error:
        raise KernelError.wrap(error, "Cannot mount the container's files", step="mount_stopped") from error
    for mount in tree.mounts:
        source = sources[mount["destination"]]
        if not writable and mapped and not _exists(kernel, fd, mount["destination"]):
            os.close(source.fd)  # to show it, a mountpoint would have to be made in the container
            continue
        userns.make_files_as_root_inside(kernel, mapped)
        rootfs.attach(kernel, fd, mount, source, mapped)
    rootfs.finish(kernel, fd, tree.read_only or not writable)
    return View(fd, frozenset())


def _writable_root(kernel: Kernel, tree: Stopped, mapped: Optional[userns.Mapped]) -> int:
    """As the start would mount it: layers are looked up by path, before anything is covered."""
    if mapped is None:
        return overlay.mount_rootfs(kernel, tree.layers, tree.upper, tree.work)
    if os.stat(tree.upper).st_uid == 0:  # it never started
        os.chown(tree.upper, *mapped.owner(0, 0))
    owners = shifted.Owners(mapped.uids, mapped.gids)
    return shifted.mount_rootfs(kernel, tree.layers, tree.upper, tree.work, tree.place, mapped.fd, owners)


def _cover(kernel: Kernel, path: str, mount: int) -> None:
    target = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        kernel.move_mount(mount, target, what=path)
    finally:
        os.close(target)
        os.close(mount)


def _exists(kernel: Kernel, root: int, path: str) -> bool:
    try:
        os.close(kernel.open_in_root(root, path, os.O_PATH))
        return True
    except OSError:
        return False


def enter(kernel: Kernel, view: View, pid: int, ids: Sequence[idmap.Range]) -> None:
    """Join a running container's mount namespace, to make files in it: in a user namespace as its root, because the
    host's has no id there. From here on a path means the container's file, so nothing can be imported any more, not
    even by mistake. There is no way back. Raises ``OSError``, ``KernelError``."""
    if ids:
        fd = os.open("/proc/%d/ns/user" % pid, os.O_RDONLY | os.O_CLOEXEC)
        userns.make_files_as_root_inside(kernel, userns.Mapped(fd, tuple(ids), tuple(ids)))
        os.close(fd)
    sys.meta_path.clear()
    sys.path_hooks.clear()
    sys.path.clear()
    kernel.setns(view.namespace, CLONE_NEWNS)
