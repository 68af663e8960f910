# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Attributes that modules share."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options: {}
attributes:
  action_group:
    description: Use C(group/wharf.engine.all) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - wharf.engine.all
  async:
    description:
      - Can be used with C(async). The engine is brought to the target before the module goes into the background.
    support: full
  check_mode:
    description: Can run in C(check_mode) and return the status prediction without modifying the target.
  diff_mode:
    description: Returns details on what has changed (or possibly needs changing in C(check_mode)), when in diff mode.
  idempotent:
    description:
      - When run twice in a row outside check mode, with the same arguments, the second invocation indicates no
        change.
  platform:
    description: Target operating systems.
    support: full
    platforms: linux
"""

    # A module that changes things and compares first.
    STATE = r"""
options: {}
attributes:
  check_mode:
    support: full
    details:
      - The plan is computed and returned as RV(ignore:actions); nothing is executed and nothing is left on the
        target.
  diff_mode:
    support: full
  idempotent:
    support: full
"""

    # A module that only reads.
    INFO = r"""
options: {}
attributes:
  check_mode:
    support: full
    details:
      - This module does not modify the target.
  diff_mode:
    support: N/A
    details:
      - This module does not modify the target.
  idempotent:
    support: full
"""
