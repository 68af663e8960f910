# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a pull takes of a host's memory: measured in an interpreter of its own, as a task has one."""

from __future__ import annotations

import os
from pathlib import Path

from bench import words
from helpers import pull_once, tars
from helpers.fake_registry import FakeRegistry
from helpers.images import Image, build_image

LIMIT = 64 << 10  # KiB, the largest process of the pull


def peak(registry: FakeRegistry, image: Image, tmp_path: Path) -> tuple[int, int]:
    """(size of the image, KiB of the largest process)."""
    name = registry.add("team/app", "1", image)
    return pull_once.pull(name, str(tmp_path / "state"), str(tmp_path / "run"), form="erofs")


def test_a_large_layer_takes_no_more_memory_than_a_small_one(registry: FakeRegistry, tmp_path: Path) -> None:
    noise = os.urandom(16 << 10)
    data = tars.build([tars.file("big-%d" % n, noise * 2048) for n in range(8)])
    size, memory = peak(registry, build_image([data]), tmp_path)
    assert size == 256 << 20 and memory < LIMIT


def test_two_hundred_thousand_files_in_a_layer_fit_into_64_megabytes(registry: FakeRegistry, tmp_path: Path) -> None:
    data = words.many_files(200_000)
    size, memory = peak(registry, build_image([data], compress=False), tmp_path)
    assert size == 0 and memory < LIMIT
