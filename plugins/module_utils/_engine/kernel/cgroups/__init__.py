# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Control groups: v1, v2, and both at once.

``layout`` finds out which controller lives where; ``resources`` turns options into OCI ``linux.resources``; ``v1`` and
``v2`` turn those into file writes (pure functions) and files back into options; ``group`` is one container's cgroup in
every hierarchy; ``events`` tells when the kernel killed for lack of memory. Nothing here imports ctypes.
"""

from __future__ import annotations

from .group import Cgroup
from .layout import Layout

__all__ = ["Cgroup", "Layout"]
