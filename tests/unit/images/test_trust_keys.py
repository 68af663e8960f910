# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Signatures verified in plain Python say exactly what the cryptography package says, and refuse what it should not be
asked about."""

from __future__ import annotations

import base64
import hashlib
import random
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from helpers.signing import CURVES, HASHES, make_key, public_pem, raw_signature
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from module_utils._engine.errors import NotFound, UsageError
from module_utils._engine.images.trust import der, ecdsa, edwards, keys
from module_utils._engine.images.trust import rsa as our_rsa

KINDS = ("P-256", "P-384", "P-521", "rsa 2048", "rsa 3072", "ed25519")
ALGORITHMS = {
    "P-256": ("sha256",),
    "P-384": ("sha384", "sha256"),
    "P-521": ("sha512", "sha256"),
    "rsa 2048": ("sha256", "sha384", "sha512"),
    "rsa 3072": ("sha256",),
    "ed25519": ("",),
}
OURS = {"P-256": ecdsa.P256, "P-384": ecdsa.P384, "P-521": ecdsa.P521}


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return {kind: make_key(kind) for kind in KINDS}


def oracle(key: Any, kind: str, signature: bytes, message: bytes) -> bool:
    public = key.public_key()
    for algorithm in ALGORITHMS[kind]:
        try:
            if kind in CURVES:
                public.verify(signature, message, ec.ECDSA(HASHES[algorithm]()))
            elif kind == "ed25519":
                public.verify(signature, message)
            else:
                public.verify(signature, message, padding.PKCS1v15(), HASHES[algorithm]())
            return True
        except InvalidSignature:
            continue
    return False


@pytest.mark.parametrize("kind", KINDS)
def test_a_signature_counts_for_its_text_and_its_key_and_for_no_other(kind: str, made: dict[str, Any]) -> None:
    key, other = made[kind], make_key(kind)
    ours, stranger = keys.read(public_pem(key))[0], keys.read(public_pem(other))[0]
    assert ours.kind.lower().endswith(kind.lower())
    for algorithm in ALGORITHMS[kind]:
        for message in (b"", b"text", bytes(range(256)) * 50):
            signature = raw_signature(key, message, algorithm)
            assert ours.verify(signature, message)
            assert not ours.verify(signature, message + b"x")
            assert not stranger.verify(signature, message)


@pytest.mark.parametrize("kind", KINDS)
def test_a_signature_with_any_bit_turned_is_judged_as_the_oracle_does(kind: str, made: dict[str, Any]) -> None:
    key = made[kind]
    ours = keys.read(public_pem(key))[0]
    signature = raw_signature(key, b"text", ALGORITHMS[kind][0])
    chance = random.Random(kind)
    for _n in range(25):
        bad = bytearray(signature)
        bad[chance.randrange(len(bad))] ^= 1 << chance.randrange(8)
        assert ours.verify(bytes(bad), b"text") == oracle(key, kind, bytes(bad), b"text")
    for bad_one in (b"", signature[:-1], signature + b"\0", b"\0" + signature, signature * 2):
        assert not ours.verify(bad_one, b"text")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=160))
def test_no_bytes_at_all_break_a_verifier(made: dict[str, Any], data: bytes) -> None:
    for kind in KINDS:
        assert not keys.read(public_pem(made[kind]))[0].verify(data, b"text")


# -- ECDSA: the cases that Wycheproof is made of ------------------------------------------------------------------


def integer(value: int, pad: int = 0) -> bytes:
    body = value.to_bytes(max(1, value.bit_length() // 8 + 1), "big", signed=True) if value >= 0 else b""
    if value < 0:
        body = value.to_bytes((value.bit_length() + 8) // 8, "big", signed=True)
    return bytes([2, len(body) + pad]) + b"\0" * pad + body


def sequence(*parts: bytes) -> bytes:
    body = b"".join(parts)
    assert len(body) < 256
    return b"\x30" + (bytes([len(body)]) if len(body) < 128 else bytes([0x81, len(body)])) + body


@pytest.mark.parametrize("name", list(OURS))
def test_numbers_out_of_range_are_no_signature(name: str, made: dict[str, Any]) -> None:
    curve, key = OURS[name], keys.read(public_pem(made[name]))[0]
    numbers = (0, 1, -1, curve.n - 1, curve.n, curve.n + 1, curve.p, curve.p + 1, 1 << (8 * curve.size))
    for r in numbers:
        for s in numbers:
            signature = sequence(integer(r), integer(s))
            assert key.verify(signature, b"text") is False
            if r > 0 and s > 0:
                assert encode_dss_signature(r, s) == signature  # the forms tried here are the right ones


def test_a_signature_has_one_encoding(made: dict[str, Any]) -> None:
    key = keys.read(public_pem(made["P-256"]))[0]
    good = raw_signature(made["P-256"], b"text")
    reader = der.whole_sequence(good)
    r, s = reader.integer(), reader.integer()
    n = ecdsa.P256.n
    assert key.verify(sequence(integer(r), integer(s)), b"text")
    assert key.verify(sequence(integer(r), integer(n - s)), b"text")  # both are valid, as in FIPS 186
    body = good[2:]
    for bad in (
        sequence(integer(r, pad=1), integer(s)),  # a leading zero too many
        sequence(integer(r), integer(s), b"\x05\0"),  # something more inside
        b"\x30\x81" + bytes([len(body)]) + body,  # a length longer than needed
        b"\x30\x80" + body + b"\0\0",  # BER's indefinite length
        b"\x31" + good[1:],  # a set
        sequence(integer(r)),
        sequence(integer(r - n), integer(s)),
        sequence(integer(r + n), integer(s)),  # the same number modulo n
        sequence(b"\x02\0", integer(s)),
        good[:1] + b"\xff" + good[2:],
        r.to_bytes(32, "big") + s.to_bytes(32, "big"),  # the form of JWS
    ):
        assert not key.verify(bad, b"text"), bad.hex()


@pytest.mark.parametrize("name", list(OURS))
def test_the_arithmetic_holds_at_its_edges(name: str) -> None:
    """u*G + v*Q where the partial sums meet each other, their opposites and the point at infinity."""
    curve = OURS[name]
    base = (curve.gx, curve.gy)
    for d in (1, 2, 3, curve.n - 1, curve.n - 2):
        numbers = ec.derive_private_key(d, CURVES[name]()).public_key().public_numbers()
        public = (numbers.x, numbers.y)
        for u, v in ((1, 1), (1, curve.n - 1), (curve.n - 1, 1), (3, 5), (0, 1), (2, curve.n - 2), (curve.n - d, 1)):
            x, _y, z = ecdsa._sum_of_products(curve, u, v, public)
            wanted = (u + v * d) % curve.n
            if wanted == 0:
                assert z == 0
                continue
            expected = ec.derive_private_key(wanted, CURVES[name]()).public_key().public_numbers()
            assert x * pow(z, -2, curve.p) % curve.p == expected.x
    assert ecdsa.point(curve, b"\4" + base[0].to_bytes(curve.size, "big") + base[1].to_bytes(curve.size, "big")) == base


@pytest.mark.parametrize("name", list(OURS))
def test_keys_beside_the_curve_are_no_keys(name: str, made: dict[str, Any]) -> None:
    curve, size = OURS[name], OURS[name].size
    numbers = made[name].public_key().public_numbers()
    x, y = numbers.x, numbers.y
    for form in (serialization.PublicFormat.CompressedPoint, serialization.PublicFormat.UncompressedPoint):
        encoded = made[name].public_key().public_bytes(serialization.Encoding.X962, form)
        assert ecdsa.point(curve, encoded) == (x, y)
        assert ecdsa.point(curve, encoded[:-1]) is None and ecdsa.point(curve, encoded + b"\0") is None
    for bad in ((x, y ^ 1), (0, 0), (x, curve.p), (curve.p, y), (x, 0)):
        assert ecdsa.point(curve, b"\4" + b"".join(one.to_bytes(size, "big") for one in bad)) is None
    assert ecdsa.point(curve, b"\0") is None and ecdsa.point(curve, b"") is None


# -- Ed25519 ------------------------------------------------------------------------------------------------------

# RFC 8032, section 7.1: secret key, message, signature
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60", "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb", "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7", "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("secret", "message", "signature"), RFC_8032)
def test_the_vectors_of_rfc_8032(secret: str, message: str, signature: str) -> None:
    key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret))
    public = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    assert edwards.verify(public, bytes.fromhex(signature), bytes.fromhex(message))
    assert not edwards.verify(public, bytes.fromhex(signature), b"other")


def test_an_ed25519_signature_has_one_s(made: dict[str, Any]) -> None:
    public = made["ed25519"].public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    good = raw_signature(made["ed25519"], b"text")
    assert edwards.verify(public, good, b"text")
    s = int.from_bytes(good[32:], "little")
    for other in (s + edwards.L, 0, edwards.L):
        assert not edwards.verify(public, good[:32] + other.to_bytes(32, "little"), b"text")


def test_points_that_anybody_can_sign_for_are_no_keys() -> None:
    neutral, of_order_two = (1).to_bytes(32, "little"), (edwards.P - 1).to_bytes(32, "little")
    of_order_four = bytes(32)
    of_order_eight = bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a")
    for encoded in (neutral, of_order_two, of_order_four, of_order_eight):
        found = edwards.point(encoded)
        assert found is not None and edwards.is_weak(found)
        # R = neutral and s = 0 satisfies the equation for the neutral key, whatever was signed.
        assert not edwards.verify(encoded, neutral + bytes(32), b"anything")
        with pytest.raises(UsageError, match="no usable point of Ed25519"):
            keys.read(pem("302a300506032b6570032100" + encoded.hex()))
    for bad in (
        edwards.P.to_bytes(32, "little"),  # 0, written otherwise
        (edwards.P + 1).to_bytes(32, "little"),
        b"\1" + bytes(30) + b"\x80",  # x = 0 with a sign
        (2).to_bytes(32, "little"),  # no point at all
        bytes(31),
    ):
        assert edwards.point(bad) is None


# -- RSA ----------------------------------------------------------------------------------------------------------


def test_the_padding_is_compared_as_a_whole() -> None:
    """Bleichenbacher's forgeries put rubbish where a lax parser does not look."""
    key = rsa.generate_private_key(3, 2048)
    numbers = key.private_numbers()
    n, d, size = numbers.public_numbers.n, numbers.d, 256
    digest = hashlib.sha256(b"text").digest()
    info = bytes.fromhex("3031300d060960864801650304020105000420") + digest
    without_null = bytes.fromhex("302f300b0609608648016503040201") + b"\4\x20" + digest

    def signed(padded: bytes) -> bytes:
        return pow(int.from_bytes(padded, "big"), d, n).to_bytes(size, "big")

    right = b"\0\1" + b"\xff" * (size - 3 - len(info)) + b"\0" + info
    assert our_rsa.verify(n, 3, signed(right), b"text")
    for wrong in (
        b"\0\1" + b"\xff" * 8 + b"\0" + info + b"\0" * (size - 11 - len(info)),
        b"\0\1" + b"\xff" * (size - 4 - len(info)) + b"\0" + info + b"x",
        b"\0\1" + b"\xff" * (size - 4 - len(info)) + b"\xfe\0" + info,
        b"\0\2" + right[2:],
        b"\1" + right[1:] if int.from_bytes(b"\1" + right[1:], "big") < n else b"\0\0" + right[2:],
        b"\0\1" + b"\xff" * (size - 3 - len(without_null)) + b"\0" + without_null,
    ):
        assert len(wrong) == size and not our_rsa.verify(n, 3, signed(wrong), b"text")
    again = int.from_bytes(signed(right), "big") + n
    if again < 1 << (8 * size):
        assert not our_rsa.verify(n, 3, again.to_bytes(size, "big"), b"text")
    assert not our_rsa.verify(n, 3, signed(right)[1:], b"text")
    assert not our_rsa.verify(n, 3, b"\0" + signed(right), b"text")
    assert not our_rsa.verify(n, 3, bytes(size), b"text") and not our_rsa.verify(n, 3, bytes(size - 1) + b"\1", b"text")


