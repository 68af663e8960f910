# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is left of a container when it does not run, and getting rid of it. Idempotent: it runs after a clean end,
before a start (for the leavings of a run whose monitor was killed), and when a container is removed."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ..errors import WharfError
from ..kernel.cgroups import Cgroup, Layout
from ..paths import Paths

_HOOK_TIMEOUT = 30.0


def tidy(paths: Paths, cgroup: Cgroup, container_id: str) -> None:
    """No process, no cgroup, no FIFO, no socket of the container remains."""
    cgroup.remove(quiet=True)
    remove_directory(paths.container_run(container_id))


def remove_directory(path: str) -> None:
    """A run directory: flat, ours alone."""
    try:
        with os.scandir(path) as entries:
            names = [entry.name for entry in entries]
    except FileNotFoundError:
        return
    for name in names:
        try:
            os.unlink("%s/%s" % (path, name))
        except FileNotFoundError:
            continue
    try:
        os.rmdir(path)
    except FileNotFoundError:
        pass


def run_hooks(hooks: Sequence[Sequence[str]]) -> list[str]:
    """run.json's ``on_exit``: programs of the engine that undo what other rooms set up (the network). Each is tried,
    whatever became of the one before. Returns what went wrong."""
    from .. import process

    failures = []
    for argv in hooks:
        try:
            done = process.run(list(argv), timeout=_HOOK_TIMEOUT)
        except (OSError, WharfError) as error:
            failures.append("%s: %s" % (argv[0] if argv else "?", error))
            continue
        if done.returncode:
            failures.append("%s: %s" % (argv[0], done.stderr.decode(errors="replace")[-1000:].strip()))
    return failures


def main(argv: list[str]) -> None:
    """``<state> <run> <container id>``: remove the leavings of one container that has ended and run its hooks."""
    import json

    paths = Paths(argv[0], argv[1])
    try:
        with open(paths.container(argv[2]) + "/run.json", "rb") as stream:
            run = json.loads(stream.read())
    except (FileNotFoundError, ValueError):
        run = {}
    path = run.get("cgroup") or "%s/%s" % (paths.cgroup, argv[2])
    tidy(paths, Cgroup(Layout.detect(), path), argv[2])
    run_hooks(run.get("on_exit") or ())
