# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ``registry_info`` module: what a registry says about itself, its repositories and its images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import RegistryError, UsageError
from . import image_choice
from .registry import host_of
from .task import Task, query

if TYPE_CHECKING:
    from ..images.manifest import Manifest
    from ..images.reference import Reference
    from ..registry.client import RegistryClient


def run(task: Task) -> dict[str, Any]:
    from ..registry import credentials
    from ..registry.client import RegistryClient

    params = task.params
    host = host_of(task)
    name, term = params.get("name"), params.get("search")
    if term and name:
        raise UsageError("search and name exclude each other", step="validate", path="search")
    transport = image_choice.transport(task)
    if term:
        from ..registry import discovery

        # A search goes to another host than everything else (Docker Hub), and needs none of it.
        answer: dict[str, Any] = {
            "name": host,
            "search": discovery.search(host, transport, term, params.get("limit") or 0),
        }
        return {"changed": False, "registry": query(params.get("query"), answer)}
    client = RegistryClient(host, transport)
    answer = {"name": host, **client.ping()}
    found = credentials.lookup(task.paths.auth, host)
    answer["logged_in"] = found is not None
    answer["username"] = found.username if found else None
    if not name:
        answer["repositories"] = _catalog(client, task)
    else:
        answer.update(_about(task, client, host, str(name)))
    return {"changed": False, "registry": query(params.get("query"), answer)}


def _about(task: Task, client: RegistryClient, host: str, name: str) -> dict[str, Any]:
    """A repository's tags, or what a reference with a tag or digest names."""
    from ..images import reference

    parsed = reference.parse("%s/%s" % (host, name))
    if parsed.digest is None and ":" not in name.rpartition("/")[2]:
        if task.params.get("referrers"):
            raise UsageError("referrers: name needs a tag or a digest", step="validate", path="referrers")
        return {"tags": client.tags(parsed.path)}
    return _image(client, parsed, bool(task.params.get("referrers")))


def _image(client: RegistryClient, parsed: Reference, referrers: bool) -> dict[str, Any]:
    from ..images.manifest import Manifest, load_json, parse_manifest

    data, kind, digest = client.get_manifest(parsed.path, parsed.digest or parsed.tag or "")
    document = load_json(data, str(parsed))
    found = parse_manifest(data, kind, subject=str(parsed))
    manifest: dict[str, Any] = {
        "digest": digest,
        "media_type": found.media_type,
        "size": len(data),
        "document": document,
    }
    if isinstance(found, Manifest):
        manifest["total"] = sum(layer.size for layer in found.layers) + found.config.size
        manifest["config"] = _config(client, parsed, found)
    else:
        manifest["platforms"] = [_platform(entry) for entry in document["manifests"] if _is_image(entry)]
    answer: dict[str, Any] = {"manifest": manifest}
    if referrers:
        from ..registry import discovery

        beside = [] if isinstance(found, Manifest) else discovery.attestations(document)
        answer["referrers"] = discovery.referrers(client, parsed.path, digest) + beside
    return answer


def _config(client: RegistryClient, parsed: Reference, found: Manifest) -> Any:
    """The image's configuration, verified; null for an artifact."""
    import hashlib

    from ..errors import IntegrityError
    from ..images import config as configs
    from ..images.manifest import load_json
    from ..registry import mediatypes as media

    if found.config.media_type not in media.CONFIGS or found.config.size > configs.CONFIG_LIMIT:
        return None
    stream = client.open_blob(parsed.path, found.config.digest)
    data = b""
    try:
        while len(data) <= found.config.size:
            more = stream.read()
            if not more:
                break
            data += more
    finally:
        stream.close()
    if "sha256:" + hashlib.sha256(data).hexdigest() != found.config.digest:
        raise IntegrityError(
            "%s sent another config of %s than its manifest names" % (client.host, str(parsed)),
            step="registry_info",
            subject=str(parsed),
        )
    return load_json(data, str(parsed))


def _is_image(entry: dict[str, Any]) -> bool:
    platform = entry.get("platform") or {}
    return bool(platform.get("os")) and platform["os"] != "unknown"


def _platform(entry: dict[str, Any]) -> dict[str, Any]:
    platform = entry["platform"]
    parts = [platform.get("os"), platform.get("architecture"), platform.get("variant")]
    return {"platform": "/".join(part for part in parts if part), "digest": entry["digest"], "size": entry["size"]}


def _catalog(client: RegistryClient, task: Task) -> Any:
    """Many registries keep the catalog closed; that is an answer, not a failure."""
    try:
        return client.catalog()
    except RegistryError as error:
        task.warn("The registry does not list its repositories: %s" % error.msg)
        return None
