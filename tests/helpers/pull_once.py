# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""One pull in an interpreter of its own, as a task has one, and what it took of memory."""

from __future__ import annotations

import os
import subprocess
import sys

PLUGINS = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../plugins"))
_SCRIPT = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from module_utils._engine.images import pull, reference
from module_utils._engine.kernel.syscalls import Kernel
from module_utils._engine.paths import Paths
from module_utils._engine.process import isolated
from module_utils._engine.registry.transport import Transport
from module_utils._engine.store.state import Store

def work():
    with Store.open(Paths(sys.argv[3], sys.argv[4])) as store:
        transport = Transport(timeout=30)
        return pull.pull_report(store, Kernel(), reference.parse(sys.argv[2]), transport=transport).image.size

size = isolated(work)
sys.stdout.write("%d %d" % (size, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
"""


def pull(name: str, state: str, run: str, form: str = "") -> tuple[int, int]:
    """(size of the image, KiB that the largest of the pull's processes had resident). ``form``: of the layers."""
    argv = [sys.executable, "-I", "-c", _SCRIPT, PLUGINS, name, state, run]
    environment = {"PATH": "/usr/bin:/bin", **({"WHARF_LAYER_FORM": form} if form else {})}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise AssertionError("the pull of %s failed: %s" % (name, done.stderr[-2000:]))
    size, memory = done.stdout.split()
    return int(size), int(memory)
