# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Seccomp filters without libseccomp.

``profile`` holds Docker's default rules and reads profiles in Docker's JSON; ``compiler`` turns a profile into classic
BPF for the native ABI only (the 32-bit and x32 ABIs are refused whole: half of the seccomp escapes lived there).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Optional


def filter_for(
    profile: Optional[Mapping[str, Any]],
    capabilities: Collection[str],
    machine: Optional[str] = None,
    kernel: Optional[str] = None,
) -> bytes:
    """The program to load (8 bytes per instruction) for a container with these bounding ``capabilities`` (full names).

    ``profile``: a dict in Docker's or OCI's format; ``None`` is the default one. A pure function of its arguments
    (``machine`` and ``kernel``, a release such as "6.12.3", default to this host's), so callers may cache the result
    under ``cache_key``. Raises ``UsageError`` naming the bad field, ``Unsupported`` for a machine without a table.
    """
    from .compiler import compile_profile
    from .profile import default_profile, resolve

    machine, kernel = _host(machine, kernel)
    whole = default_profile() if profile is None else profile
    return compile_profile(resolve(whole, capabilities, machine, kernel), machine)


def cache_key(
    profile: Optional[Mapping[str, Any]],
    capabilities: Collection[str],
    machine: Optional[str] = None,
    kernel: Optional[str] = None,
) -> str:
    """64 hex digits that change whenever ``filter_for`` would answer something else."""
    import hashlib
    import json

    from .profile import VERSION

    machine, kernel = _host(machine, kernel)
    whole = [VERSION, profile, sorted(capabilities), machine, kernel.split(".")[:2]]
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def _host(machine: Optional[str], kernel: Optional[str]) -> tuple[str, str]:
    import os

    host = os.uname()
    return machine or host.machine, kernel or host.release
