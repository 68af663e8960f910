# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options of the modules that do one thing to a container: copy, kill, pause, rename, restart, wait."""

from __future__ import annotations

from .common import Table

KILL: Table = {
    "container": {"type": "str", "required": True},
    "signal": {"type": "str", "default": "KILL"},
}

PAUSE: Table = {
    "container": {"type": "str", "required": True},
    "paused": {"type": "bool", "default": True},
}

RESTART: Table = {
    "container": {"type": "str", "required": True},
    "stop_timeout": {"type": "int"},
    "force_kill": {"type": "bool", "default": False},
    "kill_signal": {"type": "str"},
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
