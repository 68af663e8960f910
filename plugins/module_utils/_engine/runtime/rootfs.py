# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The container's file tree, in the order things must happen; runs in init's new mount namespace.

The image is hostile: its ``/dev`` may be a link to ``/etc``, its ``/proc`` a link to anywhere. Nothing here resolves
a path of the image by string on the host; every mount is made detached and attached onto a descriptor found below
the root's own descriptor, and what is made read-only or masked is found through that descriptor again.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from ..errors import KernelError, StartError
from ..kernel import mounts
from ..kernel.syscalls import (
    AT_FDCWD,
    CLONE_NEWNS,
    MNT_DETACH,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MS_PRIVATE,
    MS_REC,
    MS_SLAVE,
    Kernel,
)
from ..tuples import NamedTuple
from .userns import Mapped

# (name, major, minor)
DEVICES = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))
LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
)
_MADE_AS_ROOT = {"devpts": (".", "ptmx"), "mqueue": (".",)}  # by the kernel, as the host's
_NO_IDMAP = (22, 1, 38, 95)  # EINVAL, EPERM (mapped already), ENOSYS, EOPNOTSUPP
# A mount of ours that an image redirects with a link would hide something else, or leave /proc a plain directory.
_ORDINARY = ("/proc", "/sys", "/dev")


class Source(NamedTuple):
    """A bind mount's source, opened while the host's tree is in sight. ``fd``: detached mount."""

    fd: int
    directory: bool


def open_sources(
    kernel: Kernel, wanted: Sequence[Mapping[str, Any]], mapped: Optional[Mapped] = None
) -> dict[str, Source]:
    """Detached clones of all bind sources, by destination. Before ``/`` becomes a slave: only now can an ``rshared``
    mount still belong to its peer group on the host."""
    found: dict[str, Source] = {}
    for mount in wanted:
        if mount["type"] == "proc" and mount.get("of"):
            found[mount["destination"]] = Source(_proc_of(kernel, mount), True)
        if mount["type"] not in ("bind", "image"):
            continue
        try:
            if mount["type"] == "image":
                fd = _image(kernel, mount, mapped)
            elif mount.get("from"):
                fd = _from_elsewhere(kernel, mount)
            elif mount.get("within"):
                fd = _part(kernel, mount, mapped)
            else:
                fd = _clone(kernel, AT_FDCWD, mount, mapped)
        except KernelError as error:
            error.msg = "Cannot mount %s on %s: %s" % (mount["source"], mount["destination"], error.msg)
            raise
        found[mount["destination"]] = Source(fd, stat.S_ISDIR(os.fstat(fd).st_mode))
    return found


def _image(kernel: Kernel, mount: Mapping[str, Any], mapped: Optional[Mapped]) -> int:
    """An image of its own, read-only, or what is ``within`` it: links in it lead nowhere else."""
    from ..storage import overlay  # whoever starts a container has it already

    ids = mapped.fd if mapped is not None and {"idmap", "ridmap"} & set(mount["options"]) else None
    whole = overlay.mount_rootfs(kernel, [(layer[0], layer[1]) for layer in mount["layers"]], userns_fd=ids)
    if not mount.get("within"):
        return whole
    try:
        return overlay.part(kernel, whole, mount["within"])
    except OSError as error:
        raise KernelError.wrap(error, "Cannot open %s in the image" % mount["within"], step="image_mount") from error
    finally:
        os.close(whole)


def _proc_of(kernel: Kernel, mount: Mapping[str, Any]) -> int:
    """procfs of a pid namespace that this process is not in (``of``: the namespace, and the mount namespace of a
    container that is in it). Linux 6.18 makes one by descriptor. Before that the other container's own is shown, made
    sure to be it: what it may have mounted over that is not taken along unless the kernel has locked it there."""
    pid_ns, *mnt_ns = mount["of"]
    words = list(mount["options"])
    fd = os.open(pid_ns, os.O_RDONLY | os.O_CLOEXEC)
    try:
        attrs = mounts.parse_options(words).attr_set
        try:
            return kernel.new_fs("proc", (("source", "proc"), ("pidns", fd)), attrs)
        except OSError as error:
            if error.errno != 22 or not mnt_ns:  # EINVAL: unknown parameter
                raise
        shown = {"from": mnt_ns[0], "source": "/proc", "options": ["bind", *words], "destination": "/proc"}
        try:
            clone = _from_elsewhere(kernel, shown)
        except KernelError:
            clone = _from_elsewhere(kernel, {**shown, "options": ["rbind", *words]})
        if os.stat("1/ns/pid", dir_fd=clone).st_ino != os.fstat(fd).st_ino:
            os.close(clone)
            raise StartError("/proc of the container whose pid namespace is shared is not its own", step="share_proc")
        return clone
    except OSError as error:
        raise KernelError.wrap(
            error, "Cannot show the processes of a shared pid namespace", step="share_proc"
        ) from error
    finally:
        os.close(fd)


