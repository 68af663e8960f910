# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Our layers, mounted, are what ``umoci unpack`` makes of the same archives, entry by entry."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import subprocess

import pytest
from helpers.tars import block, build, char, fifo, file, folder, link, opaque, snapshot, symlink, whiteout
from module_utils._engine.images.layers import LayerWriter
from module_utils._engine.kernel.syscalls import Kernel
from module_utils._engine.storage import overlay

pytestmark = [pytest.mark.root, pytest.mark.skipif(not shutil.which("umoci"), reason="umoci is not installed")]
KERNEL = Kernel()


def layout(base, archives):
    """An OCI image layout with one image of these layers."""
    blobs = base / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(data, kind):
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": "application/vnd.oci.image." + kind, "digest": "sha256:" + digest, "size": len(data)}

    layers = [put(gzip.compress(data, 1), "layer.v1.tar+gzip") for data in archives]
    config = {
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(a).hexdigest() for a in archives]},
    }  # fmt: skip
    manifest = {"schemaVersion": 2, "config": put(json.dumps(config).encode(), "config.v1+json"), "layers": layers}
    top = put(json.dumps(manifest).encode(), "manifest.v1+json")
    top["annotations"] = {"org.opencontainers.image.ref.name": "t"}
    (base / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top]}))
    (base / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def by_umoci(tmp_path, archives):
    layout(tmp_path / "oci", archives)
    done = subprocess.run(
        ["umoci", "unpack", "--image", str(tmp_path / "oci") + ":t", str(tmp_path / "bundle")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return snapshot(str(tmp_path / "bundle" / "rootfs"))


def by_us(tmp_path, form, archives):
    layers = []
    for n, data in enumerate(archives):
        directory = tmp_path / ("%s%d" % (form, n))
        directory.mkdir()
        with LayerWriter(str(directory), form=form, parents=tuple(layers)) as writer:
            for at in range(0, len(data), 65536):
                writer.write(data[at : at + 65536])
            layers.append((str(directory), writer.finish().form))
    fd = overlay.mount_rootfs(KERNEL, layers)
    try:
        return snapshot(fd)
    finally:
        os.close(fd)


BASE = build(
    [
        folder(".", mode=0o755, nsec=9), folder("bin", uid=1, gid=2), folder("etc"), folder("etc/conf.d", mode=0o700),
        file("bin/su", b"su", mode=0o4755, gid=42, nsec=999_999_999), file("bin/sg", b"sg", mode=0o2711),
        file("bin/cap", b"x", xattrs={"security.capability": bytes.fromhex("0100000200200000" + "00" * 12)}),
        link("bin/su2", "bin/su"), file("etc/passwd", b"root\n", mode=0o600), file("etc/conf.d/a", b"1"),
        symlink("lib", "usr/lib", uid=3), folder("usr"), folder("usr/lib"), file("usr/lib/so", b"elf" * 9000),
        fifo("pipe", mode=0o640), char("null", 1, 3, mode=0o666), block("sda", 8, 1, mode=0o660, gid=6),
        folder("tmp", mode=0o1777), file("user", b"x", xattrs={"user.a": b"\0\xff", "user.b": b"2"}),
        file("old", mtime=-100), file("far", mtime=4_600_000_000), file(b"raw-\xff", b"r"), file("A"), file("a"),
        folder("long"), file("long/" + "n" * 200, b"pax"), file("long/" + "g" * 200, b"gnu", gnu=True),
        symlink("longlink", "t" * 250), folder("gone"), file("gone/x"), folder("opq"), file("opq/old"),
        file("becomes-dir"), folder("becomes-file"), file("becomes-file/x"), file("rewritten", b"1"),
        folder("kept"), file("kept/a"),
    ]
)  # fmt: skip
TOP = build(
    [
        whiteout("gone"), folder("opq"), opaque("opq"), file("opq/new"), folder("becomes-dir"), file("becomes-dir/y"),
        file("becomes-file", b"f"), file("rewritten", b"2", mode=0o755), folder("kept", mode=0o711, mtime=77),
        file("kept/b"), whiteout("etc/passwd"), file("./dot/../x"[:5] + "f", b"d"), file("/abs", b"e"),
        whiteout("A"), file("tmp/late", b"l"),
    ]
)  # fmt: skip
DUPLICATES = build(
    [folder("."), file("a", b"1"), file("a", b"22"), folder("d"), file("d", b"3"), file("e"), folder("e")]
)


def differences(ours, theirs, ignore_times=()):
    found = {}
    for path in sorted(set(ours) | set(theirs)):
        one, two = ours.get(path), theirs.get(path)
        if one and two and path in ignore_times:
            one, two = one[:5] + one[6:], two[:5] + two[6:]
        if one != two:
            found[path] = (one, two)
    return found


@pytest.mark.parametrize("form", ["erofs", "tree"])
@pytest.mark.parametrize(
    ("archives", "implied"),
    [([BASE], ()), ([BASE, TOP], (b"./etc", b"./dot", b"./tmp", b".")), ([DUPLICATES], ())],
    ids=["base", "two layers", "duplicates"],
)
def test_our_trees_are_those_of_umoci(tmp_path, form, archives, implied):
    assert differences(by_us(tmp_path, form, archives), by_umoci(tmp_path, archives), implied) == {}


@pytest.mark.parametrize("form", ["erofs", "tree"])
def test_writing_through_symlinks_lands_where_umoci_puts_it(tmp_path, form):
    low = build([folder("."), folder("usr"), folder("usr/lib"), symlink("lib", "usr/lib"), symlink("up", "../../.."),
                 symlink("abs", "/usr"), file("usr/lib/old")])  # fmt: skip
    top = build([folder("."), file("lib/new", b"1"), file("up/top", b"2"), file("abs/lib/deep", b"3"),
                 whiteout("lib/old")])  # fmt: skip
    theirs = by_umoci(tmp_path, [low, top])
    assert differences(by_us(tmp_path, form, [low, top]), theirs, set(theirs)) == {}
