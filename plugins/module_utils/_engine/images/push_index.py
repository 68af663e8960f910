# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Push of an index as it was pulled: the images of all platforms, and what else it lists (attestations).

A pull keeps the index's bytes but brings one platform's image only. What the others need is taken, on the way, from
where the index came from: mounted there where that is the same registry, else fetched blob by blob, verified, sent on
and thrown away. Every document is the very bytes its digest promises, so the digest at the other end is the same one.

Threads exist only inside ``push_report``: a caller that will fork runs it through ``process.isolated``.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Optional

from ..errors import IntegrityError, NotFound, RegistryError, UsageError, WharfError
from ..registry import mediatypes as media
from ..tuples import NamedTuple
from . import reference as references
from .manifest import Descriptor, Index, Manifest, parse_manifest
from .progress import Hook, Progress, Stopwatch
from .push import PushCheck, PushReport, Uploads, WantedBlob
from .reference import Reference
from .routes import routed

if TYPE_CHECKING:
    from ..registry.client import RegistryClient
    from ..registry.transport import Transport
    from ..store.records import ImageRecord
    from ..store.state import Store
    from .download import Fetcher

DEPTH_LIMIT = 3
MANIFESTS_LIMIT = 1000
# Blobs that registries do not distribute; their manifests are stored without them (image-spec, layer.md).
_FOREIGN = (
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
)


class Pulled(NamedTuple):
    """An index that an image came from. ``repositories``: where it is known to be, as ``registry/path``."""

    digest: str
    data: bytes
    kind: str
    repositories: tuple[str, ...]


def check(store: Store, transport: Transport, reference: Reference, record: ImageRecord) -> PushCheck:
    """What a push would do: one HEAD. Raises ``UsageError`` when the image did not come from an index."""
    from ..registry.client import RegistryClient
    from ..registry.uploads import Uploader

    client = RegistryClient(reference.domain, transport)
    return _check(client, Uploader(client, reference.path).scope, reference, _indexes(store, reference, record))


def _check(client: RegistryClient, scope: str, reference: Reference, found: list[Pulled]) -> PushCheck:
    tag = reference.tag or ""
    try:
        head = client.head_manifest(reference.path, tag, scope=scope)
        digest = head.digest if head is not None else client.get_manifest(reference.path, tag, scope=scope)[2]
    except NotFound:
        return PushCheck(True, found[0].digest, "", False)
    if digest in [one.digest for one in found]:
        return PushCheck(False, digest, digest, False)
    return PushCheck(True, found[0].digest, digest, False)


def push_report(
    store: Store,
    reference: Reference,
    record: ImageRecord,
    *,
    transport: Transport,
    progress: Optional[Hook] = None,
) -> PushReport:
    """Make ``reference`` (with a tag) name the index at its registry. As ``push.push_report``."""
    from ..registry.client import RegistryClient
    from ..registry.uploads import Uploader

    watch = Stopwatch()
    client = RegistryClient(reference.domain, transport)
    uploader = Uploader(client, reference.path)
    told = Progress(progress, reference.familiar(), transport.clock)
    told.phase("resolve")
    found = _indexes(store, reference, record)
    answer = _check(client, uploader.scope, reference, found)
    if not answer.changed:
        watch.lap("resolve")
        return PushReport(answer.digest, False, 0, 0, 0, 0, watch.total())
    index = found[0]
    origin = Origin(store, transport, index)
    try:
        walk = _Walk(store, origin, str(reference))
        walk.index(index.data, index.kind, 0)
        watch.lap("resolve")
        with Uploads(store, uploader, transport, told, reference, origin) as uploads:
            uploads.run(walk.blobs())
        watch.lap("blobs")
        for digest, (data, kind) in walk.manifests.items():
            uploader.put_manifest(digest, data, kind)
        digest = uploader.put_manifest(reference.tag or "", index.data, index.kind)
    finally:
        origin.close()
    if store.images.get(record.id) is not None:  # it may have been removed meanwhile
        store.images.put(record, repo_digests=[reference.repo_digest(digest)])
    watch.lap("manifest")
    told.phase("done")
    counts = uploads.counts
    return PushReport(
        digest, True, told.received, counts["uploaded"], counts["mounted"], counts["present"], watch.total()
    )


def _indexes(store: Store, reference: Reference, record: ImageRecord) -> list[Pulled]:
    """Those that led to the image when it was pulled, the one that came last first."""
    places: dict[str, list[str]] = {}
    for name in store.images.repo_digests(record.id):
        repository, _at, digest = name.partition("@")
        if digest != record.manifest_digest and store.blobs.has(digest):
            places.setdefault(digest, []).append(repository)
    found: list[tuple[float, Pulled]] = []
    for digest, repositories in places.items():
        data = store.blobs.read(digest, media.MANIFEST_LIMIT)
        parsed = parse_manifest(data, None, subject=digest)
        if isinstance(parsed, Index):
            came = os.stat(store.blobs.path(digest)).st_mtime
            found.append((came, Pulled(digest, data, parsed.media_type, tuple(repositories))))
    if not found:
        raise UsageError(
            "all_platforms: %s did not come from an index of images for several platforms, so there is none to push"
            % reference.familiar(),
            step="push",
            subject="image %s" % reference.familiar(),
            path="all_platforms",
            hint="Leave all_platforms out to push the image itself.",
        )
    return [one for _came, one in sorted(found, key=lambda pair: pair[0], reverse=True)]


