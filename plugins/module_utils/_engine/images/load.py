# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""One image out of an archive or layout into the store: only the layers that are missing, each verified twice (the
blob's digest where one is promised, the DiffID always), committed in one transaction."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Optional, Union

from ..errors import IntegrityError
from ..registry import mediatypes as media
from . import archive, candidates, sources
from . import config as configs
from .candidates import Candidate, Part

if TYPE_CHECKING:
    from ..kernel.syscalls import Kernel
    from ..store.records import ImageRecord, LayerRef
    from ..store.state import Store
    from .archive import Source, Span
    from .platform import Platform
    from .reference import Reference

_TYPES = {"gzip": media.OCI_LAYER_GZIP, "zstd": media.OCI_LAYER + "+zstd"}


class Found:
    """An opened source and the image in it that the task means. Close it."""

    __slots__ = ("candidate", "config", "source")

    def __init__(self, source: Source, candidate: Candidate) -> None:
        self.source = source
        self.candidate = candidate
        subject = "%s in %s" % (candidate.shown(), source.path)
        self.config = configs.parse_config(candidate.config, layers=len(candidate.parts), subject=subject)

    def __enter__(self) -> Found:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.source.close()


def find(store: Store, path: str, name: Reference, platform: Union[str, Platform, None] = None) -> Found:
    """Open ``path`` and choose: reads headers and documents, no layer. Raises as ``candidates``, and ``NotFound`` when
    the image is for another platform than was asked for."""
    return choose(archive.open_source(path, store.paths.tmp), name, platform)


def choose(source: Source, name: Reference, platform: Union[str, Platform, None] = None) -> Found:
    """As ``find``; the source is closed when this raises."""
    from . import resolve

    try:
        wanted, asked = resolve.wanted_platform(platform)
        found = Found(source, candidates.choose(source, candidates.survey(source, wanted), name))
        if asked:
            what = "%s in %s" % (found.candidate.shown(), source.path)
            resolve.check_platform(found.config, wanted, True, what)
        return found
    except BaseException:
        source.close()
        raise


def missing(store: Store, found: Found) -> list[str]:
    """Members of the source that ``load`` would read: layers that are not here."""
    if store.images.get(found.candidate.id) is not None:
        return []
    chains = configs.chain_ids(found.config["rootfs"]["diff_ids"])
    parts = zip(chains, found.candidate.parts)
    return [part.member for chain, part in parts if store.layers.get(chain) is None]


def load(store: Store, kernel: Kernel, found: Found, name: Optional[Reference]) -> ImageRecord:
    """Bring the image in, and let ``name`` mean it, if there is one. Raises ``IntegrityError``, ``Unsupported``,
    ``DiskFull``."""
    from .pull import check_depth

    candidate = found.candidate
    known = store.images.get(candidate.id)
    if known is not None:  # how it got here (its blobs, its manifest) stays as it is
        if name is not None:
            store.images.tag(name.canonical(), known.id)
        return known
    check_depth(len(candidate.parts), found.source.path)
    layers, size = _Load(store, kernel, found).layers()
    if store.blobs.put_bytes(candidate.config) != candidate.id:
        raise IntegrityError("The config of %s changed while it was read" % found.source.path, step="load")
    manifest, kind = _manifest(store, candidate, layers)
    from ..store.records import ImageRecord

    record = ImageRecord(
        candidate.id, store.blobs.put_bytes(manifest), kind, found.config, size, time.time(), tuple(layers)
    )
    store.images.put(record, references=[] if name is None else [name.canonical()])
    return store.images.get(record.id) or record


