# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Images that exist in the store only: records as pulls leave them, with layers of which every four share a half."""

from __future__ import annotations

import hashlib
import os

from module_utils._engine.paths import Paths
from module_utils._engine.store.records import ImageRecord, LayerRecord, LayerRef
from module_utils._engine.store.state import Store

LAYERS = 8
SIZE = 1000  # of each layer


def digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def make(paths: Paths, count: int) -> None:
    with Store.open(paths) as store:
        for number in range(count):
            layers: list[LayerRef] = []
            for place in range(LAYERS):
                name = "%d/%d" % (number // 4 if place < LAYERS // 2 else number, place)
                layer = LayerRef(
                    digest("diff" + name), digest("chain" + name), digest("blob" + name), 500, "x.tar+gzip"
                )
                if store.layers.get(layer.chain_id) is None:
                    with store.layers.stage() as stage:
                        os.mkdir(stage.path + "/tree")
                        parent = layers[-1].chain_id if layers else ""
                        store.layers.commit(stage, LayerRecord(layer.chain_id, layer.diff_id, parent, "tree", SIZE))
                layers.append(layer)
            _put(store, number, layers)


def _put(store: Store, number: int, layers: list[LayerRef]) -> None:
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2026-01-01T00:00:00Z",
        "config": {
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "NUMBER=%d" % number],
            "Cmd": ["/bin/sh"],
            "Labels": {"org.example.label-%d" % n: "some words of a label" for n in range(8)},
        },
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        "history": [{"created": "2026-01-01T00:00:00Z", "created_by": "RUN step %d of many" % n} for n in range(20)],
    }
    manifest = digest("manifest%d" % number)
    record = ImageRecord(
        digest("image%d" % number), manifest, "application/vnd.oci.image.manifest.v1+json", config,
        SIZE * LAYERS, 1_700_000_000.0 + number, tuple(layers),
    )  # fmt: skip
    names = ["docker.io/library/app:%d" % number, "docker.io/library/app:v%d" % number]
    store.images.put(record, references=names, repo_digests=["docker.io/library/app@" + manifest])
