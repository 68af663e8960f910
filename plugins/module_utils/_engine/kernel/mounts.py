# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Mounting into a root that may be hostile: detached mounts, attached onto descriptors.

Every destination is resolved below ``rootfd`` as if that were ``/``; missing parts are made one by one, each relative
to the descriptor of the part before. An image or another container that swaps a directory for a link in between can
only send us elsewhere inside the same root (CVE-2021-30465, CVE-2024-45310, CVE-2023-27561).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from typing import Optional, Union

from ..errors import KernelError, UsageError
from ..tuples import NamedTuple
from .syscalls import (
    MOUNT_ATTR_NOATIME,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MOUNT_ATTR_STRICTATIME,
    MS_PRIVATE,
    MS_SHARED,
    MS_SLAVE,
    Kernel,
)

MOUNT_ATTR_ATIME_MASK, MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NOSYMFOLLOW = 0x70, 0x80, 0x200000
MS_UNBINDABLE = 1 << 17

NOSUID_NODEV_NOEXEC = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC

_MAX_LINKS = 40  # as the kernel's own resolution
_PATH = os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW
_EPERM, _ELOOP, _ENOTDIR, _EISDIR = 1, 40, 20, 21


class Options(NamedTuple):
    """Mount option words sorted by where they go. ``data``: what is left, for the filesystem (fsconfig pairs);
    ``recursive``: bind submounts too; ``propagation``: an ``MS_*`` flag or 0 (nothing asked)."""

    attr_set: int
    attr_clear: int
    propagation: int
    recursive: bool
    bind: bool
    data: tuple[tuple[str, Optional[str]], ...]


_SET = {
    "ro": MOUNT_ATTR_RDONLY, "rro": MOUNT_ATTR_RDONLY, "nosuid": MOUNT_ATTR_NOSUID, "nodev": MOUNT_ATTR_NODEV,
    "noexec": MOUNT_ATTR_NOEXEC, "nodiratime": MOUNT_ATTR_NODIRATIME, "nosymfollow": MOUNT_ATTR_NOSYMFOLLOW,
}  # fmt: skip
_CLEAR = {
    "rw": MOUNT_ATTR_RDONLY, "suid": MOUNT_ATTR_NOSUID, "dev": MOUNT_ATTR_NODEV, "exec": MOUNT_ATTR_NOEXEC,
    "diratime": MOUNT_ATTR_NODIRATIME, "symfollow": MOUNT_ATTR_NOSYMFOLLOW,
}  # fmt: skip
_ATIME = {"relatime": 0, "noatime": MOUNT_ATTR_NOATIME, "strictatime": MOUNT_ATTR_STRICTATIME}
_PROPAGATION = {
    "private": MS_PRIVATE, "rprivate": MS_PRIVATE, "slave": MS_SLAVE, "rslave": MS_SLAVE, "shared": MS_SHARED,
    "rshared": MS_SHARED, "unbindable": MS_UNBINDABLE, "runbindable": MS_UNBINDABLE,
}  # fmt: skip
# "idmap" and "ridmap" are for whoever has the user namespace, see ``rootfs``.
_IGNORED = {"defaults", "async", "nomand", "noiversion", "loud", "copy", "nocopy", "z", "Z", "idmap", "ridmap"}


def parse_options(words: Iterable[str]) -> Options:
    """Sort words such as ``nosuid``, ``rslave``, ``size=64m``; a later word overrides an earlier one."""
    attr_set = attr_clear = propagation = 0
    recursive = bind = False
    data: list[tuple[str, Optional[str]]] = []
    for word in words:
        if word in _SET:
            attr_set, attr_clear = attr_set | _SET[word], attr_clear & ~_SET[word]
        elif word in _CLEAR:
            attr_set, attr_clear = attr_set & ~_CLEAR[word], attr_clear | _CLEAR[word]
        elif word in _ATIME:
            # The access-time choice is a field, not a bit: the kernel wants the whole field cleared first.
            attr_set, attr_clear = attr_set & ~MOUNT_ATTR_ATIME_MASK | _ATIME[word], attr_clear | MOUNT_ATTR_ATIME_MASK
        elif word in _PROPAGATION:
            propagation = _PROPAGATION[word]
        elif word in ("bind", "rbind"):
            bind, recursive = True, word == "rbind"
        elif word not in _IGNORED:
            key, equals, value = word.partition("=")
            data.append((key, value if equals else None))
    return Options(attr_set, attr_clear, propagation, recursive, bind, tuple(data))


