# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ``registry_info`` module."""

from __future__ import annotations

from .registry import info as run

__all__ = ["run"]
