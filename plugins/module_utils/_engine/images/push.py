# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Push: ask for the digest, send what the registry lacks, name it.

What was pulled goes back bit for bit, because its blobs and its manifest were kept. Blobs come before the manifest
that names them; a registry never has half an image under a tag.

Threads exist only inside ``push_report``: a caller that will fork runs it through ``process.isolated``.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Optional

from ..errors import NotFound, RegistryError
from ..registry import mediatypes as media
from ..tuples import NamedTuple
from . import packing
from .manifest import Manifest, parse_manifest
from .progress import Hook, Progress, Stopwatch
from .reference import Reference

if TYPE_CHECKING:
    from ..registry.client import RegistryClient
    from ..registry.transport import Transport
    from ..registry.uploads import Uploader
    from ..store.records import ImageRecord
    from ..store.state import Store
    from .push_index import Origin

PARALLEL = 3
MOUNT_SOURCES = 3  # repositories of the same registry that are asked for a blob before it is sent
MANIFEST_LIMIT = media.MANIFEST_LIMIT


class PushCheck(NamedTuple):
    """``changed``: the tag names something else at the registry, or nothing. ``digest`` is what it names after the
    push ("" as long as the image's layers have not been compressed), ``present`` what it names now ("" for nothing).
    ``replaces_index``: it names several platforms' images now, and will name one."""

    changed: bool
    digest: str
    present: str
    replaces_index: bool


class PushReport(NamedTuple):
    """``sent`` counts bytes of blobs; every blob is one of ``uploaded``, ``mounted`` (taken by the registry from
    another of its repositories) and ``present``; ``timings`` are seconds for ``resolve pack blobs manifest total``."""

    digest: str
    changed: bool
    sent: int
    uploaded: int
    mounted: int
    present: int
    timings: dict[str, float]


class WantedBlob(NamedTuple):
    digest: str
    size: int


def check(store: Store, transport: Transport, reference: Reference, record: ImageRecord) -> PushCheck:
    """What a push would do: one HEAD, and the manifest for an image whose layers were made here and never sent."""
    from ..registry.client import RegistryClient
    from ..registry.uploads import Uploader

    client = RegistryClient(reference.domain, transport)
    return _check(store, client, Uploader(client, reference.path).scope, reference, record)


def _check(store: Store, client: RegistryClient, scope: str, reference: Reference, record: ImageRecord) -> PushCheck:
    tag = reference.tag or ""
    try:
        head = client.head_manifest(reference.path, tag, scope=scope)
        if head is None:  # a registry that answers no HEADs
            data, kind, digest = client.get_manifest(reference.path, tag, scope=scope)
        else:
            digest, kind = head.digest, head.media_type
    except NotFound:
        return PushCheck(True, record.manifest_digest if packing.is_packed(record) else "", "", False)
    if digest == record.manifest_digest or reference.repo_digest(digest) in store.images.repo_digests(record.id):
        return PushCheck(False, digest, digest, False)  # the latter: an index that holds this image, as it was pulled
    if not packing.is_packed(record):
        # Compressed elsewhere, it is the same image under another digest. Sending ours would change nothing but that.
        data, kind, digest = client.get_manifest(reference.path, digest, scope=scope)
        parsed = parse_manifest(data, kind, subject=str(reference))
        same = isinstance(parsed, Manifest) and parsed.config.digest == record.id
        return PushCheck(not same, digest if same else "", digest, kind in media.INDEXES)
    return PushCheck(True, record.manifest_digest, digest, kind.partition(";")[0].strip() in media.INDEXES)


def push_report(
    store: Store,
    reference: Reference,
    record: ImageRecord,
    *,
    transport: Transport,
    progress: Optional[Hook] = None,
) -> PushReport:
    """Make ``reference`` (with a tag) name ``record`` at its registry. ``progress`` as in ``pull``.

    Raises ``AuthError``, ``RegistryError``, ``IntegrityError``, ``NotFound`` (a blob that is gone here),
    ``Unsupported`` (a layer without its archive), ``DiskFull``.
    """
    from ..registry.client import RegistryClient
    from ..registry.uploads import Uploader

    watch = Stopwatch()
    client = RegistryClient(reference.domain, transport)
    uploader = Uploader(client, reference.path)
    told = Progress(progress, reference.familiar(), transport.clock)
    told.phase("resolve")
    answer = _check(store, client, uploader.scope, reference, record)
    watch.lap("resolve")
    if not answer.changed:
        return PushReport(answer.digest, False, 0, 0, 0, 0, watch.total())
    told.phase("pack")
    record = packing.packed(store, record)
    watch.lap("pack")
    data = store.blobs.read(record.manifest_digest, MANIFEST_LIMIT)
    with Uploads(store, uploader, transport, told, reference) as uploads:
        uploads.run(_blobs(data, record, str(reference)))
    watch.lap("blobs")
    digest = uploader.put_manifest(reference.tag or "", data, record.manifest_type)
    if store.images.get(record.id) is not None:  # it may have been removed meanwhile
        store.images.put(record, repo_digests=[reference.repo_digest(digest)])
    watch.lap("manifest")
    told.phase("done")
    counts = uploads.counts
    return PushReport(
        digest, True, told.received, counts["uploaded"], counts["mounted"], counts["present"], watch.total()
    )


