# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""An image's layers for a container whose ids are others than the image's.

Where the kernel can (Linux 5.19 for overlay; the layers' file system has to play along) the layers are mounted with the
ids mapped, which costs nothing. Elsewhere the image is copied once, flat, with other owners, into the container's own
directory: it is counted with the container and goes with it. The upper directory holds the host's ids either way;
``Owners`` gives those back that the image would have.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from typing import Optional

from ..errors import DiskFull, KernelError
from ..kernel import idmap
from ..kernel.syscalls import Kernel
from ..tuples import NamedTuple
from . import overlay, trees

NAME = "image"  # of the copy, in the container's directory
_REFUSED = (1, 19, 22, 38, 95)  # EPERM, ENODEV, EINVAL, ENOSYS, EOPNOTSUPP


class Owners(NamedTuple):
    """Between the ids on the disk of a container and those of its image."""

    uids: tuple[idmap.Range, ...]
    gids: tuple[idmap.Range, ...]

    def outside(self, uid: int, gid: int) -> tuple[int, int]:
        """What has no mapping becomes root's."""
        return _first(self.uids, uid), _first(self.gids, gid)

    def inside(self, uid: int, gid: int) -> tuple[int, int]:
        """What is not of the container's ids stays what it is: layers have the image's already."""
        found = idmap.inward(self.uids, uid), idmap.inward(self.gids, gid)
        return (uid if found[0] is None else found[0], gid if found[1] is None else found[1])

    def identical(self) -> bool:
        return all(entry.inside == entry.outside for entry in (*self.uids, *self.gids))

    def capability(self, value: bytes, *, inward: bool) -> bytes:
        """``security.capability``: its third version (struct vfs_ns_cap_data) names who is root in the namespace
        where the capabilities count; images have the second, which means the namespace that mounts them."""
        if inward and len(value) == 24 and struct.unpack_from("<I", value, 20)[0] == _first(self.uids, 0):
            return struct.pack("<I", 0x02000000 | struct.unpack_from("<I", value)[0] & 1) + value[4:20]
        if not inward and len(value) == 20:
            head = struct.pack("<I", 0x03000000 | struct.unpack_from("<I", value)[0] & 1)
            return head + value[4:20] + struct.pack("<I", _first(self.uids, 0))
        return value


def _first(ranges: Sequence[idmap.Range], number: int) -> int:
    found = idmap.outward(ranges, number)
    return (idmap.outward(ranges, 0) or 0) if found is None else found


def mount_rootfs(
    kernel: Kernel,
    layers: overlay.Layers,
    upper: Optional[str],
    work: Optional[str],
    place: str,
    userns_fd: int,
    owners: Owners,
    cache: Optional[dict[str, int]] = None,
    how: str = "",
) -> int:
    """As ``overlay.mount_rootfs``, with the image's files owned by the ids of the user namespace. ``place``: where a
    copy goes if it has to be one. ``how`` "copy" wants one in any case."""
    if owners.identical():
        return overlay.mount_rootfs(kernel, layers, upper, work, cache=cache)
    if not os.path.isdir(place) and how != "copy":
        try:
            return overlay.mount_rootfs(kernel, layers, upper, work, cache=cache, userns_fd=userns_fd)
        except KernelError as error:
            if error.errno not in _REFUSED:
                raise
    if not os.path.isdir(place):
        _copy(kernel, layers, place, owners)
    return overlay.mount_rootfs(kernel, [(place, "tree")], upper, work)


def _copy(kernel: Kernel, layers: overlay.Layers, place: str, owners: Owners) -> None:
    """Complete or not there: a copy that was cut off is begun again."""
    parent = os.open(os.path.dirname(place), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    source = target = -1
    half = NAME + ".new"
    try:
        trees.remove_tree(kernel, parent, half)
        os.makedirs(place + ".new/tree", 0o755)
        mount = overlay.mount_rootfs(kernel, layers)
        try:
            source = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mount)
        finally:
            os.close(mount)
        target = os.open(place + ".new/tree", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        trees.copy_tree(kernel, source, target, owners.outside, lambda value: owners.capability(value, inward=False))
        kernel.syncfs(target)
        os.rename(half, NAME, src_dir_fd=parent, dst_dir_fd=parent)
    except OSError as error:
        trees.remove_tree(kernel, parent, half)
        kind = DiskFull if error.errno in (28, 122) else KernelError
        raise kind.wrap(
            error,
            "Cannot copy the image for the container's own range of ids",
            step="shift_image",
            hint="This kernel or file system cannot mount layers with other ids, so the image is copied once.",
        ) from error
    finally:
        for fd in (source, target, parent):
            if fd >= 0:
                os.close(fd)


def idmapped_layers(kernel: Kernel, directory: str) -> bool:
    """Whether layers in ``directory``'s file system can be mounted with other ids. Tried; False also where there are no
    user namespaces."""
    place = "%s/.wharf-probe-%s" % (directory, os.urandom(8).hex())
    owner = -1
    try:
        os.makedirs(place + "/tree", 0o700)
        ranges = [idmap.Range(0, 1879048192, 1)]
        owner = idmap.userns_fd(kernel, ranges, ranges)
        os.close(overlay.mount_rootfs(kernel, [(place, "tree")], userns_fd=owner))
        return True
    except (OSError, KernelError):  # any refusal means: not this way
        return False
    finally:
        if owner >= 0:
            os.close(owner)
        for path in (place + "/tree", place):
            if os.path.isdir(path):
                os.rmdir(path)
