# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Blobs: ``blobs/sha256/<hex>``, complete and verified or not there at all."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import time
from types import TracebackType
from typing import List, Optional

from .. import fds
from ..errors import IntegrityError, KernelError, NotFound, TimedOut, UsageError
from ..paths import Paths
from . import scratch
from .locks import holders
from .writeback import Writeback

_CHUNK = 1 << 20
_HEX = frozenset("0123456789abcdef")


def hex_of(digest: str) -> str:
    """The 64 hex digits of ``sha256:<hex>``. Anything else raises: a digest becomes a file name."""
    algorithm, _colon, text = digest.partition(":")
    if algorithm != "sha256" or len(text) != 64 or not _HEX.issuperset(text):
        raise UsageError("Not a sha256 digest: %.100r" % digest, step="digest")
    return text


class BlobWriter:
    """A blob that is coming in. ``offset`` is where to go on (more than 0 when a partial download was found);
    ``complete`` is True when the blob was there already: then ``commit()`` just returns its digest.

    Use it in ``with``: leaving without ``commit()`` is ``abort()``, which keeps the partial file of a known digest.
    """

    def __init__(self, blobs: Blobs, path: str, fd: int, digest: Optional[str], size: Optional[int]) -> None:
        self.offset = 0
        self.complete = fd < 0
        self._blobs = blobs
        self._path = path
        self._fd = fd
        self._digest = digest
        self._size = size
        self._hash = hashlib.sha256()
        self._writeback = Writeback(fd)
        if self.complete and digest:
            self.offset = blobs.size(digest)
        elif fd >= 0:
            self._resume()

    def _resume(self) -> None:
        """Hash what an earlier process left. More than there should be means it is not ours: start over."""
        present = os.fstat(self._fd).st_size
        if self._size is not None and present > self._size:
            present = 0
            os.ftruncate(self._fd, 0)
        while self.offset < present:
            data = os.read(self._fd, _CHUNK)
            if not data:
                break
            self._hash.update(data)
            self.offset += len(data)

    def restart(self) -> None:
        """Throw away what is there (the server ignored our Range)."""
        if self.complete:
            return
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)
        self.offset = 0
        self._hash = hashlib.sha256()

    def write(self, data: bytes) -> None:
        """Raises ``IntegrityError`` when more comes than was promised, ``DiskFull``; the partial file is gone then."""
        if self._fd < 0:
            raise UsageError("The blob is not open for writing", step="write_blob")
        if self._size is not None and self.offset + len(data) > self._size:
            self.abort(keep=False)
            raise IntegrityError(
                "Blob %s is longer than the promised %d bytes" % (self._digest or "", self._size), step="write_blob"
            )
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
            self._writeback.grown(len(data))
        except OSError as error:
            needed = len(view) if self._size is None else max(len(view), self._size - self.offset)
            self.abort(keep=False)  # also gives the space back
            raise scratch.wrap(
                error, "Cannot store blob %s" % (self._digest or ""), step="write_blob", path=self._path, needed=needed
            ) from error
        self._hash.update(data)
        self.offset += len(data)

    def commit(self) -> str:
        """Verify, sync, and make visible. The blob stays pinned (see ``Blobs.pin``). Returns the digest."""
        if self.complete:
            return self._digest or ""
        if self._fd < 0:
            raise UsageError("The blob is not open for writing", step="commit_blob")
        digest = "sha256:" + self._hash.hexdigest()
        if self._size is not None and self.offset < self._size:
            offset, size = self.offset, self._size
            self.abort()
            raise IntegrityError(
                "Blob %s ended after %d of %d bytes" % (self._digest or "", offset, size), step="commit_blob"
            )
        if self._digest is not None and digest != self._digest:
            self.abort(keep=False)
            raise IntegrityError(
                "Blob %s arrived with the digest %s" % (self._digest, digest), step="commit_blob", subject=self._digest
            )
        try:
            self._writeback.settle()
        except OSError as error:
            self.abort(keep=False)
            sentence = "Cannot store blob %s" % digest
            raise scratch.wrap(error, sentence, step="commit_blob", path=self._path, needed=self.offset) from error
        fd, self._fd = self._fd, -1
        self._blobs._publish(self._path, fd, digest)
        self._digest, self.complete = digest, True
        return digest

    def abort(self, keep: bool = True) -> None:
        """Stop. The partial file stays for a later ``writer()`` if ``keep`` and its digest is known. Idempotent."""
        if self._fd < 0:
            return
        fd, self._fd = self._fd, -1
        try:
            self._writeback.settle()
        except OSError:
            keep = False  # what is there may be anything
        try:
            if self._digest is None or not keep:
                os.unlink(self._path)
        except FileNotFoundError:
            pass
        finally:
            os.close(fd)

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], value: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.abort()