class _Load:
    def __init__(self, store: Store, kernel: Kernel, found: Found) -> None:
        self._store = store
        self._kernel = kernel
        self._source = found.source
        self._parts = found.candidate.parts
        self._diff_ids: list[str] = found.config["rootfs"]["diff_ids"]

    def layers(self) -> tuple[list[LayerRef], int]:
        from ..store.records import LayerRef

        done: list[LayerRef] = []
        size = 0
        for diff_id, chain, part in zip(self._diff_ids, configs.chain_ids(self._diff_ids), self._parts):
            bare = LayerRef(diff_id, chain, "", 0, media.OCI_LAYER)
            done.append(self._one(bare, done, part))
            record = self._store.layers.get(chain)
            size += record.size if record is not None else 0
        return done, size

    def _one(self, layer: LayerRef, below: list[LayerRef], part: Part) -> LayerRef:
        store = self._store
        here = store.layers.get(layer.chain_id) is not None and store.layers.pin(layer.chain_id)
        span = self._source.find(part.member)
        if span is None:
            if here:  # a transfer that leaves out what the target has
                return self._as_known(layer)
            self._source.span(part.member)
            return layer
        if self._compression(span):
            layer = self._blob(layer, span, part)
            if not here:
                self._apply(layer, below)
            return layer
        if part.digest and part.digest != layer.diff_id:
            archive.refuse(
                self._source.path, "layer %s is not compressed, so it cannot be %s" % (part.digest, layer.diff_id)
            )
        form = self._build(layer, below, span)
        return layer if form == "erofs" else self._keep(layer, span)

    def _compression(self, span: Span) -> str:
        from .unpack import compression

        start = bytearray()
        self._source.feed(span._replace(size=min(span.size, 512)), start.extend)
        return compression(bytes(start))

    def _blob(self, layer: LayerRef, span: Span, part: Part) -> LayerRef:
        """The compressed layer as it is, so that a push sends the very same bytes."""
        store, kind = self._store, self._compression(span)
        with store.blobs.writer(part.digest or None, span.size) as writer:
            if not writer.complete:
                writer.restart()
                self._source.feed(span, writer.write)
            digest = writer.commit()
        return layer._replace(
            blob_digest=digest, blob_size=span.size, media_type=part.media_type or _TYPES.get(kind, media.OCI_LAYER)
        )

    def _apply(self, layer: LayerRef, below: list[LayerRef]) -> None:
        from .apply import apply_layer

        apply_layer(self._store, self._kernel, layer, below, _NoFetcher(), subject=self._source.path)

    def _build(self, layer: LayerRef, below: list[LayerRef], span: Span) -> str:
        from .apply import build_layer

        with self._store.lock("blob", "layer-" + layer.chain_id):
            found = self._store.layers.get(layer.chain_id)
            if found is None or not self._store.layers.pin(layer.chain_id):
                feed: Callable[[Callable[[bytes], Any]], Any] = lambda write: self._source.feed(span, write)  # noqa: E731
                what = "Layer %s of %s" % (layer.diff_id, self._source.path)
                found = build_layer(self._store, self._kernel, layer, below, feed, what=what)
        return found.form

    def _keep(self, layer: LayerRef, span: Span) -> LayerRef:
        """An extracted layer has lost its archive: it is kept as a compressed blob, as one that was pulled is."""
        from .packing import pack_stream

        known = self._as_known(layer)
        if known.blob_digest:
            return known
        digest, size = pack_stream(self._store, lambda write: self._source.feed(span, write))
        return layer._replace(blob_digest=digest, blob_size=size, media_type=media.OCI_LAYER_GZIP)

    def _as_known(self, layer: LayerRef) -> LayerRef:
        """With the blob that another image has for the same layer."""
        for one in self._store.images.layer_blobs(layer.diff_id):
            if self._store.blobs.pin(one.blob_digest):
                return layer._replace(blob_digest=one.blob_digest, blob_size=one.blob_size, media_type=one.media_type)
        return layer


class _NoFetcher:
    """There is no registry to ask once more."""

    def was_there(self, _digest: str) -> bool:
        return False

    def fetch(self, digest: str, _size: int) -> None:
        raise IntegrityError("Blob %s is damaged" % digest, step="load", subject=digest)


def _manifest(store: Store, candidate: Candidate, layers: list[LayerRef]) -> tuple[bytes, str]:
    """The archive's own where what it names is here; else one made from the layers, always the same."""
    ours = [layer.blob_digest or layer.diff_id for layer in layers]
    if candidate.manifest and [part.digest for part in candidate.parts] == ours:
        return candidate.manifest, candidate.manifest_type
    return sources.manifest_of(store, candidate.id, len(candidate.config), layers), media.OCI_MANIFEST
