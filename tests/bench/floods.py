# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The log pump: what a container that writes as fast as it can gets rid of, beside docker on the same flood."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from typing import Any

from helpers.engine import Engine

from .rows import Row, interleaved

MEGABYTES = 100
_FLOODS = {
    "lines of 100 bytes": "x" * 99,
    "JSON, to be escaped": '{"level": "info", "path": "/some/where", "status": 200, "took": 0.0123}',
}


def log_rows(instance: Engine, found: dict[str, str], count: int) -> Iterator[Row]:
    """From the start of the container until its last line is in the log."""
    for words, line in _FLOODS.items():
        script = "yes '%s' | head -c %d" % (line, MEGABYTES * 10**6)
        for driver in ("json-file", "local"):
            works = {"wharf": _ours(instance, driver, script)}
            if "docker" in found:  # podman's conmon has formats of its own
                works["docker"] = _docker(driver, script)
            interleaved(1, works)
            samples = interleaved(count, works)
            mine = samples.pop("wharf")
            yield Row("log pump, %d MB: %s, %s" % (MEGABYTES, words, driver), "ms", mine, samples, "ahead of docker")


def _ours(instance: Engine, driver: str, script: str) -> Callable[[], Any]:
    name, argv = "flood-" + driver, ["/bin/sh", "-c", script]

    def flood() -> None:
        # Rotation, so that the disk's caches stay out of it; the same for docker.
        options = {"max-size": "50m", "max-file": "2", "compress": "false"}
        instance.container(
            name, command=argv, log_driver=driver, log_options=options, network_mode="none", recreate=True
        )
        instance.run("container_wait", container=name)

    return flood


def _docker(driver: str, script: str) -> Callable[[], Any]:
    options = ["--log-opt", "max-size=50m", "--log-opt", "max-file=2", "--log-opt", "compress=false"]
    argv = ["docker", "run", "-d", "--network", "none", "--log-driver", driver, *options]

    def flood() -> None:
        started = subprocess.run(
            [*argv, "wharf-bench:1", "/bin/sh", "-c", script], check=True, capture_output=True, text=True
        ).stdout.strip()
        subprocess.run(["docker", "wait", started], check=True, capture_output=True)
        subprocess.run(["docker", "rm", "-f", started], check=True, capture_output=True)

    return flood
