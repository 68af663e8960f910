# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The file tree of a foreign bundle. ``prepare`` runs on the host, before any namespace is entered: it opens what only
the host's tree and the host's rights can reach (the root, bind sources, device nodes, cgroups) as detached mounts.
``build`` runs in init's mount namespace and attaches them, through descriptors below the root's own.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional

from ..errors import KernelError, StartError
from ..kernel import mounts
from ..kernel.syscalls import (
    AT_FDCWD,
    AT_RECURSIVE,
    MOUNT_ATTR_IDMAP,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MS_PRIVATE,
    MS_REC,
    MS_SHARED,
    MS_SLAVE,
    OPEN_TREE_CLONE,
    Kernel,
)
from ..runtime import rootfs
from ..tuples import NamedTuple
from . import options

if TYPE_CHECKING:
    from ..kernel.cgroups import Cgroup

_DEVICES = [
    {"type": "c", "path": "/dev/" + name, "major": major, "minor": minor} for name, major, minor in rootfs.DEVICES
]
_LINKS = (*rootfs.LINKS, ("core", "/proc/kcore"))
_PROPAGATION = {
    "private": MS_PRIVATE, "slave": MS_SLAVE, "shared": MS_SHARED, "unbindable": mounts.MS_UNBINDABLE,
}  # fmt: skip
# What programs such as lxcfs show in place of the kernel's own; everything else below /proc is not covered.
_PROC_FILES = {
    "cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo", "sys/kernel/ns_last_pid",
    "sys/crypto/fips_enabled",
}  # fmt: skip
_PROC_MAGIC = 0x9FA0  # <linux/magic.h>
_CGROUP = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC
_READ_ONLY_FILE_SYSTEM = 30


class Tree(NamedTuple):
    """``root``: detached mount, to be attached at ``path``; ``sources``: of bind mounts by their index in
    ``config.mounts``, ``(detached mount, is a directory)``; ``nodes``: detached device nodes by path, for user
    namespaces, where none can be made; ``groups``: for containers without a cgroup namespace, ``(name, controllers,
    detached mount)``."""

    path: str
    root: int
    sources: dict[int, tuple[int, bool]]
    nodes: dict[str, int]
    groups: tuple[tuple[str, tuple[str, ...], int], ...]


def normal(path: str) -> str:
    """Absolute, without ``..``, and with one slash in front: POSIX (and ``normpath``) let two mean something else."""
    return os.path.normpath("/" + path.lstrip("/"))


def is_bind(mount: Mapping[str, Any], parsed: options.Parsed) -> bool:
    return parsed.bind or mount.get("type") == "bind"


def prepare(
    kernel: Kernel, config: Mapping[str, Any], bundle: str, spaces: Mapping[str, str], group: Optional[Cgroup]
) -> Tree:
    """Raises ``KernelError``; the descriptors end with this process."""
    path = os.path.realpath(os.path.join(bundle, config["root"]["path"]))
    word = (config["linux"].get("rootfsPropagation") or "").lstrip("r")
    try:
        # Shared would be refused by pivot_root; a slave still sees what the host mounts there later.
        root = kernel.clone_tree(AT_FDCWD, path, propagation=MS_SLAVE if word in ("slave", "shared") else MS_PRIVATE)
    except OSError as error:
        raise KernelError.wrap(error, "Cannot use root.path %s" % path, step="rootfs") from error
    sources = {}
    for number, mount in enumerate(config.get("mounts") or ()):
        parsed = options.parse(mount.get("options") or ())
        if is_bind(mount, parsed) and not parsed.remount:
            sources[number] = _open_source(kernel, config["linux"], mount, parsed, bundle)
    nodes = _open_nodes(kernel, config) if "user" in spaces else {}
    return Tree(path, root, sources, nodes, _open_groups(kernel, config, spaces, group))


def _open_source(
    kernel: Kernel, linux: Mapping[str, Any], mount: Mapping[str, Any], parsed: options.Parsed, bundle: str
) -> tuple[int, bool]:
    source = os.path.join(bundle, mount["source"])
    recursive = AT_RECURSIVE if parsed.recursive or not parsed.bind else 0
    try:
        fd = kernel.syscall(
            "open_tree", AT_FDCWD, os.fsencode(source), OPEN_TREE_CLONE | os.O_CLOEXEC | recursive, what=source
        )
        # A clone belongs to its source's peer group: unless asked for, nothing the container mounts reaches the host.
        for flag, deep in parsed.propagation or ((MS_SLAVE, True),):
            kernel.mount_setattr(fd, propagation=flag, recursive=deep, what=source)
        _set_attributes(kernel, fd, parsed)
        maps = (mount.get("uidMappings"), mount.get("gidMappings"))
        if parsed.idmap or any(maps):
            _map_ids(kernel, fd, parsed.idmap == "ridmap", maps if any(maps) else _own_maps(linux))
        return fd, stat.S_ISDIR(os.fstat(fd).st_mode)
    except OSError as error:
        sentence = "Cannot mount %s on %s" % (source, mount["destination"])
        raise KernelError.wrap(error, sentence, step="bind_mount") from error


