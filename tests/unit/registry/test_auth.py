# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Logins and tokens: asked for once, kept, renewed once, and never sent where they do not belong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Optional

import pytest
from helpers.fake_registry import FakeRegistry, redirect, status
from helpers.images import build_image, layer
from hypothesis import given
from hypothesis import strategies as st
from module_utils._engine.errors import AuthError, RegistryError
from module_utils._engine.registry.auth import Authenticator, Challenge, _related, parse_challenges
from module_utils._engine.registry.client import RegistryClient
from module_utils._engine.registry.credentials import Credential
from module_utils._engine.registry.transport import Origin, Transport

IMAGE = build_image([layer({"a": b"x"})])


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with FakeRegistry() as registry:
        registry.add("team/app", "1", IMAGE)
        yield registry


def client(registry: FakeRegistry, credential: Optional[Credential] = None, **options: Any) -> RegistryClient:
    transport = Transport(timeout=5, credentials=lambda _host, _repo: credential, sleep=lambda _s: None, **options)
    return RegistryClient(registry.host, transport)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["Basic realm=x"], [Challenge("basic", {"realm": "x"})]),
        (
            ['Bearer realm="https://a/t",service="s",scope="repository:a/b:pull,push"'],
            [Challenge("bearer", {"realm": "https://a/t", "service": "s", "scope": "repository:a/b:pull,push"})],
        ),
        (
            ['Basic realm="a \\"b\\"", BEARER Realm="r" , scope=x'],
            [Challenge("basic", {"realm": 'a "b"'}), Challenge("bearer", {"realm": "r", "scope": "x"})],
        ),
        (["Negotiate", "Basic"], [Challenge("negotiate", {}), Challenge("basic", {})]),
        ([""], []),
        (["=x"], []),
        (['Bearer realm="unfinished'], [Challenge("bearer", {"realm": "unfinished"})]),
    ],
)
def test_challenges_are_read_as_rfc_9110_writes_them(values: list[str], expected: list[Challenge]) -> None:
    assert parse_challenges(values) == expected


@given(st.lists(st.text(max_size=80), max_size=3))
def test_any_challenge_is_read_without_an_error(values: list[str]) -> None:
    for challenge in parse_challenges(values):
        assert challenge.scheme == challenge.scheme.lower()


@given(st.text(alphabet='Bearer basic=",\\ \tx', max_size=60))
def test_broken_quoting_never_hangs(value: str) -> None:
    parse_challenges([value])


def test_basic_is_sent_on_every_request_after_the_first_challenge(registry: FakeRegistry) -> None:
    registry.auth = ("basic", "me", "pässword")
    one = client(registry, Credential("me", "pässword"))
    one.get_manifest("team/app", "1")
    one.get_manifest("team/app", "1")
    assert [("authorization" in r.headers) for r in registry.requests] == [False, True, True]


def test_an_anonymous_token_is_fetched_once_and_kept(registry: FakeRegistry) -> None:
    registry.auth = ("bearer", "", "")
    one = client(registry)
    for _n in range(3):
        one.get_manifest("team/app", "1")
    assert len(registry.seen("/token")) == 1
    assert len(registry.seen("/manifests/")) == 4
    token = registry.seen("/token")[0]
    assert "scope=repository%3Ateam%2Fapp%3Apull" in token.path and "authorization" not in token.headers


def test_a_token_that_expires_is_renewed_once(registry: FakeRegistry) -> None:
    registry.auth, registry.token_life = ("bearer", "me", "secret"), 2
    one = client(registry, Credential("me", "secret"))
    for _n in range(5):
        one.get_manifest("team/app", "1")
    assert registry.issued == 3
    assert "account=me" in registry.seen("/token")[0].path


def test_a_registry_that_answers_401_for_ever_ends_in_an_error(registry: FakeRegistry) -> None:
    registry.auth, registry.token_life = ("bearer", "", ""), 0
    with pytest.raises(AuthError):
        client(registry).get_manifest("team/app", "1")
    assert len(registry.seen("/manifests/")) == 2


def test_wrong_passwords_and_missing_logins_are_told_apart(registry: FakeRegistry) -> None:
    for scheme in ("basic", "bearer"):
        registry.auth = (scheme, "me", "secret")
        with pytest.raises(AuthError, match="refused"):
            client(registry, Credential("me", "wrong")).get_manifest("team/app", "1")
        with pytest.raises(AuthError) as caught:
            client(registry).get_manifest("team/app", "1")
        assert "Log in" in (caught.value.hint or "")


