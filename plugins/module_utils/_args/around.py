# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options of container_kill, container_rename and container_wait."""

from __future__ import annotations

from .common import Table

KILL: Table = {
    "container": {"type": "str", "required": True},
    "signal": {"type": "str", "default": "KILL"},
}

RENAME: Table = {
    "container": {"type": "str", "required": True},
    "name": {"type": "str", "required": True, "aliases": ["new_name"]},
}

WAIT: Table = {
    "container": {"type": "str", "required": True, "aliases": ["name"]},
    "condition": {
        "type": "str",
        "choices": ["not-running", "next-exit", "removed", "healthy", "running"],
        "default": "not-running",
    },
    "timeout": {"type": "float", "default": 300},
}
