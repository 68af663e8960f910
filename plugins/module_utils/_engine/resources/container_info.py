# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ``container_info`` module."""

from __future__ import annotations

from .container_inspect import info as run

__all__ = ["run"]
