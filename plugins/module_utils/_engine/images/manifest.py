# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Manifests and indexes, OCI and Docker schema 2: bytes in, checked records out.

A document that could be read as two kinds is refused, whatever it is served as (CVE-2021-41190: one digest, two
images). So are duplicate JSON keys, for the same reason. Digests are checked here, before anyone makes a path or a
URL of them.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn, Optional, Union

from ..errors import RegistryError, Unsupported
from ..registry import mediatypes as media
from ..tuples import NamedTuple
from .reference import is_digest

LAYER_LIMIT = 500  # overlayfs stacks no more (OVL_MAX_STACK)
INDEX_LIMIT = 1000

_LAYER_BASES = (media.OCI_LAYER, media.DOCKER_LAYER)
_COMPRESSIONS = ("", "gzip", "zstd")
_FOREIGN = (
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
)


class Descriptor(NamedTuple):
    """``platform`` is the raw object of an index entry (strings only), or None."""

    media_type: str
    digest: str
    size: int
    platform: Optional[dict[str, Any]] = None
    annotations: Optional[dict[str, str]] = None
    artifact_type: str = ""
    urls: tuple[str, ...] = ()


class Index(NamedTuple):
    media_type: str
    manifests: tuple[Descriptor, ...]


class Manifest(NamedTuple):
    """``layers`` are base first."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    artifact_type: str = ""
    annotations: Optional[dict[str, str]] = None


def parse_manifest(
    data: bytes, content_type: Optional[str] = None, *, subject: str = "manifest"
) -> Union[Index, Manifest]:
    """Parse what a registry sent. The body's ``mediaType`` decides, then the fields; ``content_type`` (the header,
    parameters allowed) may be missing or meaningless, but may not contradict the body.

    Raises ``RegistryError`` (malformed, ambiguous, too large) and ``Unsupported`` (schema 1).
    """
    if len(data) > media.MANIFEST_LIMIT:
        _refuse(subject, "it is larger than %d MiB" % (media.MANIFEST_LIMIT >> 20))
    document = load_json(data, subject)
    header = (content_type or "").partition(";")[0].strip().lower()
    stated = document.get("mediaType", "")
    if not isinstance(stated, str):
        _refuse(subject, "its mediaType is not a string")
    _check_schema(document, stated or header, subject)
    known = media.INDEXES + media.MANIFESTS
    if stated and header in known and header != stated:
        _refuse(subject, "it calls itself %s but was sent as %s" % (stated, header))
    if "manifests" in document and ("layers" in document or "config" in document):
        _refuse(subject, "it has both manifests and layers, so it could be read as two different images")
    kind = stated or (header if header in known else "")
    if kind and kind not in known:
        _refuse(subject, "its media type %s is not that of an image manifest or index" % kind)
    if "manifests" in document:
        return _index(document, kind or media.OCI_INDEX, subject)
    if "layers" in document or "config" in document:
        return _manifest(document, kind or media.OCI_MANIFEST, subject)
    _refuse(subject, "it has neither manifests nor layers")


def load_json(data: bytes, subject: str) -> dict[str, Any]:
    """A JSON object, strictly: UTF-8, no duplicate keys, no NaN. Raises ``RegistryError``; HTML is named as such."""
    start = data[:512].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        _refuse(subject, "the answer is a web page; a proxy or login page stands between this host and the registry")
    try:
        document = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
        if b"\\ud" in data.lower():
            document = _whole(document)
    except (ValueError, RecursionError) as error:
        _refuse(subject, "it is not valid JSON (%s)" % str(error)[:200])
    if not isinstance(document, dict):
        _refuse(subject, "it is not a JSON object")
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("an object names the same key twice")
    return result


def _whole(value: Any) -> Any:
    """Halves of surrogate pairs become U+FFFD, as in Go's decoder: no such text can be written to a file, given to a
    process, or printed."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_whole(item) for item in value]
    if isinstance(value, dict):
        return _unique([(_whole(name), _whole(item)) for name, item in value.items()])
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError("%s is not JSON" % name)


def _refuse(subject: str, why: str) -> NoReturn:
    raise RegistryError("Cannot use the manifest of %s: %s" % (subject, why), step="parse_manifest", subject=subject)


def _check_schema(document: dict[str, Any], kind: str, subject: str) -> None:
    version = document.get("schemaVersion")
    if (version == 1 and version is not True) or kind in media.DOCKER_SCHEMA1 or "fsLayers" in document:
        raise Unsupported(
            "%s is a Docker schema 1 image, a format that was withdrawn and is not supported" % subject,
            step="parse_manifest",
            subject=subject,
            hint="Push the image again with a current tool.",
        )
    if isinstance(version, bool) or version != 2:
        _refuse(subject, "its schemaVersion is %s, not 2" % json.dumps(version)[:40])


