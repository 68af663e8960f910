# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Start again what should run after a boot: ``wharf_restore.py STATE_DIR RUN_DIR``, called by wharf.service.

Runs the engine that the last task brought. Nothing to do when there was none.
"""

from __future__ import annotations

import fcntl
import os
import sys


def main(state_dir: str, run_dir: str) -> None:
    current = os.path.join(state_dir, "engine", "current")
    if not os.path.isdir(current):
        return
    root = os.path.realpath(current)  # one bundle, even if a task brings another one meanwhile
    with open(os.path.join(root, ".lock")) as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        sys.path.insert(0, root)
        from wharf_runtime._engine import restore

        restore.main([state_dir, run_dir])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
