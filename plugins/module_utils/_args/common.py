# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What every module accepts, and how an option table becomes an argument spec. Data only: no engine import."""

from __future__ import annotations

from typing import Any, Dict

Option = Dict[str, Any]
Table = Dict[str, Option]

# Keys of an option table entry that are ours, not Ansible's:
#   compare: scalar | list | set | dict | named (list of dicts, matched by its "key") | ignore
#   change:  live (the running container is changed) | replace | ignore (cannot change behaviour; never a difference)
#   key:     for compare=named, the field that identifies an entry
#   normal:  the function of _engine/reconcile/values.py that brings a value (an element, for lists) to canonical form
#   into:    the canonical option this one is folded into (volumes, mounts and tmpfs all become mounts)
OURS = ("compare", "change", "key", "normal", "into", "zero")

COMMON: Table = {
    "state_dir": {"type": "path", "default": "/var/lib/wharf"},
    "run_dir": {"type": "path", "default": "/run/wharf"},
}

# Who must have signed an image.
VERIFY: Table = {
    "key": {"type": "str", "required": True, "no_log": False},  # a public key
    "identity": {"type": "str"},
}


def argument_spec(*tables: Table) -> Dict[str, Any]:
    """The Ansible argument spec of one or more option tables."""
    spec: Dict[str, Any] = {}
    for table in tables:
        for name, option in table.items():
            entry = {key: value for key, value in option.items() if key not in OURS}
            if "options" in entry:
                entry["options"] = argument_spec(entry["options"])
            spec[name] = entry
    return spec
