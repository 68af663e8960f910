# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a container's monitor runs when the container has ended for good: its network is taken down.

Whoever stops or starts the container holds its lock and waits for the monitor, which waits for this: waiting for the
lock here would be a deadlock. So it is only tried. If somebody has it who stops the container, he takes the network
down himself; otherwise a process of its own waits for the lock and looks again.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import TimedOut, UsageError
from ..paths import Paths
from .sandbox import process_of

if TYPE_CHECKING:
    from ..store.state import Store

_PATIENCE = 3600.0


def run(argv: Sequence[str]) -> None:
    """``release|release-later <state> <run> <container id>``."""
    from ..store.state import Store

    verb, state, run_directory, container_id = argv
    if verb not in ("release", "release-later"):
        raise UsageError("network.service knows release and release-later, not %s" % verb)
    paths = Paths(state, run_directory)
    if not os.path.exists(paths.database):  # the whole instance has gone meanwhile; do not make it again
        return
    with Store.open(paths, recover=False) as store:
        try:
            _release(store, paths, container_id, 0.0 if verb == "release" else _PATIENCE)
        except TimedOut:
            record = store.containers.get(container_id)
            if verb == "release" and (record is None or record.desired != "stopped"):
                _later(paths, container_id)


def _release(store: Store, paths: Paths, container_id: str, patience: float) -> None:
    """Under the container's lock, unless it runs again: then its network is none of our business."""
    from .service import NetworkService

    record = store.containers.get(container_id)
    name = record.name if record is not None else container_id
    with store.lock("container", name, timeout=patience):
        if not process_of(paths, container_id):
            with NetworkService(paths, store) as service:
                service.release(container_id, wait=True)


def _later(paths: Paths, container_id: str) -> None:
    from .. import process

    argv = process.engine_command("network.service", "release-later", paths.state, paths.run, container_id)
    process.spawn_daemon(argv)
