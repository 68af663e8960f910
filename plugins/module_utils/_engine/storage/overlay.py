# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Image layers as detached mounts, and a container's root as a detached overlay over them.

Everything goes through descriptors where the kernel allows it (Linux 6.13: overlay takes detached mounts as
lowers), so no path is resolved twice, nothing appears in the host's mount table, and there is no limit on path or
option lengths. What older kernels cannot do is found out once per process by trying:

``fd``      FSCONFIG_SET_FD for ``lowerdir+``, ``upperdir``, ``workdir`` (6.13)
``string``  one ``lowerdir+`` string per layer (6.8); directories only, since such kernels refuse detached lowers
``legacy``  mount(2) inside a short-lived private mount namespace (see ``legacy.py``); everything from 5.2 on

Overlay facts used here: without an upper it wants two lowers; option strings end at 255 bytes; ``index=off`` because
an upper may come back with other lowers; ``redirect_dir=nofollow`` and ``metacopy=off`` so that no attribute in an
image can make the kernel look a name up elsewhere and an upper can be diffed by walking it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Optional, Union

from ..errors import KernelError, UsageError
from ..kernel.syscalls import MOUNT_ATTR_IDMAP, MOUNT_ATTR_RDONLY, Kernel

MAX_LAYERS = 127
OPTIONS: tuple[tuple[str, str], ...] = (("index", "off"), ("metacopy", "off"), ("redirect_dir", "nofollow"))

Layers = Sequence[tuple[str, str]]
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_mode: Optional[str] = None  # "fd", "string" or "legacy"; one process sees one kernel


def open_layer(kernel: Kernel, path: str, form: str) -> int:
    """A committed layer as a detached read-only mount; returns its descriptor.

    ``path`` is the layer's directory (``Paths.layer``). ``form`` "erofs": files ``index`` and ``tar``; "tree":
    directory ``tree``; "upper": the directory itself, a container's writable layer. Raises ``KernelError``.
    """
    try:
        return _open_erofs(kernel, path) if form == "erofs" else _open_tree(kernel, tree_path(path, form))
    except OSError as error:
        raise KernelError.wrap(
            error, "Cannot open the image layer %s (%s)" % (os.path.basename(path)[:19], form), step="open_layer"
        ) from error


def open_mapped(kernel: Kernel, path: str, form: str, userns_fd: int, cached: Optional[int] = None) -> int:
    """``open_layer`` whose files belong to the ids of a user namespace. Raises ``OSError`` (EINVAL where the layer's
    file system cannot), ``KernelError``."""
    if cached is not None:
        try:
            return kernel.clone_tree(cached, "", userns_fd=userns_fd, recursive=False)
        except OSError:  # before 6.15 a detached mount has no clones
            pass
    fd = open_layer(kernel, path, form)
    try:
        kernel.mount_setattr(fd, MOUNT_ATTR_IDMAP, 0, 0, userns_fd, what=path)
        return fd
    except OSError:
        os.close(fd)
        raise


def tree_path(path: str, form: str) -> str:
    return path if form == "upper" else path + "/tree"


def _open_erofs(kernel: Kernel, path: str) -> int:
    if len(path) > 200:  # an option value ends at 255 bytes
        fd = os.open(path, _DIRECTORY)
        try:
            return _open_erofs(kernel, "/proc/self/fd/%d" % fd)
        finally:
            os.close(fd)
    return kernel.new_fs("erofs", (("source", path + "/index"), ("device", path + "/tar")), MOUNT_ATTR_RDONLY)


def _open_tree(kernel: Kernel, path: str) -> int:
    fd = os.open(path, _DIRECTORY)
    try:
        return kernel.clone_tree(fd, "", attr_set=MOUNT_ATTR_RDONLY, recursive=False)
    finally:
        os.close(fd)