def test_pss_is_not_taken_for_pkcs1(made: dict[str, Any]) -> None:
    key = made["rsa 2048"]
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    assert not keys.read(public_pem(key))[0].verify(key.sign(b"text", pss, hashes.SHA256()), b"text")


# -- files and text -----------------------------------------------------------------------------------------------


def pem(hexes: str, label: str = "PUBLIC KEY") -> str:
    return "-----BEGIN %s-----\n%s\n-----END %s-----\n" % (
        label,
        base64.b64encode(bytes.fromhex(hexes)).decode(),
        label,
    )


def test_a_key_is_text_or_a_file_and_several_follow_one_another(tmp_path: Path, made: dict[str, Any]) -> None:
    both = "# the old one\n" + public_pem(made["P-256"]) + "\n" + public_pem(made["ed25519"]).replace("\n", "\r\n")
    (tmp_path / "cosign.pub").write_bytes(both.encode())
    found = keys.read(str(tmp_path / "cosign.pub"))
    assert [one.kind for one in found] == ["ecdsa P-256", "ed25519"]
    whole = (
        made["P-256"]
        .public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    assert found[0].fingerprint == hashlib.sha256(whole).hexdigest()
    assert keys.read("\n  " + public_pem(made["P-256"]))[0].fingerprint == found[0].fingerprint
    old = made["rsa 2048"].public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.PKCS1)
    assert keys.read(old.decode())[0].kind == "rsa 2048"


