# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options of events_info."""

from __future__ import annotations

from .common import Table

INFO: Table = {
    "since": {"type": "str"},
    "until": {"type": "str"},
    "filters": {"type": "dict"},
    "limit": {"type": "int"},
    "format": {"type": "str"},
    "query": {"type": "str"},
}