def mount_rootfs(
    kernel: Kernel,
    layers: Layers,
    upper: Optional[str] = None,
    work: Optional[str] = None,
    *,
    cache: Optional[dict[str, int]] = None,
    volatile: bool = False,
    mode: Optional[str] = None,
    userns_fd: Optional[int] = None,
) -> int:
    """A container's root as a detached overlay mount; returns its descriptor.

    ``layers``: ``(directory, form)``, base first, at most 127 (none: an empty root). ``upper`` and ``work``: absolute
    paths of existing directories on one file system; without them the mount is read-only. ``cache`` maps layer
    directories to open layer mounts: layers found there are used, others are opened and added (the owner of the
    dictionary closes them), so that containers share superblocks and with them cached pages. ``volatile``: the upper
    is never synced and must be thrown away after a crash. ``mode`` forces one of the ways above (tests).
    ``userns_fd``: layers are shown with the ids of that user namespace (``upper`` has the host's).

    Raises ``UsageError`` for too many layers, ``KernelError`` with the kernel's words.
    """
    if len(layers) > MAX_LAYERS:
        raise UsageError(
            "An image with %d layers cannot be mounted: the limit is %d" % (len(layers), MAX_LAYERS),
            step="mount_overlay",
            hint="Squash the image to fewer layers.",
        )
    options: list[tuple[str, Optional[str]]] = list(OPTIONS)
    if volatile:
        options.append(("volatile", None))
    how = mode or _best_mode(kernel)
    padded = len(layers) < (1 if upper else 2)
    if how == "string" and (userns_fd is not None or padded or any(form == "erofs" for _path, form in layers)):
        how = "legacy"
    try:
        if not layers and not upper:
            return _empty(kernel)
        if how == "fd":
            return _by_fd(kernel, layers, upper, work, options, cache, userns_fd)
        if how == "string":
            return _by_string(kernel, layers, upper, work, options)
        from . import legacy

        return legacy.mount_overlay(kernel, layers, upper, work, options, padded, userns_fd)
    except OSError as error:
        raise KernelError.wrap(
            error,
            "Cannot mount an overlay of %d layers%s" % (len(layers), " on " + upper if upper else ""),
            step="mount_overlay",
        ) from error


def part(kernel: Kernel, whole: int, path: str) -> int:
    """What is at ``path`` in a detached mount, as one of its own; ``whole`` stays open. Raises ``OSError``."""
    there = kernel.open_in_root(whole, path, os.O_PATH)
    try:
        return kernel.clone_tree(there, "", attr_set=MOUNT_ATTR_RDONLY, recursive=False)
    except OSError as error:
        if error.errno != 22:  # EINVAL: before 6.15 a detached mount has no clones
            raise
    finally:
        os.close(there)
    from . import legacy

    return legacy.part(kernel, whole, path)


def _by_fd(
    kernel: Kernel,
    layers: Layers,
    upper: Optional[str],
    work: Optional[str],
    options: Sequence[tuple[str, Optional[str]]],
    cache: Optional[dict[str, int]],
    userns_fd: Optional[int] = None,
) -> int:
    own: list[int] = []
    try:
        lowers = []
        for path, form in layers:
            fd = cache.get(path) if cache is not None else None
            if userns_fd is not None:
                fd = open_mapped(kernel, path, form, userns_fd, fd)
                own.append(fd)
            elif fd is None:
                fd = open_layer(kernel, path, form)
                if cache is None:
                    own.append(fd)
                else:
                    cache[path] = fd
            lowers.append(fd)
        lowers.reverse()  # overlay's first lower is the topmost
        if len(lowers) < (1 if upper else 2):
            own.append(_empty(kernel))
            lowers.append(own[-1])
        settings: list[tuple[str, Union[str, bytes, int, None]]] = [("lowerdir+", fd) for fd in lowers]
        for name, directory in (("upperdir", upper), ("workdir", work)):
            if directory:
                own.append(os.open(directory, _DIRECTORY))
                settings.append((name, own[-1]))
        return kernel.new_fs("overlay", (*settings, *options), 0 if upper else MOUNT_ATTR_RDONLY)
    finally:
        for fd in own:
            os.close(fd)


def _by_string(
    kernel: Kernel,
    layers: Layers,
    upper: Optional[str],
    work: Optional[str],
    options: Sequence[tuple[str, Optional[str]]],
) -> int:
    """Strings that name descriptors: short whatever the state directory's path, and resolved once, by us."""
    own: list[int] = []
    try:
        settings: list[tuple[str, Union[str, bytes, int, None]]] = []
        named = [("lowerdir+", tree_path(path, form)) for path, form in reversed(layers)]
        named += [(name, path) for name, path in (("upperdir", upper), ("workdir", work)) if path]
        for name, path in named:
            own.append(os.open(path, _DIRECTORY))
            settings.append((name, "/proc/self/fd/%d" % own[-1]))
        return kernel.new_fs("overlay", (*settings, *options), 0 if upper else MOUNT_ATTR_RDONLY)
    finally:
        for fd in own:
            os.close(fd)


