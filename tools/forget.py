# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Take an engine off this host with everything it has: ``forget.py STATE_DIR RUN_DIR``. For demo and tests.

Containers must be gone already (the caller removes them with the module, so that they stop properly).
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "plugins"))

from module_utils._engine.kernel.cgroups import Cgroup, Layout
from module_utils._engine.kernel.netlink import Netlink
from module_utils._engine.network import bridge
from module_utils._engine.network.firewall import Firewall
from module_utils._engine.network.service import NetworkService
from module_utils._engine.paths import Paths
from module_utils._engine.store.state import Store


def main(state: str, run: str) -> None:
    paths = Paths(state, run)
    if os.path.exists(paths.database):
        with Store.open(paths) as store, NetworkService(paths, store) as networks:
            if store.containers.list():
                raise SystemExit("There are still containers: remove them first")
            for record in store.networks.list():
                if record.name == bridge.DEFAULT_NETWORK:  # no task may remove it
                    with Netlink() as netlink:
                        bridge.remove(netlink, paths, record)
                else:
                    networks.remove(record)
    _end_processes(state, run)
    Firewall(paths).remove()
    Cgroup(Layout.detect(), paths.cgroup).remove()
    for directory in (state, run):
        if os.path.isdir(directory):
            shutil.rmtree(directory)


def _end_processes(state: str, run: str) -> None:
    """Spawner and resolver would leave by themselves after half a minute of idleness."""
    for number, deadline in ((signal.SIGTERM, time.monotonic() + 5), (signal.SIGKILL, time.monotonic() + 10)):
        while mine := [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _is_of(pid, state, run)]:
            for pid in mine:
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    continue
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)


def _is_of(pid: int, state: str, run: str) -> bool:
    try:
        with open("/proc/%d/cmdline" % pid, "rb") as stream:
            words = stream.read().decode(errors="replace").rstrip("\0").split("\0")
    except OSError:
        return False
    return words[-2:] == [state, run] and any("._engine." in word for word in words)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
