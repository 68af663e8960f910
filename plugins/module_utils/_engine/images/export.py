# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Images as files for other engines: what ``docker save`` writes since Docker 25, OCI archives, OCI layouts.

The same images under the same names give the same bytes, whenever and wherever they are written: no times, no order
that depends on anything. So what is there already is compared with what would be written, byte by byte, and stays.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Optional

from ..registry import mediatypes as media
from ..tuples import NamedTuple
from . import sources
from .candidates import NAME, REF_NAME
from .manifest import Manifest, parse_manifest

if TYPE_CHECKING:
    from ..store.records import ImageRecord, LayerRef
    from ..store.state import Store
    from .reference import Reference

FORMATS = ("docker-archive", "oci-archive", "oci-layout")
Write = Callable[[bytes], Any]


class Selected(NamedTuple):
    """An image, and the names it is to have in the file (none: it can be found by its digest only)."""

    record: ImageRecord
    names: tuple[Reference, ...]


class Member(NamedTuple):
    """A file of the export: ``feed(write)`` gives its ``size`` bytes (and raises if they are not what they should)."""

    name: str
    size: int
    feed: Callable[[Write], Any]


class Export(NamedTuple):
    """``documents`` are ``index.json`` and its like, ``blobs`` everything named by its digest; both by name."""

    documents: tuple[Member, ...]
    blobs: tuple[Member, ...]
    entries: tuple[dict[str, Any], ...]


def fingerprint(selection: Sequence[Selected], form: str) -> str:
    """What decides over the bytes of an export, without reading a layer."""
    what = [
        [one.record.id, one.record.manifest_digest, [layer.blob_digest for layer in one.record.layers],
         [name.canonical() for name in one.names]]
        for one in selection
    ]  # fmt: skip
    return hashlib.sha256(json.dumps([form, what]).encode()).hexdigest()


def prepare(store: Store, selection: Sequence[Selected], form: str) -> Export:
    """Everything but the writing. Layers are read (to know their size, and that they are sound).

    Raises ``IntegrityError`` (damaged on disk), ``Unsupported`` (a layer of which no archive was kept).
    """
    blobs: dict[str, Member] = {}
    entries: list[dict[str, Any]] = []
    docker: list[dict[str, Any]] = []
    tags = [name.tag for one in selection for name in one.names]
    for one in selection:
        plain = form == "docker-archive"
        layers = [_layer(store, layer, plain) for layer in one.record.layers]
        config = store.blobs.read(one.record.id)
        manifest = _manifest(store, one.record, len(config), layers, plain)
        for member in (*(layer.member for layer in layers), _bytes(config), _bytes(manifest)):
            blobs[member.name] = member
        entries += _entries(one, manifest, tags)
        docker.append(
            {
                "Config": _path(one.record.id),
                "RepoTags": [name.familiar() for name in one.names] or None,
                "Layers": [layer.member.name for layer in layers],
            }
        )
    documents = {
        "index.json": _json({"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": entries}),
        "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
    }
    if form == "docker-archive":
        documents["manifest.json"] = _json(docker)
        documents["repositories"] = _json(_repositories(selection))
    return Export(
        tuple(_document(name, documents[name]) for name in sorted(documents)),
        tuple(blobs[name] for name in sorted(blobs)),
        tuple(entries),
    )


# -- layers ------------------------------------------------------------------------------------------------------


class _Layer(NamedTuple):
    member: Member
    digest: str
    media_type: str


def _layer(store: Store, layer: LayerRef, plain: bool) -> _Layer:
    """As it was pulled, where that was kept and may be; else uncompressed."""
    if not plain and layer.blob_digest and store.blobs.has(layer.blob_digest):
        member = Member(_path(layer.blob_digest), store.blobs.size(layer.blob_digest), _BlobFeed(store, layer))
        return _Layer(member, layer.blob_digest, sources.oci_type(layer.media_type))
    size = sources.tar_size(store, layer)
    feed: Callable[[Write], Any] = lambda write: sources.read_tar(store, layer, write)  # noqa: E731
    return _Layer(Member(_path(layer.diff_id), size, feed), layer.diff_id, media.OCI_LAYER)


class _BlobFeed:
    def __init__(self, store: Store, layer: LayerRef) -> None:
        self._store = store
        self._digest = layer.blob_digest

    def __call__(self, write: Write) -> None:
        sources.read_blob(self._store, self._digest, write)


# -- documents ---------------------------------------------------------------------------------------------------


def _manifest(store: Store, record: ImageRecord, config_size: int, layers: list[_Layer], plain: bool) -> bytes:
    """The one the image came with if it names exactly these layers, so that digests stay what they were."""
    kept = _kept_manifest(store, record)
    if kept is not None and not plain:
        parsed = parse_manifest(kept, record.manifest_type, subject=record.id)
        if isinstance(parsed, Manifest) and [one.digest for one in parsed.layers] == [one.digest for one in layers]:
            return kept
    return _json(
        {
            "schemaVersion": 2,
            "mediaType": media.OCI_MANIFEST,
            "config": {"mediaType": media.OCI_CONFIG, "digest": record.id, "size": config_size},
            "layers": [{"mediaType": one.media_type, "digest": one.digest, "size": one.member.size} for one in layers],
        }
    )


def _kept_manifest(store: Store, record: ImageRecord) -> Optional[bytes]:
    if record.manifest_type != media.OCI_MANIFEST or not store.blobs.has(record.manifest_digest):
        return None
    return store.blobs.read(record.manifest_digest)


def _entries(one: Selected, manifest: bytes, tags: list[Optional[str]]) -> list[dict[str, Any]]:
    """One per name. ``ref.name`` is the tag, as everybody writes it, unless two images here have the same one."""
    bare = {"mediaType": media.OCI_MANIFEST, "digest": _digest(manifest), "size": len(manifest)}
    out: list[dict[str, Any]] = []
    for name in one.names:
        short = name.tag if name.tag and tags.count(name.tag) == 1 else name.canonical()
        out.append({**bare, "annotations": {NAME: name.canonical(), REF_NAME: short}})
    return out or [bare]


def _repositories(selection: Sequence[Selected]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for one in selection:
        for name in one.names:
            if one.record.layers and name.tag:
                found.setdefault(name.familiar_name, {})[name.tag] = one.record.layers[-1].diff_id[7:]
    return found


def _json(document: Any) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _path(digest: str) -> str:
    return "blobs/sha256/" + digest[7:]


def _bytes(data: bytes) -> Member:
    return _document(_path(_digest(data)), data)


def _document(name: str, data: bytes) -> Member:
    return Member(name, len(data), lambda write: write(data))