def _empty(kernel: Kernel) -> int:
    return kernel.new_fs("tmpfs", (("mode", "0755"), ("size", "4k")), MOUNT_ATTR_RDONLY)


# -- what this kernel can do -----------------------------------------------------------------------------------


def learn(kernel: Kernel) -> None:
    """Find out now what would otherwise be found out at the first mount: whatever this process forks then knows."""
    _best_mode(kernel)


def _best_mode(kernel: Kernel) -> str:
    """Found once per process. The environment variable WHARF_OVERLAY_MODE decides for tests."""
    global _mode
    forced = os.environ.get("WHARF_OVERLAY_MODE")
    if forced in ("fd", "string", "legacy"):
        return forced
    if _mode is None:
        _mode = "fd" if _lower_fds(kernel) else "string" if _lower_strings(kernel) else "legacy"
    return _mode


def _lower_fds(kernel: Kernel) -> bool:
    fds: list[int] = []
    try:
        fds += [_empty(kernel), _empty(kernel)]
        fds.append(kernel.new_fs("overlay", tuple(("lowerdir+", fd) for fd in fds)))
        return True
    except OSError:  # any refusal means: not this way
        return False
    finally:
        for fd in fds:
            os.close(fd)


def _lower_strings(kernel: Kernel) -> bool:
    """The key is looked up when it is set, so no mount is needed to know: "Unknown parameter" from 6.5 to 6.7. Older
    overlays collect whatever they are given and refuse it when they mount: those take an impossible key, too."""
    try:
        context = kernel.syscall("fsopen", b"overlay", 1)
    except OSError:  # ENODEV: no overlay at all
        return False
    try:
        return _takes(kernel, context, b"lowerdir+") and not _takes(kernel, context, b"no-such-key")
    finally:
        os.close(context)


def _takes(kernel: Kernel, context: int, key: bytes) -> bool:
    try:
        kernel.syscall("fsconfig", context, 1, key, b"/", 0)  # 1: FSCONFIG_SET_STRING
        return True
    except OSError:
        return False


def erofs_files(kernel: Kernel, directory: Optional[str] = None) -> bool:
    """Whether EROFS images in plain files of ``directory``'s file system can be mounted (Linux 6.12, and a file
    system whose files can be read by page: not tmpfs, not overlay). Tried with a real, empty image."""
    for place in [directory] if directory else ["/var/tmp", "/tmp"]:
        try:
            fd = os.open(place, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError:
            continue
        try:
            os.pwrite(fd, _empty_erofs(), 0)
            os.close(kernel.new_fs("erofs", (("source", "/proc/self/fd/%d" % fd),), MOUNT_ATTR_RDONLY))
            return True
        except OSError:
            continue
        finally:
            os.close(fd)
    return False


def _empty_erofs() -> bytes:
    """An EROFS image with 512-byte blocks that holds an empty root: superblock, one inode, one directory block."""
    import struct

    inode = struct.pack("<HHHHQIIIIQII16x", 1, 0, 0o40755, 0, 27, 4, 1, 0, 0, 0, 0, 2)
    head = struct.pack(
        "<IIIBBHQQIIII16s16sIHHHBBIQI", 0xE0F5E1E2, 0, 0, 9, 0, 0, 1, 0, 0, 5, 3, 0, b"", b"", 0, 0, 0, 0, 0, 0, 0, 0, 0
    )
    dirents = struct.pack("<QHBB", 0, 24, 2, 0) + struct.pack("<QHBB", 0, 25, 2, 0) + b"..."
    return b"\0" * 1024 + head.ljust(512, b"\0") + inode.ljust(512, b"\0") + dirents.ljust(512, b"\0")


def probe(kernel: Kernel, directory: Optional[str] = None) -> dict[str, Any]:
    """``{"overlay", "overlay_mode" ("fd", "string", "legacy", or None), "erofs_files"}`` for ``host_info``."""
    mode = _best_mode(kernel)  # first: asking for it makes the kernel load the module
    try:
        with open("/proc/filesystems", encoding="ascii") as file:
            overlay = any(line.split()[-1] == "overlay" for line in file)
    except OSError:
        overlay = False
    overlay = overlay or mode != "legacy"
    return {
        "overlay": overlay,
        "overlay_mode": mode if overlay else None,
        "erofs_files": erofs_files(kernel, directory),
    }
