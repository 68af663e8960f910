# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ``image_info`` module."""

from __future__ import annotations

from .image import info as run

__all__ = ["run"]
