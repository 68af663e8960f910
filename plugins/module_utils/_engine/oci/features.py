# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""``features``: what this runtime recognises, in the specification's structure."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .. import VERSION
from ..kernel import capabilities
from ..kernel.seccomp.profile import ACTIONS, OPERATORS
from ..kernel.seccomp.tables import SCMP_ARCH
from . import config, filters, main, options

if TYPE_CHECKING:
    from .main import Context


def structure() -> dict[str, Any]:
    mount_words = sorted(
        {
            *options.ATTRIBUTES, *options.ATIME, *options.PROPAGATION, *options.IGNORED,
            *("r" + word for word in (*options.ATTRIBUTES, *options.ATIME, *options.PROPAGATION)),
            "bind", "rbind", "idmap", "ridmap", "remount", "tmpcopyup",
        }
    )  # fmt: skip
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": main.SPEC,
        "hooks": list(config.HOOKS),
        "mountOptions": mount_words,
        "linux": {
            "namespaces": list(config.NAMESPACES),
            "capabilities": list(capabilities.NAMES),
            "cgroup": {"v1": True, "v2": True, "systemd": True, "systemdUser": False, "rdma": False},
            "seccomp": {
                "enabled": True,
                "actions": sorted(ACTIONS),
                "operators": sorted(OPERATORS),
                "archs": sorted(SCMP_ARCH.values()),
                "knownFlags": sorted(filters.FLAGS),
                "supportedFlags": sorted(filters.FLAGS),
            },
            "apparmor": {"enabled": True},
            "selinux": {"enabled": False},
            "intelRdt": {"enabled": False},
            "mountExtensions": {"idmap": {"enabled": True}},
            "netDevices": {"enabled": False},
            "memoryPolicy": {},
        },
        "annotations": {"io.github.wharf.engine.version": VERSION},
        "potentiallyUnsafeConfigAnnotations": [],
    }


def features(_context: Context, _values: dict[str, Any], _words: Sequence[str]) -> int:
    sys.stdout.write(json.dumps(structure(), indent=2) + "\n")
    return 0
