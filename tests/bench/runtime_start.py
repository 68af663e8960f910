# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Start, exec and stop of one container by a warm spawner, as the task sees them (milliseconds), and what a monitor
costs in memory (kB). As root: ``python tests/bench/runtime_start.py [how many]``."""

from __future__ import annotations

import importlib.util
import os
import shutil
import statistics
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, ROOT + "/plugins")


def harness():
    spec = importlib.util.spec_from_file_location("harness", ROOT + "/tests/kernel/runtime/conftest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    state = tempfile.mkdtemp(prefix="wharf-state-", dir="/var/tmp")
    return module.Harness(state, tempfile.mkdtemp(prefix="wt", dir="/run"))


def measure(label, function, items):
    took = []
    for item in items:
        began = time.perf_counter()
        function(item)
        took.append((time.perf_counter() - began) * 1000)
    took = sorted(took[1:])  # the first warms up
    print("%-6s min %6.1f  median %6.1f  max %6.1f ms" % (label, took[0], statistics.median(took), took[-1]))


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    engine = harness()
    try:
        ids = [engine.create(["/bin/sleep", "1000"]) for _n in range(count + 1)]
        measure("start", engine.runtime.start, ids)
        measure("exec", lambda cid: engine.exec(cid, "/bin/true"), ids)
        for field in ("Rss", "Pss", "Private_Dirty"):
            values = []
            for cid in ids:
                with open("/proc/%d/smaps_rollup" % engine.runtime.state(cid)["monitor_pid"]) as stream:
                    values += [int(line.split()[1]) for line in stream if line.startswith(field + ":")]
            print("monitor %-13s median %d kB" % (field, statistics.median(values)))
        measure("stop", lambda cid: engine.runtime.stop(cid, 9, 0), ids)
    finally:
        engine.close()
        shutil.rmtree(engine.paths.state)
        shutil.rmtree(engine.paths.run)


if __name__ == "__main__":
    main()