def _index(document: dict[str, Any], kind: str, subject: str) -> Index:
    if kind not in media.INDEXES:
        _refuse(subject, "it calls itself %s but holds a list of manifests" % kind)
    entries = document["manifests"]
    if not isinstance(entries, list):
        _refuse(subject, "its manifests field is not a list")
    if len(entries) > INDEX_LIMIT:
        _refuse(subject, "it lists more than %d manifests" % INDEX_LIMIT)
    return Index(kind, tuple(_descriptor(e, "manifests[%d]" % i, subject) for i, e in enumerate(entries)))


def _manifest(document: dict[str, Any], kind: str, subject: str) -> Manifest:
    if kind not in media.MANIFESTS:
        _refuse(subject, "it calls itself %s but holds layers" % kind)
    config = _descriptor(document.get("config"), "config", subject)
    layers = document.get("layers")
    if layers is None:
        layers = []
    if not isinstance(layers, list):
        _refuse(subject, "its layers field is not a list")
    if len(layers) > LAYER_LIMIT:
        _refuse(subject, "it has %d layers, and more than %d cannot be stacked" % (len(layers), LAYER_LIMIT))
    return Manifest(
        kind,
        config,
        tuple(_descriptor(layer, "layers[%d]" % i, subject) for i, layer in enumerate(layers)),
        _text(document.get("artifactType"), "artifactType", subject),
        _annotations(document.get("annotations"), "annotations", subject),
    )


def _descriptor(value: Any, field: str, subject: str) -> Descriptor:
    if not isinstance(value, dict):
        _refuse(subject, "its %s field is not a descriptor" % field)
    digest, size = value.get("digest"), value.get("size")
    if not is_digest(digest):
        _refuse(subject, "%s.digest is not sha256: and 64 hexadecimal digits" % field)
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size < 1 << 63:
        _refuse(subject, "%s.size is not a size in bytes" % field)
    urls = value.get("urls") or []
    if not isinstance(urls, list) or not all(isinstance(url, str) for url in urls):
        _refuse(subject, "%s.urls is not a list of strings" % field)
    return Descriptor(
        _text(value.get("mediaType"), field + ".mediaType", subject),
        str(digest),
        size,
        _platform(value.get("platform"), field + ".platform", subject),
        _annotations(value.get("annotations"), field + ".annotations", subject),
        _text(value.get("artifactType"), field + ".artifactType", subject),
        tuple(urls),
    )


def _text(value: Any, field: str, subject: str) -> str:
    if value is not None and not isinstance(value, str):
        _refuse(subject, "%s is not a string" % field)
    return value or ""


def _annotations(value: Any, field: str, subject: str) -> Optional[dict[str, str]]:
    if value is None:
        return None
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        _refuse(subject, "%s is not an object of strings" % field)
    return value


def _platform(value: Any, field: str, subject: str) -> Optional[dict[str, Any]]:
    if value is None:
        return None
    if not isinstance(value, dict):
        _refuse(subject, "%s is not an object" % field)
    for name in ("os", "architecture", "variant", "os.version"):
        _text(value.get(name), "%s.%s" % (field, name), subject)
    return value


def require_image(manifest: Manifest, subject: str) -> None:
    """Refuse what is no image that a container can run from: artifacts (charts, signatures, attestations), foreign,
    encrypted layers, and zstd where the host cannot read it. Raises ``Unsupported`` before anything is downloaded."""
    kind = manifest.config.media_type
    if kind not in media.CONFIGS:
        kind = manifest.artifact_type or kind or "of an unknown kind"
        raise Unsupported(
            "%s is not a container image but an artifact (%s); there is nothing to run in it" % (subject, kind),
            step="pull_manifest",
            subject=subject,
        )
    for number, layer in enumerate(manifest.layers):
        why = _layer_fault(layer.media_type)
        if why:
            raise Unsupported(
                "Layer %d of %s cannot be used: %s" % (number + 1, subject, why),
                step="pull_manifest",
                subject=subject,
                details={"media_type": layer.media_type},
            )


def _layer_fault(kind: str) -> str:
    if kind.endswith("+encrypted"):
        return "it is encrypted (%s)" % kind
    if kind.startswith(_FOREIGN):
        # The descriptor's urls point anywhere; following them sends requests where the image's author likes
        # (ContainerDrip, CVE-2020-15157).
        return "it is a foreign layer that the registry does not distribute (%s)" % kind
    for base in _LAYER_BASES:
        if kind.startswith(base):
            compression = kind[len(base) :].lstrip("+.")
            if compression == "zstd":
                from . import zstd

                return "" if zstd.backend() else "it %s" % zstd.missing()
            if compression in _COMPRESSIONS:
                return ""
    return "its media type %s is not that of a file system layer" % (kind or "(none)")
