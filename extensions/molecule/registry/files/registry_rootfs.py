# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A root file system of Debian's registry, the libraries it needs, and busybox: ``registry_rootfs.py ARCHIVE``.

What the official image has, without a network. Always the same from the same files.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile

REGISTRY = "/usr/bin/docker-registry"
BUSYBOX = "/bin/busybox"


def main(archive: str) -> None:
    with tarfile.open(archive + ".new", "w", format=tarfile.USTAR_FORMAT) as tar:
        for name in ("bin", "etc", "lib", "lib64", "proc", "sys", "dev", "tmp", "var", "var/lib", "var/lib/registry"):
            add(tar, name, type=tarfile.DIRTYPE, mode=0o1777 if name == "tmp" else 0o755)
        copy(tar, REGISTRY, "bin/registry")
        copy(tar, BUSYBOX, "bin/busybox")
        for name in ("sh", "wget"):
            add(tar, "bin/" + name, type=tarfile.SYMTYPE, linkname="busybox", mode=0o777)
        for path in libraries():
            copy(tar, path, path.lstrip("/").replace("lib/x86_64-linux-gnu", "lib"))
        add(tar, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n", mode=0o644)
    os.rename(archive + ".new", archive)


def libraries() -> list[str]:
    """What the loader says that the program needs; a static one needs nothing."""
    done = subprocess.run(["ldd", REGISTRY], stdout=subprocess.PIPE, check=False)
    words = [word for line in done.stdout.decode().splitlines() for word in line.split()]
    return sorted({word for word in words if word.startswith("/")})


def copy(tar: tarfile.TarFile, path: str, name: str) -> None:
    with open(path, "rb") as stream:
        add(tar, name, stream.read(), mode=0o755)


def add(tar: tarfile.TarFile, name: str, content: bytes = b"", **fields: object) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    tar.addfile(info, io.BytesIO(content))


if __name__ == "__main__":
    main(sys.argv[1])
