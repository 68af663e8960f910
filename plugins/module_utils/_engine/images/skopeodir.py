# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What ``skopeo copy ... dir:PATH`` writes, shown as the OCI layout that it nearly is.

The directory has a ``version`` file, the manifest in ``manifest.json`` (of an index, its other manifests in
``<hex>.manifest.json``), and config and layers as files called by their digests' hexadecimals alone (the page "dir:" of
containers-transports(5)). It has no names and no ``index.json``: the latter is made up here, so that whoever reads
layouts needs to know nothing of all this.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import Optional

from ..errors import Unsupported
from .archive import JSON_LIMIT, LayoutSource, Source, Span, nameless

_VERSION = b"Directory Transport Version: "
_BLOBS = "blobs/sha256/"


def is_skopeo_dir(source: Source) -> bool:
    if source.find("index.json") is not None or source.find("manifest.json") is None:
        return False
    version = source.find("version")
    return version is not None and version.size < 4096 and source.read("version", 4096).startswith(_VERSION)


class SkopeoDir(Source):
    """Takes the directory over: it is closed with this one, or when this raises ``Unsupported`` (another version, a
    manifest of before 2016) or ``RegistryError`` (no sound manifest)."""

    def __init__(self, inner: LayoutSource, tmp: str) -> None:
        self.path = inner.path
        self._inner = inner
        self._fd = -1
        self._made: dict[str, Span] = {}
        try:
            self._make(tmp)
        except BaseException:
            self.close()
            raise

    def _make(self, tmp: str) -> None:
        from .manifest import parse_manifest

        version = self._inner.read("version", 4096)[len(_VERSION) :].strip().decode("ascii", "replace")
        if not version.startswith("1."):
            raise Unsupported(
                "Cannot load %s: it is a directory of skopeo's in version %.20s, not 1" % (self.path, version),
                step="load",
                path="path",
            )
        manifest = self._inner.read("manifest.json", JSON_LIMIT)
        kind = parse_manifest(manifest, subject=self.path).media_type
        hexadecimal = hashlib.sha256(manifest).hexdigest()
        entry = {"mediaType": kind, "digest": "sha256:" + hexadecimal, "size": len(manifest)}
        self._made[_BLOBS + hexadecimal] = self._inner.span("manifest.json")
        self._fd = nameless(tmp)
        self._put("oci-layout", {"imageLayoutVersion": "1.0.0"})
        self._put("index.json", {"schemaVersion": 2, "manifests": [entry]})

    def _put(self, name: str, document: object) -> None:
        data = json.dumps(document).encode()
        at = os.lseek(self._fd, 0, os.SEEK_END)
        os.write(self._fd, data)
        self._made[name] = Span(self._fd, at, len(data))

    def find(self, name: str) -> Optional[Span]:
        if name in self._made:
            return self._made[name]
        if not name.startswith(_BLOBS):
            return None
        bare = name[len(_BLOBS) :]
        return self._inner.find(bare) or self._inner.find(bare + ".manifest.json")

    def close(self) -> None:
        self._inner.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
