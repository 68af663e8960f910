# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writing one image layer into a staging directory while its uncompressed tar stream comes in.

Two forms. ``erofs``: the archive is kept as it is in ``tar``, and ``index`` is an EROFS image that says where in it
everything lies; nothing is extracted. ``tree``: directory ``tree`` in overlay's form. An archive that cannot be
indexed (sparse members, hard links into lower layers) is read once more from ``tar`` and extracted.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from typing import Optional, Union

from ..kernel.syscalls import Kernel
from ..store.writeback import STEP, Writeback
from ..tuples import NamedTuple
from .extract import ExtractingTree, materialise, wrap
from .tarstream import TarStream, refuse
from .tree import LayerTree

Parents = Sequence[tuple[str, str]]


class Limits(NamedTuple):
    """Against archives made to fill disks: entries, bytes of the stream and of any file in it, and how many times
    larger than the compressed blob the stream may be once it is past ``ratio_from`` bytes."""

    entries: int = 2_000_000
    size: int = 64 << 30
    ratio: int = 1000
    ratio_from: int = 64 << 20


class LayerResult(NamedTuple):
    """``size``: bytes of file content in the layer; ``entries``: archive members read; ``diff_id``: digest of the
    stream, ``sha256:<hex>``; ``newest``: the latest mtime in it, in seconds."""

    form: str
    size: int
    entries: int
    diff_id: str
    newest: int = 0


def best_form(kernel: Kernel, directory: Optional[str] = None) -> str:
    """ "erofs" where EROFS images in files can be mounted (tried in ``directory``, the place layers are kept), else
    "tree". The environment variable WHARF_LAYER_FORM decides for tests."""
    forced = os.environ.get("WHARF_LAYER_FORM")
    if forced in ("erofs", "tree"):
        return forced
    from ..storage.overlay import erofs_files

    return "erofs" if erofs_files(kernel, directory) else "tree"


class LayerWriter:
    """``write`` the uncompressed archive in pieces, then ``finish``; or ``abort``. Usable in ``with`` (leaving it
    without ``finish`` aborts). What was written stays in ``stage_dir`` for its owner to commit or discard.

    ``parents``: all lower layers, base first, as ``(directory, form)`` (none for a base layer), or a function that
    returns them once they are needed (in ``finish``): see ``lower.py`` for what depends on them. ``blob_size``:
    compressed bytes, for the ratio limit.
    Errors: ``IntegrityError`` for a malformed or hostile archive, ``KernelError``/``DiskFull`` from the disk.
    """

    def __init__(
        self,
        stage_dir: str,
        *,
        form: str,
        parents: Union[Parents, Callable[[], Parents]] = (),
        limits: Limits = Limits(),  # noqa: B008 - immutable
        blob_size: Optional[int] = None,
        kernel: Optional[Kernel] = None,
    ) -> None:
        self._form = form
        self._parents = parents
        self._limits = limits
        self._kernel = kernel
        self._cap = limits.size
        if blob_size is not None:
            self._cap = min(self._cap, max(limits.ratio_from, blob_size * limits.ratio))
        self._hash = hashlib.sha256()
        self._written = 0
        self._tar = self._files = self._stage = -1
        self._writeback: Optional[Writeback] = None
        try:
            self._stage = os.open(stage_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            if form == "erofs":
                self._tree: LayerTree = LayerTree()
                self._tar = self._create("tar")
                self._writeback = Writeback(self._tar)
            else:
                self._tree = self._extracting()
        except OSError as error:
            self.abort()
            raise wrap(error, "Cannot write a layer in %s" % stage_dir) from error
        self._stream = self._reader(self._tree)

    def __enter__(self) -> LayerWriter:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.abort()

    def write(self, data: bytes) -> None:
        self._written += len(data)
        if self._written > self._cap:
            refuse("it unpacks to more than %d bytes", self._cap)
        self._hash.update(data)
        try:
            if self._tar >= 0:
                view = memoryview(data)
                while view:
                    view = view[os.write(self._tar, view) :]
                if self._writeback is not None:
                    self._writeback.grown(len(data))
            self._stream.write(data)
        except OSError as error:
            raise wrap(error, "Cannot write a layer") from error

    def finish(self) -> LayerResult:
        """Complete the layer's files. The writer is closed whether or not this succeeds."""
        try:
            self._stream.close()
            entries, newest = self._stream.entries, self._stream.newest
            digest = self._hash.hexdigest()
            if self._form == "erofs" and (self._tree.needs_extraction or self._tree.missing):
                self._extract_instead()
            tree = self._tree
            if self._writeback is not None:
                self._writeback.grown(STEP)  # the rest, while the index is being made
            self._settle(tree)
            if isinstance(tree, ExtractingTree):
                materialise(tree, self._stage)
                self._drop_files()
            else:
                self._write_index(tree, bytes.fromhex(digest)[:16])
            size = tree.file_bytes()
            if self._writeback is not None:
                self._writeback.settle()
            form = "tree" if isinstance(tree, ExtractingTree) else "erofs"
            return LayerResult(form, size, entries, "sha256:" + digest, newest)
        except OSError as error:
            raise wrap(error, "Cannot write a layer") from error
        finally:
            self.abort()

    def abort(self) -> None:
        """Close everything; harmless when repeated, and after ``finish``."""
        tree = getattr(self, "_tree", None)
        if isinstance(tree, ExtractingTree):
            tree.abandon()
        if self._writeback is not None:
            self._quiet()
        for name in ("_tar", "_files", "_stage"):
            fd = getattr(self, name)
            if fd >= 0:
                setattr(self, name, -1)
                os.close(fd)

    def _quiet(self) -> None:
        """No sync may be going on when the descriptor is closed. What it would say has been said, or does not matter
        to who gives up."""
        writeback, self._writeback = self._writeback, None
        try:
            if writeback is not None:
                writeback.settle()
        except OSError:
            return

    # -- parts ---------------------------------------------------------------------------------------------

    def _create(self, name: str) -> int:
        return os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=self._stage)

    def _reader(self, tree: LayerTree) -> TarStream:
        return TarStream(tree, max_entries=self._limits.entries, max_size=self._limits.size)

    def _extracting(self) -> ExtractingTree:
        os.mkdir("files", 0o700, dir_fd=self._stage)
        self._files = os.open("files", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._stage)
        return ExtractingTree(self._files)

    def _drop_files(self) -> None:
        from ..storage.trees import remove_tree

        remove_tree(self._kernel or Kernel(), self._stage, "files")

    def _write_index(self, tree: LayerTree, uuid: bytes) -> None:
        from .erofs import write_index

        os.ftruncate(self._tar, self._written + -self._written % 512)
        fd = self._create("index")
        try:
            write_index(tree, fd, tar_size=self._written, uuid=uuid)
        finally:
            os.close(fd)

    def _extract_instead(self) -> None:
        """Read the stored archive again."""
        self._tree = self._extracting()
        stream = self._reader(self._tree)
        os.lseek(self._tar, 0, os.SEEK_SET)
        while True:
            piece = os.read(self._tar, 1 << 20)
            if not piece:
                break
            stream.write(piece)
        stream.close()
        os.unlink("tar", dir_fd=self._stage)

    def _settle(self, tree: LayerTree) -> None:
        """What needs the lower layers, then whiteouts."""
        from . import lower

        lower.settle(self._kernel or Kernel(), tree, self._parents)
        tree.finish()
