# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Launcher of the runtime with runc's command line. The code is in the directory ``<launcher>.d`` beside it; where the
role ``host`` installed it, that is a link to the engine that the last task brought."""

import os
import sys

root = os.path.realpath(os.path.realpath(__file__) + ".d")
try:
    lock = os.open(root + "/.lock", os.O_RDONLY | os.O_CLOEXEC)
except FileNotFoundError:  # built by `make oci`: nobody removes it while it is used
    pass
else:
    import fcntl

    fcntl.flock(lock, fcntl.LOCK_SH)  # a task that brings a newer engine removes this one only when nobody runs it
sys.path.insert(0, root)
from wharf_runtime._engine.oci import slim

slim.install()
from wharf_runtime._engine import bytecode

bytecode.find_in(root)
from wharf_runtime._engine.oci.main import main

sys.exit(main(sys.argv[1:]))
