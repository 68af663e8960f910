# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a pull takes of a host's memory: measured in an interpreter of its own, as a task has one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import module_utils
import pytest
from helpers import tars
from helpers.fake_registry import FakeRegistry
from helpers.images import Image, build_image

LIMIT = 64 << 10  # KiB, the largest process of the pull
PULL = """
import sys
sys.path.insert(0, sys.argv[1])
from module_utils._engine.images import pull, reference
from module_utils._engine.kernel.syscalls import Kernel
from module_utils._engine.paths import Paths
from module_utils._engine.process import isolated
from module_utils._engine.registry.transport import Transport
from module_utils._engine.store.state import Store
import resource

def work():
    with Store.open(Paths(sys.argv[3], sys.argv[4])) as store:
        transport = Transport(timeout=30)
        return pull.pull_report(store, Kernel(), reference.parse(sys.argv[2]), transport=transport).image.size

size = isolated(work)
sys.stdout.write("%d %d" % (size, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
"""


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with FakeRegistry() as registry:
        yield registry


def peak(registry: FakeRegistry, image: Image, tmp_path: Path) -> tuple[int, int]:
    """(size of the image, KiB of the largest process)."""
    name = registry.add("team/app", "1", image)
    plugins = os.path.dirname(next(iter(module_utils.__path__)))
    argv = [sys.executable, "-I", "-c", PULL, plugins, name, str(tmp_path / "state"), str(tmp_path / "run")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env={"WHARF_LAYER_FORM": "erofs"})
    assert done.returncode == 0, done.stderr
    size, memory = done.stdout.split()
    return int(size), int(memory)


def test_a_large_layer_takes_no_more_memory_than_a_small_one(registry: FakeRegistry, tmp_path: Path) -> None:
    noise = os.urandom(16 << 10)
    data = tars.build([tars.file("big-%d" % n, noise * 2048) for n in range(8)])
    size, memory = peak(registry, build_image([data]), tmp_path)
    assert size == 256 << 20 and memory < LIMIT


def test_two_hundred_thousand_files_in_a_layer_fit_into_64_megabytes(registry: FakeRegistry, tmp_path: Path) -> None:
    count = 200_000
    entries, base = [], tars.header("usr/lib/python/0000/some-module-000000.py")
    for number in range(count):
        if number % 20 == 0:
            entries.append(tars.folder("usr/lib/python/%04d" % (number // 20)))
        raw = base[:15] + b"%04d/some-module-%06d.py" % (number // 20, number) + base[41:148] + b" " * 8 + base[156:]
        entries.append(raw[:148] + b"%06o\0 " % sum(raw) + raw[156:])
    size, memory = peak(registry, build_image([tars.build(entries)], compress=False), tmp_path)
    assert size == 0 and memory < LIMIT
