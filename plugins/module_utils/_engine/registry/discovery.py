# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a registry knows about images without pulling them: search, and what refers to an image (SBOMs, signatures,
attestations)."""

from __future__ import annotations

import json
from typing import Any, Optional

from ..errors import NotFound, RegistryError, UsageError
from . import mediatypes as media
from . import replies
from .client import RegistryClient, next_page, pull_scope
from .session import HUB, Session
from .transport import Transport, origin

HUB_SEARCH = "index.docker.io"
LIMIT = 100
PAGES = 100
_BODY = 8 << 20
_PREDICATE = "dev.sigstore.bundle.predicateType"
# Where cosign keeps what it could not attach as a referrer.
_COSIGN = {"sig": "signature", "att": "attestation", "sbom": "sbom"}


def search(host: str, transport: Transport, term: str, limit: int = 25) -> list[dict[str, Any]]:
    """``[{name, description, star_count, is_official}]``, best first as the registry sees it. Where it has no search
    (almost all but Docker Hub), the names in its catalog that contain ``term``, with nothing known about them.

    Raises ``UsageError``, ``RegistryError``.
    """
    if not term or "://" in term or not term.isprintable():
        raise UsageError("search: %r is nothing to search for" % term, step="validate", path="search")
    if not 1 <= limit <= LIMIT:
        raise UsageError("limit: %d is outside the range of [1, %d]" % (limit, LIMIT), step="validate", path="limit")
    found = _search(host, transport, term, limit)
    if found is not None:
        return found
    names = [name for name in RegistryClient(host, transport).catalog() if term.lower() in name]
    return [_result({"name": name}) for name in names[:limit]]


def _search(host: str, transport: Transport, term: str, limit: int) -> Optional[list[dict[str, Any]]]:
    from urllib.parse import urlencode

    session = Session(HUB_SEARCH if host == HUB else host, transport)
    path = "/v1/search?" + urlencode({"q": term, "n": limit})
    subject = "a search for %s" % term
    response = session.request("GET", path, scope="registry:catalog:search", subject=subject, limit=_BODY)
    if response.status in (400, 404, 405, 501) or (response.status == 200 and replies.is_html(response)):
        response.discard()
        return None
    if response.status != 200:
        raise replies.refusal(response, subject, host)
    try:
        results = json.loads(response.content)["results"]
        return [_result(item) for item in results if isinstance(item.get("name"), str)][:limit]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise RegistryError("%s did not answer with results" % host, step="registry_search", subject=host) from None


def _result(item: dict[str, Any]) -> dict[str, Any]:
    name = item["name"]
    stars = item.get("star_count")
    return {
        "name": name[len("library/") :] if name.startswith("library/") else name,
        "description": str(item.get("description") or ""),
        "star_count": stars if isinstance(stars, int) else 0,
        "is_official": item.get("is_official") is True,
    }


def referrers(client: RegistryClient, repository: str, digest: str) -> list[dict[str, Any]]:
    """``[{kind, digest, media_type, artifact_type, size, annotations, source}]`` of what refers to the manifest
    ``digest``: by the referrers API (distribution-spec 1.1), by its fallback tag where the registry has none, and
    by cosign's tags. ``source`` says where it was found, ``kind`` is a guess for people: signature, attestation, sbom
    or artifact. Nothing of it is verified."""
    found = direct_referrers(client, repository, digest)
    known = {entry["digest"] for entry in found}
    return found + [entry for entry in _by_cosign(client, repository, digest) if entry["digest"] not in known]


def direct_referrers(client: RegistryClient, repository: str, digest: str) -> list[dict[str, Any]]:
    """As ``referrers``, without cosign's tags."""
    found = _by_api(client, repository, digest)
    return _by_tag(client, repository, digest) if found is None else found


def _by_api(client: RegistryClient, repository: str, digest: str) -> Optional[list[dict[str, Any]]]:
    subject = "what refers to %s" % digest
    target = "/v2/%s/referrers/%s" % (repository, digest)
    found: list[dict[str, Any]] = []
    for _page in range(PAGES):
        response = client.session.request(
            "GET", target, scope=pull_scope(repository), subject=subject, limit=media.MANIFEST_LIMIT
        )
        if response.status != 200 or replies.is_html(response):
            response.discard()
            if found:
                raise replies.refusal(response, subject, client.host)
            return None  # a registry of before 1.1
        entries = _entries(response.content)
        if entries is None:
            return None
        found += [_referrer(entry, "referrers") for entry in entries]
        target = next_page(str(response.headers.get("link") or ""), response.url)
        if not target or not entries:
            return found
        if origin(target) != client.session.auth.home:
            raise RegistryError(
                "%s continues %s on another host; refused" % (client.host, subject), step="registry_list"
            )
    raise RegistryError("%s never ends %s" % (client.host, subject), step="registry_list", subject=subject)


def _by_tag(client: RegistryClient, repository: str, digest: str) -> list[dict[str, Any]]:
    try:
        data = client.get_manifest(repository, digest.replace(":", "-"))[0]
    except NotFound:
        return []
    return [_referrer(entry, "tag") for entry in _entries(data) or []]


def _by_cosign(client: RegistryClient, repository: str, digest: str) -> list[dict[str, Any]]:
    found = []
    for end, kind in _COSIGN.items():
        tag = "%s.%s" % (digest.replace(":", "-"), end)
        try:
            head = client.head_manifest(repository, tag)
        except NotFound:
            continue
        if head is not None:
            entry = {"digest": head.digest, "mediaType": head.media_type, "size": head.size}
            found.append({**_referrer(entry, tag), "kind": kind})
    return found


def attestations(document: dict[str, Any], digest: str = "") -> list[dict[str, Any]]:
    """BuildKit's, which lie in the image's index beside the image; with ``digest``, those of one image in it."""
    found = []
    for entry in document.get("manifests") or []:
        notes = entry.get("annotations") or {}
        is_one = notes.get("vnd.docker.reference.type") == "attestation-manifest"
        if is_one and digest in ("", notes.get("vnd.docker.reference.digest")):
            found.append({**_referrer(entry, "index"), "kind": "attestation"})
    return found


def _entries(data: bytes) -> Optional[list[dict[str, Any]]]:
    try:
        entries = json.loads(data)["manifests"] or []
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else None


def _referrer(entry: dict[str, Any], source: str) -> dict[str, Any]:
    kind = str(entry.get("artifactType") or "")
    annotations = entry.get("annotations")
    notes = annotations if isinstance(annotations, dict) else {}
    return {
        # A sigstore bundle says in an annotation what it holds: a signature, an SBOM, a provenance.
        "kind": _kind("%s %s" % (kind, notes.get(_PREDICATE) or "")),
        "digest": entry.get("digest"),
        "media_type": entry.get("mediaType") or "",
        "artifact_type": kind,
        "size": entry.get("size"),
        "annotations": notes,
        "source": source,
    }


def _kind(artifact: str) -> str:
    for word, kind in (
        ("sigstore.dev/cosign/sign/", "signature"),
        ("spdx", "sbom"),
        ("cyclonedx", "sbom"),
        ("syft", "sbom"),
        ("sbom", "sbom"),
        ("in-toto", "attestation"),
        ("attestation", "attestation"),
        ("sigstore.bundle", "attestation"),
        ("cosign.artifact.sig", "signature"),
        ("signature", "signature"),
    ):
        if word in artifact.lower():
            return kind
    return "artifact"
