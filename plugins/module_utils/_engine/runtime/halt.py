# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Stop every container of this host as it wants to be stopped: what systemd runs when it stops our unit.

Copied out of the bundle and run by itself, so it uses nothing of the engine. Monitors take SIGTERM for the host going
down: each stops its container with the container's signal and time, and leaves it to be started at the next boot.
"""

from __future__ import annotations

import os
import signal
import time

MONITOR = "wharf-monitor"
POLL = 0.05


def own_processes(cgroup: str = "/proc/self/cgroup", root: str = "/sys/fs/cgroup") -> list[int]:
    """Those in ``engine/`` of the unit that we run in (as its control process: in ``.control`` below it, or in it)."""
    with open(cgroup) as stream:
        lines = [line.rstrip("\n").split(":", 2) for line in stream]
    found: set[int] = set()
    for _number, names, path in lines:
        where = {"": ("", "/unified"), "name=systemd": ("/systemd",)}.get(names, ())
        unit = path[: -len("/.control")] if path.endswith("/.control") else path
        for directory in where:
            try:
                with open("%s%s%s/engine/cgroup.procs" % (root, directory, unit)) as stream:
                    found.update(int(pid) for pid in stream.read().split())
            except FileNotFoundError:
                continue
    return sorted(found)


def is_monitor(pid: int) -> bool:
    try:
        with open("/proc/%d/comm" % pid) as stream:
            return stream.read().strip() == MONITOR
    except (FileNotFoundError, ProcessLookupError):
        return False


def main() -> None:
    told: set[int] = set()
    while True:  # one that was just forked comes late
        monitors = [pid for pid in own_processes() if is_monitor(pid)]
        if not monitors:
            break
        for pid in monitors:
            if pid not in told:
                told.add(pid)
                _send(pid)
        time.sleep(POLL)
    for pid in own_processes():  # spawner and resolver; systemd ends its own
        if pid != os.getpid():
            _send(pid)


def _send(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        pass


if __name__ == "__main__":
    main()
