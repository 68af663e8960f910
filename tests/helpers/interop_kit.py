# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""An image with what layers and configurations can hold, and its tree as each engine shows it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from helpers.engine import Engine
from helpers.images import Image, build_image
from helpers.tars import build, char, fifo, file, folder, link, opaque, snapshot, symlink, whiteout
from module_utils._engine.kernel.syscalls import Kernel
from module_utils._engine.storage import overlay
from module_utils._engine.store.state import Store

Tree = dict[bytes, tuple[Any, ...]]

# A link says the mode of what it links to, as real archives do: docker and podman would set it, umoci and we would not.
CAPABILITY = bytes.fromhex("0100000200200000" + "00" * 12)
BASE = build(
    [
        folder("bin"), file("bin/sh", b"#!shell" * 3000, mode=0o755), link("bin/ash", "bin/sh", mode=0o755),
        file("bin/su", b"su", mode=0o4755, gid=42), file("bin/ping", b"x", xattrs={"security.capability": CAPABILITY}),
        folder("usr"), folder("usr/lib"), symlink("lib", "usr/lib"), file("usr/lib/so", b"elf" * 9000),
        folder("srv", mode=0o1777), fifo("srv/pipe", mode=0o640), char("srv/null", 1, 3, mode=0o666),
        folder("srv/gone"), file("srv/gone/x"), folder("srv/opaque"), file("srv/opaque/old"),
        file("srv/" + "n" * 180, b"long"), file("srv/grün".encode(), b"g", uid=1000, gid=1000), file("srv/old", b"1"),
    ]
)  # fmt: skip
TOP = build(
    [
        folder("srv", mode=0o1777), whiteout("srv/gone"), folder("srv/opaque"), opaque("srv/opaque"),
        file("srv/opaque/new", b"new"), file("srv/old", b"2", mode=0o600),
    ]
)  # fmt: skip
CONFIG = {
    "Cmd": ["-c", "echo hi"],
    "Entrypoint": ["/bin/sh"],
    "Env": ["PATH=/bin", "EMPTY="],
    "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
    "Labels": {"a.b": "ü c"},
    "StopSignal": "SIGINT",
    "User": "1000:1000",
    "Volumes": {"/data": {}},
    "WorkingDir": "/srv",
}
# What docker puts into every container's root file system, whatever the image has.
_DOCKERS = (b"./.dockerenv", b"./dev", b"./etc", b"./proc", b"./sys", b"./data")


def sample(**more: Any) -> Image:
    return build_image([BASE, TOP, build([folder("third")])], config=CONFIG, **more)


def bring(instance: Engine, image: Image, path: Path, *names: str) -> None:
    """Into our engine, under ``names``."""
    source = image.write_layout(str(path), "1")
    for name in names:
        assert instance.run("image", name=name, source="load", path=source)["image"]["Id"] == image.id


def identity(instance: Engine, name: str) -> tuple[str, list[str]]:
    """Id and DiffIDs of ``name`` in our engine."""
    shown = instance.run("image_info", name=[name])["images"]
    assert len(shown) == 1, shown
    return str(shown[0]["Id"]), list(shown[0]["RootFS"]["Layers"])


def tree_of(instance: Engine, name: str) -> Tree:
    image = identity(instance, name)[0]
    with Store.open(instance.paths) as store:
        record = store.images.get(image)
        assert record is not None
        found = [store.layers.get(one.chain_id) for one in record.layers]
        places = [(store.paths.layer(one.chain_id), one.form) for one in found if one is not None]
        assert len(places) == len(record.layers)
    root = overlay.mount_rootfs(Kernel(), places)
    try:
        return bare(snapshot(root))
    finally:
        os.close(root)


def docker_tree(docker: Any, image: str, path: Path) -> Tree:
    """Of a container that never ran, without what docker adds to it."""
    name = docker.must("create", "--network", "none", image, "x").strip()
    try:
        docker.must("export", "-o", str(path) + ".tar", name)
    finally:
        docker.must("rm", "-v", name)
    path.mkdir()
    subprocess.run(
        ["tar", "-C", str(path), "--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf", str(path) + ".tar"],
        check=True,
    )
    return bare(snapshot(str(path)))


def bare(tree: Tree) -> Tree:
    """Without the root directory itself, which no layer of ``sample`` describes, and without what docker adds."""
    return {
        name: facts
        for name, facts in tree.items()
        if name != b"." and not any(name == one or name.startswith(one + b"/") for one in _DOCKERS)
    }


def command(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, "%s: %s%s" % (argv, done.stdout, done.stderr)
    return done.stdout


def skopeo(*argv: str) -> str:
    return command("skopeo", "--insecure-policy", *argv)
