# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an exec runs. Apart from ``exec``, so that a task need not import what runs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

from ..tuples import NamedTuple


class ExecSpec(NamedTuple):
    """What to run. ``env``: ``KEY=value`` lines on top of the container's; ``user`` None: the container's own; ``cwd``
    None: the container's; ``timeout`` in seconds, after which the process and its children are killed; ``privileged``:
    with every capability; ``id``: what the exec is called, by its cgroup too."""

    argv: Sequence[str]
    env: Sequence[str] = ()
    user: Optional[str] = None
    groups: Sequence[str] = ()
    cwd: Optional[str] = None
    tty: bool = False
    timeout: Optional[float] = None
    privileged: bool = False
    id: str = ""
