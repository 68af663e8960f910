# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Copying from one side to the other (see ``sides``), and only what differs.

A file is read no further than it was long when it was looked at, and appears under its name complete.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import Any, NoReturn, Optional

from ..errors import Conflict, DiskFull, UsageError
from ..tuples import NamedTuple
from .sides import Entry, Place, Side, looked_at, open_directory, open_file, own_descriptors

MAX_DEPTH = 128  # a descriptor on each side per level
MAX_TEXT = 104448  # Ansible's own limit for files in a diff
_CHUNK = 1 << 20


class Wish(NamedTuple):
    """``mode`` of files and ``directory_mode``: None takes the source's as far as ``mask`` goes. ``owner``: (uid, gid)
    in the target's ids. ``force``: True writes what is equal, too; False leaves alone what exists. ``firm``: the
    directory that is copied to gets owner and mode even if it exists already."""

    owner: tuple[int, int]
    mode: Optional[int] = None
    directory_mode: Optional[int] = None
    mask: int = 0o7777
    force: Optional[bool] = None
    firm: bool = False


class Copier:
    """``look`` finds out what differs and touches nothing; ``apply`` then makes good exactly that. ``content`` takes
    the place of the source."""

    def __init__(self, source: Side, target: Side, wish: Wish, *, content: Optional[bytes] = None) -> None:
        self.source = source
        self.target = target
        self.wish = wish
        self.content = content
        self.steps: list[dict[str, Any]] = []
        self.left_out: list[str] = []
        self.texts: list[dict[str, Any]] = []
        self.bytes = 0
        self._descriptors = own_descriptors()
        self._text = False
        self._owner = target.owner(wish.owner)
        self._doing: Optional[set[str]] = None  # paths that ``look`` found; None while it looks

    def look(self, source: Place, target: Place, path: str, *, text: bool) -> None:
        """``path``: what the target is called in steps. ``text``: collect the texts of files for a diff. Raises
        ``WharfError`` for what cannot be done, ``OSError``."""
        self._text = text
        self._entry(source, target, path, 0)

    def apply(self, source: Place, target: Place, path: str) -> None:
        if not self.steps:
            return
        self._check_space(target)
        self._doing = {step["path"] for step in self.steps}
        self._entry(source, target, path, 0)

    def _check_space(self, target: Place) -> None:
        """Files with holes are as long as their owner says: a container could ask for more than there is."""
        info = os.fstatvfs(target.fd)
        free = info.f_bavail * info.f_frsize
        if self.bytes > free and not info.f_flag & os.ST_RDONLY:  # that is told when it is written to
            raise DiskFull(
                "%d bytes are to be copied, and %d are free %s" % (self.bytes, free, self.target.words),
                step="copy",
                errno=errno.ENOSPC,
            )

    # -- one entry ---------------------------------------------------------------------------------------------------

    def _entry(self, source: Place, target: Optional[Place], path: str, depth: int) -> None:
        have = self._have(source)
        if have is None:  # gone meanwhile
            return
        if have.device in self.source.refused or have.kind == "other":
            if not depth:
                self._refuse_top(have, path)
            if self._doing is None:
                self.left_out.append(path)
            return
        there = self.target.look(target) if target is not None else None
        if there is not None and there.device in self.target.refused:
            self.target.refuse(path)
        if there is not None and (there.kind == "directory") != (have.kind == "directory"):
            kinds = ("a directory", "none") if there.kind == "directory" else ("no directory", "one")
            raise Conflict(
                "%s is %s %s, and what is to be copied there is %s" % (path, kinds[0], self.target.words, kinds[1]),
                step="copy",
                path=path,
                hint="Name the file itself, or remove what is there.",
            )
        if have.kind == "directory":
            self._directory(source, target, path, depth, have, there)
        elif have.kind == "link":
            self._link(target, path, have, there)
        else:
            self._file(source, target, path, have, there)

    def _have(self, source: Place) -> Optional[Entry]:
        if self.content is None:
            return self.source.look(source)
        return Entry("file", self.wish.mode or 0, 0, 0, len(self.content), 0, "", -1)

    def _refuse_top(self, have: Entry, path: str) -> NoReturn:
        if have.device in self.source.refused:
            self.source.refuse(path)
        raise UsageError("%s: what is to be copied is no file, directory or link" % path, step="copy", path=path)

    def _is_to_do(self, path: str, how: str, why: Sequence[str], detail: dict[str, Any]) -> bool:
        """In the first pass a step is noted, in the second only what was noted is done."""
        if self._doing is not None:
            return path in self._doing
        self.steps.append({"how": how, "path": path, "why": ", ".join(why), "detail": detail})
        return False

    def _differences(self, there: Entry, mode: Optional[int]) -> tuple[list[str], dict[str, Any]]:
        why, detail = [], {}
        if mode is not None and there.mode != mode:
            why.append("mode")
            detail["mode"] = {"before": "%04o" % there.mode, "after": "%04o" % mode}
        if (there.uid, there.gid) != self.wish.owner:
            why.append("owner")
            detail["owner"] = {"before": "%d:%d" % (there.uid, there.gid), "after": "%d:%d" % self.wish.owner}
        return why, detail

    # -- directories -------------------------------------------------------------------------------------------------

    def _directory(
        self, source: Place, target: Optional[Place], path: str, depth: int, have: Entry, there: Optional[Entry]
    ) -> None:
        if depth >= MAX_DEPTH:
            raise UsageError("%s is nested deeper than %d directories" % (path, MAX_DEPTH), step="copy", path=path)
        wish = self.wish
        mode = have.mode & wish.mask if wish.directory_mode is None else wish.directory_mode
        below = -1
        if there is None:
            if self._is_to_do(path, "create", ["missing"], {"kind": "directory", "mode": "%04o" % mode}) and target:
                os.mkdir(target.name, 0o700, dir_fd=target.fd)
                below = open_directory(target)
                self._dress(below, mode)
        elif target is not None:
            below = open_directory(target)
            if wish.force is not False and (depth or wish.firm) and target.name != ".":
                why, detail = self._differences(there, mode if depth or wish.directory_mode is not None else None)
                if why and self._is_to_do(path, "attributes", why, detail):
                    self._dress(below, mode)
        here = open_directory(source)
        try:
            for name in sorted(os.listdir(here)):
                inner = Place(below, name) if below >= 0 else None
                self._entry(Place(here, name), inner, "%s/%s" % (path.rstrip("/"), name), depth + 1)
        finally:
            os.close(here)
            if below >= 0:
                os.close(below)

    def _dress(self, fd: int, mode: int) -> None:
        """Owner first: chown clears set-id bits."""
        os.fchown(fd, *self._owner)
        os.fchmod(fd, mode)

    # -- links -------------------------------------------------------------------------------------------------------

    def _link(self, target: Optional[Place], path: str, have: Entry, there: Optional[Entry]) -> None:
        why: list[str] = []
        detail: dict[str, Any] = {"kind": "link", "target": have.target}
        if there is None:
            why = ["missing"]
        elif self.wish.force is False:
            return
        elif there.kind != "link" or there.target != have.target or self.wish.force:
            why = ["target" if there.kind == "link" else "is no link"]
        else:
            why, more = self._differences(there, None)
            detail.update(more)
        if why and self._is_to_do(path, "write" if there else "create", why, detail) and target is not None:
            temporary = _temporary()
            os.symlink(have.target, temporary, dir_fd=target.fd)
            try:
                os.chown(temporary, *self._owner, dir_fd=target.fd, follow_symlinks=False)
                _rename(temporary, target, path)
            except BaseException:
                os.unlink(temporary, dir_fd=target.fd)
                raise

    # -- files -------------------------------------------------------------------------------------------------------

    def _file(self, source: Place, target: Optional[Place], path: str, have: Entry, there: Optional[Entry]) -> None:
        wish = self.wish
        mode = have.mode & wish.mask if wish.mode is None else wish.mode
        if there is not None and wish.force is False:
            return
        if self._doing is not None and path not in self._doing:
            return
        if there is None or there.kind != "file" or target is None:
            how, why = "create", ["missing" if there is None else "is no file"]
            detail: dict[str, Any] = {"kind": "file", "mode": "%04o" % mode, "owner": "%d:%d" % wish.owner}
        else:
            why, detail = self._differences(there, mode)
            how = "attributes"
            if there.size != have.size or not self._same(source, target):
                how, why = "write", ["content", *why]
            elif wish.force:
                how, why = "write", ["force", *why]
        if not why:
            return
        if how != "attributes" and self._doing is None:
            self.bytes += have.size
            detail["size"] = {"before": there.size if there is not None else None, "after": have.size}
            if self._text:
                self._show(source, target if there is not None and there.kind == "file" else None, path)
        if self._is_to_do(path, how, why, detail) and target is not None:
            if how == "attributes":
                self._dress_file(target, mode)
            else:
                self._write(source, target, path, mode, have)

    def _open_source(self, source: Place) -> int:
        if self.content is None:
            return open_file(source, self._descriptors)
        fd = os.memfd_create("wharf-content", os.MFD_CLOEXEC)
        _write_all(fd, self.content)
        os.lseek(fd, 0, os.SEEK_SET)
        return fd

    def _same(self, source: Place, target: Place) -> bool:
        one = self._open_source(source)
        try:
            other = open_file(target, self._descriptors)
            try:
                while True:
                    data = os.read(one, _CHUNK)
                    if data != _read_exactly(other, len(data) or 1):
                        return False
                    if not data:
                        return True
            finally:
                os.close(other)
        finally:
            os.close(one)

    def _dress_file(self, target: Place, mode: int) -> None:
        """Through a descriptor that was looked at: a link put there meanwhile is not followed."""
        there = looked_at(target)
        try:
            os.chown(str(there), *self._owner, dir_fd=self._descriptors)
            os.chmod(str(there), mode, dir_fd=self._descriptors)
        finally:
            os.close(there)

    def _write(self, source: Place, target: Place, path: str, mode: int, have: Entry) -> None:
        reader = self._open_source(source)
        temporary = _temporary()
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            writer = os.open(temporary, flags, 0o600, dir_fd=target.fd)
            try:
                _copy_bytes(reader, writer, have.size)
                self._dress(writer, mode)
                if have.mtime:
                    os.utime(writer, ns=(have.mtime, have.mtime))
                _rename(temporary, target, path)
            except BaseException:
                os.unlink(temporary, dir_fd=target.fd)
                raise
            finally:
                os.close(writer)
        finally:
            os.close(reader)

    def _show(self, source: Place, target: Optional[Place], path: str) -> None:
        """Before and after for ``--diff``; nothing for what is long or no text."""
        after = _text_of(self._open_source(source))
        before = _text_of(open_file(target, self._descriptors)) if target is not None else ""
        if before is not None and after is not None:
            self.texts.append({"before": before, "after": after, "before_header": path, "after_header": path})


