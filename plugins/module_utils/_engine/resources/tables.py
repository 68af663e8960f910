# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The option tables, which live beside the modules' argument specs so that both are the same data."""

from __future__ import annotations

from ..._args.container import CONFIG as CONTAINER
from ..._args.network import CONFIG as NETWORK
from ..._args.volume import CONFIG as VOLUME

__all__ = ["CONTAINER", "NETWORK", "VOLUME"]