def _clone(kernel: Kernel, dirfd: int, mount: Mapping[str, Any], mapped: Optional[Mapped] = None) -> int:
    """With ``idmap`` among the words, files show inside the ids they have on the disk."""
    if mapped is None or not {"idmap", "ridmap"} & set(mount["options"]):
        return mounts.bind(kernel, dirfd, mount["source"], mount["options"])
    try:
        return mounts.bind(kernel, dirfd, mount["source"], mount["options"], userns_fd=mapped.fd)
    except KernelError as error:
        if error.errno not in _NO_IDMAP:
            raise
        if mount.get("own"):  # made by the engine for this very container: they can be given away
            os.chown(mount["source"], *mapped.owner(0, 0), follow_symlinks=False)
            return mounts.bind(kernel, dirfd, mount["source"], mount["options"])
        error.hint = (
            "Its file system (or one mounted below it) cannot be mounted with other ids on this kernel; "
            "userns_mode host or keep-id does without."
        )
        raise


def _part(kernel: Kernel, mount: Mapping[str, Any], mapped: Optional[Mapped]) -> int:
    """Only what is ``within`` a volume. Containers write to it: a link of theirs in the path leads to something in the
    volume or nowhere, never to the host's files (CVE-2017-1002101 of Kubernetes)."""
    try:
        root = os.open(mount["source"], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            source = kernel.open_in_root(root, mount["within"], os.O_PATH)
        finally:
            os.close(root)
    except OSError as error:
        raise KernelError.wrap(error, "Cannot open %s in the volume" % mount["within"], step="bind_mount") from error
    try:
        return _clone(kernel, source, {**mount, "source": ""}, mapped)
    finally:
        os.close(source)


def _from_elsewhere(kernel: Kernel, mount: Mapping[str, Any]) -> int:
    """From another container's tree (``from``: its mount namespace): only who is in there may clone it. The path is
    resolved below that container's root, whose links lead nowhere else."""
    step = "share_mount"
    home = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    there = -1
    try:
        there = os.open(mount["from"], os.O_RDONLY | os.O_CLOEXEC)
        kernel.setns(there, CLONE_NEWNS)
        try:
            root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                source = kernel.open_in_root(root, mount["source"], os.O_PATH | os.O_DIRECTORY)
            finally:
                os.close(root)
            try:
                return _clone(kernel, source, {**mount, "source": ""})
            finally:
                os.close(source)
        finally:
            kernel.setns(home, CLONE_NEWNS)
    except OSError as error:
        raise KernelError.wrap(error, "Cannot share %s" % mount["source"], step=step) from error
    finally:
        os.close(home)
        if there >= 0:
            os.close(there)


def isolate(kernel: Kernel) -> None:
    """Nothing mounted from here on is seen by the host, while the host's unmounts still reach us: a private copy
    would pin every mount the host wants to get rid of."""
    kernel.mount(None, "/", None, MS_SLAVE | MS_REC)


def enter(kernel: Kernel, root_mount: int) -> None:
    """Attach the detached root over ``/`` of this namespace; ``root_mount`` then is the root directory's descriptor."""
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        kernel.move_mount(root_mount, root, what="/")
    except OSError as error:
        raise KernelError.wrap(error, "Cannot attach the root file system", step="attach_rootfs") from error
    finally:
        os.close(root)


def populate(
    kernel: Kernel,
    rootfd: int,
    config: Mapping[str, Any],
    sources: Mapping[str, Source],
    hierarchies: Sequence[tuple[str, int, tuple[str, ...]]],
    mapped: Optional[Mapped] = None,
) -> None:
    """All mounts of the config, parents first, and the device nodes once ``/dev`` is there."""
    fresh_dev = False
    for mount in config["mounts"]:
        destination = mount["destination"]
        if destination in _ORDINARY:
            _require_directory(rootfd, destination)
        _mount(kernel, rootfd, mount, sources.get(destination), hierarchies, mapped)
        if destination == "/dev" and mount["type"] == "tmpfs":
            fresh_dev = True
            _make_dev(kernel, rootfd)
    for device in config["linux"].get("devices") or ():
        _make_device(kernel, rootfd, device, mapped)
    if not fresh_dev:
        return
    if not os.path.exists("/proc/kcore"):
        return
    dev = kernel.open_in_root(rootfd, "dev", os.O_PATH | os.O_DIRECTORY)
    try:
        _symlink("/proc/kcore", "core", dev)
    finally:
        os.close(dev)


def _require_directory(rootfd: int, destination: str) -> None:
    """CVE-2019-19921: with ``/proc`` a link into a volume, masking and LSM writes go to files of the attacker."""
    try:
        info = os.stat(destination[1:], dir_fd=rootfd, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(info.st_mode):
        raise StartError(
            "%s in the image is no ordinary directory: refusing to mount on it" % destination,
            step="mount",
            path=destination,
            hint="The image is damaged or hostile.",
        )


def _mount(
    kernel: Kernel,
    rootfd: int,
    mount: Mapping[str, Any],
    source: Optional[Source],
    hierarchies: Sequence[tuple[str, int, tuple[str, ...]]],
    mapped: Optional[Mapped] = None,
) -> None:
    destination, kind, words = mount["destination"], mount["type"], list(mount["options"])
    if source is not None:
        _attach(kernel, rootfd, destination, source.fd, "dir" if source.directory else "file")
        return
    if kind == "cgroup":
        _mount_cgroup(kernel, rootfd, destination, "ro" in words, hierarchies)
        return
    if kind == "tmpfs":
        _inherit_mode(kernel, rootfd, destination, words)
    if mapped is not None:
        words = [_outside(mapped, word) for word in words]
    fd = mounts.from_options(kernel, kind, words, mount["source"])
    if mapped is not None:
        for name in _MADE_AS_ROOT.get(kind, ()):
            os.chown(name, *mapped.owner(0, 0), dir_fd=fd)
    _attach(kernel, rootfd, destination, fd, "dir")


def _outside(mapped: Mapped, word: str) -> str:
    """``uid=`` and ``gid=`` as the mounting process, which is the host's, has to say them."""
    key, _equals, value = word.partition("=")
    if key in ("uid", "gid") and value.isdigit():
        return "%s=%d" % (key, mapped.owner(int(value), int(value))[key == "gid"])
    return word


def _attach(kernel: Kernel, rootfd: int, destination: str, fd: int, create: str) -> None:
    try:
        mounts.attach_at(kernel, rootfd, destination, fd, create, _procfs(rootfd, destination))
    finally:
        os.close(fd)


def _procfs(rootfd: int, destination: str) -> Optional[int]:
    """The container's procfs, for what is not openly mounted in there (which ``spec`` has allowed). A link in an image
    or a shared volume would else have the task's mount cover it: masks, sysctls and labels are written through it by
    programs that believe it is the kernel's (CVE-2019-16884, CVE-2019-19921)."""
    if (destination + "/").startswith("/proc/"):
        return None
    try:
        found = os.stat("proc", dir_fd=rootfd, follow_symlinks=False).st_dev
    except FileNotFoundError:
        return None
    return None if found == os.fstat(rootfd).st_dev else found  # nothing is mounted there yet


def _inherit_mode(kernel: Kernel, rootfd: int, destination: str, words: list[str]) -> None:
    """A tmpfs over a directory of the image takes its mode, unless one is asked for (as runc does)."""
    if any(word.startswith("mode=") for word in words):
        return
    try:
        fd = kernel.open_in_root(rootfd, destination, os.O_PATH | os.O_DIRECTORY)
    except OSError:  # missing: the kernel's default (1777); anything else fails when the mount is attached
        return
    try:
        words.append("mode=%o" % stat.S_IMODE(os.fstat(fd).st_mode))
    finally:
        os.close(fd)


def attach(
    kernel: Kernel, rootfd: int, mount: Mapping[str, Any], source: Optional[Source], mapped: Optional[Mapped] = None
) -> None:
    """One more mount (a bind or a tmpfs) in a tree that is in use already."""
    _mount(kernel, rootfd, mount, source, (), mapped)


def _mount_cgroup(
    kernel: Kernel,
    rootfd: int,
    destination: str,
    read_only: bool,
    hierarchies: Sequence[tuple[str, int, tuple[str, ...]]],
) -> None:
    if not hierarchies:
        return
    for below, fd in mounts.cgroup_view(kernel, hierarchies, read_only=read_only):
        _attach(kernel, rootfd, "%s/%s" % (destination, below) if below else destination, fd, "dir")


# -- /dev ----------------------------------------------------------------------------------------------------------


def _make_dev(kernel: Kernel, rootfd: int) -> None:
    """Standard nodes and links on the fresh tmpfs. The directory is found through the root again (CVE-2026-47766)."""
    dev = kernel.open_in_root(rootfd, "dev", os.O_PATH | os.O_DIRECTORY)
    try:
        for name, major, minor in DEVICES:
            os.mknod(name, stat.S_IFCHR | 0o666, os.makedev(major, minor), dir_fd=dev)
        for name, target in LINKS:
            _symlink(target, name, dev)
        os.close(os.open("console", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=dev))
    except OSError as error:
        raise KernelError.wrap(error, "Cannot create the device nodes", step="make_dev") from error
    finally:
        os.close(dev)


def _symlink(target: str, name: str, dirfd: int) -> None:
    try:
        os.symlink(target, name, dir_fd=dirfd)
    except FileExistsError:
        pass


def _make_device(kernel: Kernel, rootfd: int, device: Mapping[str, Any], mapped: Optional[Mapped] = None) -> None:
    directory, _slash, name = device["path"].rpartition("/")
    kind = stat.S_IFBLK if device["type"] == "b" else stat.S_IFCHR
    number = os.makedev(device["major"], device["minor"])
    parent = mounts.mkdir_in_root(kernel, rootfd, directory or "/")
    try:
        try:
            os.mknod(name, kind | 0o600, number, dir_fd=parent)
        except FileExistsError:
            there = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if stat.S_IFMT(there.st_mode) == kind and there.st_rdev == number:
                return
            raise
        owner = (device.get("uid", 0), device.get("gid", 0))
        os.chown(name, *(mapped.owner(*owner) if mapped else owner), dir_fd=parent, follow_symlinks=False)
        os.chmod(name, device.get("fileMode", 0o666), dir_fd=parent)
    except OSError as error:
        raise KernelError.wrap(error, "Cannot create the device %s" % device["path"], step="make_device") from error
    finally:
        os.close(parent)


# -- hiding --------------------------------------------------------------------------------------------------------


def open_null() -> int:
    """The host's /dev/null, made sure of: what hides files must not be something an image chose (CVE-2025-31133)."""
    fd = os.open("/dev/null", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    info = os.fstat(fd)
    if not stat.S_ISCHR(info.st_mode) or info.st_rdev != os.makedev(1, 3):
        os.close(fd)
        raise StartError("The host's /dev/null is not the null device", step="mask_paths", path="/dev/null")
    return fd


def mask(kernel: Kernel, rootfd: int, paths: Sequence[str]) -> None:
    """Files are covered by /dev/null, directories by one empty read-only tmpfs; what does not exist is left out."""
    null = open_null()
    empty = -1
    try:
        for path in paths:
            try:
                target = kernel.open_in_root(rootfd, path, os.O_PATH)
            except OSError:  # ENOENT, ENOTDIR: nothing there to hide
                continue
            try:
                if stat.S_ISDIR(os.fstat(target).st_mode):
                    if empty < 0:
                        empty = _empty_directory(kernel)
                        cover = empty
                        kernel.move_mount(cover, target, what=path)
                        continue
                    cover = kernel.clone_tree(empty, "", recursive=False)
                else:
                    cover = kernel.clone_tree(null, "", recursive=False)
                try:
                    kernel.move_mount(cover, target, what=path)
                finally:
                    os.close(cover)
            except OSError as error:
                raise KernelError.wrap(error, "Cannot hide %s" % path, step="mask_paths") from error
            finally:
                os.close(target)
    finally:
        os.close(null)
        if empty >= 0:
            os.close(empty)


def _empty_directory(kernel: Kernel) -> int:
    attrs = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC
    return mounts.tmpfs(kernel, size=4096, inodes=2, attrs=attrs)


def make_readonly(kernel: Kernel, rootfd: int, paths: Sequence[str]) -> None:
    """Each path bound onto itself, read-only; the bind keeps nosuid, nodev and noexec of what it shows."""
    for path in paths:
        try:
            target = kernel.open_in_root(rootfd, path, os.O_PATH)
        except OSError:  # no such thing on this kernel
            continue
        try:
            cover = kernel.clone_tree(target, "", attr_set=MOUNT_ATTR_RDONLY)
            try:
                kernel.move_mount(cover, target, what=path)
            finally:
                os.close(cover)
        except OSError as error:
            raise KernelError.wrap(error, "Cannot make %s read-only" % path, step="readonly_paths") from error
        finally:
            os.close(target)


def finish(kernel: Kernel, rootfd: int, read_only: bool) -> None:
    """The root itself, last of all: everything above still had to create mountpoints in it."""
    if not read_only:
        return
    try:
        kernel.mount_setattr(rootfd, MOUNT_ATTR_RDONLY, what="/")
    except OSError as error:
        raise KernelError.wrap(error, "Cannot make the root read-only", step="readonly_rootfs") from error


def pivot(kernel: Kernel, rootfd: int) -> None:
    """Make ``rootfd`` the root and let go of the host's.

    ``pivot_root(".", ".")`` stacks the old root on the new one. It is made a slave before the unmount, or that would
    travel to the host.
    """
    old = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fchdir(rootfd)
        kernel.pivot_root(".", ".")
        os.fchdir(old)
        kernel.mount(None, ".", None, MS_SLAVE | MS_REC)
        kernel.umount2(".", MNT_DETACH)
        os.chdir("/")
        kernel.mount(None, "/", None, MS_PRIVATE)
    except OSError as error:
        raise KernelError.wrap(error, "Cannot switch to the container's root", step="pivot_root") from error
    finally:
        os.close(old)
