# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which images an archive or layout holds: ``docker save`` of all ages, OCI archives and layouts.

Since Docker 25 one archive can be read both ways, by ``manifest.json`` and by ``index.json``. Both are read and must
tell the same: otherwise what a scanner looks at and what is loaded could be two different images.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Optional

from ..errors import NotFound, RegistryError, Unsupported, UsageError, WharfError
from ..tuples import NamedTuple
from . import config as configs
from . import platform as platforms
from . import reference as references
from .archive import JSON_LIMIT, Source, refuse
from .manifest import Descriptor, Manifest, load_json, parse_manifest, require_image
from .platform import Platform
from .reference import Reference

NAME = "io.containerd.image.name"
REF_NAME = "org.opencontainers.image.ref.name"
_DEPTH = 3


class Part(NamedTuple):
    """A layer in the source: its member's name, the digest it is promised to have ("" for old archives, which promise
    none) and the media type ("" if unknown)."""

    member: str
    digest: str
    media_type: str


class Candidate(NamedTuple):
    """``names``: canonical references. ``tags``: names that are only a tag, as skopeo and umoci write them.
    ``manifest`` are its bytes, b"" where the format has none."""

    names: tuple[str, ...]
    tags: tuple[str, ...]
    config: bytes
    manifest: bytes
    manifest_type: str
    parts: tuple[Part, ...]

    @property
    def id(self) -> str:
        return _digest(self.config)

    def shown(self) -> str:
        return ", ".join(references.parse(name).familiar() for name in self.names) or ", ".join(self.tags) or self.id


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def survey(source: Source, wanted: Platform) -> list[Candidate]:
    """All images of the source for ``wanted`` (of several platforms' images the best is taken; one that has none for
    it is left out, unless it is the only one: then ``NotFound``).

    Raises ``IntegrityError`` (wrong digests, contradictions), ``RegistryError`` (malformed documents),
    ``Unsupported`` (formats before 2015, no image).
    """
    docker = source.find("manifest.json") is not None
    oci = source.find("index.json") is not None
    if docker:
        found = _docker(source)
        return _merge(source, found, _oci(source, wanted, docker=True)) if oci else found
    if oci:
        return _oci(source, wanted)
    if source.find("repositories") is not None:
        raise Unsupported(
            "Cannot load %s: it is in the format of Docker before 1.10, which is not supported" % source.path,
            step="load",
            path="path",
            hint="Load it into a current Docker and save it again.",
        )
    raise UsageError(
        "Cannot load %s: it holds neither manifest.json nor index.json, so it is no image archive" % source.path,
        step="load",
        path="path",
        hint="A root file system archive is taken with source: import.",
    )


def choose(source: Source, candidates: list[Candidate], name: Reference) -> Candidate:
    """The image called ``name``; of a source with one image that one, whatever its name. Raises ``NotFound``."""
    if name.digest:
        raise UsageError(
            "Cannot load as %s: what is loaded has the digest it has" % name.familiar(), step="load", path="name"
        )
    named = [one for one in candidates if name.canonical() in one.names]
    named = named or [one for one in candidates if not one.names and name.tag in one.tags]
    if len(named) == 1:
        return named[0]
    if len(candidates) == 1:
        return candidates[0]
    raise NotFound(
        "%s holds %d images, and %s of them is called %s: %s"
        % (
            source.path,
            len(candidates),
            "more than one" if named else "none",
            name.familiar(),
            "; ".join(sorted(one.shown() for one in candidates))[:1000],
        ),
        step="load",
        path="name",
        details={"available": sorted({n for one in candidates for n in (*one.names, *one.tags)})},
    )


# -- manifest.json -----------------------------------------------------------------------------------------------


def _docker(source: Source) -> list[Candidate]:
    try:
        entries = json.loads(source.read("manifest.json"))
    except (ValueError, RecursionError) as error:
        refuse(source.path, "its manifest.json is not valid JSON (%s)" % str(error)[:200])
    if not isinstance(entries, list) or not entries:
        refuse(source.path, "its manifest.json lists no images")
    return [_docker_entry(source, entry) for entry in entries]


def _docker_entry(source: Source, entry: Any) -> Candidate:
    config = entry.get("Config") if isinstance(entry, dict) else None
    layers = entry.get("Layers") or [] if isinstance(entry, dict) else None
    names = entry.get("RepoTags") or [] if isinstance(entry, dict) else None
    if not isinstance(config, str) or not _strings(layers) or not _strings(names):
        refuse(source.path, "its manifest.json is malformed")
    data = source.read(config, configs.CONFIG_LIMIT)
    promised = _promised(config)
    if promised and promised != _digest(data):
        refuse(source.path, "%s has the digest %s" % (config, _digest(data)))
    parts = tuple(Part(layer, _promised(layer), "") for layer in layers or ())
    return Candidate(tuple(_canonical(source, name) for name in names or ()), (), data, b"", "", parts)


