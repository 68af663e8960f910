# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The functions there are: Go's, and those that Docker adds."""

from __future__ import annotations

BUILT_IN = frozenset(
    [
        "and",
        "call",
        "eq",
        "ge",
        "gt",
        "html",
        "index",
        "js",
        "le",
        "len",
        "lt",
        "ne",
        "not",
        "or",
        "print",
        "printf",
        "println",
        "slice",
        "urlquery",
    ]
)
DOCKER = frozenset(["join", "json", "lower", "pad", "split", "title", "truncate", "upper"])
FUNCTIONS = BUILT_IN | DOCKER
