# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Mounting and unmounting in a container that runs.

What is to be mounted is made detached on the host, where its source can be seen; a forked child then joins the
container's mount namespace (a mountpoint must lie in the caller's own, move_mount(2)) and attaches it to a descriptor
found below the container's root. The child stays outside of the container's pid namespace: nothing in it can see,
trace or signal the child. From the moment it has joined it imports nothing.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, Optional

from ..errors import Conflict, KernelError
from ..kernel.syscalls import CLONE_NEWNS, MNT_DETACH, PR_SET_DUMPABLE, Kernel
from . import rootfs, userns, wire

_UMOUNT_NOFOLLOW = 8


def change(
    kernel: Kernel,
    pidfd: int,
    add: Sequence[Mapping[str, Any]],
    remove: Sequence[Mapping[str, Any]] = (),
    mapped: Optional[userns.Mapped] = None,
) -> None:
    """``add``: OCI mounts; ``remove``: ``{"destination", "device", "inode"}`` of what is to go (inode None: the
    root of that file system). Removals come first. ``mapped``: the container's user namespace. Raises
    ``KernelError``, ``Conflict``; what was done before the failure stays."""
    sources = rootfs.open_sources(kernel, add, mapped)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        _child(kernel, pidfd, (add, remove, mapped), sources, write)
    os.close(write)
    try:
        for source in sources.values():
            os.close(source.fd)
        with os.fdopen(read, "rb") as stream:
            answer = stream.read()
    finally:
        _pid, status = os.waitpid(pid, 0)
    if status or answer:
        if not answer:
            raise KernelError("The process that changes a container's mounts was killed", step="remount")
        raise wire.error_from_dict(json.loads(answer))


def _child(
    kernel: Kernel,
    pidfd: int,
    wanted: tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]], Optional[userns.Mapped]],
    sources: Mapping[str, rootfs.Source],
    write: int,
) -> NoReturn:
    code = 1
    add, remove, mapped = wanted
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])
        kernel.prctl(PR_SET_DUMPABLE, 0)
        os.umask(0o022)
        kernel.setns(pidfd, CLONE_NEWNS)
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        for mount in remove:
            _unmount(kernel, root, mount)
        userns.make_files_as_root_inside(kernel, mapped)
        for mount in add:
            rootfs.attach(kernel, root, mount, sources.get(mount["destination"]), mapped)
        code = 0
    except BaseException as error:  # nothing may unwind into the task's frames
        os.write(write, json.dumps(wire.error_to_dict(error, "remount")).encode())
    finally:
        os._exit(code)


def _unmount(kernel: Kernel, root: int, mount: Mapping[str, Any]) -> None:
    """A directory above the target may be renamed, and a link to ``/proc`` put in its place, to have us uncover what is
    masked. So the parent is held by descriptor and what lies in it is looked at: a mountpoint found there cannot be
    renamed away any more."""
    directory, _slash, name = mount["destination"].rpartition("/")
    try:
        parent = kernel.open_in_root(root, directory or "/", os.O_PATH | os.O_DIRECTORY)
        try:
            info = os.stat(name, dir_fd=parent, follow_symlinks=False)
            above = os.fstat(parent).st_dev  # a mounted tmpfs is another file system than what it is mounted on
            same = above != info.st_dev if mount["inode"] is None else info.st_ino == mount["inode"]
            if info.st_dev != mount["device"] or not same:
                raise Conflict(
                    "What is mounted on %s in the container is not what the engine mounted" % mount["destination"],
                    step="unmount",
                    path=mount["destination"],
                )
            os.fchdir(parent)
            kernel.umount2(name, MNT_DETACH | _UMOUNT_NOFOLLOW)
        finally:
            os.close(parent)
    except OSError as error:
        raise KernelError.wrap(
            error, "Cannot unmount %s in the container" % mount["destination"], step="unmount"
        ) from error