# -- destinations --------------------------------------------------------------------------------------------------


def mkdir_in_root(kernel: Kernel, rootfd: int, path: str, mode: int = 0o755, uid: int = -1, gid: int = -1) -> int:
    """An O_PATH descriptor of the directory ``path`` below ``rootfd``, whose missing parts are created.

    Links are followed inside the root, dangling ones too (their target is created there, as Docker does). ``uid`` and
    ``gid`` of what is made, -1: whoever makes it.
    Raises ``KernelError``: ENOTDIR when a part is a file, ELOOP.
    """
    try:
        fd = _existing(kernel, rootfd, path, os.O_PATH | os.O_DIRECTORY)
        return _walk(rootfd, path, mode, uid, gid, False) if fd is None else fd
    except OSError as error:
        raise KernelError.wrap(error, "Cannot create the directory %s in the container" % path, step="mkdir") from error


def create_in_root(kernel: Kernel, rootfd: int, path: str, mode: int = 0o755, uid: int = -1, gid: int = -1) -> int:
    """An O_PATH descriptor of the file ``path`` below ``rootfd``; an empty one is created when it is missing.

    Raises ``KernelError``; EISDIR when it is a directory.
    """
    try:
        fd = _existing(kernel, rootfd, path, os.O_PATH)
        if fd is None:
            fd = _walk(rootfd, path, mode, uid, gid, True)
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            os.close(fd)
            raise IsADirectoryError(_EISDIR, os.strerror(_EISDIR), path)
        return fd
    except OSError as error:
        raise KernelError.wrap(
            error, "Cannot create the file %s in the container" % path, step="create_file"
        ) from error


def _existing(kernel: Kernel, rootfd: int, path: str, flags: int) -> Optional[int]:
    try:
        return kernel.open_in_root(rootfd, path, flags)
    except FileNotFoundError:
        return None


def _walk(rootfd: int, path: str, mode: int, uid: int, gid: int, file: bool) -> int:
    """Resolve below ``rootfd`` part by part, creating what is missing. ``..`` goes back to a descriptor we hold, so it
    cannot leave the root whatever is renamed meanwhile."""
    todo = [name for name in reversed(path.split("/")) if name not in ("", ".")]
    held = [os.open(".", os.O_PATH | os.O_CLOEXEC | os.O_DIRECTORY, dir_fd=rootfd)]
    links = 0
    try:
        while todo:
            name = todo.pop()
            if name == "..":
                if len(held) > 1:
                    os.close(held.pop())
                continue
            make_file = file and not todo
            fd = _enter(held[-1], name, mode, uid, gid, make_file)
            kind = os.fstat(fd).st_mode
            if stat.S_ISLNK(kind):
                links += 1
                target = _read_link(fd)
                if links > _MAX_LINKS or not target:
                    raise OSError(_ELOOP, os.strerror(_ELOOP), path)
                if target.startswith("/"):
                    _close_all(held[1:])
                    del held[1:]
                todo += [part for part in reversed(target.split("/")) if part not in ("", ".")]
                continue
            if not stat.S_ISDIR(kind) and not make_file:
                os.close(fd)
                raise NotADirectoryError(_ENOTDIR, os.strerror(_ENOTDIR), path)
            held.append(fd)
        return held.pop()
    finally:
        _close_all(held)


def _read_link(fd: int) -> str:
    try:
        return os.readlink("", dir_fd=fd)
    finally:
        os.close(fd)


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


def _enter(parent: int, name: str, mode: int, uid: int, gid: int, file: bool) -> int:
    """O_PATH descriptor of ``name`` in ``parent``, not following a link; made first when it is missing."""
    try:
        return os.open(name, _PATH, dir_fd=parent)
    except FileNotFoundError:
        pass
    try:
        if file:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            made = os.open(name, flags, mode, dir_fd=parent)
        else:
            os.mkdir(name, 0o700, dir_fd=parent)
            made = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    except FileExistsError:  # somebody else made it meanwhile; whatever it is, it is looked at by the caller
        return os.open(name, _PATH, dir_fd=parent)
    try:
        os.fchown(made, uid, gid)
        os.fchmod(made, mode)
    finally:
        os.close(made)
    return os.open(name, _PATH, dir_fd=parent)


