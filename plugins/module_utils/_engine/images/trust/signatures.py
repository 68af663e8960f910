# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Signatures of an image as registries keep them.

Two kinds are read. Cosign's own (docs: cosign, ``specs/SIGNATURE_SPEC.md``) lie in a manifest under the tag
``sha256-<hex>.sig``, or refer to the image: a layer is the signed text, an annotation of it the signature. Sigstore
bundles (``sigstore_bundle.proto``, version 0.3) refer to the image: their one layer is a JSON document with a DSSE
envelope around an in-toto statement. Nothing here is believed; ``policy`` decides.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Optional

from ...errors import IntegrityError, NotFound, RegistryError, Unsupported
from ...tuples import NamedTuple
from ..manifest import Descriptor, Manifest, load_json, parse_manifest
from ..reference import is_digest

if TYPE_CHECKING:
    from ...registry.client import RegistryClient

LIMIT = 100  # signatures looked at per place
TEXT_LIMIT = 1 << 20
_SIMPLE = "application/vnd.dev.cosign.simplesigning.v1+json"
_SIGNATURE = "dev.cosignproject.cosign/signature"
_CERTIFICATE = "dev.sigstore.cosign/certificate"
_REFERRERS = ("application/vnd.dev.cosign.artifact.sig.v1+json", "application/vnd.dev.sigstore.bundle")
_BUNDLES = ("application/vnd.dev.sigstore.bundle.v0.3+json", "application/vnd.dev.sigstore.bundle+json;version=0.3")
_PREDICATE = "dev.sigstore.bundle.predicateType"
# What an attestation (an SBOM, a provenance) states is not that the image is signed: only this says it.
_SIGN = "https://sigstore.dev/cosign/sign/v1"
_SIMPLE_TYPE = "cosign container image signature"
_STATEMENTS = ("https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1")
_IN_TOTO = "application/vnd.in-toto+json"


class Signature(NamedTuple):
    """``message`` is what was signed, byte for byte; ``digests`` the images that it speaks of, ``identity`` the
    reference it calls them ("" where it names none). ``keyless``: a certificate came with it. With a ``fault`` it could
    not be read, and that is why; ``altered``: its bytes are not those that its digest promises."""

    where: str
    message: bytes = b""
    signature: bytes = b""
    digests: tuple[str, ...] = ()
    identity: str = ""
    keyless: bool = False
    fault: str = ""
    altered: bool = False


class _Unreadable(ValueError):
    """Why one signature cannot be read."""


def tag_of(digest: str) -> str:
    """Where cosign puts the signatures of ``digest``."""
    return digest.replace(":", "-") + ".sig"


def find(client: RegistryClient, repository: str, digest: str) -> Iterator[Signature]:
    """All that the registry keeps for the manifest ``digest``, those under cosign's tag first. Asks as it goes.

    Raises ``AuthError``, ``RegistryError`` when the registry does not answer.
    """
    from ...registry import discovery

    tag = tag_of(digest)
    try:
        data, kind, _digest = client.get_manifest(repository, tag)
    except NotFound:
        data = b""
    if data:
        yield from _of_manifest(client, repository, tag, data, kind)
    entries = discovery.direct_referrers(client, repository, digest)
    wanted = [entry for entry in entries if _may_sign(entry)]
    for entry in wanted[:LIMIT]:
        where = str(entry["digest"])
        if not is_digest(where):
            yield Signature("referrer", fault="its digest is not one")
            continue
        try:
            data, kind, _digest = client.get_manifest(repository, where)
        except (NotFound, IntegrityError) as error:
            yield Signature(where, fault=error.msg, altered=isinstance(error, IntegrityError))
            continue
        yield from _of_manifest(client, repository, where, data, kind)


def _may_sign(entry: dict[str, Any]) -> bool:
    if not entry["artifact_type"].startswith(_REFERRERS):
        return False
    return bool(entry["annotations"].get(_PREDICATE, _SIGN) == _SIGN)


def _of_manifest(client: RegistryClient, repository: str, where: str, data: bytes, kind: str) -> Iterator[Signature]:
    try:
        found = parse_manifest(data, kind, subject=where)
    except (RegistryError, Unsupported) as error:
        yield Signature(where, fault=error.msg)
        return
    if not isinstance(found, Manifest):
        yield Signature(where, fault="it is an index")
        return
    for layer in found.layers[:LIMIT]:
        if layer.media_type == _SIMPLE:
            yield _read(client, repository, where, layer, _simple)
        elif layer.media_type.startswith("application/vnd.dev.sigstore.bundle"):
            yield _read(client, repository, where, layer, _bundle)


