# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a controller tells a target about an image it has: the documents alone, without a layer.

With these the target itself chooses (it knows its platform), sees whether it has that image already, and names the
layers it lacks. The controller side of this file runs there, too: nothing here needs Linux but ``OfferSource``.
"""

from __future__ import annotations

import base64
import json
import os
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Optional

from ..errors import UsageError
from ..registry import mediatypes as media
from . import platform as platforms
from .archive import JSON_LIMIT, Source, Span
from .candidates import NAME, REF_NAME
from .manifest import Descriptor, Manifest, load_json, parse_manifest
from .reference import Reference, parse

_LARGEST = 32 << 20
_DEPTH = 4


def documents(source: Source, name: Reference) -> dict[str, bytes]:
    """By member name: lists of images, manifests and configs. Of a source with many images only the documents of those
    called ``name``, if there are any. Raises as ``candidates.survey``."""
    found: dict[str, bytes] = {}
    if source.find("manifest.json") is not None:
        _docker(source, name, found)
    if source.find("index.json") is not None:
        _oci(source, name, found)
    return found


def _docker(source: Source, name: Reference, found: dict[str, bytes]) -> None:
    data = source.read("manifest.json")
    try:
        entries = json.loads(data)
    except (ValueError, RecursionError):  # told by who reads it in earnest
        found["manifest.json"] = data
        return
    if isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries):
        named = [entry for entry in entries if _called(entry.get("RepoTags"), name)]
        entries = named or entries
        for entry in entries:
            config = entry.get("Config")
            if isinstance(config, str) and source.find(config) is not None:
                found[config] = source.read(config)
    found["manifest.json"] = json.dumps(entries).encode()


def _called(names: Any, name: Reference) -> bool:
    for text in names if isinstance(names, list) else ():
        try:
            if isinstance(text, str) and parse(text).canonical() == name.canonical():
                return True
        except UsageError:
            continue
    return False


def _oci(source: Source, name: Reference, found: dict[str, bytes]) -> None:
    if source.find("oci-layout") is not None:
        found["oci-layout"] = source.read("oci-layout", 4096)
    index = load_json(source.read("index.json"), "the index.json of %s" % source.path)
    entries = index.get("manifests")
    if isinstance(entries, list):
        whole = [entry for entry in entries if isinstance(entry, dict) and _entry_called(entry, name)]
        tagged = [entry for entry in entries if isinstance(entry, dict) and _entry_tagged(entry, name)]
        index["manifests"] = whole or tagged or entries
    found["index.json"] = json.dumps(index).encode()
    parsed = parse_manifest(json.dumps({**index, "schemaVersion": 2}).encode(), subject=source.path)
    if not isinstance(parsed, Manifest):
        for entry in parsed.manifests:
            _below(source, entry, found, 0)


def _entry_called(entry: dict[str, Any], name: Reference) -> bool:
    notes = entry.get("annotations") or {}
    return isinstance(notes, dict) and _called([notes.get(NAME) or "", notes.get(REF_NAME) or ""], name)


def _entry_tagged(entry: dict[str, Any], name: Reference) -> bool:
    notes = entry.get("annotations") or {}
    return isinstance(notes, dict) and not notes.get(NAME) and notes.get(REF_NAME) == name.tag


def _below(source: Source, entry: Descriptor, found: dict[str, bytes], depth: int) -> None:
    """Manifests of other platforms may be missing (a layout need not be whole)."""
    member = "blobs/sha256/" + entry.digest[7:]
    if member in found or depth > _DEPTH or platforms.is_attestation(entry) or source.find(member) is None:
        return
    if entry.media_type not in media.MANIFESTS + media.INDEXES:
        return
    found[member] = data = source.read(member, JSON_LIMIT)
    parsed = parse_manifest(data, entry.media_type, subject=source.path)
    if isinstance(parsed, Manifest):
        config = "blobs/sha256/" + parsed.config.digest[7:]
        if parsed.config.media_type in media.CONFIGS and source.find(config) is not None:
            found[config] = source.read(config)
        return
    for one in parsed.manifests:
        _below(source, one, found, depth + 1)


def layers(found: dict[str, bytes]) -> set[str]:
    """Members that are layers of the images the documents describe."""
    out: set[str] = set()
    for name, data in found.items():
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            continue
        for entry in document if isinstance(document, list) else [document]:
            if not isinstance(entry, dict):
                continue
            if name == "manifest.json":
                out.update(one for one in entry.get("Layers") or () if isinstance(one, str))
            elif isinstance(entry.get("layers"), list) and "config" in entry:
                digests = [one.get("digest") for one in entry["layers"] if isinstance(one, dict)]
                out.update("blobs/sha256/" + one[7:] for one in digests if isinstance(one, str))
    return out


# -- on the way --------------------------------------------------------------------------------------------------


def encode(path: str, found: dict[str, bytes]) -> str:
    texts = {name: base64.b64encode(data).decode() for name, data in found.items()}
    return base64.b64encode(zlib.compress(json.dumps([path, texts]).encode(), 6)).decode()


class OfferSource(Source):
    """The documents as a source without layers. Raises ``UsageError`` for what is no offer."""

    def __init__(self, text: str) -> None:
        try:
            packed = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), _LARGEST)
            path, texts = json.loads(packed)
            members = {str(name): base64.b64decode(data) for name, data in texts.items()}
        except (ValueError, TypeError, AttributeError, zlib.error):
            raise UsageError("What the controller told about the image cannot be read", step="load") from None
        self.path = "%s on the controller" % path
        self._fd = os.memfd_create("wharf-offer", os.MFD_CLOEXEC)
        self._members: dict[str, Span] = {}
        position = 0
        for name, data in members.items():
            position += os.pwrite(self._fd, data, position)
            self._members[name] = Span(self._fd, position - len(data), len(data))

    def find(self, name: str) -> Optional[Span]:
        return self._members.get(name)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def pack(source: Source, found: dict[str, bytes], wants: Sequence[str], write: Callable[[bytes], Any]) -> None:
    """An archive of the documents and the wanted members. Raises ``IntegrityError`` for a member that is not there."""
    from .tarwriter import TarWriter

    tar = TarWriter(write)
    for name in sorted(found):
        tar.add(name.encode("utf-8", "surrogateescape"), size=len(found[name]))
        tar.data(found[name])
    for name in dict.fromkeys(wants):
        if name not in found:
            span = source.span(name)
            tar.add(name.encode("utf-8", "surrogateescape"), size=span.size)
            source.feed(span, tar.data)
    tar.finish()


def are_plain(source: Source, wants: Sequence[str]) -> bool:
    """Whether a wanted member is not compressed, so that it is worth while to compress the transfer."""
    from .unpack import compression

    for name in wants:
        start = bytearray()
        span = source.span(name)
        source.feed(span._replace(size=min(512, span.size)), start.extend)
        if not compression(bytes(start)):
            return True
    return False