def _own_maps(linux: Mapping[str, Any]) -> tuple[Any, Any]:
    return linux["uidMappings"], linux["gidMappings"]


def _map_ids(kernel: Kernel, fd: int, recursive: bool, maps: tuple[Any, Any]) -> None:
    from ..kernel import idmap
    from .config import ranges

    namespace = idmap.userns_fd(kernel, ranges(maps[0]), ranges(maps[1]))
    try:
        kernel.mount_setattr(fd, MOUNT_ATTR_IDMAP, userns_fd=namespace, recursive=recursive, what="idmap")
    finally:
        os.close(namespace)


def _set_attributes(kernel: Kernel, fd: int, parsed: options.Parsed) -> None:
    for (wanted, cleared), deep in ((parsed.top, False), (parsed.all, True)):
        if wanted or cleared:
            kernel.mount_setattr(fd, wanted, cleared, recursive=deep, what="mount options")


def _open_nodes(kernel: Kernel, config: Mapping[str, Any]) -> dict[str, int]:
    found = {}
    for device in [*_DEVICES, *(config["linux"].get("devices") or ())]:
        path = device["path"]
        if path in found or device["type"] == "p":
            continue
        try:
            found[path] = kernel.clone_tree(AT_FDCWD, path, recursive=False)
        except OSError as error:
            raise KernelError.wrap(error, "Cannot use the host's device %s" % path, step="make_device") from error
    return found


def _open_groups(
    kernel: Kernel, config: Mapping[str, Any], spaces: Mapping[str, str], group: Optional[Cgroup]
) -> tuple[tuple[str, tuple[str, ...], int], ...]:
    if group is None or "cgroup" in spaces or not any(_is_cgroup(m) for m in config.get("mounts") or ()):
        return ()
    found = []
    for hierarchy in group.layout.hierarchies:
        path = hierarchy.mountpoint
        if hierarchy.version == 1:  # only the container's own part, as if that were all
            path = group.layout.directory(path, group.path)
        found.append((hierarchy.name, hierarchy.controllers, kernel.clone_tree(AT_FDCWD, path, recursive=False)))
    return tuple(found)


def _is_cgroup(mount: Mapping[str, Any]) -> bool:
    return mount.get("type") in ("cgroup", "cgroup2")


# -- in the container's mount namespace ----------------------------------------------------------------------------