def attach_at(
    kernel: Kernel,
    rootfd: int,
    dest: str,
    mount_fd: int,
    create: Optional[str] = None,
    forbidden: Optional[int] = None,
) -> None:
    """Attach a detached mount at ``dest`` below ``rootfd``. ``create``: ``"dir"`` or ``"file"`` makes a missing
    mountpoint. ``mount_fd`` stays open and from then on refers to what is mounted there. ``forbidden``: the number of a
    file system (``st_dev``) on which nothing may be mounted, whatever link ``dest`` leads through.

    Raises ``KernelError`` (``errno`` 2 when ``dest`` is missing and ``create`` is not given).
    """
    if create == "dir":
        target = mkdir_in_root(kernel, rootfd, dest)
    elif create == "file":
        target = create_in_root(kernel, rootfd, dest)
    else:
        try:
            target = kernel.open_in_root(rootfd, dest, os.O_PATH)
        except OSError as error:
            raise KernelError.wrap(error, "Cannot mount on %s in the container" % dest, step="mount") from error
    hint = None
    try:
        if forbidden is not None and os.fstat(target).st_dev == forbidden:
            hint = "The image has a link there that leads into a file system on which nothing may be mounted."
            raise PermissionError(_EPERM, os.strerror(_EPERM), dest)
        if _is_dir(mount_fd) != _is_dir(target):  # the kernel's own word for it is "Invalid argument"
            hint = "A directory cannot be mounted over a file, nor a file over a directory."
            raise NotADirectoryError(_ENOTDIR, os.strerror(_ENOTDIR), dest)
        kernel.move_mount(mount_fd, target, what=dest)
    except OSError as error:
        sentence = "Cannot mount on %s in the container" % dest
        raise KernelError.wrap(error, sentence, step="mount", hint=hint) from error
    finally:
        os.close(target)


def _is_dir(fd: int) -> bool:
    return stat.S_ISDIR(os.fstat(fd).st_mode)


# -- filesystems ---------------------------------------------------------------------------------------------------

_FsOption = tuple[str, Union[str, bytes, int, None]]


def detached(kernel: Kernel, fstype: str, options: Sequence[_FsOption] = (), attrs: int = 0) -> int:
    """A new filesystem, mounted nowhere yet. Raises ``KernelError`` with the kernel's own explanation."""
    try:
        return kernel.new_fs(fstype, tuple(options), attrs)
    except OSError as error:
        raise KernelError.wrap(error, "Cannot mount a new %s" % fstype, step="mount_" + fstype) from error


def from_options(kernel: Kernel, fstype: str, words: Iterable[str], source: Optional[str] = None) -> int:
    """A detached filesystem from OCI option words (``nosuid``, ``size=65536k``, ...)."""
    parsed = parse_options(words)
    data: list[_FsOption] = list(parsed.data)
    if source and fstype not in ("proc", "sysfs", "mqueue", "devpts", "cgroup", "cgroup2"):
        data.insert(0, ("source", source))
    return detached(kernel, fstype, data, parsed.attr_set)


def bind(
    kernel: Kernel,
    dirfd: int,
    path: str,
    words: Iterable[str] = (),
    *,
    userns_fd: Optional[int] = None,
) -> int:
    """A detached clone of ``path`` (relative to ``dirfd``; "" is ``dirfd`` itself) with OCI option words applied,
    recursively unless the words say ``bind``."""
    parsed = parse_options(words)
    try:
        return kernel.clone_tree(
            dirfd,
            path,
            attr_set=parsed.attr_set,
            attr_clear=parsed.attr_clear,
            userns_fd=userns_fd,
            propagation=parsed.propagation or MS_PRIVATE,
            recursive=parsed.recursive or not parsed.bind,
        )
    except OSError as error:
        raise KernelError.wrap(error, "Cannot bind-mount %s" % (path or "a directory"), step="bind_mount") from error


