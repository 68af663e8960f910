# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options of image_export, container_export and container_commit."""

from __future__ import annotations

from .common import Table

IMAGE_EXPORT: Table = {
    "names": {"type": "list", "elements": "str", "required": True, "aliases": ["name"]},
    "path": {"type": "path", "required": True},
    "format": {
        "type": "str",
        "choices": ["docker-archive", "oci-archive", "oci-layout"],
        "default": "docker-archive",
    },
}

CONTAINER_EXPORT: Table = {
    "container": {"type": "str", "required": True},
    "path": {"type": "path", "required": True},
}

CONTAINER_COMMIT: Table = {
    "container": {"type": "str", "required": True},
    "name": {"type": "str", "required": True},
    "author": {"type": "str"},
    "comment": {"type": "str"},
    "changes": {"type": "list", "elements": "str"},
    "pause": {"type": "bool", "default": True},
}