def test_what_is_no_public_key_is_refused_in_words(tmp_path: Path, made: dict[str, Any]) -> None:
    secret = (
        made["P-256"]
        .private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        .decode()
    )
    with pytest.raises(UsageError, match="it is a private key") as caught:
        keys.read(secret)
    assert secret.splitlines()[1] not in str(caught.value.as_dict()) + caught.value.msg
    good = public_pem(made["P-256"])
    der_hex = base64.b64decode("".join(good.splitlines()[1:-1])).hex()
    for text, why in (
        (pem("3000", "CERTIFICATE"), "keyless signatures"),
        (pem("3000", "ENCRYPTED COSIGN PRIVATE KEY"), "it is a private key"),
        (pem("3000", "PGP PUBLIC KEY BLOCK"), "not a kind of key"),
        (pem("3000"), "damaged"),
        (pem(der_hex + "00"), "damaged"),
        (pem(der_hex[:-2]), "damaged"),
        (good.replace("-----END", "----END"), "cut off"),
        (good.replace("\n-----END", "\n!!!\n-----END"), "damaged"),
        (pem(der_hex.replace("2a8648ce3d030107", "2a8648ce3d030101")), "none of P-256, P-384 and P-521"),
        (pem(der_hex[:-2] + "%02x" % (int(der_hex[-2:], 16) ^ 1)), "not on P-256"),
        (public_pem(rsa.generate_private_key(65537, 1024)), "1024 bits"),
        (pem("302a300506032b6571032100" + "11" * 32), "none of ECDSA, RSA and Ed25519"),
        ("awskms:///alias/x", "KMS"),
        ("https://example.com/cosign.pub", "URL"),
        ("two\nlines", "neither PEM text nor a path"),
        ("", "neither PEM text nor a path"),
    ):
        with pytest.raises(UsageError, match=why) as caught:
            keys.read(text)
        assert caught.value.path == "verify.key"
    with pytest.raises(NotFound, match="No such file"):
        keys.read(str(tmp_path / "none.pub"))
    with pytest.raises(UsageError, match="directory"):
        keys.read(str(tmp_path))
    (tmp_path / "big").write_bytes(b"x" * (300 << 10))
    with pytest.raises(UsageError, match="larger than"):
        keys.read(str(tmp_path / "big"))
    (tmp_path / "text").write_text("hello")
    with pytest.raises(UsageError, match="no PEM text"):
        keys.read(str(tmp_path / "text"))