def _blobs(data: bytes, record: ImageRecord, subject: str) -> list[WantedBlob]:
    """What the manifest names, the largest first, the config last (small, and never mounted)."""
    parsed = parse_manifest(data, record.manifest_type, subject=subject)
    if not isinstance(parsed, Manifest):
        raise RegistryError("%s has no manifest of its own" % subject, step="push_manifest", subject=subject)
    found = {layer.digest: WantedBlob(layer.digest, layer.size) for layer in parsed.layers}
    found.pop(parsed.config.digest, None)
    ordered = sorted(found.values(), key=lambda blob: (-blob.size, blob.digest))
    return [*ordered, WantedBlob(parsed.config.digest, parsed.config.size)]


class Uploads:
    """The blobs of one push, by up to three threads. Leaving ``with`` stops and joins them."""

    def __init__(
        self,
        store: Store,
        uploader: Uploader,
        transport: Transport,
        progress: Progress,
        reference: Reference,
        origin: Optional[Origin] = None,
    ) -> None:
        self._store = store
        self._origin = origin  # of blobs that are not here
        self._uploader = uploader
        self._transport = transport
        self._progress = progress
        self._reference = reference
        self._lock = threading.Lock()
        self._todo: list[WantedBlob] = []
        self._threads: list[threading.Thread] = []
        self._error: Optional[BaseException] = None
        self._sources: dict[str, list[str]] = {}
        self.counts = {"uploaded": 0, "mounted": 0, "present": 0}

    def __enter__(self) -> Uploads:
        return self

    def __exit__(self, *_exc: object) -> None:
        with self._lock:
            self._todo.clear()
        if any(thread.is_alive() for thread in self._threads):
            self._transport.cancel()
        for thread in self._threads:
            thread.join()
        self._transport.cancelled.clear()

    def run(self, blobs: Sequence[WantedBlob]) -> None:
        """Raises what the first thread that failed raised."""
        for blob in blobs:
            self._progress.blob(blob.digest, blob.size)
        self._progress.phase("blobs")
        self._sources = _mount_sources(self._store, self._reference, {blob.digest for blob in blobs[:-1]})
        if self._origin is not None:
            known = [path for path in self._origin.mountable(self._reference.domain) if path != self._reference.path]
            for blob in blobs if known else ():
                self._sources[blob.digest] = known[:MOUNT_SOURCES]
        self._todo = list(blobs)
        # The first request alone finds out scheme and login.
        self._one(self._todo.pop())
        count = min(PARALLEL, len(self._todo))
        self._threads = [threading.Thread(target=self._work, name="push", daemon=True) for _n in range(count)]
        for thread in self._threads:
            thread.start()
        for thread in self._threads:
            thread.join()
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._todo or self._error is not None:
                    return
                blob = self._todo.pop(0)
            try:
                self._one(blob)
            except BaseException as error:  # handed to the thread that waits
                with self._lock:
                    self._error = self._error or error
                self._transport.cancel()
                return

    def _one(self, blob: WantedBlob) -> None:
        if self._uploader.has_blob(blob.digest):
            self._count("present", blob, "exists")
            return
        if any(self._uploader.mount(blob.digest, source) for source in self._sources.get(blob.digest, ())):
            self._count("mounted", blob, "mounted")
            return
        if self._origin is not None:
            self._origin.bring(blob.digest, blob.size)
        fd = self._store.blobs.open(blob.digest)
        try:
            self._uploader.upload(
                blob.digest,
                os.fstat(fd).st_size,
                fd,
                lambda count: self._progress.bytes(blob.digest, count),
                self._restart(blob.digest),
            )
        finally:
            os.close(fd)
        self._count("uploaded", blob, "done")

    def _restart(self, digest: str) -> Callable[[int], None]:
        return lambda offset: self._progress.state(digest, "uploading", offset)

    def _count(self, what: str, blob: WantedBlob, state: str) -> None:
        with self._lock:
            self.counts[what] += 1
        self._progress.state(blob.digest, state)


def _mount_sources(store: Store, reference: Reference, wanted: set[str]) -> dict[str, list[str]]:
    """For each blob, repositories of the same registry that an image with that blob came from or went to."""
    sources: dict[str, list[str]] = {}
    prefix = reference.domain + "/"
    for image in store.images.list():
        shared = [layer.blob_digest for layer in image.layers if layer.blob_digest in wanted]
        if not shared:
            continue
        for name in store.images.repo_digests(image.id):
            path = name.partition("@")[0][len(prefix) :]
            if not name.startswith(prefix) or path == reference.path:
                continue
            for digest in shared:
                found = sources.setdefault(digest, [])
                if path not in found and len(found) < MOUNT_SOURCES:
                    found.append(path)
    return sources
