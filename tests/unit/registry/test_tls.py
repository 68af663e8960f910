# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What TLS promises is kept over redirects and logins: no downgrade, no stranger, no secret sent along."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import fake_registry as fake
from helpers.fake_registry import FakeRegistry
from helpers.images import build_image, layer
from helpers.registry import make_certificates, sign_anew
from module_utils._engine.errors import AuthError, RegistryError
from module_utils._engine.registry.client import RegistryClient
from module_utils._engine.registry.credentials import Credential
from module_utils._engine.registry.transport import Broken, Transport

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is needed")

IMAGE = build_image([layer({"a": b"x" * 5000})])
BLOB = IMAGE.config_digest


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = str(tmp_path_factory.mktemp("tls"))
    make_certificates(directory)
    return directory


@pytest.fixture
def registry(certificates: str) -> Iterator[FakeRegistry]:
    with FakeRegistry(tls=certificates) as registry:
        registry.add("team/app", "1", IMAGE)
        yield registry


def client(registry: FakeRegistry, certificates: str, **options: Any) -> RegistryClient:
    options.setdefault("ca_path", certificates + "/ca.crt")
    credential = options.pop("credential", None)
    lookup = (lambda _host, _repository: credential) if credential else None
    return RegistryClient(registry.host, Transport(timeout=5, sleep=lambda _s: None, credentials=lookup, **options))


def test_a_known_authority_is_enough(registry: FakeRegistry, certificates: str) -> None:
    assert client(registry, certificates).ping()["url"] == "https://" + registry.host


def test_an_unknown_authority_is_refused_at_once(registry: FakeRegistry, certificates: str, tmp_path: Path) -> None:
    make_certificates(str(tmp_path))
    with pytest.raises(Broken, match="cannot be verified") as caught:
        client(registry, certificates, ca_path=str(tmp_path / "ca.crt")).ping()
    assert len(caught.value.details["attempts"]) == 1 and registry.requests == []
    assert client(registry, certificates, ca_path=str(tmp_path / "ca.crt"), validate_certs=False).ping()


@pytest.mark.parametrize(
    ("names", "days", "words", "hint"),
    [
        ("IP:127.0.0.1", -1, "certificate has expired", "Renew"),
        ("IP:127.0.0.1", 0, "certificate is not yet valid", "clock"),
        ("IP:127.0.0.9,DNS:localhost", 2, "IP address mismatch", "name that the certificate is for"),
    ],
)
def test_a_certificate_out_of_date_or_of_another_host_is_refused_at_once_and_says_why(
    tmp_path: Path, names: str, days: int, words: str, hint: str
) -> None:
    make_certificates(str(tmp_path))
    sign_anew(str(tmp_path), names, days)
    with FakeRegistry(tls=str(tmp_path)) as registry:
        with pytest.raises(Broken, match=words) as caught:
            client(registry, str(tmp_path)).ping()
        assert hint in (caught.value.hint or "") and "ca_path" not in (caught.value.hint or "")
        assert len(caught.value.details["attempts"]) == 1 and registry.requests == []
        assert client(registry, str(tmp_path), validate_certs=False).ping()


def test_a_redirect_from_https_to_http_is_refused(registry: FakeRegistry, certificates: str) -> None:
    with FakeRegistry() as other:
        other.blobs.update(IMAGE.blobs)
        registry.script("/blobs/", fake.redirect(other.url + "*"))
        with pytest.raises(RegistryError, match="from https to plain http"):
            client(registry, certificates).open_blob("team/app", BLOB)
        assert other.requests == []


def test_a_redirect_to_another_host_carries_no_login(registry: FakeRegistry, certificates: str) -> None:
    registry.auth = ("basic", "me", "secret")
    with FakeRegistry(tls=certificates) as other:
        other.blobs.update(IMAGE.blobs)
        one = client(registry, certificates, credential=Credential("me", "secret"))
        one.get_manifest("team/app", "1")
        registry.script("/blobs/", fake.redirect(other.url + "*"))
        assert one.open_blob("team/app", BLOB).read() == IMAGE.blobs[BLOB]
        assert "authorization" in registry.requests[-1].headers
        assert [request.headers.get("authorization") for request in other.requests] == [None]


def test_a_token_service_over_plain_http_gets_nothing(registry: FakeRegistry, certificates: str) -> None:
    registry.auth = ("bearer", "me", "secret")
    with FakeRegistry() as other:
        registry.realm = other.url + "/token"
        for credential in (Credential("me", "secret"), None):
            with pytest.raises(AuthError, match="plain http"):
                client(registry, certificates, credential=credential).get_manifest("team/app", "1")
        assert other.requests == []


def test_a_plain_registry_is_not_spoken_to_without_permission(certificates: str) -> None:
    with FakeRegistry() as plain:
        with pytest.raises(Broken) as caught:
            client(plain, certificates).ping()
        assert caught.value.reason == "plain" and plain.requests == []
        assert "validate_certs" in (caught.value.hint or "")
