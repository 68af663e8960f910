# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options of image, image_info, image_push, registry and registry_info."""

from __future__ import annotations

from .common import VERIFY, Table

TRANSPORT: Table = {
    "validate_certs": {"type": "bool", "default": True},
    "ca_path": {"type": "path"},
    "timeout": {"type": "float", "default": 60},
}

IMAGE: Table = {
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["absent", "present"], "default": "present"},
    "source": {"type": "str", "choices": ["pull", "load", "import", "controller"], "default": "pull"},
    "path": {"type": "path"},
    "pull": {"type": "str", "choices": ["always", "missing"], "default": "missing"},
    "platform": {"type": "str"},
    "force": {"type": "bool", "default": False},
    "changes": {"type": "list", "elements": "str"},
    "tags": {"type": "list", "elements": "str"},
    "verify": {"type": "dict", "options": VERIFY},
}

IMAGE_LOAD: Table = {
    "path": {"type": "path", "required": True},
    "names": {"type": "list", "elements": "str"},
    "platform": {"type": "str"},
}

IMAGE_PUSH: Table = {
    "name": {"type": "str", "required": True},
    "tag": {"type": "str"},
    "all_platforms": {"type": "bool", "default": False},
}

IMAGE_INFO: Table = {
    "name": {"type": "list", "elements": "str"},
    "history": {"type": "bool", "default": False},
    "filters": {"type": "dict"},
    "format": {"type": "str"},
    "query": {"type": "str"},
}

REGISTRY: Table = {
    "registry_url": {"type": "str", "default": "docker.io", "aliases": ["registry", "url"]},
    "username": {"type": "str", "aliases": ["user"]},
    "password": {"type": "str", "no_log": True},
    "reauthorize": {"type": "bool", "default": False, "aliases": ["reauth"]},
    "mirrors": {"type": "list", "elements": "str"},
    "state": {"type": "str", "choices": ["absent", "present"], "default": "present"},
}

REGISTRY_INFO: Table = {
    "registry_url": {"type": "str", "default": "docker.io", "aliases": ["registry", "url"]},
    "name": {"type": "str"},
    "search": {"type": "str"},
    "limit": {"type": "int", "default": 25},
    "referrers": {"type": "bool", "default": False},
    "query": {"type": "str"},
}