def test_an_identity_token_is_exchanged_by_post(registry: FakeRegistry) -> None:
    registry.auth = ("bearer", "me", "refresh-me")
    client(registry, Credential("", "", identity_token="refresh-me")).get_manifest("team/app", "1")
    assert [r.method for r in registry.seen("/token")] == ["POST"]


def test_credentials_do_not_follow_a_redirect_to_another_host(registry: FakeRegistry) -> None:
    registry.auth = ("basic", "me", "secret")
    digest = IMAGE.config_digest
    with FakeRegistry() as other:
        other.blobs.update(IMAGE.blobs)
        registry.script("/blobs/", redirect(other.url + "*"), times=9)
        one = client(registry, Credential("me", "secret"))
        one.get_manifest("team/app", "1")
        stream = one.open_blob("team/app", digest)
        assert stream.read() == IMAGE.blobs[digest]
        assert "authorization" in registry.seen("/blobs/")[-1].headers
        assert [("authorization" in r.headers) for r in other.requests] == [False]


def test_a_challenge_from_a_redirects_target_is_not_answered(registry: FakeRegistry) -> None:
    with FakeRegistry() as other:
        other.auth = ("basic", "me", "secret")
        registry.script("/blobs/", redirect(other.url + "*"), times=9)
        with pytest.raises(RegistryError, match="login of its own"):
            client(registry, Credential("me", "secret")).open_blob("team/app", IMAGE.config_digest)
        assert all("authorization" not in r.headers for r in other.requests)


def test_a_realm_elsewhere_gets_no_password(registry: FakeRegistry) -> None:
    registry.auth, registry.realm = ("bearer", "me", "secret"), "http://token.example.com/token"
    with pytest.raises(AuthError, match="plain http"):
        client(registry, Credential("me", "secret")).get_manifest("team/app", "1")
    registry.realm = "https://token.example.com/token"
    with pytest.raises(AuthError, match="neither the registry nor of its domain"):
        client(registry, Credential("me", "secret")).get_manifest("team/app", "1")


def _authenticator(host: str, *, realms: tuple[str, ...] = ()) -> Authenticator:
    authenticator = Authenticator(host, Transport(realms=realms))
    authenticator.home = Origin("https", host, 443)
    return authenticator


def test_the_realm_policy_keeps_to_the_registrys_domain() -> None:
    hub = _authenticator("registry-1.docker.io")
    assert hub._check_realm("https://auth.docker.io/token", True).host == "auth.docker.io"
    assert _authenticator("registry.gitlab.com")._check_realm("https://gitlab.com/jwt/auth", True)
    assert _authenticator("r.example.org", realms=("sso.example.net",))._check_realm("https://sso.example.net/", True)
    assert hub._check_realm("https://elsewhere.example.com/t", False)
    for realm, secret in (
        ("https://evil.example.com/t", True),
        ("http://registry-1.docker.io/t", True),
        ("http://registry-1.docker.io/t", False),
        ("https://169.254.169.254/latest", False),
        ("https://127.0.0.1/t", False),
        ("https://localhost/t", False),
        ("https://[::1]/t", False),
    ):
        with pytest.raises(AuthError):
            hub._check_realm(realm, secret)
    for realm in ("ftp://registry-1.docker.io/", "https://user@registry-1.docker.io/", "https:///x", "//x"):
        with pytest.raises(RegistryError):
            hub._check_realm(realm, False)
    assert not _related("registry.co.uk", "evil.co.uk")
    assert not _related("example.com", "other.com")
    assert _related("reg.example.com:5000", "auth.example.com")


def test_a_token_service_that_talks_nonsense_is_named(registry: FakeRegistry) -> None:
    registry.auth = ("bearer", "", "")
    for body in (
        b'{"token": "t", "expires_in": 1%s}' % (b"0" * 400),
        b"<html>",
        b"[]",
        b'{"token": ""}',
        b'{"token": "a\\nb"}',
        b'{"token": 5}',
    ):
        registry.script("/token", status(200, body))
        with pytest.raises(RegistryError, match="usable token"):
            client(registry).get_manifest("team/app", "1")


def test_a_token_service_out_of_order_is_asked_again(registry: FakeRegistry) -> None:
    registry.auth = ("bearer", "", "")
    registry.script("/token", status(503), times=2)
    client(registry).get_manifest("team/app", "1")
    assert len(registry.seen("/token")) == 3
