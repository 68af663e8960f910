# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a layer can only know from the layers below it."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from ..kernel.syscalls import Kernel
from ..storage.overlay import mount_rootfs
from .extract import ExtractingTree, dress
from .tarstream import refuse
from .tree import REG, Attributes, LayerTree, Missing


def link_into_lower(kernel: Kernel, tree: LayerTree, parents: Sequence[tuple[str, str]]) -> None:
    """Hard links whose target is in a lower layer: the file is copied into this one, and linked there.

    Refused when the target is in no layer, or is not a regular file.
    """
    wanted = [link for link in tree.missing if link.name not in tree.kids[link.parent]]
    if not wanted:
        return
    if not parents or not isinstance(tree, ExtractingTree):
        refuse("a hard link to %r, which does not exist", wanted[0].target[:80])
    root = mount_rootfs(kernel, parents)
    copied: dict[tuple[int, int], int] = {}
    try:
        for link in wanted:
            _copy(kernel, tree, root, link, copied)
    finally:
        os.close(root)


def _copy(kernel: Kernel, tree: ExtractingTree, root: int, link: Missing, copied: dict[tuple[int, int], int]) -> None:
    try:
        found = kernel.open_in_root(root, link.target, os.O_PATH | os.O_NOFOLLOW)
    except OSError:
        refuse("a hard link to %r, which does not exist", link.target[:80])
    try:
        info = os.fstat(found)
        if not stat.S_ISREG(info.st_mode):
            refuse("a hard link to %r of a lower layer, which is no regular file", link.target[:80])
        key = (info.st_dev, info.st_ino)
        if key in copied:
            tree.linked.add(copied[key])
        else:
            copied[key] = _copy_file(tree, found, info)
        tree.kids[link.parent][link.name] = copied[key]
    finally:
        os.close(found)


def _copy_file(tree: ExtractingTree, found: int, info: os.stat_result) -> int:
    from ..storage.trees import copy_bytes

    seconds, nsec = divmod(info.st_mtime_ns, 1_000_000_000)
    tree.next_file += 1
    attributes = Attributes(info.st_mode, info.st_uid, info.st_gid, nsec, seconds, info.st_size, tree.next_file)
    source = "/proc/self/fd/%d" % found
    reader = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        writer = tree.new_file(tree.next_file)
        try:
            copy_bytes(reader, writer)
            xattrs = {os.fsencode(key): os.getxattr(reader, key) for key in os.listxattr(reader)}
            dress(writer, attributes, xattrs)
        finally:
            os.close(writer)
    finally:
        os.close(reader)
    inode = tree.add(REG, attributes)
    if xattrs:
        tree.xattrs[inode] = xattrs
    return inode