def _strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _promised(member: str) -> str:
    """The digest that a name promises: ``<hex>.json`` and ``blobs/sha256/<hex>``. Old layers' directories are named
    by something else."""
    if member.startswith("blobs/sha256/"):
        text = "sha256:" + member[13:]
    elif member.endswith(".json"):
        text = "sha256:" + member[:-5]
    else:
        return ""
    return text if references.is_digest(text) else ""


def _canonical(source: Source, name: str) -> str:
    try:
        return references.parse(name).canonical()
    except UsageError as error:
        refuse(source.path, "it calls an image %r (%s)" % (name[:200], error.msg[:200]))


# -- index.json --------------------------------------------------------------------------------------------------


def _oci(source: Source, wanted: Platform, docker: bool = False) -> list[Candidate]:
    _check_layout(source)
    document = load_json(source.read("index.json"), "the index.json of %s" % source.path)
    index = parse_manifest(json.dumps({**document, "schemaVersion": 2}).encode(), subject=source.path)
    if isinstance(index, Manifest):
        refuse(source.path, "its index.json is a manifest")
    found: dict[str, Candidate] = {}
    skipped: Optional[WharfError] = None
    for entry in index.manifests:
        if platforms.is_attestation(entry):
            continue
        try:
            one = _resolve(source, entry, wanted)
        except (NotFound, Unsupported) as error:  # for another platform, or no image (a signature, a chart)
            skipped = skipped or error
            continue
        known = found.get(_digest(one.manifest))
        names, tags = _names(source, entry)
        if known is not None:
            names = (*known.names, *(name for name in names if name not in known.names))
            tags = (*known.tags, *(tag for tag in tags if tag not in known.tags))
        found[_digest(one.manifest)] = one._replace(names=names, tags=tags)
    if not found and not docker:
        raise skipped or UsageError("Cannot load %s: it holds no image" % source.path, step="load", path="path")
    return list(found.values())


def _check_layout(source: Source) -> None:
    layout = load_json(source.read("oci-layout", 4096), "the oci-layout file of %s" % source.path)
    version = layout.get("imageLayoutVersion")
    if not isinstance(version, str) or not version.startswith("1."):
        raise Unsupported(
            "Cannot load %s: it is an OCI layout of version %.20s, not 1" % (source.path, version),
            step="load",
            path="path",
        )


def _names(source: Source, entry: Descriptor) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """containerd and Docker write the whole name, others only the tag (or the whole name in its place)."""
    notes = entry.annotations or {}
    if notes.get(NAME):
        return (_canonical(source, notes[NAME]),), ()
    text = notes.get(REF_NAME) or ""
    if "/" in text or ":" in text:
        return (_canonical(source, text),), ()
    return (), ((text,) if text else ())


def _blob(source: Source, entry: Descriptor, limit: int) -> bytes:
    data = source.read("blobs/sha256/" + entry.digest[7:], limit)
    if _digest(data) != entry.digest or len(data) != entry.size:
        refuse(source.path, "blob %s has %d bytes and the digest %s" % (entry.digest, len(data), _digest(data)))
    return data


def _resolve(source: Source, entry: Descriptor, wanted: Platform) -> Candidate:
    for _depth in range(_DEPTH + 1):
        data = _blob(source, entry, JSON_LIMIT)
        parsed = parse_manifest(data, entry.media_type, subject=source.path)
        if isinstance(parsed, Manifest):
            require_image(parsed, source.path)
            config = _blob(source, parsed.config, configs.CONFIG_LIMIT)
            parts = tuple(Part("blobs/sha256/" + one.digest[7:], one.digest, one.media_type) for one in parsed.layers)
            return Candidate((), (), config, data, parsed.media_type, parts)
        entry = platforms.choose(parsed, wanted, subject=source.path)
    raise RegistryError("%s is an index of indexes more than %d deep" % (source.path, _DEPTH), step="load")


# -- both --------------------------------------------------------------------------------------------------------


def _merge(source: Source, docker: list[Candidate], oci: list[Candidate]) -> list[Candidate]:
    """Docker's list with OCI's manifests. The same name must lead to the same image in both."""
    by_id = {one.id: one for one in oci}
    for one in oci:
        for name in one.names:
            for other in docker:
                if name in other.names and other.id != one.id:
                    refuse(
                        source.path,
                        "%s is %s by its manifest.json and %s by its index.json; two readers would get two images"
                        % (references.parse(name).familiar(), other.id[:19], one.id[:19]),
                    )
    known = {name for one in docker for name in one.names}
    stray = [name for one in oci for name in one.names if name not in known and one.id not in {d.id for d in docker}]
    if stray:
        refuse(source.path, "its index.json holds %s, which its manifest.json does not" % stray[0])
    merged = []
    for one in docker:
        twin = by_id.get(one.id)
        if twin is not None and [p.digest for p in twin.parts] == [p.digest for p in one.parts]:
            one = one._replace(manifest=twin.manifest, manifest_type=twin.manifest_type, parts=twin.parts)
        merged.append(one)
    return merged
