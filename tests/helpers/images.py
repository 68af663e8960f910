# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Small images made from layer tars: as blobs and manifests in memory, as an OCI layout, or pushed to a registry.

image = build_image([layer({"etc/motd": b"hi"})], config={"Cmd": ["/bin/sh"]})
image.write_layout("/tmp/layout", tag="1")
push(image, "http://127.0.0.1:5000", "library/busybox", "1")
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
import urllib.error
import urllib.request
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

OCI = {
    "index": "application/vnd.oci.image.index.v1+json",
    "manifest": "application/vnd.oci.image.manifest.v1+json",
    "config": "application/vnd.oci.image.config.v1+json",
    "layer": "application/vnd.oci.image.layer.v1.tar",
    "layer.gzip": "application/vnd.oci.image.layer.v1.tar+gzip",
}
DOCKER = {
    "index": "application/vnd.docker.distribution.manifest.list.v2+json",
    "manifest": "application/vnd.docker.distribution.manifest.v2+json",
    "config": "application/vnd.docker.container.image.v1+json",
    "layer": "application/vnd.docker.image.rootfs.diff.tar",
    "layer.gzip": "application/vnd.docker.image.rootfs.diff.tar.gzip",
}


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def layer(files: Dict[str, Any], *, mode: int = 0o644) -> bytes:
    """An uncompressed layer tar. Values: bytes (a file), None (a directory), str (a symbolic link's target), or a
    ``TarInfo`` that is taken as it is. Missing parents are added; everything belongs to root, times are 0."""
    out = io.BytesIO()
    seen = set()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:

        def parents(name: str) -> None:
            parent = os.path.dirname(name)
            if parent and parent not in seen:
                parents(parent)
                add(parent, None)

        def add(name: str, value: Any) -> None:
            seen.add(name)
            if isinstance(value, tarfile.TarInfo):
                tar.addfile(value)
                return
            info = tarfile.TarInfo(name)
            if value is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(info)
            elif isinstance(value, str):
                info.type, info.linkname, info.mode = tarfile.SYMTYPE, value, 0o777
                tar.addfile(info)
            else:
                info.size, info.mode = len(value), mode
                tar.addfile(info, io.BytesIO(value))

        for name, value in files.items():
            parents(name)
            if name not in seen:
                add(name, value)
    return out.getvalue()


class Image(NamedTuple):
    """``blobs`` holds config and layers by digest; ``manifests`` manifest and, if any, index by digest as
    (bytes, media type); ``top`` is what a tag should point to."""

    blobs: Dict[str, bytes]
    manifests: Dict[str, Tuple[bytes, str]]
    top: str
    manifest_digest: str
    config_digest: str
    diff_ids: List[str]

    @property
    def id(self) -> str:
        return self.config_digest

    def write_layout(self, path: str, tag: str = "latest") -> str:
        """Write an OCI layout directory (for skopeo: ``oci:PATH:TAG``). Returns ``path``."""
        blobs = os.path.join(path, "blobs", "sha256")
        os.makedirs(blobs, exist_ok=True)
        for digest, data in [*self.blobs.items(), *((d, m[0]) for d, m in self.manifests.items())]:
            with open(os.path.join(blobs, digest[7:]), "wb") as stream:
                stream.write(data)
        data, kind = self.manifests[self.top]
        entry = descriptor(data, kind, annotations={"org.opencontainers.image.ref.name": tag})
        with open(os.path.join(path, "oci-layout"), "w") as stream:
            json.dump({"imageLayoutVersion": "1.0.0"}, stream)
        with open(os.path.join(path, "index.json"), "w") as stream:
            json.dump({"schemaVersion": 2, "mediaType": OCI["index"], "manifests": [entry]}, stream)
        return path


def descriptor(data: bytes, kind: str, **more: Any) -> Dict[str, Any]:
    return {"mediaType": kind, "digest": digest_of(data), "size": len(data), **more}


