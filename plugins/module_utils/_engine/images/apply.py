# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""One verified blob becomes one committed layer, whose DiffID is that of the image's config."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Optional

from ..errors import IntegrityError, NotFound
from .unpack import unpack

if TYPE_CHECKING:
    from typing import Protocol

    from ..kernel.syscalls import Kernel
    from ..store.records import LayerRecord, LayerRef
    from ..store.state import Store

    class Fetcher(Protocol):
        """As ``download.Fetcher``."""

        def was_there(self, digest: str) -> bool: ...

        def fetch(self, digest: str, size: int) -> None: ...


def apply_layer(
    store: Store,
    kernel: Kernel,
    layer: LayerRef,
    below: Sequence[LayerRef],
    fetcher: Fetcher,
    *,
    subject: str,
) -> LayerRecord:
    """Unpack and commit ``layer`` on top of ``below`` (base first, all committed). The layer is pinned.

    Two processes with the same layer take turns: the second finds it done. A blob that does not unpack to its DiffID
    is thrown away; if it lay in the store before, it is fetched once more (a disk can damage what was verified).
    Raises ``IntegrityError``, ``Unsupported``, ``DiskFull``.
    """
    with store.lock("blob", "layer-" + layer.chain_id):
        found = store.layers.get(layer.chain_id)
        if found is not None and store.layers.pin(layer.chain_id):
            return found
        try:
            return _build(store, kernel, layer, below, subject)
        except IntegrityError:
            store.blobs.remove(layer.blob_digest)
            if not fetcher.was_there(layer.blob_digest):
                raise
        fetcher.fetch(layer.blob_digest, layer.blob_size)
        return _build(store, kernel, layer, below, subject)


def _build(store: Store, kernel: Kernel, layer: LayerRef, below: Sequence[LayerRef], subject: str) -> LayerRecord:
    what = "Layer %s of %s" % (layer.blob_digest, subject)
    fd = store.blobs.open(layer.blob_digest)
    try:
        return build_layer(
            store,
            kernel,
            layer,
            below,
            lambda write: unpack(fd, write, subject=what),
            what=what,
            subject=subject,
            blob_size=layer.blob_size,
        )
    finally:
        os.close(fd)


def build_layer(
    store: Store,
    kernel: Kernel,
    layer: LayerRef,
    below: Sequence[LayerRef],
    feed: Callable[[Callable[[bytes], Any]], Any],
    *,
    what: str,
    subject: str = "",
    blob_size: Optional[int] = None,
) -> LayerRecord:
    """Make the layer of the uncompressed archive that ``feed(write)`` writes, and commit it, if it has the layer's
    DiffID. The layer is pinned. ``what`` begins sentences. Raises ``IntegrityError``, ``DiskFull``."""
    from ..store.records import LayerRecord
    from .layers import LayerWriter, best_form

    with store.layers.stage() as stage:
        writer = LayerWriter(
            stage.path,
            form=best_form(kernel, store.paths.layers),
            parents=lambda: _parents(store, below),
            blob_size=blob_size,
            kernel=kernel,
        )
        try:
            feed(writer.write)
            result = writer.finish()
        except BaseException:
            writer.abort()
            raise
        if result.diff_id != layer.diff_id:
            raise IntegrityError(
                "%s unpacks to %s, but the image's config names %s" % (what, result.diff_id, layer.diff_id),
                step="unpack_layer",
                subject=subject or what,
            )
        parent = below[-1].chain_id if below else ""
        record = LayerRecord(layer.chain_id, layer.diff_id, parent, result.form, result.size)
        return store.layers.commit(stage, record)


def _parents(store: Store, below: Sequence[LayerRef]) -> list[tuple[str, str]]:
    """Directories and forms of the layers below, base first: hard links may lead into them."""
    parents = []
    for layer in below:
        record = store.layers.get(layer.chain_id)
        if record is None:
            raise NotFound("Layer %s is not in the store" % layer.chain_id, step="unpack_layer", subject=layer.chain_id)
        parents.append((store.paths.layer(layer.chain_id), record.form))
    return parents
