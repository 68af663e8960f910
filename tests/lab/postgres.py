# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""An image of Debian's PostgreSQL as an OCI layout on the controller, made once (``python -m lab image``).

Guests have no registry to pull from: the task that needs it says ``source: controller``.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import tempfile
from typing import Any

from . import images

_START = """#!/bin/sh
# The first start makes the database; whoever comes in over the network needs no password, for this is a test.
set -eu
export PATH=$PATH:$(echo /usr/lib/postgresql/*/bin)
data=/var/lib/postgresql/data
if [ ! -e "$data/made" ]; then
    rm -rf "$data"
    initdb --pgdata="$data" --auth=trust --data-checksums --locale=C --encoding=UTF8
    echo "host all all all trust" >>"$data/pg_hba.conf"
    sync
    touch "$data/made"
fi
exec postgres -D "$data" -k /tmp -c listen_addresses='*' -c jit=off -c checkpoint_timeout=30s -c shared_buffers=32MB
"""
# What it is not needed for here: the compiler alone is half of the image.
_TRIM = (
    'rm -rf "$1"/usr/lib/*/libLLVM* "$1"/usr/lib/llvm* "$1"/usr/lib/postgresql/*/lib/bitcode "$1"/usr/share/doc/*'
    ' "$1"/usr/share/man/* "$1"/usr/share/locale/* "$1"/usr/share/i18n/* "$1"/usr/lib/gcc "$1"/var/lib/apt/lists/*'
    ' "$1"/var/cache/* "$1"/var/lib/postgresql/*'
)
_CONFIG = {
    "User": "postgres",
    "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
    "Cmd": ["/usr/local/bin/start-postgres"],
    "StopSignal": "SIGINT",
    "ExposedPorts": {"5432/tcp": {}},
}


def ensure() -> str:
    """The layout's directory, made unless it is there for this recipe."""
    recipe = hashlib.sha256(repr((_START, _TRIM, _CONFIG)).encode()).hexdigest()[:16]
    target = os.path.join(images.cache(), "postgres-" + recipe)
    if os.path.isdir(target):
        return target
    work = tempfile.mkdtemp(prefix="postgres.", dir=images.cache())
    try:
        start, archive = os.path.join(work, "start-postgres"), os.path.join(work, "root.tar")
        with open(start, "w") as file:
            file.write(_START)
        os.chmod(start, 0o755)
        images.bootstrap(
            "--variant=minbase", "--include=postgresql", "--customize-hook=" + _TRIM,
            "--customize-hook=copy-in %s /usr/local/bin" % start, "bookworm", archive,
        )  # fmt: skip
        layout = os.path.join(work, "layout")
        _write_layout(layout, archive)
        os.rename(layout, target)
    finally:
        shutil.rmtree(work)
    return target


def _write_layout(layout: str, archive: str) -> None:
    blobs = os.path.join(layout, "blobs/sha256")
    os.makedirs(blobs)

    def blob(kind: str, data: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        with open(os.path.join(blobs, digest), "wb") as file:
            file.write(data)
        return {"mediaType": "application/vnd.oci.image." + kind, "digest": "sha256:" + digest, "size": len(data)}

    with open(archive, "rb") as file:
        tar = file.read()
    diff = "sha256:" + hashlib.sha256(tar).hexdigest()
    layer = blob("layer.v1.tar+gzip", gzip.compress(tar, 1, mtime=0))
    content: dict[str, Any] = {"architecture": "amd64", "os": "linux", "config": _CONFIG}
    content["rootfs"] = {"type": "layers", "diff_ids": [diff]}
    config = blob("config.v1+json", json.dumps(content).encode())
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json"}
    index: dict[str, Any] = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json"}
    named = blob("manifest.v1+json", json.dumps({**manifest, "config": config, "layers": [layer]}).encode())
    index["manifests"] = [{**named, "annotations": {"org.opencontainers.image.ref.name": "postgres:lab"}}]
    for name, data in (("index.json", index), ("oci-layout", {"imageLayoutVersion": "1.0.0"})):
        with open(os.path.join(layout, name), "w") as out:
            json.dump(data, out)