def tmpfs(
    kernel: Kernel,
    *,
    size: Optional[int] = None,
    mode: int = 0o755,
    attrs: int = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV,
    source: str = "tmpfs",
    inodes: Optional[int] = None,
) -> int:
    """``size`` in bytes; None leaves the kernel's default (half of RAM)."""
    options: list[_FsOption] = [("source", source), ("mode", "%o" % mode)]
    if size is not None:
        options.append(("size", str(size)))
    if inodes is not None:
        options.append(("nr_inodes", str(inodes)))
    return detached(kernel, "tmpfs", options, attrs)


def proc(kernel: Kernel, attrs: int = NOSUID_NODEV_NOEXEC) -> int:
    """procfs of the caller's pid namespace."""
    return detached(kernel, "proc", (("source", "proc"),), attrs)


def sysfs(kernel: Kernel, attrs: int = NOSUID_NODEV_NOEXEC | MOUNT_ATTR_RDONLY) -> int:
    """sysfs of the caller's network namespace."""
    return detached(kernel, "sysfs", (("source", "sysfs"),), attrs)


def mqueue(kernel: Kernel, attrs: int = NOSUID_NODEV_NOEXEC) -> int:
    """POSIX queues of the caller's IPC namespace."""
    return detached(kernel, "mqueue", (("source", "mqueue"),), attrs)


def devpts(kernel: Kernel, gid: Optional[int] = 5, attrs: int = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC) -> int:
    """A devpts instance of its own. ``gid`` None where group 5 has no mapping (user namespaces)."""
    options: list[_FsOption] = [("source", "devpts"), ("newinstance", None), ("ptmxmode", "0666"), ("mode", "0620")]
    if gid is not None:
        options.append(("gid", str(gid)))
    return detached(kernel, "devpts", options, attrs)


def cgroup_view(
    kernel: Kernel,
    hierarchies: Sequence[tuple[str, int, tuple[str, ...]]],
    *,
    read_only: bool = True,
) -> list[tuple[str, int]]:
    """What belongs on ``/sys/fs/cgroup``, as ``(path below it, detached mount)`` in the order to attach.

    ``hierarchies`` as ``Layout.hierarchies()`` gives them: (directory name, version, controllers); one unified
    hierarchy of name "" is mounted directly, others below a small tmpfs. Call inside the container's cgroup namespace:
    the mounts then show its own cgroup as ``/``.
    """
    attrs = NOSUID_NODEV_NOEXEC | (MOUNT_ATTR_RDONLY if read_only else 0)
    if len(hierarchies) == 1 and hierarchies[0][1] == 2:
        return [("", detached(kernel, "cgroup2", (("source", "cgroup"),), attrs))]
    base = tmpfs(kernel, mode=0o755, size=1 << 20, attrs=NOSUID_NODEV_NOEXEC, source="cgroup")
    made = [("", base)]
    try:
        for name, version, controllers in hierarchies:
            os.mkdir(name, 0o755, dir_fd=base)
            for link in controllers if "," in name else ():
                os.symlink(name, link, dir_fd=base)
            if version == 2:
                made.append((name, detached(kernel, "cgroup2", (("source", "cgroup"),), attrs)))
            else:
                flags: list[_FsOption] = [("source", "cgroup")]
                flags += [("name", c[5:]) if c.startswith("name=") else (c, None) for c in controllers]
                flags += [("none", None)] if controllers[0].startswith("name=") else []
                made.append((name, detached(kernel, "cgroup", flags, attrs)))
        if read_only:
            kernel.mount_setattr(base, MOUNT_ATTR_RDONLY, what="/sys/fs/cgroup")
    except (OSError, KernelError) as error:
        _close_all([fd for _path, fd in made])
        if isinstance(error, OSError):
            raise KernelError.wrap(error, "Cannot prepare /sys/fs/cgroup", step="mount_cgroup") from error
        raise
    return made


def check_propagation(word: str) -> int:
    """``MS_*`` flag of a propagation word. Raises ``UsageError``."""
    if word not in _PROPAGATION:
        raise UsageError(
            "Unknown mount propagation %r: use one of %s" % (word, ", ".join(sorted(_PROPAGATION))), path="propagation"
        )
    return _PROPAGATION[word]
