# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""An image in the shape of ``docker image inspect`` (API 1.45 and later)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from . import reference as references

if TYPE_CHECKING:
    from ..store.records import ImageRecord


def inspect(record: ImageRecord, names: Sequence[str] = (), repo_digests: Sequence[str] = ()) -> dict[str, Any]:
    """``names`` and ``repo_digests`` as the store has them (normal form); shown as Docker shows them."""
    config = record.config
    shown: dict[str, Any] = {
        "Id": record.id,
        "RepoTags": sorted(references.familiar(name) for name in names if "@" not in name),
        "RepoDigests": sorted({references.familiar(name) for name in (*repo_digests, *(n for n in names if "@" in n))}),
        "Parent": "",
        "Comment": _last_comment(config),
        "Created": config.get("created") or "0001-01-01T00:00:00Z",
        "DockerVersion": config.get("docker_version") or "",
        "Author": config.get("author") or "",
        "Config": _config(config.get("config") or {}),
        "Architecture": config.get("architecture") or "",
        "Os": config.get("os") or "",
        "Size": record.size,
        "GraphDriver": {"Data": None, "Name": "overlayfs"},
        "RootFS": {"Type": "layers", "Layers": [layer.diff_id for layer in record.layers]},
        "Metadata": {"LastTagTime": _time(record.created_at)},
        "Descriptor": {"mediaType": record.manifest_type, "digest": record.manifest_digest},
    }
    if config.get("variant"):
        shown["Variant"] = config["variant"]
    return shown


def _last_comment(config: dict[str, Any]) -> str:
    history = config.get("history") or []
    comment = history[-1].get("comment") if history else None
    return comment if isinstance(comment, str) else ""


def _config(config: dict[str, Any]) -> dict[str, Any]:
    """The fields Docker always shows, and those that are set."""
    shown: dict[str, Any] = {
        "User": config.get("User") or "",
        "Env": config.get("Env"),
        "Cmd": config.get("Cmd"),
        "Volumes": config.get("Volumes"),
        "WorkingDir": config.get("WorkingDir") or "",
        "Entrypoint": config.get("Entrypoint"),
        "OnBuild": config.get("OnBuild"),
        "Labels": config.get("Labels"),
    }
    for name in ("ExposedPorts", "Healthcheck", "StopSignal", "Shell", "ArgsEscaped"):
        if config.get(name):
            shown[name] = config[name]
    return shown


def _time(seconds: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return "%s.%09dZ" % (whole, int(seconds % 1 * 1e9))
