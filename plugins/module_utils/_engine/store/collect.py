# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Garbage collection by reachability: images keep layers and blobs, containers keep images. Volumes stay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import scratch

if TYPE_CHECKING:
    from .state import Store


def collect(store: Store) -> dict[str, Any]:
    """See ``Store.collect``. What is unreachable is moved to the trash under the database's write lock (nothing can
    become reachable meanwhile, and what is about to is pinned); the deletion itself happens outside of it.

    Everything that made something unreachable is on the disk first: else a power cut could bring back an image
    whose layers are gone.
    """
    store.db.sync()
    layers, blobs, trashed = [], [], []
    with store.transaction(freeing=True):
        forgotten = store.db.changed(
            "DELETE FROM images WHERE doomed = 1 AND NOT EXISTS"
            " (SELECT 1 FROM containers WHERE image_id = images.id OR instr(resolved, images.id))"
        )
    if forgotten:
        store.db.sync()
    with store.transaction(freeing=True):
        rows = store.db.execute(
            "SELECT chain_id FROM layers WHERE NOT EXISTS"
            " (SELECT 1 FROM image_layers WHERE image_layers.chain_id = layers.chain_id)"
        )
        for (chain,) in rows:
            path = store.layers.take(chain)
            if path is not None:
                layers.append(chain)
                trashed.append(path)
        reachable = _reachable_blobs(store)
        for digest in store.blobs.list():
            if digest not in reachable:
                path = store.blobs.take(digest)
                if path is not None:
                    blobs.append(digest)
                    trashed.append(path)
    freed = sum(scratch.empty(path) for path in trashed)
    freed += scratch.sweep(store.paths.tmp).freed
    store.locks.tidy()
    return {"layers": layers, "blobs": blobs, "bytes": freed}


def _reachable_blobs(store: Store) -> set[str]:
    """Configs, manifests, layers as they were pulled, and indexes (their digest is the repository digest's)."""
    found: set[str] = set()
    for row in store.db.execute("SELECT id, manifest_digest FROM images"):
        found.update(row)
    for (digest,) in store.db.execute("SELECT DISTINCT blob_digest FROM image_layers"):
        found.add(digest)
    for (repo_digest,) in store.db.execute("SELECT repo_digest FROM repo_digests"):
        found.add(repo_digest.partition("@")[2])
    return found
