# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Overlay on kernels that take neither descriptors nor one option per layer.

A forked child enters a private mount namespace, gathers the layers under one-letter-short names in a tmpfs of its
own (mount(2) data ends at 4,096 bytes and is cut silently), mounts there, and sends a detached clone of the result
to its parent. The namespace dies with the child: the host's mount table never sees anything.

Layers and uppers are opened after unshare(2): overlay refuses directories of another mount namespace.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import NoReturn, Optional

from ..errors import KernelError, WharfError
from ..kernel.syscalls import CLONE_NEWNS, MOUNT_ATTR_RDONLY, MS_PRIVATE, MS_RDONLY, MS_REC, Kernel

_PLACE = "/run"  # hidden only inside the private namespace; everything needed below it was opened before


def mount_overlay(
    kernel: Kernel,
    layers: Sequence[tuple[str, str]],
    upper: Optional[str],
    work: Optional[str],
    options: Sequence[tuple[str, Optional[str]]],
    padded: bool,
    userns_fd: Optional[int] = None,
) -> int:
    """As ``overlay.mount_rootfs``; ``padded`` adds an empty lowest layer. Raises ``OSError`` or ``KernelError``."""
    return _elsewhere(kernel, lambda: _mount(kernel, layers, upper, work, options, padded, userns_fd))


def part(kernel: Kernel, whole: int, path: str) -> int:
    """As ``overlay.part``: what is to be cloned has to be attached somewhere. Raises ``OSError``."""

    def cut() -> int:
        place = os.open(_PLACE, os.O_PATH | os.O_DIRECTORY)
        kernel.move_mount(whole, place, what=_PLACE)
        root = os.open(_PLACE, os.O_PATH | os.O_DIRECTORY)
        there = kernel.open_in_root(root, path, os.O_PATH)
        return kernel.clone_tree(there, "", attr_set=MOUNT_ATTR_RDONLY, recursive=False)

    return _elsewhere(kernel, cut)


def _elsewhere(kernel: Kernel, work: Callable[[], int]) -> int:
    """The descriptor that ``work`` returns in a child with a mount namespace of its own."""
    import socket

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        _child(kernel, work, theirs.fileno())
    theirs.close()
    try:
        message, fds, _flags, _address = socket.recv_fds(ours, 4096, 1)
    finally:
        ours.close()
        os.waitpid(pid, 0)
    if fds:
        return fds[0]
    number, _sep, words = message.decode(errors="replace").partition(" ")
    raise OSError(int(number or 5), words or "the mount helper died", "overlay")


def _child(kernel: Kernel, work: Callable[[], int], channel: int) -> NoReturn:
    import socket

    try:
        sock = socket.socket(fileno=channel)
        try:
            kernel.unshare(CLONE_NEWNS)
            kernel.mount(None, "/", None, MS_REC | MS_PRIVATE)
            socket.send_fds(sock, [b"0 ok"], [work()])
        except OSError as error:
            sock.send(b"%d %s" % (error.errno or 5, (error.strerror or str(error)).encode()))
        except WharfError as error:
            sock.send(b"%d %s" % (error.errno or 5, error.msg.encode()))
    finally:
        os._exit(0)


def _mount(
    kernel: Kernel,
    layers: Sequence[tuple[str, str]],
    upper: Optional[str],
    work: Optional[str],
    options: Sequence[tuple[str, Optional[str]]],
    padded: bool,
    userns_fd: Optional[int] = None,
) -> int:
    from .overlay import open_layer, open_mapped, tree_path

    directory = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW
    trees: dict[int, int] = {}
    images: dict[int, int] = {}
    for n, (path, form) in enumerate(layers):
        if userns_fd is not None:
            images[n] = open_mapped(kernel, path, form, userns_fd)
        elif form == "erofs":
            images[n] = open_layer(kernel, path, form)
        else:
            trees[n] = os.open(tree_path(path, form), directory)
    own = {name: os.open(path, directory) for name, path in (("u", upper), ("w", work)) if path}

    kernel.mount("wharf", _PLACE, "tmpfs", 0, "mode=0700")
    os.chdir(_PLACE)
    for name, fd in [*((str(n), fd) for n, fd in trees.items()), *own.items()]:
        os.symlink("/proc/self/fd/%d" % fd, name)
    for n, fd in images.items():
        os.mkdir(str(n))
        target = os.open(str(n), directory)
        kernel.move_mount(fd, target, what=layers[n][0])
        os.close(target)
    lowers = [str(n) for n in range(len(layers) - 1, -1, -1)]
    if padded:
        os.mkdir("e")
        lowers.append("e")
    data = ["lowerdir=" + ":".join(lowers)]
    if upper:
        data += ["upperdir=u", "workdir=w"]
    data += [key if value is None else "%s=%s" % (key, value) for key, value in options]
    os.mkdir("m")
    kernel.mount("overlay", "m", "overlay", 0 if upper else MS_RDONLY, ",".join(data))
    try:
        return _detached(kernel)
    except OSError as error:
        raise KernelError.wrap(error, "Cannot detach the overlay mount", step="mount_overlay") from error


def _detached(kernel: Kernel) -> int:
    from ..kernel.syscalls import AT_FDCWD, OPEN_TREE_CLONE

    return kernel.syscall("open_tree", AT_FDCWD, b"m", OPEN_TREE_CLONE | os.O_CLOEXEC, what="m")
