# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a layer can only know from the layers below it.

Archives may leave out what their makers took for granted: the directories above their files, whose attributes must
stay what they are below; symlinks below that a path goes through (``lib/x`` where ``lib`` leads to ``usr/lib``);
files below that they link to. Extracting into a whole root file system, as umoci does, gets these right by itself;
a layer alone has to ask.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from typing import Union

from ..kernel.syscalls import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, Kernel
from ..storage.overlay import mount_rootfs
from .extract import ExtractingTree, dress
from .tarstream import refuse
from .tree import REG, ROOT, Attributes, LayerTree, Missing

Parents = Sequence[tuple[str, str]]
_EXACT = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS


def settle(kernel: Kernel, tree: LayerTree, parents: Union[Parents, Callable[[], Parents]]) -> None:
    """Everything above, on a tree not yet finished. ``parents``: layer directories with their forms, base first.

    Refused: hard links whose target is in no layer, or is not a regular file.
    """
    stack = parents() if callable(parents) else parents
    if not stack:
        for link in _wanted(tree):
            refuse("a hard link to %r, which does not exist", link.target[:80])
        tree.whiteouts.clear()
        return
    root = mount_rootfs(kernel, stack)
    try:
        _implied(kernel, tree, root)
        if ROOT in tree.opaque:
            _hide_all(kernel, tree, root)
        _prune_whiteouts(kernel, tree, root)
        copied: dict[tuple[int, int], int] = {}
        made: dict[bytes, int] = {}
        for link in _wanted(tree):
            known = made.get(link.target)  # a link to such a link
            if known is None:
                known = _copy(kernel, tree, root, link, copied)
            else:
                tree.linked.add(known)
            tree.kids[link.parent][link.name] = known
            made[((tree.path(link.parent) or b"") + b"/" + link.name).lstrip(b"/")] = known
    finally:
        os.close(root)


def _wanted(tree: LayerTree) -> list[Missing]:
    """Links still without a target: not those that a later entry of the same name has replaced."""
    return [m for m in tree.missing if m.name not in tree.kids[m.parent] and tree.path(m.parent) is not None]


def _implied(kernel: Kernel, tree: LayerTree, root: int) -> None:
    done: set[int] = set()
    while True:
        waiting = [inode for inode in tree.implied if inode not in done]
        if not waiting:
            return
        for inode in waiting:  # parents come before what is in them
            done.add(inode)
            path = tree.path(inode)
            if path is not None and not tree.hides_lower(inode):
                _adopt(kernel, tree, root, inode, path)


def _adopt(kernel: Kernel, tree: LayerTree, root: int, inode: int, path: bytes) -> None:
    """A directory no entry described: as it is below, or, where a symlink is below, its contents go where that
    leads."""
    try:
        found = kernel.openat2(root, path or b".", os.O_PATH | os.O_NOFOLLOW, resolve=_EXACT)
    except OSError:  # not below: it stays root's, 0755
        return
    try:
        info = os.fstat(found)
        if stat.S_ISDIR(info.st_mode):
            seconds, nsec = divmod(info.st_mtime_ns, 1_000_000_000)
            tree.put(inode, Attributes(info.st_mode, info.st_uid, info.st_gid, nsec, seconds, 0, 0))
            xattrs = _xattrs("/proc/self/fd/%d" % found)
            if xattrs:
                tree.xattrs[inode] = xattrs
        elif stat.S_ISLNK(info.st_mode):
            _follow(kernel, tree, root, inode, path)
    finally:
        os.close(found)


def _follow(kernel: Kernel, tree: LayerTree, root: int, inode: int, path: bytes) -> None:
    try:
        real = kernel.open_in_root(root, path, os.O_PATH | os.O_DIRECTORY)
    except OSError:  # leads nowhere or to a file: the directory takes the symlink's place, as in Docker
        return
    try:
        # The mount is detached, so its root is where the path begins.
        place = os.readlink(b"/proc/self/fd/%d" % real)
    finally:
        os.close(real)
    target = tree.directory(place.lstrip(b"/"), path)
    if not _inside(tree, target, inode):
        tree.move(inode, target)


def _inside(tree: LayerTree, directory: int, ancestor: int) -> bool:
    while directory not in (ancestor, ROOT):
        directory = tree.parents[directory]
    return directory == ancestor


def _hide_all(kernel: Kernel, tree: LayerTree, root: int) -> None:
    """Overlay has no opaque roots."""
    tree.opaque.discard(ROOT)
    top = kernel.open_in_root(root, ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        tree.whiteouts.setdefault(ROOT, set()).update(os.fsencode(name) for name in os.listdir(top))
    finally:
        os.close(top)


def _prune_whiteouts(kernel: Kernel, tree: LayerTree, root: int) -> None:
    """Forget whiteouts of what is not below: overlay does not filter a directory that only one layer has, and would
    list them."""
    for directory in list(tree.whiteouts):
        path = tree.path(directory)
        below = -1
        if path is not None and directory not in tree.opaque and not tree.hides_lower(directory):
            try:
                below = kernel.openat2(root, path or b".", os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, resolve=_EXACT)
            except OSError:
                below = -1  # not a directory all the way
        if below < 0:
            del tree.whiteouts[directory]
            continue
        try:
            tree.whiteouts[directory] = {name for name in tree.whiteouts[directory] if _exists(below, name)}
        finally:
            os.close(below)


def _exists(directory: int, name: bytes) -> bool:
    try:
        os.lstat(b"/proc/self/fd/%d/%s" % (directory, name))
        return True
    except OSError:  # also a name too long to exist
        return False


def _xattrs(path: Union[str, int]) -> dict[bytes, bytes]:
    return {os.fsencode(key): os.getxattr(path, key) for key in os.listxattr(path)}


def _copy(kernel: Kernel, tree: LayerTree, root: int, link: Missing, copied: dict[tuple[int, int], int]) -> int:
    """The inode in this layer of the file that ``link`` leads to in the lower ones; copied the first time."""
    if not isinstance(tree, ExtractingTree):
        refuse("a hard link to %r of a lower layer cannot be indexed", link.target[:80])
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
        return copied[key]
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
            xattrs = _xattrs(reader)
            dress(writer, attributes, xattrs)
        finally:
            os.close(writer)
    finally:
        os.close(reader)
    inode = tree.add(REG, attributes)
    if xattrs:
        tree.xattrs[inode] = xattrs
    return inode
