# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Signatures as cosign makes them, with keys of the cryptography package (which is what ours is held against).

key = make_key("P-256")
sign(registry, "team/app", image.top, key)              # under cosign's tag
attach_bundle(registry, "team/app", image.top, key)     # as a referrer
"""

from __future__ import annotations

import base64
import json
from typing import Any, Callable, Dict, List, Optional, Tuple

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from helpers.fake_registry import FakeRegistry, Handler
from helpers.images import OCI, descriptor, digest_of

SIMPLE = "application/vnd.dev.cosign.simplesigning.v1+json"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
SIGN = "https://sigstore.dev/cosign/sign/v1"
CURVES = {"P-256": ec.SECP256R1, "P-384": ec.SECP384R1, "P-521": ec.SECP521R1}
HASHES = {"sha256": hashes.SHA256, "sha384": hashes.SHA384, "sha512": hashes.SHA512}


def make_key(kind: str = "P-256") -> Any:
    if kind in CURVES:
        return ec.generate_private_key(CURVES[kind]())
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(65537, int(kind.partition(" ")[2] or 2048))


def public_pem(key: Any) -> str:
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    return str(key.public_key().public_bytes(serialization.Encoding.PEM, spki).decode())


def raw_signature(key: Any, message: bytes, algorithm: str = "sha256") -> bytes:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(message, ec.ECDSA(HASHES[algorithm]()))
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(message, padding.PKCS1v15(), HASHES[algorithm]())
    signature: bytes = key.sign(message)
    return signature


def payload(digest: str, identity: str, kind: str = "cosign container image signature") -> bytes:
    critical = {"identity": {"docker-reference": identity}, "image": {"docker-manifest-digest": digest}, "type": kind}
    return json.dumps({"critical": critical, "optional": None}).encode()


def signature_manifest(entries: List[Tuple[bytes, Dict[str, str]]]) -> Tuple[bytes, Dict[str, bytes]]:
    """(manifest, blobs) of signed texts with their annotations."""
    config = b"{}"
    blobs = {digest_of(config): config, **{digest_of(text): text for text, _notes in entries}}
    layers = [descriptor(text, SIMPLE, annotations=notes) for text, notes in entries]
    document = {
        "schemaVersion": 2,
        "mediaType": OCI["manifest"],
        "config": descriptor(config, OCI["config"]),
        "layers": layers,
    }
    return json.dumps(document).encode(), blobs


def cosign_manifest(
    digest: str, identity: str, key: Any, *, algorithm: str = "sha256", certificate: str = "", text: bytes = b""
) -> Tuple[bytes, Dict[str, bytes]]:
    text = text or payload(digest, identity)
    notes = {"dev.cosignproject.cosign/signature": base64.b64encode(raw_signature(key, text, algorithm)).decode()}
    if certificate:
        notes["dev.sigstore.cosign/certificate"] = certificate
    return signature_manifest([(text, notes)])


def sign(registry: FakeRegistry, repository: str, digest: str, key: Any, *, identity: str = "", **more: Any) -> str:
    """Put a signature under cosign's tag. Returns the digest of the signed text's blob."""
    manifest, blobs = cosign_manifest(digest, identity or "%s/%s" % (registry.host, repository), key, **more)
    registry.blobs.update(blobs)
    tag = digest.replace(":", "-") + ".sig"
    registry.manifests[(repository, tag)] = (manifest, OCI["manifest"])
    return str(json.loads(manifest)["layers"][0]["digest"])


def statement(digest: str, *, name: str = "", predicate: str = SIGN) -> bytes:
    subject: Dict[str, Any] = {"digest": {"sha256": digest.partition(":")[2]}, **({"name": name} if name else {})}
    document = {"_type": "https://in-toto.io/Statement/v1", "subject": [subject], "predicateType": predicate}
    return json.dumps({**document, "predicate": {}}).encode()


def bundle(
    text: bytes, key: Any, *, algorithm: str = "sha256", change: Optional[Callable[[Dict[str, Any]], None]] = None
) -> bytes:
    kind = "application/vnd.in-toto+json"
    message = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(text), text)
    document: Dict[str, Any] = {
        "mediaType": BUNDLE,
        "verificationMaterial": {"publicKey": {"hint": "x"}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(text).decode(),
            "payloadType": kind,
            "signatures": [{"sig": base64.b64encode(raw_signature(key, message, algorithm)).decode(), "keyid": ""}],
        },
    }
    if change is not None:
        change(document)
    return json.dumps(document).encode()


def attach(
    registry: FakeRegistry, repository: str, digest: str, data: bytes, *, predicate: str = SIGN, api: bool = False
) -> str:
    """Make ``data`` (a bundle) refer to the image: by the fallback tag, or by the referrers API."""
    empty = b"{}"
    document = {
        "schemaVersion": 2,
        "mediaType": OCI["manifest"],
        "artifactType": BUNDLE,
        "config": descriptor(empty, "application/vnd.oci.empty.v1+json"),
        "layers": [descriptor(data, BUNDLE)],
        "subject": {"mediaType": OCI["manifest"], "digest": digest, "size": 1},
    }
    manifest = json.dumps(document).encode()
    registry.blobs.update({digest_of(data): data, digest_of(empty): empty})
    registry.manifests[(repository, digest_of(manifest))] = (manifest, OCI["manifest"])
    notes = {"dev.sigstore.bundle.content": "dsse-envelope", "dev.sigstore.bundle.predicateType": predicate}
    entry = descriptor(manifest, OCI["manifest"], artifactType=BUNDLE, annotations=notes)
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI["index"], "manifests": [entry]}).encode()
    if api:

        def listed(handler: Handler, path: str) -> bool:
            handler.answer(200, index, {"Content-Type": OCI["index"]})
            return True

        registry.script("/referrers/", listed, times=10**6)
    else:
        registry.manifests[(repository, digest.replace(":", "-"))] = (index, OCI["index"])
    return digest_of(manifest)


def attach_bundle(registry: FakeRegistry, repository: str, digest: str, key: Any, **more: Any) -> str:
    return attach(registry, repository, digest, bundle(statement(digest), key), **more)
