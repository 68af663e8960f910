# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options of network and network_info."""

from __future__ import annotations

from .common import Table

IPAM: Table = {
    "subnet": {"type": "str"},
    "iprange": {"type": "str", "aliases": ["ip_range"]},
    "gateway": {"type": "str"},
    "aux_addresses": {"type": "dict"},
}

CONFIG: Table = {
    "driver": {"type": "str", "choices": ["bridge"], "default": "bridge", "compare": "scalar", "change": "replace"},
    "driver_options": {"type": "dict", "compare": "dict", "change": "replace"},
    "ipam_config": {
        "type": "list",
        "elements": "dict",
        "options": IPAM,
        "compare": "list",
        "change": "replace",
    },
    "enable_ipv6": {"type": "bool", "compare": "scalar", "change": "replace"},
    "internal": {"type": "bool", "compare": "scalar", "change": "replace"},
    "attachable": {"type": "bool", "compare": "scalar", "change": "live"},
    "labels": {"type": "dict", "compare": "dict", "change": "live"},
}

OPERATION: Table = {
    "name": {"type": "str", "required": True, "aliases": ["network_name"]},
    "state": {"type": "str", "choices": ["absent", "present"], "default": "present"},
    "force": {"type": "bool", "default": False},
}

INFO: Table = {
    "name": {"type": "str"},
    "filters": {"type": "dict"},
    "format": {"type": "str"},
    "query": {"type": "str"},
}