def _read(client: RegistryClient, repository: str, where: str, layer: Descriptor, reader: Any) -> Signature:
    try:
        text = _text(client, repository, layer)
    except NotFound as error:
        return Signature(where, fault=error.msg)
    except _Unreadable as error:
        return Signature(where, fault=str(error))
    if "sha256:" + hashlib.sha256(text).hexdigest() != layer.digest:
        return Signature(where, fault="its text has another digest than its manifest names", altered=True)
    try:
        found: Signature = reader(where, text, layer.annotations or {})
    except (RegistryError, _Unreadable) as error:
        return Signature(where, fault=error.msg if isinstance(error, RegistryError) else str(error))
    return found


def _text(client: RegistryClient, repository: str, layer: Descriptor) -> bytes:
    if layer.size > TEXT_LIMIT:
        raise _Unreadable("its text is said to have %d bytes; more than %d are not read" % (layer.size, TEXT_LIMIT))
    stream = client.open_blob(repository, layer.digest)
    data = b""
    try:
        while len(data) <= layer.size:
            more = stream.read()
            if not more:
                break
            data += more
    finally:
        stream.close()
    return data


# -- cosign's own: simple signing --------------------------------------------------------------------------------


def _simple(where: str, text: bytes, notes: dict[str, str]) -> Signature:
    critical = load_json(text, where).get("critical")
    if not isinstance(critical, dict) or critical.get("type") != _SIMPLE_TYPE:
        raise _Unreadable("its text is not that of an image signature")
    digest = _path(critical, "image", "docker-manifest-digest")
    identity = _path(critical, "identity", "docker-reference")
    if not is_digest(digest) or not isinstance(identity, str):
        raise _Unreadable("its text names no image")
    signature = _base64(notes.get(_SIGNATURE), "its manifest holds no signature of it")
    return Signature(where, text, signature, (str(digest),), identity, bool(notes.get(_CERTIFICATE)))


# -- sigstore bundles ---------------------------------------------------------------------------------------------


def _bundle(where: str, text: bytes, _notes: dict[str, str]) -> Signature:
    document = load_json(text, where)
    kind = str(document.get("mediaType") or "").replace(" ", "")
    if kind not in _BUNDLES:
        raise _Unreadable("it is a bundle of an unknown version (%s)" % kind[:80])
    envelope = document.get("dsseEnvelope")
    if not isinstance(envelope, dict):
        raise _Unreadable("it is a bundle without a statement about the image")
    if envelope.get("payloadType") != _IN_TOTO:
        raise _Unreadable("it states something in an unknown form (%s)" % str(envelope.get("payloadType"))[:80])
    payload = _base64(envelope.get("payload"), "its statement is not base64")
    signatures = envelope.get("signatures")
    if not isinstance(signatures, list) or len(signatures) != 1 or not isinstance(signatures[0], dict):
        raise _Unreadable("it does not hold exactly one signature")  # as the bundle's specification demands
    signature = _base64(signatures[0].get("sig"), "its signature is not base64")
    material = document.get("verificationMaterial")
    keyless = isinstance(material, dict) and bool(material.get("certificate") or material.get("x509CertificateChain"))
    digests, identity = _statement(where, payload)
    # DSSE's pre-authentication encoding (secure-systems-lab/dsse, protocol.md)
    message = b"DSSEv1 %d %s %d %s" % (len(_IN_TOTO), _IN_TOTO.encode(), len(payload), payload)
    return Signature(where, message, signature, digests, identity, keyless)


def _statement(where: str, payload: bytes) -> tuple[tuple[str, ...], str]:
    """(digests, name) of what the statement is about."""
    statement = load_json(payload, where)
    if statement.get("_type") not in _STATEMENTS:
        raise _Unreadable("it is no in-toto statement")
    if statement.get("predicateType") != _SIGN:
        raise _Unreadable("it attests something else than a signature (%s)" % str(statement.get("predicateType"))[:80])
    subjects = statement.get("subject")
    if not isinstance(subjects, list) or len(subjects) != 1 or not isinstance(subjects[0], dict):
        raise _Unreadable("it is not about exactly one image")
    name = subjects[0].get("name") or ""
    digest = "sha256:%s" % _path(subjects[0], "digest", "sha256")
    if not is_digest(digest) or not isinstance(name, str):
        raise _Unreadable("it names no image")
    return (digest,), "" if name in ("_", "-") else name  # in-toto's names for what has none


def _path(value: dict[str, Any], *names: str) -> Any:
    found: Any = value
    for name in names:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _base64(value: Any, otherwise: str) -> bytes:
    if not isinstance(value, str) or not value or len(value) > TEXT_LIMIT * 2:
        raise _Unreadable(otherwise)
    try:
        return base64.b64decode(value.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise _Unreadable(otherwise) from None


def explicit_tag(text: str) -> Optional[str]:
    """The tag that ``text`` itself names, not the one that is implied."""
    last = text.partition("@")[0].rpartition("/")[2]
    return last.partition(":")[2] or None
