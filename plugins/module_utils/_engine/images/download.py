# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Blobs from a registry into the store: three at a time, resumed where they broke off, verified before they count."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Optional

from ..errors import IntegrityError, RegistryError, TimedOut
from ..registry.transport import CHUNK, Broken, Cancelled
from ..tuples import NamedTuple

if TYPE_CHECKING:
    from ..registry.client import RegistryClient
    from ..registry.transport import Transport
    from ..store.blobs import Blobs, BlobWriter
    from .progress import Progress

PARALLEL = 3
BARREN_LIMIT = 5  # tries in a row that brought not a single byte
STALL_LIMIT = 2  # tries in a row that ended in the transport's timeout (a dead NAT entry deserves a second one)
TRY_LIMIT = 60  # tries at all: a server that sends a byte per connection must end too
_LOCK_POLL = 1.0


Tell = Callable[[str, str, int], object]  # digest, what happened, bytes that are there


class Wanted(NamedTuple):
    digest: str
    size: int


def _nobody(_digest: str, _what: str, _offset: int) -> None:
    """Nobody listens."""


class Fetcher:
    """Fetches single blobs of one repository. Shared by threads. ``tell`` is called, by the thread that fetches, when a
    blob's partial file is there or begins anew (``restart``), has grown (``bytes``), and when the blob is verified and
    in its place (``verified``)."""

    def __init__(
        self, client: RegistryClient, repository: str, transport: Transport, blobs: Blobs, progress: Progress
    ) -> None:
        self.tell: Tell = _nobody
        self._client = client
        self._repository = repository
        self._transport = transport
        self._blobs = blobs
        self._progress = progress
        self._found: set[str] = set()

    def was_there(self, digest: str) -> bool:
        """Whether ``fetch`` found the blob in the store instead of getting it from the registry."""
        return digest in self._found

    def fetch(self, digest: str, size: int) -> None:
        """Bring the blob into the store (pinned). Returns at once if it is there; waits if another process is
        downloading it. Raises ``IntegrityError``, ``RegistryError``, ``DiskFull``."""
        for again in (True, False):
            with self._writer(digest, size) as writer:
                if writer.complete:
                    self._check_size(digest, size)
                    self._found.add(digest)
                    self._progress.state(digest, "downloaded")
                    self.tell(digest, "verified", size)
                    return
                self._found.discard(digest)
                resumed = writer.offset
                self.tell(digest, "restart", writer.offset)
                self._progress.state(digest, "downloading", writer.offset)
                self._fill(writer, digest, size)
                try:
                    writer.commit()
                except IntegrityError:
                    # What an earlier process left may be the damaged part: once more from the beginning.
                    if resumed and again:
                        continue
                    raise
                self._progress.state(digest, "downloaded")
                self.tell(digest, "verified", size)
                return

    def _writer(self, digest: str, size: int) -> BlobWriter:
        while True:
            try:
                return self._blobs.writer(digest, size, timeout=_LOCK_POLL)
            except TimedOut:
                if self._transport.cancelled.is_set():
                    raise Cancelled("cancelled") from None

    def _check_size(self, digest: str, size: int) -> None:
        present = self._blobs.size(digest)
        if present != size:
            raise IntegrityError(
                "Blob %s has %d bytes, not the promised %d" % (digest, present, size), step="pull_blob", subject=digest
            )

    def _fill(self, writer: BlobWriter, digest: str, size: int) -> None:
        barren, stalled, ended_at = 0, 0, -1
        for tries in range(TRY_LIMIT):
            if writer.offset >= size:
                return
            before = writer.offset
            error = self._once(writer, digest, size)
            if writer.offset >= size:
                return
            if error is None:
                # A body that ends properly but early, twice at the same place, is no broken line: it is all there is.
                if ended_at == writer.offset:
                    raise IntegrityError(
                        "%s sent only %d of the promised %d bytes of blob %s"
                        % (self._client.host, writer.offset, size, digest),
                        step="pull_blob",
                        subject=digest,
                    )
                ended_at = writer.offset
                continue
            barren = 0 if writer.offset > before else barren + 1
            stalled = stalled + 1 if error.reason == "timeout" else 0
            if barren >= BARREN_LIMIT or stalled >= STALL_LIMIT:
                raise error
            self._transport.pause(min(0.2 * 2 ** (barren + tries // 8), 10.0) * self._transport.jitter())
        raise RegistryError(
            "The download of blob %s from %s broke off %d times" % (digest, self._client.host, TRY_LIMIT),
            step="pull_blob",
            subject=digest,
        )

    def _once(self, writer: BlobWriter, digest: str, size: int) -> Optional[Broken]:
        """One connection's worth. Returns what broke it, or None if the body came to an end."""
        stream = self._client.open_blob(self._repository, digest, writer.offset)
        try:
            if stream.total not in (-1, size):
                raise IntegrityError(
                    "%s has %d bytes for blob %s, not the promised %d"
                    % (self._client.host, stream.total, digest, size),
                    step="pull_blob",
                    subject=digest,
                )
            if stream.offset != writer.offset:
                writer.restart()  # the range was ignored: hash and file begin anew
                self.tell(digest, "restart", 0)
                self._progress.state(digest, "downloading", 0)
            while True:
                data = stream.read(CHUNK)
                if not data:
                    return None
                writer.write(data)
                self.tell(digest, "bytes", writer.offset)
                self._progress.bytes(digest, len(data))
        except Broken as error:
            return error
        finally:
            stream.close()


class Downloads:
    """A fixed list of blobs, fetched by up to three threads in the given order. Use it in ``with``: leaving stops the
    threads and waits for them, so that a process may fork afterwards."""

    def __init__(self, fetcher: Fetcher, transport: Transport, wanted: Sequence[Wanted]) -> None:
        self._fetcher = fetcher
        self._transport = transport
        self._todo = list(dict.fromkeys(wanted))
        self._done: set[str] = set()
        self._error: Optional[BaseException] = None
        self._changed = threading.Condition()
        count = min(PARALLEL, len(self._todo))
        self._threads = [threading.Thread(target=self._work, name="pull", daemon=True) for _n in range(count)]

    def __enter__(self) -> Downloads:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        with self._changed:
            self._todo.clear()
        self._transport.cancel()
        for thread in self._threads:
            thread.join()
        self._transport.cancelled.clear()

    def wait(self, digest: str) -> None:
        """Until the blob is in the store. Raises what the first thread that failed raised."""
        with self._changed:
            while digest not in self._done:
                if self._error is not None:
                    raise self._error
                self._changed.wait()

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._todo or self._error is not None:
                    return
                one = self._todo.pop(0)
            try:
                self._fetcher.fetch(one.digest, one.size)
            except BaseException as error:  # handed to the thread that waits
                with self._changed:
                    self._error = self._error or error
                    self._changed.notify_all()
                self._transport.cancel()
                return
            with self._changed:
                self._done.add(one.digest)
                self._changed.notify_all()
