# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The spawner as its clients see it: a socket, behind which a process is started when there is none."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from ..errors import Interrupted
from ..paths import Paths

if TYPE_CHECKING:
    import socket

_TIMEOUT = 15.0
_LATEST = 180.0  # on a crowded or emulated processor; one that has said why it failed is not waited for as long
_GONE = (FileNotFoundError, ConnectionRefusedError)


def connect(paths: Paths) -> socket.socket:
    """A connection to the spawner, started on demand."""
    from . import wire

    path = paths.spawner_socket
    try:
        return wire.connect(path, _TIMEOUT)
    except _GONE:
        pass
    from .. import process
    from ..kernel.cgroups import Layout, delegation

    argv = process.engine_command("runtime.spawner", paths.state, paths.run)
    log = paths.run + "/spawner.log"
    before = _size(log)  # what the ones before it said does not count
    process.spawn_daemon(argv, log=log, cgroups=delegation.ensure(Layout.detect()))
    begun = time.monotonic()
    while True:
        try:
            return wire.connect(path, _TIMEOUT)
        except _GONE:
            latest = _TIMEOUT if _size(log) > before else _LATEST
            if time.monotonic() - begun >= latest:
                raise Interrupted(
                    "The engine's spawner process did not start: %s" % _words(log, before),
                    step="start_spawner",
                    path=log,
                ) from None
            time.sleep(0.003)


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except FileNotFoundError:
        return 0


def _words(path: str, begin: int) -> str:
    """The end of what was written to ``path`` from ``begin`` on."""
    try:
        with open(path, "rb") as stream:
            stream.seek(begin)
            return stream.read()[-500:].decode(errors="replace").strip() or "no message"
    except OSError:
        return "no log"
