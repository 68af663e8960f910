# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a layer of 15,000 files and 120 MB costs to write in each form, beside hashing it and GNU tar.

    python tests/bench/bench_layers.py [entries] [megabytes]

Best of three; "beyond hash and write" is what indexing adds to what any engine must do.
"""

from __future__ import annotations

import hashlib
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE + "/../../plugins", HERE + "/.."]

from helpers.tars import build, file, folder, symlink  # noqa: E402
from module_utils._engine.images.layers import LayerWriter  # noqa: E402
from module_utils._engine.kernel.syscalls import Kernel  # noqa: E402
from module_utils._engine.storage import overlay  # noqa: E402

PIECE = 1 << 18


def layer(entries: int, megabytes: int) -> bytes:
    chance = random.Random(1)
    size = megabytes * (1 << 20) // entries
    parts, folders = [], ["usr"]
    for n in range(entries):
        if n % 10 == 0:
            folders.append("%s/d%d" % (chance.choice(folders[-30:]), n))
            parts.append(folder(folders[-1]))
        elif n % 13 == 0:
            parts.append(symlink("%s/l%d" % (folders[-1], n), "../f"))
        else:
            parts.append(file("%s/file-%d" % (folders[-1], n), chance.randbytes(chance.randrange(2 * size))))
    return build(parts)


def best(function, times: int = 3) -> float:
    taken = []
    for _n in range(times):
        before = time.perf_counter()
        function()
        taken.append(time.perf_counter() - before)
    return min(taken)


def main(argv: list[str]) -> None:
    entries, megabytes = int(argv[0]) if argv else 15_000, int(argv[1]) if argv[1:] else 120
    base = tempfile.mkdtemp(prefix="bench-layers-", dir=os.environ.get("BENCH_DIR"))
    try:
        data = layer(entries, megabytes)
        print("%d entries, %d MB" % (entries, len(data) >> 20))
        plain = best(lambda: plainly(base, data))
        print("hash and write            %7.3f s" % plain)
        for form in ("erofs", "tree"):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            seconds = best(lambda form=form: write(base, data, form))
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            print("%-25s %7.3f s (%.3f beyond hash and write), memory +%d MB"
                  % (form, seconds, seconds - plain, grown >> 10))  # fmt: skip
        with open(base + "/raw", "rb"):
            seconds = best(lambda: extract(base))
        print("GNU tar x                 %7.3f s" % seconds)
        stack(base)
    finally:
        shutil.rmtree(base)


def plainly(base: str, data: bytes) -> None:
    digest = hashlib.sha256()
    with open(base + "/raw", "wb", buffering=0) as out:
        for at in range(0, len(data), PIECE):
            digest.update(data[at : at + PIECE])
            out.write(data[at : at + PIECE])


def write(base: str, data: bytes, form: str) -> None:
    shutil.rmtree(base + "/" + form, ignore_errors=True)
    os.mkdir(base + "/" + form)
    with LayerWriter(base + "/" + form, form=form) as writer:
        for at in range(0, len(data), PIECE):
            writer.write(data[at : at + PIECE])
        writer.finish()


def extract(base: str) -> None:
    shutil.rmtree(base + "/x", ignore_errors=True)
    os.mkdir(base + "/x")
    subprocess.run(["tar", "xpf", base + "/raw", "-C", base + "/x"], check=True)


def stack(base: str) -> None:
    """Mounting: fresh layers, and layers another container has open already."""
    kernel = Kernel()
    for name in ("u", "w"):
        os.mkdir(base + "/" + name)
    layers = [(base + "/tree", "tree"), (base + "/erofs", "erofs")]
    cache: dict[str, int] = {}

    def mount(kept: bool) -> None:
        os.close(overlay.mount_rootfs(kernel, layers, base + "/u", base + "/w", cache=cache if kept else None))

    mount(True)
    print("mount 2 layers + upper    %7.3f ms" % (1000 * best(lambda: mount(False), 20)))
    print("  with layers cached      %7.3f ms" % (1000 * best(lambda: mount(True), 20)))


if __name__ == "__main__":
    main(sys.argv[1:])