def build_image(
    layers: Sequence[bytes],
    *,
    config: Optional[Dict[str, Any]] = None,
    architecture: str = "",
    os: str = "linux",
    variant: str = "",
    types: Optional[Dict[str, str]] = None,
    compress: bool = True,
    extra: Optional[Dict[str, Any]] = None,
) -> Image:
    """An image of uncompressed layer tars, base first. ``config`` is the inner config object (Cmd, Env...); ``extra``
    is merged into the whole config document."""
    types = types or OCI
    blobs: Dict[str, bytes] = {}
    descriptors = []
    for data in layers:
        blob = gzip.compress(data, 6, mtime=0) if compress else data
        blobs[digest_of(blob)] = blob
        descriptors.append(descriptor(blob, types["layer.gzip" if compress else "layer"]))
    diff_ids = [digest_of(data) for data in layers]
    document: Dict[str, Any] = {
        "architecture": architecture or host_architecture(),
        "os": os,
        "created": "2026-01-01T00:00:00Z",
        "config": config or {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [{"created": "2026-01-01T00:00:00Z", "created_by": "layer %d" % n} for n in range(len(layers))],
        **({"variant": variant} if variant else {}),
        **(extra or {}),
    }
    raw = json.dumps(document).encode()
    blobs[digest_of(raw)] = raw
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": types["manifest"],
            "config": descriptor(raw, types["config"]),
            "layers": descriptors,
        }
    ).encode()
    top = digest_of(manifest)
    return Image(blobs, {top: (manifest, types["manifest"])}, top, top, digest_of(raw), diff_ids)


def build_index(
    images: Dict[str, Image], *, types: Optional[Dict[str, str]] = None, attestation: bool = False
) -> Image:
    """One image of several, by platform (``{"linux/amd64": image}``). ``manifest_digest``, ``config_digest`` and
    ``diff_ids`` are those of the first. With ``attestation``, BuildKit's kind of provenance entry comes first."""
    types = types or OCI
    blobs: Dict[str, bytes] = {}
    manifests: Dict[str, Tuple[bytes, str]] = {}
    entries = []
    for platform, image in images.items():
        system, architecture, *variant = platform.split("/")
        blobs.update(image.blobs)
        manifests.update(image.manifests)
        data, kind = image.manifests[image.top]
        where = {"os": system, "architecture": architecture, **({"variant": variant[0]} if variant else {})}
        entries.append(descriptor(data, kind, platform=where))
    first = next(iter(images.values()))
    if attestation:
        note = {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": first.top}
        entries.insert(0, {**entries[0], "platform": {"os": "unknown", "architecture": "unknown"}, "annotations": note})
    data = json.dumps({"schemaVersion": 2, "mediaType": types["index"], "manifests": entries}).encode()
    manifests[digest_of(data)] = (data, types["index"])
    return Image(blobs, manifests, digest_of(data), first.manifest_digest, first.config_digest, first.diff_ids)


def host_architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)


def push(
    image: Image, base: str, repository: str, tag: str, *, headers: Optional[Dict[str, str]] = None, context: Any = None
) -> str:
    """Upload to a registry at ``base`` (``http://host:port``). Returns the digest of what ``tag`` points to."""

    def call(method: str, url: str, data: Optional[bytes] = None, kind: str = "application/octet-stream") -> Any:
        url = url if "://" in url else base + url
        request = urllib.request.Request(url, data=data, method=method, headers={**(headers or {})})
        if data is not None:
            request.add_header("Content-Type", kind)
        return urllib.request.urlopen(request, context=context, timeout=30)

    for digest, data in image.blobs.items():
        try:
            call("HEAD", "/v2/%s/blobs/%s" % (repository, digest)).close()
            continue
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
        with call("POST", "/v2/%s/blobs/uploads/" % repository, b"") as answer:
            location = answer.headers["Location"]
        joint = "&" if "?" in location else "?"
        call("PUT", "%s%sdigest=%s" % (location, joint, digest), data).close()
    for digest, (data, kind) in image.manifests.items():
        reference = tag if digest == image.top else digest
        call("PUT", "/v2/%s/manifests/%s" % (repository, reference), data, kind).close()
    return image.top
