# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options of host_info."""

from __future__ import annotations

from .common import Table

INFO: Table = {
    "disk_usage": {"type": "bool", "default": False},
    "query": {"type": "str"},
}