def enter(kernel: Kernel, tree: Tree) -> None:
    """Attach the root where the bundle has it, so that hooks find it there; where our user may not go, over ``/``."""
    rootfs.isolate(kernel)
    try:
        target = os.open(tree.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        rootfs.enter(kernel, tree.root)
        return
    try:
        kernel.move_mount(tree.root, target, what=tree.path)
    except OSError as error:
        raise KernelError.wrap(error, "Cannot attach the root file system", step="attach_rootfs") from error
    finally:
        os.close(target)


def build(
    kernel: Kernel,
    tree: Tree,
    config: Mapping[str, Any],
    hierarchies: Sequence[tuple[str, int, tuple[str, ...]]],
) -> None:
    """All mounts in the order of the config, then devices and links."""
    own_dev = True
    for number, mount in enumerate(config.get("mounts") or ()):
        parsed = options.parse(mount.get("options") or ())
        destination = normal(mount["destination"])
        own_dev = own_dev and not (destination == "/dev" and is_bind(mount, parsed))
        try:
            _mount(kernel, tree, mount, parsed, destination, tree.sources.get(number), hierarchies)
        except OSError as error:
            sentence = "Cannot mount %s on %s" % (mount.get("source") or mount.get("type"), destination)
            raise KernelError.wrap(error, sentence, step="mount") from error
    if own_dev:
        _make_dev(kernel, tree)
        for device in config["linux"].get("devices") or ():
            if normal(device["path"]) != "/dev/ptmx":
                _make_device(kernel, tree, device)


def _mount(
    kernel: Kernel,
    tree: Tree,
    mount: Mapping[str, Any],
    parsed: options.Parsed,
    destination: str,
    source: Optional[tuple[int, bool]],
    hierarchies: Sequence[tuple[str, int, tuple[str, ...]]],
) -> None:
    kind = str(mount.get("type") or "")
    if kind in ("proc", "sysfs"):
        # CVE-2019-19921: a link in its place would lead masks and LSM writes to files of the attacker.
        _require_directory(kernel, tree.root, destination)
    else:
        _refuse_in_proc(kernel, tree.root, destination)
    if parsed.remount:
        target = kernel.open_in_root(tree.root, destination, os.O_PATH)
        try:
            _set_attributes(kernel, target, parsed)
        finally:
            os.close(target)
        return
    if source is not None:
        mounts.attach_at(kernel, tree.root, destination, source[0], "dir" if source[1] else "file")
        os.close(source[0])
        return
    if _is_cgroup(mount):
        _mount_groups(kernel, tree, destination, bool(parsed.top[0] & MOUNT_ATTR_RDONLY), hierarchies)
        return
    fd = _new(kernel, tree, kind, mount, parsed, destination)
    try:
        if parsed.copy_up:
            from .copyup import copy_up

            copy_up(kernel, tree.root, destination, fd)
        mounts.attach_at(kernel, tree.root, destination, fd, "dir")
        _set_attributes(kernel, fd, parsed)  # only now: what is copied up could not be written to a read-only one
        for flag, deep in parsed.propagation:
            kernel.mount_setattr(fd, propagation=flag, recursive=deep, what=destination)
    finally:
        os.close(fd)


def _new(
    kernel: Kernel, tree: Tree, kind: str, mount: Mapping[str, Any], parsed: options.Parsed, destination: str
) -> int:
    data: list[tuple[str, Any]] = list(parsed.data)
    if kind == "tmpfs" and not any(key == "mode" for key, _value in data):
        mode = _mode_of(kernel, tree.root, destination)
        if mode is not None:
            data.append(("mode", "%o" % mode))
    if mount.get("source") and kind not in ("proc", "sysfs", "mqueue", "devpts"):
        data.insert(0, ("source", mount["source"]))
    return mounts.detached(kernel, kind, data, parsed.top[0] & ~MOUNT_ATTR_RDONLY)


def _mode_of(kernel: Kernel, root: int, path: str) -> Optional[int]:
    """A tmpfs over a directory takes its mode, unless one is asked for."""
    try:
        fd = kernel.open_in_root(root, path, os.O_PATH | os.O_DIRECTORY)
    except OSError:  # missing: the kernel's default; anything else fails when the mount is attached
        return None
    try:
        return stat.S_IMODE(os.fstat(fd).st_mode)
    finally:
        os.close(fd)


def _require_directory(kernel: Kernel, root: int, destination: str) -> None:
    try:
        found = kernel.open_in_root(root, destination, os.O_PATH | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    try:
        ordinary = stat.S_ISDIR(os.fstat(found).st_mode)
    finally:
        os.close(found)
    if not ordinary:
        raise StartError("%s in the root is no ordinary directory" % destination, step="mount", path=destination)


def _refuse_in_proc(kernel: Kernel, root: int, destination: str) -> None:
    """A mount inside /proc could show the container's own file as a security label's or a sysctl's (CVE-2019-16884).
    Where links lead is looked at, not only what the path says."""
    try:
        target = kernel.open_in_root(root, destination, os.O_PATH)
    except OSError:  # it will be made: in /proc nothing can be
        return
    try:
        inside = kernel.fs_type(target) == _PROC_MAGIC
    finally:
        os.close(target)
    name = destination[len("/proc/") :] if destination.startswith("/proc/") else ""
    if inside and name not in _PROC_FILES:
        raise StartError(
            "%r cannot be mounted because it is inside /proc" % destination, step="mount", path=destination
        )


def _mount_groups(
    kernel: Kernel,
    tree: Tree,
    destination: str,
    read_only: bool,
    hierarchies: Sequence[tuple[str, int, tuple[str, ...]]],
) -> None:
    if not tree.groups:
        for below, fd in mounts.cgroup_view(kernel, hierarchies, read_only=read_only):
            _attach(kernel, tree.root, "%s/%s" % (destination, below) if below else destination, fd)
        return
    attrs = _CGROUP | (MOUNT_ATTR_RDONLY if read_only else 0)
    if len(tree.groups) == 1 and not tree.groups[0][0]:
        kernel.mount_setattr(tree.groups[0][2], attrs, what=destination)
        _attach(kernel, tree.root, destination, tree.groups[0][2])
        return
    base = mounts.tmpfs(kernel, mode=0o755, size=1 << 20, attrs=_CGROUP, source="cgroup")
    for name, controllers, fd in tree.groups:
        os.mkdir(name, 0o755, dir_fd=base)
        for link in controllers if "," in name else ():
            os.symlink(name, link, dir_fd=base)
        kernel.mount_setattr(fd, attrs, what=name)
    if read_only:
        kernel.mount_setattr(base, MOUNT_ATTR_RDONLY, what=destination)
    _attach(kernel, tree.root, destination, base)
    for name, _controllers, fd in tree.groups:
        _attach(kernel, tree.root, "%s/%s" % (destination, name), fd)


def _attach(kernel: Kernel, root: int, destination: str, fd: int) -> None:
    try:
        mounts.attach_at(kernel, root, destination, fd, "dir")
    finally:
        os.close(fd)


# -- devices -------------------------------------------------------------------------------------------------------


def _make_dev(kernel: Kernel, tree: Tree) -> None:
    for device in _DEVICES:
        _make_device(kernel, tree, device)
    dev = mounts.mkdir_in_root(kernel, tree.root, "/dev")
    try:
        for name, target in _LINKS:
            if name == "core" and not os.path.exists("/proc/kcore"):
                continue
            if name == "ptmx":
                _remove_other(dev, name, target)
            try:
                os.symlink(target, name, dir_fd=dev)
            except FileExistsError:
                continue
    except OSError as error:
        if error.errno != _READ_ONLY_FILE_SYSTEM:  # a root that is mounted read-only has what it has
            raise KernelError.wrap(error, "Cannot create the links in /dev", step="make_dev") from error
    finally:
        os.close(dev)


def _remove_other(dev: int, name: str, target: str) -> None:
    """/dev/ptmx must be that of the container's own devpts, whatever the root brought along."""
    try:
        if os.readlink(name, dir_fd=dev) == target:
            return
    except FileNotFoundError:
        return
    except OSError:  # no link
        pass
    os.unlink(name, dir_fd=dev)


def _make_device(kernel: Kernel, tree: Tree, device: Mapping[str, Any]) -> None:
    path = normal(device["path"])
    if path in tree.nodes or device["path"] in tree.nodes:
        fd = tree.nodes[path if path in tree.nodes else device["path"]]
        mounts.attach_at(kernel, tree.root, path, fd, "file")
        return
    directory, _slash, name = path.rpartition("/")
    kind = {"b": stat.S_IFBLK, "p": stat.S_IFIFO}.get(device["type"], stat.S_IFCHR)
    number = 0 if kind == stat.S_IFIFO else os.makedev(device.get("major", 0), device.get("minor", 0))
    parent = mounts.mkdir_in_root(kernel, tree.root, directory or "/")
    try:
        try:
            os.mknod(name, kind | 0o600, number, dir_fd=parent)
        except FileExistsError:
            there = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if stat.S_IFMT(there.st_mode) != kind or there.st_rdev != number:
                raise
        os.chown(name, device.get("uid") or 0, device.get("gid") or 0, dir_fd=parent, follow_symlinks=False)
        os.chmod(name, stat.S_IMODE(device["fileMode"]) if device.get("fileMode") else 0o666, dir_fd=parent)
    except OSError as error:
        raise KernelError.wrap(error, "Cannot create the device %s" % path, step="make_device") from error
    finally:
        os.close(parent)


# -- the end -------------------------------------------------------------------------------------------------------


def pivot(kernel: Kernel, tree: Tree, word: str, no_pivot: bool) -> None:
    """``word``: of ``linux.rootfsPropagation``."""
    if no_pivot:
        _move(kernel, tree)
    else:
        rootfs.pivot(kernel, tree.root)
    flag = _PROPAGATION.get(word[1:] if word.startswith("r") else word, 0)
    if flag:
        try:
            kernel.mount(None, "/", None, flag | (MS_REC if word.startswith("r") else 0))
        except OSError as error:
            raise KernelError.wrap(error, "Cannot make the root %s" % word, step="propagation") from error


def _move(kernel: Kernel, tree: Tree) -> None:
    """For a host root on the initial ramdisk, which cannot be pivoted away: move the new one over it."""
    from ..kernel.syscalls import MS_MOVE

    try:
        os.fchdir(tree.root)
        kernel.mount(tree.path, "/", None, MS_MOVE)
        os.chroot(".")
        os.chdir("/")
    except OSError as error:
        raise KernelError.wrap(error, "Cannot move the container's root to /", step="pivot_root") from error
