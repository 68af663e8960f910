# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Verbs of runc's that need CRIU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import Unsupported

if TYPE_CHECKING:
    from .main import Context


def refuse(_context: Context, _values: dict[str, Any], _words: Sequence[str]) -> int:
    raise Unsupported(
        "checkpoint and restore are not supported: they need CRIU, which this runtime does not speak to",
        step="checkpoint",
    )