class Blobs:
    """A blob that no image names yet is *pinned* by a shared ``flock`` on it, held by the process that wants it:
    ``collect()`` takes only what it can lock. Pins are dropped by ``unpin()``, with the store, or with the process."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._pins: dict[str, int] = {}
        self._pid = os.getpid()

    def path(self, digest: str) -> str:
        """Where the blob is or would be."""
        return "%s/%s" % (self._paths.blobs, hex_of(digest))

    def partial(self, digest: str) -> str:
        """Where it is while it comes in. Not verified, and nothing says that it is going to be."""
        return "%s/ingest-%s" % (self._paths.tmp, hex_of(digest))

    def has(self, digest: str) -> bool:
        return os.path.exists(self.path(digest))

    def size(self, digest: str) -> int:
        try:
            return os.stat(self.path(digest)).st_size
        except FileNotFoundError:
            raise _absent(digest) from None

    def open(self, digest: str) -> int:
        """A read-only descriptor. Raises ``NotFound``."""
        try:
            return os.open(self.path(digest), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            raise _absent(digest) from None
        except OSError as error:
            raise KernelError.wrap(error, "Cannot read blob %s" % digest, step="open_blob") from error

    def read(self, digest: str, limit: int = 16 << 20) -> bytes:
        """The bytes of a small blob (config, manifest), verified again: bit rot must not become configuration."""
        fd = self.open(digest)
        try:
            if os.fstat(fd).st_size > limit:
                raise IntegrityError("Blob %s is larger than %d bytes" % (digest, limit), step="read_blob")
            chunks = []
            while True:
                data = os.read(fd, _CHUNK)
                if not data:
                    break
                chunks.append(data)
        finally:
            os.close(fd)
        whole = b"".join(chunks)
        if "sha256:" + hashlib.sha256(whole).hexdigest() != digest:
            raise IntegrityError(
                "Blob %s is damaged on disk" % digest, step="read_blob", path=self.path(digest), hint="Pull again."
            )
        return whole

    def list(self) -> List[str]:
        return sorted("sha256:" + name for name in os.listdir(self._paths.blobs))

    def writer(
        self,
        expected_digest: Optional[str] = None,
        expected_size: Optional[int] = None,
        *,
        timeout: Optional[float] = None,
    ) -> BlobWriter:
        """Start or resume a blob. When another process is bringing in the same one, wait for it up to ``timeout``
        seconds (for ever by default; ``TimedOut`` names it) and use what it brought or go on where it stopped."""
        if expected_digest is None:
            path = "%s/ingest-r%s" % (self._paths.tmp, os.urandom(8).hex())
        else:
            path = self.partial(expected_digest)
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = 0.002
        while True:
            if expected_digest is not None and self.pin(expected_digest):
                return BlobWriter(self, path, -1, expected_digest, expected_size)
            fd = self._open_ingest(path)
            if scratch.try_lock(fd) and fds.is_at(fd, path):
                # The other process may have published (linked, then unlinked the old name) just before we made this.
                if expected_digest is not None and self.has(expected_digest):
                    os.unlink(path)
                    os.close(fd)
                    continue
                return BlobWriter(self, path, fd, expected_digest, expected_size)
            pids = holders(fd) if deadline is not None and time.monotonic() >= deadline else []
            os.close(fd)
            if deadline is not None and time.monotonic() >= deadline:
                raise TimedOut(
                    "Waited too long for blob %s, which process %s is downloading"
                    % (expected_digest, ", ".join(map(str, pids)) or "?"),
                    step="write_blob",
                    details={"holders": pids},
                )
            time.sleep(pause)
            pause = min(pause * 2, 0.1)

    def _open_ingest(self, path: str) -> int:
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise scratch.wrap(error, "Cannot create a blob", step="write_blob", path=path) from error

    def put_bytes(self, data: bytes) -> str:
        """Store a small blob; the digest is computed. Idempotent."""
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        with self.writer(digest, len(data)) as writer:
            if not writer.complete:
                writer.restart()
                writer.write(data)
            return writer.commit()

    def _publish(self, tmp_path: str, fd: int, digest: str) -> None:
        """Link into place exclusively; ``fd`` becomes the pin. The temporary name goes last."""
        final = self.path(digest)
        try:
            os.fsync(fd)
            while True:
                try:
                    os.link(tmp_path, final)
                except FileExistsError:
                    pass
                fcntl.flock(fd, fcntl.LOCK_SH)  # was exclusive; in the gap collect() may take the new blob away
                if fds.is_at(fd, final) or self.pin(digest):
                    break
            scratch.sync_dir(self._paths.blobs)
            os.unlink(tmp_path)
        except OSError as error:
            os.close(fd)
            raise scratch.wrap(
                error, "Cannot store blob %s" % digest, step="commit_blob", path=final, needed=4096
            ) from error
        if digest in self._pins:
            os.close(fd)
        else:
            self._pins[digest] = fd

    def pin(self, digest: str) -> bool:
        """Keep a blob from being collected until ``unpin()`` or ``Store.close()``. False if it isn't there."""
        if digest in self._pins:
            return True
        path = self.path(digest)
        while True:
            try:
                fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:
                return False
            except OSError as error:
                raise KernelError.wrap(error, "Cannot read blob %s" % digest, step="pin_blob") from error
            fcntl.flock(fd, fcntl.LOCK_SH)
            if fds.is_at(fd, path):
                self._pins[digest] = fd
                return True
            os.close(fd)

    def unpin(self, digest: Optional[str] = None) -> None:
        """Drop one pin, or all."""
        for name in [digest] if digest is not None else list(self._pins):
            fd = self._pins.pop(name, -1)
            if fd < 0:
                continue
            if self._pid == os.getpid():  # close() alone would leave it to a forked child; in one, it is the parent's
                fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)

    def remove(self, digest: str) -> int:
        """Delete unless pinned by another process (then 0 is returned, else the bytes). Doesn't look at images."""
        self.unpin(digest)
        trashed = self.take(digest)
        return scratch.empty(trashed)

    def take(self, digest: str) -> Optional[str]:
        """Move an unpinned blob to the trash and return the path there; ``None`` if absent or pinned."""
        path = self.path(digest)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            raise KernelError.wrap(error, "Cannot remove blob %s" % digest, step="remove_blob") from error
        try:
            if scratch.try_lock(fd) and fds.is_at(fd, path):
                return scratch.trash(self._paths.tmp, path)
            return None
        finally:
            os.close(fd)


def _absent(digest: str) -> NotFound:
    return NotFound("There is no blob %s in the store" % digest, step="open_blob", subject=digest)