class Origin:
    """Where the index came from, asked only for what is not here. Shared by threads."""

    def __init__(self, store: Store, transport: Transport, index: Pulled) -> None:
        self._store = store
        self._transport = transport
        self._index = index
        self._progress = Progress(None, index.digest, transport.clock)  # only what is sent is counted
        self._lock = threading.Lock()
        self._connected: Optional[tuple[RegistryClient, str, Fetcher]] = None
        self._brought: set[str] = set()

    def mountable(self, domain: str) -> list[str]:
        """Repositories of ``domain`` that have everything."""
        return [one.path for one in map(references.parse, self._index.repositories) if one.domain == domain]

    def manifest(self, entry: Descriptor) -> tuple[bytes, str]:
        if self._store.blobs.has(entry.digest):
            return self._store.blobs.read(entry.digest, media.MANIFEST_LIMIT), entry.media_type
        client, path, _fetcher = self._connect()
        data, kind, _digest = client.get_manifest(path, entry.digest)
        if len(data) != entry.size:
            raise IntegrityError(
                "The manifest %s has %d bytes, not the promised %d" % (entry.digest, len(data), entry.size),
                step="pull_manifest",
                subject=entry.digest,
            )
        return data, kind

    def bring(self, digest: str, size: int) -> None:
        """Into the store, for as long as the push lasts."""
        if self._store.blobs.pin(digest):
            return
        fetcher = self._connect()[2]
        with self._lock:
            self._brought.add(digest)
        fetcher.fetch(digest, size)

    def close(self) -> None:
        """What was brought only to be sent on is litter now."""
        for digest in self._brought:
            self._store.blobs.unpin(digest)
        if self._brought:
            self._store.collect()

    def _connect(self) -> tuple[RegistryClient, str, Fetcher]:
        with self._lock:
            if self._connected is None:
                self._connected = self._first_that_has_it()
            return self._connected

    def _first_that_has_it(self) -> tuple[RegistryClient, str, Fetcher]:
        from .download import Fetcher

        def attempt(client: RegistryClient, source: Reference) -> tuple[RegistryClient, str, Fetcher]:
            client.head_manifest(source.path, self._index.digest)
            fetcher = Fetcher(client, source.path, self._transport, self._store.blobs, self._progress)
            return client, source.path, fetcher

        failures: list[WharfError] = []
        for repository in self._index.repositories:
            name = references.parse("%s@%s" % (repository, self._index.digest))
            try:
                return routed(name, self._transport, attempt, [])
            except (RegistryError, NotFound) as error:
                failures.append(error)
        raise RegistryError(
            "The images of the index %s for other platforms are not on this host, and cannot be had from where it "
            "came from: %s" % (self._index.digest, "; ".join(one.msg for one in failures)),
            step="push",
            subject=self._index.digest,
            hint="Leave all_platforms out to push the image for this host's platform.",
        )


class _Walk:
    """Everything below an index. ``manifests`` by digest, what is named before what names it."""

    def __init__(self, store: Store, origin: Origin, subject: str) -> None:
        self._store = store
        self._origin = origin
        self._subject = subject
        self._blobs: dict[str, WantedBlob] = {}
        self.manifests: dict[str, tuple[bytes, str]] = {}

    def index(self, data: bytes, kind: str, depth: int) -> None:
        parsed = parse_manifest(data, kind, subject=self._subject)
        if not isinstance(parsed, Index) or depth > DEPTH_LIMIT:
            raise RegistryError(
                "%s is an index of indexes more than %d deep" % (self._subject, DEPTH_LIMIT),
                step="push_manifest",
                subject=self._subject,
            )
        for entry in parsed.manifests:
            self._entry(entry, depth)

    def _entry(self, entry: Descriptor, depth: int) -> None:
        if entry.digest in self.manifests:
            return
        if len(self.manifests) >= MANIFESTS_LIMIT:
            raise RegistryError(
                "%s leads to more than %d manifests" % (self._subject, MANIFESTS_LIMIT), step="push_manifest"
            )
        data, kind = self._origin.manifest(entry)
        parsed = parse_manifest(data, kind or entry.media_type, subject="%s in %s" % (entry.digest, self._subject))
        if isinstance(parsed, Manifest):
            for one in (*parsed.layers, parsed.config):
                if not one.media_type.startswith(_FOREIGN):
                    self._blobs[one.digest] = WantedBlob(one.digest, one.size)
        else:
            self.index(data, parsed.media_type, depth + 1)
        self.manifests[entry.digest] = (data, parsed.media_type)

    def blobs(self) -> list[WantedBlob]:
        """The largest first; the last one is sent alone, to find out scheme and login, so it is the smallest."""
        return sorted(self._blobs.values(), key=lambda blob: (-blob.size, blob.digest))
