# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Layers that were made here get the compressed blobs and the manifest that a registry wants.

Pulled layers keep the blobs they came in, so this is for imported and committed ones only. The gzip data depends on
the layer and on zlib alone: no name, no time, always the same level.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..registry import mediatypes as media

if TYPE_CHECKING:
    from ..store.records import ImageRecord, LayerRef
    from ..store.state import Store

LEVEL = 6
_HEAD = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"


class Gzip:
    """A writer of one gzip member. ``write`` uncompressed bytes, then ``finish``."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._deflate = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        self._crc = 0
        self._size = 0
        write(_HEAD)

    def write(self, data: bytes) -> None:
        self._crc = zlib.crc32(data, self._crc)
        self._size += len(data)
        packed = self._deflate.compress(data)
        if packed:
            self._write(packed)

    def finish(self) -> None:
        self._write(self._deflate.flush() + struct.pack("<LL", self._crc, self._size & 0xFFFFFFFF))


def is_packed(record: ImageRecord) -> bool:
    return all(layer.blob_digest for layer in record.layers)


def packed(store: Store, record: ImageRecord) -> ImageRecord:
    """The image with blobs for all its layers, and an OCI manifest that names them; stored like that. An image that
    has them all is returned as it is. Raises ``Unsupported``, ``IntegrityError``, ``DiskFull``."""
    if is_packed(record):
        return record
    layers = tuple(layer if layer.blob_digest else _pack(store, layer) for layer in record.layers)
    manifest = oci_manifest(record.id, store.blobs.size(record.id), layers)
    new = record._replace(
        layers=layers, manifest_digest=store.blobs.put_bytes(manifest), manifest_type=media.OCI_MANIFEST
    )
    store.images.put(new)
    return new


def oci_manifest(config_digest: str, config_size: int, layers: tuple[LayerRef, ...]) -> bytes:
    """Always the same bytes for the same image."""
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": media.OCI_MANIFEST,
        "config": {"mediaType": media.OCI_CONFIG, "digest": config_digest, "size": config_size},
        "layers": [
            {"mediaType": _oci_type(layer.media_type), "digest": layer.blob_digest, "size": layer.blob_size}
            for layer in layers
        ],
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _oci_type(kind: str) -> str:
    """A layer taken over from an image in Docker's format, under its OCI name: one manifest, one family of types."""
    if not kind.startswith(media.DOCKER_LAYER):
        return kind
    compression = kind[len(media.DOCKER_LAYER) :].lstrip(".+")
    return media.OCI_LAYER + ("+" + compression if compression else "")


def pack_stream(store: Store, feed: Callable[[Callable[[bytes], object]], object]) -> tuple[str, int]:
    """Compress what ``feed(write)`` writes into a blob; (digest, size). The blob is pinned."""
    with store.blobs.writer() as writer:
        member = Gzip(writer.write)
        feed(member.write)
        member.finish()
        size = writer.offset
        return writer.commit(), size


def _pack(store: Store, layer: LayerRef) -> LayerRef:
    from .sources import read_tar

    digest, size = pack_stream(store, lambda write: read_tar(store, layer, write))
    return layer._replace(blob_digest=digest, blob_size=size, media_type=media.OCI_LAYER_GZIP)
