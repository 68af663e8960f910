# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A stored layer as the very tar it came from: the archive that an indexed layer keeps, or the blob of an extracted
one. Every read is verified against the DiffID: what left the disk damaged must not leave the host."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import IntegrityError, KernelError, Unsupported
from ..registry import mediatypes as media

if TYPE_CHECKING:
    from ..store.records import LayerRef
    from ..store.state import Store

_PIECE = 1 << 20
_BLOCK = 512


def read_tar(store: Store, layer: LayerRef, write: Callable[[bytes], Any]) -> int:
    """Give the uncompressed tar to ``write``; returns its bytes. Raises ``IntegrityError`` at the end when it is not
    what the DiffID says, ``Unsupported`` when nothing of it was kept."""
    checksum = hashlib.sha256()
    total = 0

    def take(data: bytes) -> None:
        nonlocal total
        total += len(data)
        checksum.update(data)
        write(data)

    fd = _kept(store, layer)
    if fd < 0:
        _from_blob(store, layer, take)
    else:
        try:
            size = _length(fd, layer)
            position = 0
            while position < size:
                data = os.pread(fd, min(_PIECE, size - position), position)
                if not data:
                    break
                position += len(data)
                take(data)
        except OSError as error:
            raise KernelError.wrap(error, "Cannot read layer %s" % layer.diff_id, step="read_layer") from error
        finally:
            os.close(fd)
    if "sha256:" + checksum.hexdigest() != layer.diff_id:
        raise _damaged(layer)
    return total


def tar_size(store: Store, layer: LayerRef) -> int:
    """Bytes of the uncompressed tar. Reads it all, and so tells whether it is sound."""
    fd = _kept(store, layer)
    if fd < 0:
        return read_tar(store, layer, len)
    try:
        return _length(fd, layer)
    finally:
        os.close(fd)


def _kept(store: Store, layer: LayerRef) -> int:
    """The archive of an indexed layer, or -1."""
    try:
        return os.open(store.paths.layer(layer.chain_id) + "/tar", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return -1
    except OSError as error:
        raise KernelError.wrap(error, "Cannot read layer %s" % layer.diff_id, step="read_layer") from error


def _length(fd: int, layer: LayerRef) -> int:
    """Of the archive without the zeros that rounded it up to whole blocks (an index needs those). Nothing notes how
    many there are, but the DiffID tells."""
    size = os.fstat(fd).st_size
    checksum = hashlib.sha256()
    position = 0
    last = max(0, size - _BLOCK)
    try:
        while position < last:
            data = os.pread(fd, min(_PIECE, last - position), position)
            if not data:
                raise _damaged(layer)
            checksum.update(data)
            position += len(data)
        tail = os.pread(fd, _BLOCK, last)
    except OSError as error:
        raise KernelError.wrap(error, "Cannot read layer %s" % layer.diff_id, step="read_layer") from error
    for length in range(len(tail), -1, -1):
        one = checksum.copy()
        one.update(tail[:length])
        if "sha256:" + one.hexdigest() == layer.diff_id:
            return last + length
        if length and tail[length - 1]:
            break
    raise _damaged(layer)


def _from_blob(store: Store, layer: LayerRef, write: Callable[[bytes], Any]) -> None:
    from .unpack import unpack

    # The image may have been pulled when the layer was here: then another image has the blob it came in.
    digests = [layer.blob_digest, *(one.blob_digest for one in store.images.layer_blobs(layer.diff_id))]
    digest = next((one for one in digests if one and store.blobs.has(one)), "")
    if not digest:
        raise Unsupported(
            "Layer %s was extracted, and neither its archive nor its blob was kept" % layer.diff_id,
            step="read_layer",
            subject=layer.diff_id,
            hint="Pull, load or import the image again.",
        )
    fd = store.blobs.open(digest)
    try:
        unpack(fd, write, subject="Layer %s" % digest)
    finally:
        os.close(fd)


def _damaged(layer: LayerRef) -> IntegrityError:
    return IntegrityError(
        "Layer %s is damaged on disk" % layer.diff_id,
        step="read_layer",
        subject=layer.diff_id,
        hint="Pull, load or import the image again.",
    )


def read_blob(store: Store, digest: str, write: Callable[[bytes], Any]) -> None:
    """Give the blob's bytes to ``write``; raises ``IntegrityError`` at the end when its digest is another one."""
    checksum = hashlib.sha256()
    fd = store.blobs.open(digest)
    try:
        while True:
            data = os.read(fd, _PIECE)
            if not data:
                break
            checksum.update(data)
            write(data)
    except OSError as error:
        raise KernelError.wrap(error, "Cannot read blob %s" % digest, step="read_layer") from error
    finally:
        os.close(fd)
    if "sha256:" + checksum.hexdigest() != digest:
        raise IntegrityError(
            "Blob %s is damaged on disk" % digest, step="read_layer", subject=digest, hint="Pull the image again."
        )


# -- manifests ---------------------------------------------------------------------------------------------------


def manifest_of(store: Store, config_digest: str, config_size: int, layers: Sequence[LayerRef]) -> bytes:
    """An OCI manifest of layers as they are here: by their blobs, or by their archives, which are not compressed.
    Always the same bytes for the same image."""
    document = {
        "schemaVersion": 2,
        "mediaType": media.OCI_MANIFEST,
        "config": {"mediaType": media.OCI_CONFIG, "digest": config_digest, "size": config_size},
        "layers": [_descriptor(store, layer) for layer in layers],
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _descriptor(store: Store, layer: LayerRef) -> dict[str, Any]:
    if layer.blob_digest:
        return {"mediaType": oci_type(layer.media_type), "digest": layer.blob_digest, "size": layer.blob_size}
    return {"mediaType": media.OCI_LAYER, "digest": layer.diff_id, "size": tar_size(store, layer)}


def oci_type(kind: str) -> str:
    """Docker's types under their OCI names: an OCI manifest has no others."""
    if not kind.startswith(media.DOCKER_LAYER):
        return kind
    compression = kind[len(media.DOCKER_LAYER) :].lstrip(".+")
    return media.OCI_LAYER + ("+" + compression if compression else "")
