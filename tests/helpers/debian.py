# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real image: Debian with nginx made by mmdebstrap, and upper layers with everything a layer can hold."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from typing import Any

CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "wharf-engine-tests")
PAGE = b"served by nginx out of an image layer\n"
SITE = b"server { listen 80 default_server; root /srv/www; location / { autoindex on; } }\n"


def base_layer() -> str:
    """Path of a tar: Debian stable, minbase, with nginx. Built once per machine and kept (about 20 s)."""
    path = CACHE + "/bookworm-nginx.tar"
    if not os.path.exists(path):
        os.makedirs(CACHE, exist_ok=True)
        part = "%s.%d.tar" % (path, os.getpid())
        done = subprocess.run(
            ["mmdebstrap", "--quiet", "--variant=minbase", "--include=nginx,libcap2-bin", "bookworm", part],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise AssertionError("mmdebstrap failed: %s" % done.stderr[-2000:])
        os.rename(part, path)
    return path


def _tar(entries: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, data in entries:
            info.size = len(data)
            info.mtime = 1_700_000_000
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _entry(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.mode = kind, 0o644
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def site_layer() -> bytes:
    """nginx's site, and of every kind one: symlink, hard link, setuid file, file capability, user xattr."""
    capability = (
        b"\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"  # cap_net_bind_service=ep
    )
    return _tar(
        [
            _entry("srv/www", kind=tarfile.DIRTYPE, mode=0o755),
            _entry("srv/www/index.html", PAGE),
            _entry("srv/www/same.html", kind=tarfile.LNKTYPE, linkname="srv/www/index.html"),
            _entry("srv/www/link.html", kind=tarfile.SYMTYPE, linkname="index.html", mode=0o777),
            _entry("srv/www/many", kind=tarfile.DIRTYPE, mode=0o755),
            *(_entry("srv/www/many/%04d" % number, b"%d\n" % number) for number in range(2000)),
            _entry("srv/www/old", kind=tarfile.DIRTYPE, mode=0o755),
            _entry("srv/www/old/gone.html", b"hidden by an opaque directory\n"),
            _entry("srv/www/secret.html", b"hidden by a whiteout\n"),
            _entry("usr/local/bin/suid", b"#!/bin/sh\nid -u\n", mode=0o4755),
            _entry(
                "usr/local/bin/capable",
                b"capable\n",
                mode=0o755,
                pax_headers={
                    "SCHILY.xattr.security.capability": capability.decode("latin-1"),
                    "SCHILY.xattr.user.note": "kept",
                },
            ),
            _entry("etc/nginx/sites-enabled/default", SITE),
        ]
    )


def upper_layer() -> bytes:
    """Whiteout of a file, an opaque directory, and a whiteout of something of the base layer."""
    return _tar(
        [
            _entry("srv/www/.wh.secret.html"),
            _entry("srv/www/old", kind=tarfile.DIRTYPE, mode=0o755),
            _entry("srv/www/old/.wh..wh..opq"),
            _entry("srv/www/old/new.html", b"above an opaque directory\n"),
            _entry("usr/share/.wh.doc"),
        ]
    )


def config() -> dict[str, Any]:
    """What a Dockerfile for this image would say."""
    return {
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        "Cmd": ["nginx", "-g", "daemon off;"],
        "ExposedPorts": {"80/tcp": {}},
        "StopSignal": "SIGQUIT",
        "Volumes": {"/var/lib/nginx": {}},
        "Labels": {"org.opencontainers.image.title": "nginx"},
    }


def oci_layout(directory: str, tag: str = "latest") -> str:
    """An OCI layout of the three layers (gzip, gzip, uncompressed) for skopeo. Returns the manifest's digest."""
    import gzip
    import hashlib

    def blob(data: bytes) -> tuple[str, int]:
        digest = hashlib.sha256(data).hexdigest()
        with open("%s/blobs/sha256/%s" % (directory, digest), "wb") as stream:
            stream.write(data)
        return "sha256:" + digest, len(data)

    def descriptor(kind: str, data: bytes) -> dict[str, Any]:
        digest, size = blob(data)
        return {"mediaType": "application/vnd.oci.image." + kind, "digest": digest, "size": size}

    os.makedirs(directory + "/blobs/sha256", exist_ok=True)
    with open(base_layer(), "rb") as stream:
        plain = [stream.read(), site_layer(), upper_layer()]
    diff_ids = ["sha256:" + hashlib.sha256(data).hexdigest() for data in plain]
    layers = [
        descriptor("layer.v1.tar+gzip", gzip.compress(plain[0], 1, mtime=0)),
        descriptor("layer.v1.tar+gzip", gzip.compress(plain[1], 6, mtime=0)),
        descriptor("layer.v1.tar", plain[2]),
    ]
    document = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine),
        "os": "linux",
        "config": config(),
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [{"created_by": "mmdebstrap"}, {"created_by": "site"}, {"created_by": "upper"}],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("config.v1+json", json.dumps(document).encode()),
        "layers": layers,
    }
    digest, size = blob(json.dumps(manifest).encode())
    entry = {"mediaType": manifest["mediaType"], "digest": digest, "size": size}
    entry["annotations"] = {"org.opencontainers.image.ref.name": tag}
    with open(directory + "/oci-layout", "w") as text:
        json.dump({"imageLayoutVersion": "1.0.0"}, text)
    with open(directory + "/index.json", "w") as text:
        json.dump({"schemaVersion": 2, "manifests": [entry]}, text)
    return digest