def _temporary() -> str:
    return ".wharf-copy-%s" % os.urandom(8).hex()


def _rename(temporary: str, target: Place, path: str) -> None:
    try:
        os.rename(temporary, target.name, src_dir_fd=target.fd, dst_dir_fd=target.fd)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise Conflict(
                "%s cannot be replaced: it is mounted there" % path,
                step="copy",
                path=path,
                errno=error.errno,
                hint="Change the file that is mounted, or for /etc/hosts and its like the container's options.",
            ) from None
        raise


def _text_of(fd: int) -> Optional[str]:
    try:
        data = _read_exactly(fd, MAX_TEXT + 1)
    finally:
        os.close(fd)
    if len(data) > MAX_TEXT or b"\0" in data:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _read_exactly(fd: int, count: int) -> bytes:
    """``count`` bytes, or what there is until the end."""
    chunks, left = [], count
    while left:
        data = os.read(fd, min(left, _CHUNK))
        if not data:
            break
        chunks.append(data)
        left -= len(data)
    return b"".join(chunks)


def _copy_bytes(reader: int, writer: int, size: int) -> None:
    """At most ``size``: a file that its owner makes longer while it is read would have no end."""
    left = size
    while left:
        data = os.read(reader, min(left, _CHUNK))
        if not data:
            return
        _write_all(writer, data)
        left -= len(data)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
