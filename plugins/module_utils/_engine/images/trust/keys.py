# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Public keys as ``cosign.pub`` and ``openssl pkey -pubout`` write them (PEM, SubjectPublicKeyInfo of RFC 5280)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from typing import Any, NoReturn

from ...errors import NotFound, UsageError
from . import der

PEM_LIMIT = 256 << 10
KEYS_LIMIT = 32
_RSA = bytes.fromhex("2a864886f70d010101")
_EC = bytes.fromhex("2a8648ce3d0201")
_ED25519 = bytes.fromhex("2b6570")
_CURVES = {"2a8648ce3d030107": "P256", "2b81040022": "P384", "2b81040023": "P521"}
_REMOTE = ("awskms:", "gcpkms:", "azurekms:", "hashivault:", "k8s:", "pkcs11:", "http:", "https:", "env:", "gitlab:")


class Key:
    """``kind`` is ``ecdsa P-256``, ``rsa 4096`` or ``ed25519``; ``fingerprint`` the SHA-256 of its DER in hex, as
    ``openssl pkey -pubin -outform der | sha256sum`` shows it."""

    __slots__ = ("_check", "fingerprint", "kind")

    def __init__(self, kind: str, encoded: bytes, check: Any) -> None:
        self.kind = kind
        self.fingerprint = hashlib.sha256(encoded).hexdigest()
        self._check = check

    def verify(self, signature: bytes, message: bytes) -> bool:
        return bool(self._check(signature, message))


def read(text: str) -> list[Key]:
    """The keys in PEM text, or in the file that ``text`` names on this host. There may be several, for the time in
    which a new one takes over: a signature by any of them counts.

    Raises ``UsageError`` (nothing usable, or something else than public keys), ``NotFound`` (the file).
    """
    stripped = text.strip()
    if stripped.startswith("-----BEGIN"):
        return _keys(stripped, "verify.key")
    if stripped.lower().startswith(_REMOTE):
        _refuse(
            "verify.key", "keys in a KMS, a cluster, a token or at a URL are not fetched", "Give the key's PEM text."
        )
    if "\n" in stripped or not stripped:
        _refuse("verify.key", "it is neither PEM text nor a path")
    return _keys(_file(text), text)


def _file(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise NotFound(
            "verify.key: cannot read the public key %s: %s" % (path, error.strerror),
            step="validate",
            path="verify.key",
            errno=error.errno,
            hint="The path is one on the target. Give the PEM text itself, with lookup('file', ...), if it is here.",
        ) from error
    try:
        data = os.read(fd, PEM_LIMIT + 1)
    except OSError as error:
        raise UsageError(
            "verify.key: cannot read the public key %s: %s" % (path, error.strerror),
            step="validate",
            path="verify.key",
            errno=error.errno,
        ) from error
    finally:
        os.close(fd)
    if len(data) > PEM_LIMIT:
        _refuse(path, "it is larger than %d KiB" % (PEM_LIMIT >> 10))
    return data.decode("latin-1")


def _keys(text: str, where: str) -> list[Key]:
    found: list[Key] = []
    label, body = "", ""
    for raw in text.splitlines():
        line = raw.strip()
        if line.startswith("-----BEGIN ") and line.endswith("-----"):
            label, body = line[11:-5], ""
        elif line.startswith("-----END ") and line.endswith("-----"):
            if line[9:-5] != label or not label:
                _refuse(where, "its PEM text ends something that it did not begin")
            found.append(_key(label, body, where))
            label = ""
        elif label:
            body += line
    if label:
        _refuse(where, "its PEM text is cut off")
    if not found:
        _refuse(where, "there is no PEM text (-----BEGIN PUBLIC KEY-----) in it")
    if len(found) > KEYS_LIMIT:
        _refuse(where, "it holds more than %d keys" % KEYS_LIMIT)
    return found


def _key(label: str, body: str, where: str) -> Key:
    if label == "CERTIFICATE":
        _refuse(
            where,
            "it is a certificate, and keyless signatures (certificates of Fulcio or another authority) are not "
            "supported",
            "Sign with a key (cosign sign --key) and give its public key.",
        )
    if "PRIVATE KEY" in label:
        # Nothing of it is repeated anywhere.
        _refuse(where, "it is a private key", "Give the public one (cosign.pub); the private one does not belong here.")
    if label not in ("PUBLIC KEY", "RSA PUBLIC KEY"):
        _refuse(where, "%s is not a kind of key that is known" % label[:60])
    try:
        data = base64.b64decode(body.encode("ascii"), validate=True)
        return _rsa(data, data, where) if label == "RSA PUBLIC KEY" else _subject_public_key(data, where)
    except (der.Malformed, binascii.Error, UnicodeEncodeError) as error:
        _refuse(where, "its PEM text is damaged (%s)" % error)


def _subject_public_key(data: bytes, where: str) -> Key:
    outer = der.whole_sequence(data)
    algorithm = outer.sequence()
    kind = algorithm.take(der.OBJECT)
    bits = outer.bits()
    outer.end()
    if kind == _RSA:
        algorithm.take(der.NULL)
        algorithm.end()
        return _rsa(bits, data, where)
    if kind == _EC:
        curve = algorithm.take(der.OBJECT).hex()
        algorithm.end()
        return _elliptic(curve, bits, data, where)
    if kind == _ED25519:
        algorithm.end()
        return _edwards(bits, data, where)
    _refuse(where, "its algorithm is none of ECDSA, RSA and Ed25519")


def _rsa(bits: bytes, data: bytes, where: str) -> Key:
    from . import rsa

    reader = der.whole_sequence(bits)
    modulus, exponent = reader.integer(), reader.integer()
    reader.end()
    why = rsa.fault(modulus, exponent)
    if why:
        _refuse(where, why)

    def check(signature: bytes, message: bytes) -> bool:
        return rsa.verify(modulus, exponent, signature, message)

    return Key("rsa %d" % modulus.bit_length(), data, check)


def _elliptic(name: str, bits: bytes, data: bytes, where: str) -> Key:
    from . import ecdsa

    if name not in _CURVES:
        _refuse(where, "its curve is none of P-256, P-384 and P-521")
    curve: ecdsa.Curve = getattr(ecdsa, _CURVES[name])
    public = ecdsa.point(curve, bits)
    if public is None:
        _refuse(where, "its point is not on %s" % curve.name)
    there: tuple[int, int] = public

    def check(signature: bytes, message: bytes) -> bool:
        return ecdsa.verify(curve, there, signature, message)

    return Key("ecdsa " + curve.name, data, check)


def _edwards(bits: bytes, data: bytes, where: str) -> Key:
    from . import edwards

    public = edwards.point(bits)
    if public is None or edwards.is_weak(public):
        _refuse(where, "it is no usable point of Ed25519")

    def check(signature: bytes, message: bytes) -> bool:
        return edwards.verify(bits, signature, message)

    return Key("ed25519", data, check)


def _refuse(where: str, why: str, hint: str = "") -> NoReturn:
    raise UsageError(
        "verify.key: cannot use %s as a public key: %s" % ("the text" if where == "verify.key" else where, why),
        step="validate",
        path="verify.key",
        hint=hint or "Give a public key in PEM: ECDSA (P-256, P-384, P-521), RSA or Ed25519.",
    )
