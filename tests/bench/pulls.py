# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pulls and pushes through a registry on loopback, beside docker and skopeo where they are installed.

skopeo only copies blobs. docker and we also unpack them, so that a container can start; what inflating alone takes for
that is a row of its own, for each thing that this host reads gzip with: the first is the one that pulls use.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

from bench import words
from bench.rows import Row, Samples, command, interleaved
from helpers import debian, many_images, pull_once
from helpers.engine import Engine
from helpers.images import Image, build_image, push
from helpers.registry import Registry
from module_utils._engine.images import inflate
from module_utils._engine.paths import Paths

SAMPLES = 5


def pull_rows(instance: Engine, found: dict[str, str], directory: str, count: int) -> Iterator[Row]:
    with Registry(directory) as registry:
        debian.oci_layout(directory + "/layout")
        registry.push_layout(directory + "/layout:latest", "debian:1")
        corpus = words.Corpus()
        large = build_image([words.layer(corpus, 15_000, 120, "usr")])
        twelve = build_image([words.layer(corpus, 1250, 10, "opt/%d" % n, n) for n in range(12)])
        push(large, registry.url, "large", "1")
        push(twelve, registry.url, "twelve", "1")
        push(build_image([words.many_files(200_000)]), registry.url, "many", "1")
        budget = "≥ docker and skopeo"
        for what, name in (
            ("pull of a three-layer Debian image, cold", "debian:1"),
            ("pull of one layer of 15,000 files and 120 MB, cold", "large:1"),
            ("pull of 12 layers of 10 MB, cold", "twelve:1"),
        ):
            works = pulls(instance, found, registry.host + "/" + name, directory)
            samples = interleaved(count, works, functools.partial(forget, instance, found, registry, name, directory))
            yield Row(what, "ms", samples.pop("wharf"), samples, budget)
        yield from inflate_rows(large, count)
        yield from memory_rows(registry, directory)
        yield from unchanged_rows(instance, found, registry, directory, count)


def pulls(instance: Engine, found: dict[str, str], name: str, directory: str) -> dict[str, Callable[[], Any]]:
    works: dict[str, Callable[[], Any]] = {"wharf": lambda: instance.run("image", name=name)}
    if shutil.which("skopeo"):
        works["skopeo to OCI"] = command(*skopeo(name, directory))
    if "docker" in found:
        works["docker"] = command("docker", "pull", name)
    return works


def skopeo(name: str, directory: str) -> list[str]:
    return ["skopeo", "copy", "--src-tls-verify=false", "docker://" + name, "oci:%s/copy:1" % directory]


def forget(instance: Engine, found: dict[str, str], registry: Registry, name: str, directory: str) -> None:
    """Nothing of the image is anywhere, and nothing waits to be written."""
    full = registry.host + "/" + name
    instance.run("image", name=full, state="absent")
    shutil.rmtree(directory + "/copy", ignore_errors=True)
    if "docker" in found:
        subprocess.run(["docker", "rmi", "-f", full], capture_output=True, check=False)
    os.sync()


def inflate_rows(image: Image, count: int) -> Iterator[Row]:
    blob = max(image.blobs.values(), key=len)
    works = {one.name: functools.partial(unpacked, one, blob) for one in inflate.every()}
    samples = interleaved(count, works)
    name = inflate.every()[0].name
    mine = samples.pop(name)
    yield Row("  of these 120 MB, what %s alone takes" % name, "ms", mine, samples, "")


def unpacked(backend: inflate.Backend, blob: bytes) -> int:
    decoder = backend.make()
    size = 0
    for at in range(0, len(blob), 1 << 18):
        data = blob[at : at + (1 << 18)]
        while data:
            size += len(decoder.decompress(data, 1 << 19))
            data = decoder.unconsumed_tail
    return size


def memory_rows(registry: Registry, directory: str) -> Iterator[Row]:
    """Of the largest process."""
    for what, name in (
        ("peak memory of a pull, 15,000 files, 120 MB", "large:1"),
        ("peak memory of a pull, 200,000 files", "many:1"),
    ):
        full, peers = registry.host + "/" + name, {}
        mine = pull_once.pull(full, directory + "/peak", directory + "/peak-run")[1] / 1024
        shutil.rmtree(directory + "/peak")
        if shutil.which("skopeo"):
            peers["skopeo to OCI"] = [peak(skopeo(full, directory))]
            shutil.rmtree(directory + "/copy")
        yield Row(what, "MiB", [mine], peers, "≤ 64")


def peak(argv: list[str]) -> float:
    """MiB. Asked of an interpreter between: a child counts what its parent had when it was forked."""
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=2); "
        "sys.stdout.write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code, *argv], check=True, capture_output=True, text=True)
    return float(done.stdout) / 1024


def unchanged_rows(
    instance: Engine, found: dict[str, str], registry: Registry, directory: str, count: int
) -> Iterator[Row]:
    """What changes nothing."""
    name = registry.host + "/twelve:1"
    instance.run("image", name=name)
    same: dict[str, Callable[[], Any]] = {"wharf": lambda: instance.run("image", name=name, pull="always")}
    send: dict[str, Callable[[], Any]] = {"wharf": lambda: instance.run("image_push", name=name)}
    if shutil.which("skopeo"):
        command(*skopeo(name, directory))()
        same["skopeo to OCI"] = command(*skopeo(name, directory))
        send["skopeo"] = command(
            "skopeo", "copy", "--dest-tls-verify=false", "oci:%s/copy:1" % directory, "docker://" + name
        )
    if "docker" in found:
        same["docker"], send["docker"] = command("docker", "pull", name), command("docker", "push", name)
        same["docker"]()
    for what, works, budget in (
        ("the same pull when nothing changed", same, "1 request"),
        ("push of an image that is there", send, "transfers nothing"),
    ):
        samples = interleaved(count, works)
        yield Row(what, "ms", samples.pop("wharf"), samples, budget)
    forget(instance, found, registry, "twelve:1", directory)


def list_rows(directory: str, count: int) -> Iterator[Row]:
    """The engine's part of listing a hundred images: processor time of a fresh interpreter, over an empty module."""
    paths = Paths(directory + "/listed", directory + "/listed-run")
    many_images.make(paths, 100)
    empty = "import json, sys, time; import ansible.module_utils.basic; json.loads(sys.argv[1])"
    code = empty + (
        "; begin = time.process_time(); sys.path.insert(0, sys.argv[2]); "
        "from module_utils._engine.entry import dispatch; "
        "shown = dispatch('image_info', json.loads(sys.argv[1]))['images']; "
        "sys.stdout.write(str(1000 * (time.process_time() - begin) if len(shown) == 100 else 'short'))"
    )
    argv = [
        sys.executable,
        "-I",
        "-c",
        code,
        json.dumps({"state_dir": paths.state, "run_dir": paths.run}),
        pull_once.PLUGINS,
    ]

    def sample() -> float:
        return float(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)

    sample()  # leaves byte code behind
    mine: Samples = [sample() for _n in range(count)]
    yield Row("engine part of listing 100 images", "ms CPU", mine, {}, "≤ 15")
    shutil.rmtree(paths.state)
    shutil.rmtree(paths.run, ignore_errors=True)
