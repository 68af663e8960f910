# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A container without a network that runs ``/bin/true``, from the wish to its end: beside the runtimes that start one
from a root file system and keep no books; and many of them made by one task, for how the time grows."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

from helpers.engine import Engine
from module_utils._engine.entry import dispatch

from .rows import Row, command, interleaved, timed

RUNTIMES = ("runc", "crun")
SLEEP = ["sleep", "1000"]


def bare_rows(instance: Engine, directory: str, count: int) -> Iterator[Row]:
    """``directory``: holds busybox.tar, and has room for a bundle."""
    bundle, serial = directory + "/bundle", iter(range(10**6))

    def ours() -> None:
        name = "true-%d" % next(serial)
        instance.container(name, command=["/bin/true"], network_mode="none")
        instance.run("container_wait", container=name)

    def theirs(name: str) -> Callable[[], Any]:
        def run() -> None:
            command(name, "run", "--bundle", bundle, "wharf-bench-%d" % next(serial))()

        return run

    peers = {}
    for name in RUNTIMES:
        if shutil.which(name):
            _bundle(name, bundle, directory + "/busybox.tar")
            with contextlib.suppress(
                subprocess.CalledProcessError
            ):  # it does not run on this host (crun: hybrid cgroups)
                theirs(name)()
                peers[name] = theirs(name)
    works = {"wharf": ours, **peers}
    interleaved(1, works)
    samples = interleaved(count, works)
    mine = samples.pop("wharf")
    yield Row("/bin/true without network, to its end", "ms", mine, samples, "≤ 2 × crun (ratio ≥ 0.5); ahead of runc")


def _bundle(runtime: str, bundle: str, archive: str) -> None:
    shutil.rmtree(bundle, ignore_errors=True)
    os.makedirs(bundle + "/rootfs")
    subprocess.run(["tar", "-xf", archive, "-C", bundle + "/rootfs"], check=True)
    subprocess.run([runtime, "spec", "--bundle", bundle], check=True)
    with open(bundle + "/config.json") as stream:
        config = json.load(stream)
    config["process"].update(terminal=False, args=["/bin/true"])
    with open(bundle + "/config.json", "w") as stream:
        json.dump(config, stream)


def growth_rows(instance: Engine) -> Iterator[Row]:
    """200 containers by one task beside 50 by one; and the task that finds all 200 as they should be."""
    each: dict[int, list[float]] = {}
    kept: list[float] = []
    for size in (50, 200):
        wish = [{"name": "grow-%d" % n, "image": "bb:1", "command": SLEEP} for n in range(size)]
        each[size] = [timed(lambda wish=wish: instance.run("containers", containers=wish)) / size]
        if size == 200:
            kept = unchanged(instance, wish, 15)
        gone = [{"name": one["name"], "state": "absent", "force_kill": True} for one in wish]
        instance.run("containers", containers=gone)
    yield Row("200 containers by one task, each of them", "ms", each[200], {"of 50": each[50]}, "linear: about 1 ×")
    yield Row("200 containers, one task that changes nothing", "ms of CPU", kept, {}, "≤ 60 ms")


def unchanged(instance: Engine, wish: list[dict[str, Any]], count: int) -> list[float]:
    """Milliseconds of CPU of the engine's part (Ansible has filled in the defaults by then): a machine that does other
    things at the same time is no slower by this clock."""
    out = []
    for _again in range(count):
        params = instance.filled("containers", containers=wish)
        begin = time.process_time()
        result = dispatch("containers", params)
        out.append((time.process_time() - begin) * 1000)
        if result["changed"]:
            raise SystemExit("a task that changes nothing changed %s" % result["actions"])
    return out
