# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Write a root file system made of one static busybox as a tar archive: ``busybox_rootfs.py BUSYBOX ARCHIVE``.

The archive is the same whenever it is made from the same busybox, so that importing it again changes nothing.
"""

from __future__ import annotations

import glob
import io
import os
import sys
import tarfile

APPLETS = (
    "cat",
    "echo",
    "env",
    "grep",
    "hostname",
    "httpd",
    "id",
    "ls",
    "nslookup",
    "ping",
    "ps",
    "sh",
    "sleep",
    "wget",
)
DIRECTORIES = ("bin", "dev", "etc", "home", "proc", "root", "sys", "tmp", "var", "www")
FILES = {"etc/passwd": "root:x:0:0:root:/root:/bin/sh\n", "etc/group": "root:x:0:\n"}
# Before glibc 2.34 even a static program loads these when it looks up a name.
LIBRARIES = ("ld-linux-*.so.*", "libc.so.6", "libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2")


def main(busybox: str, archive: str) -> None:
    with open(busybox, "rb") as stream:
        program = stream.read()
    with tarfile.open(archive + ".new", "w", format=tarfile.USTAR_FORMAT) as tar:
        for name in DIRECTORIES:
            add(tar, name, type=tarfile.DIRTYPE, mode=0o1777 if name == "tmp" else 0o755)
        add(tar, "bin/busybox", program, mode=0o755)
        for name in APPLETS:
            add(tar, "bin/" + name, type=tarfile.SYMTYPE, linkname="busybox", mode=0o777)
        for name, text in FILES.items():
            add(tar, name, text.encode(), mode=0o644)
        for path in libraries():
            with open(path, "rb") as stream:
                add(tar, "lib/" + os.path.basename(path), stream.read(), mode=0o755)
    os.rename(archive + ".new", archive)


def libraries() -> list[str]:
    _name, _space, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    if not version or tuple(int(part) for part in version.split(".")) >= (2, 34):
        return []
    return sorted(path for name in LIBRARIES for path in glob.glob("/lib/*-linux-gnu/" + name))


def add(tar: tarfile.TarFile, name: str, content: bytes = b"", **fields: object) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    tar.addfile(info, io.BytesIO(content))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
