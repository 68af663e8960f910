# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options of volume and volume_info."""

from __future__ import annotations

from .common import Table

CONFIG: Table = {
    "driver": {"type": "str", "choices": ["local"], "default": "local", "compare": "scalar", "change": "replace"},
    "labels": {"type": "dict", "compare": "dict", "change": "live"},
}

OPERATION: Table = {
    "name": {"type": "str", "required": True, "aliases": ["volume_name"]},
    "state": {"type": "str", "choices": ["absent", "present"], "default": "present"},
}

INFO: Table = {
    "name": {"type": "str"},
    "size": {"type": "bool", "default": False},
    "filters": {"type": "dict"},
    "format": {"type": "str"},
    "query": {"type": "str"},
}
