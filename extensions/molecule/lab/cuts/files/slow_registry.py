# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""``slow_registry.py DIRECTORY MIB``: a registry at 127.0.0.1:5000 with one image, ``lab/big:1``, of one layer.

The layer has one file of MIB mebibytes, ``/big``, that no compression makes smaller, always the same. While there is a
file DIRECTORY/hold, it sends three quarters of the layer and then nothing. Every request goes to DIRECTORY/log.
"""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import os
import random
import sys
import tarfile
import time
from typing import Any, ClassVar


def layer(mebibytes: int) -> bytes:
    data = random.Random(5).getrandbits(8 * mebibytes << 20).to_bytes(mebibytes << 20, "big")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content, mode in (("big", data, 0o644),):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), mode
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def described(kind: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": "application/vnd.oci.image." + kind, "digest": digest(data), "size": len(data)}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    directory = ""
    blobs: ClassVar[dict[str, bytes]] = {}
    manifest = b""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        kind, _slash, name = self.path.rpartition("/")
        if self.path == "/v2/":
            self.answer(200, b"{}", "application/json")
        elif kind == "/v2/lab/big/manifests" and name in ("1", digest(self.manifest)):
            self.answer(200, self.manifest, "application/vnd.oci.image.manifest.v1+json")
        elif kind == "/v2/lab/big/blobs" and name in self.blobs:
            self.answer(200, self.blobs[name], "application/octet-stream")
        else:
            self.answer(404, b"{}", "application/json")

    def answer(self, code: int, data: bytes, kind: str) -> None:
        first, asked = 0, self.headers.get("Range", "")
        if code == 200 and asked.startswith("bytes=") and asked.endswith("-"):
            code, first = 206, int(asked[6:-1])
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data) - first))
        self.send_header("Docker-Content-Digest", digest(data))
        if code == 206:
            self.send_header("Content-Range", "bytes %d-%d/%d" % (first, len(data) - 1, len(data)))
        self.end_headers()
        if self.command == "HEAD":
            return
        end = len(data)
        if len(data) > 1 << 20 and os.path.exists(self.directory + "/hold"):
            end = len(data) * 3 // 4
        self.wfile.write(data[first:end])
        self.wfile.flush()
        while end < len(data) and os.path.exists(self.directory + "/hold"):
            time.sleep(0.1)
        self.wfile.write(data[max(first, end) :])

    def log_message(self, *_args: Any) -> None:
        with open(self.directory + "/log", "a") as log:
            log.write("%s %s %s\n" % (self.command, self.path, self.headers.get("Range", "")))


def main(directory: str, mebibytes: str) -> None:
    big = layer(int(mebibytes))
    content = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/none"]}}
    config = json.dumps({**content, "rootfs": {"type": "layers", "diff_ids": [digest(big)]}}).encode()
    Handler.directory = directory
    Handler.blobs = {digest(big): big, digest(config): config}
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json"}
    layers = [described("layer.v1.tar", big)]
    Handler.manifest = json.dumps(
        {**manifest, "config": described("config.v1+json", config), "layers": layers}
    ).encode()
    http.server.ThreadingHTTPServer(("127.0.0.1", 5000), Handler).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
