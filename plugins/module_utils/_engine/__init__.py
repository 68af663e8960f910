# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The container engine. No Ansible import below this line; imports between rooms run downward only."""

from __future__ import annotations

VERSION = "0.1.0"
