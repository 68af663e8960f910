# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options of container_copy, container_kill, container_rename and container_wait."""

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

COPY: Table = {
    "container": {"type": "str", "required": True},
    "direction": {"type": "str", "choices": ["into", "from"], "default": "into"},
    "path": {"type": "path"},
    "content": {"type": "str", "no_log": True},
    "content_is_b64": {"type": "bool", "default": False},
    "container_path": {"type": "str", "required": True},
    "follow": {"type": "bool", "default": False},
    "local_follow": {"type": "bool", "default": True},
    "owner_id": {"type": "int"},
    "group_id": {"type": "int"},
    "mode": {"type": "raw"},
    "directory_mode": {"type": "raw"},
    "force": {"type": "bool"},
}
