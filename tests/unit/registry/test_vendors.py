# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The login flows of the registries people use, each against a local server that speaks it as documented."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional
from urllib.parse import parse_qs, urlsplit

import pytest
from helpers.fake_registry import FakeRegistry, Handler, status
from helpers.images import build_image, layer
from module_utils._engine.errors import AuthError, RegistryError
from module_utils._engine.registry import ecr
from module_utils._engine.registry.auth import ACR_USER, _related
from module_utils._engine.registry.client import RegistryClient
from module_utils._engine.registry.credentials import Credential, login, lookup
from module_utils._engine.registry.transport import Transport

IMAGE = build_image([layer({"a": b"x"})])
ALWAYS = 10**9


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "DOCKER_CONFIG", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


class Vendor(FakeRegistry):
    """Bearer tokens from ``service`` at ``path``. ``exchange`` decides what a request for a token is answered."""

    def __init__(self, path: str, service: str) -> None:
        super().__init__()
        self.auth = ("bearer", "", "")
        self.path, self.service = path, service
        self.asked: list[tuple[str, str, dict[str, list[str]], str]] = []
        self.add("team/app", "1", IMAGE)
        self.script("/v2/", self._challenge, times=ALWAYS)
        self.script(path, self._token, times=ALWAYS)
        self.good: Any = lambda method, fields, basic: False

    def scripted(self, path: str) -> Any:
        if urlsplit(path).path == self.path:  # some token services live below /v2/
            return self._token
        return super().scripted(path)

    def _challenge(self, handler: Handler, path: str) -> bool:
        given = (handler.headers.get("Authorization") or "")[len("Bearer ") :]
        if given in self.tokens:
            return False
        challenge = 'Bearer realm="%s%s",service="%s",scope="repository:team/app:pull"'
        handler.answer(401, b"{}", {"WWW-Authenticate": challenge % (self.url, self.path, self.service)})
        return True

    def _token(self, handler: Handler, path: str) -> bool:
        query = parse_qs(handler.body.decode() or urlsplit(path).query)
        given = handler.headers.get("Authorization") or ""
        basic = base64.b64decode(given[len("Basic ") :]).decode() if given.startswith("Basic ") else ""
        self.asked.append((handler.command, urlsplit(path).path, query, basic))
        answer = self.good(handler.command, query, basic)
        if isinstance(answer, int) and not isinstance(answer, bool):
            handler.answer(answer, b"{}")
        elif not answer:
            handler.answer(401, b'{"errors":[{"code":"UNAUTHORIZED","message":"unauthorized"}]}')
        else:
            token = "token%d" % len(self.asked)
            self.tokens[token] = 10**9
            name = "access_token" if handler.command == "POST" else "token"
            handler.answer(200, json.dumps({name: token, "expires_in": 300, "issued_at": "x"}).encode())
        return True


def pull(registry: FakeRegistry, credential: Optional[Credential]) -> str:
    transport = Transport(timeout=5, sleep=lambda _s: None, credentials=lambda _h, _r: credential)
    return RegistryClient(registry.host, transport).get_manifest("team/app", "1")[2]


KEY_FILE = json.dumps({"type": "service_account", "private_key": "-----BEGIN\nx:y\n-----END\n"}, indent=2)

# name, token path, service, user, password; as each vendor's documentation has them
FLOWS = [
    ("Docker Hub, password or access token", "/token", "registry.docker.io", "me", "dckr_pat_x"),
    ("Artifact Registry, access token", "/v2/token", "us-docker.pkg.dev", "oauth2accesstoken", "ya29.x"),
    ("Artifact Registry, key file", "/v2/token", "gcr.io", "_json_key", KEY_FILE),
    ("Artifact Registry, key in base64", "/v2/token", "gcr.io", "_json_key_base64", "eyJ9"),
    ("GitLab, deploy token", "/jwt/auth", "container_registry", "gitlab+deploy-token-1", "gldt-x"),
    ("GitLab, job token", "/jwt/auth", "container_registry", "gitlab-ci-token", "x"),
    ("Harbor, robot of a project", "/service/token", "harbor-registry", "robot$proj+name", "x"),
    ("JFrog, identity token", "/artifactory/api/docker/repo/v2/token", "r.jfrog.io", "me@example.com", "cmVm"),
    ("Quay, robot", "/v2/auth", "quay.io", "ns+robot", "x"),
    ("Quay, OAuth token", "/v2/auth", "quay.io", "$oauthtoken", "x"),
    ("GHCR", "/token", "ghcr.io", "anybody", "ghp_x"),
    ("ACR, service principal", "/oauth2/token", "x.azurecr.io", "11111111-2222-3333-4444-555555555555", "s~x"),
]


@pytest.mark.parametrize(("name", "path", "service", "user", "password"), FLOWS, ids=[flow[0] for flow in FLOWS])
def test_user_and_password_for_a_token(
    tmp_path: Path, name: str, path: str, service: str, user: str, password: str
) -> None:
    auth = str(tmp_path / "auth.json")
    with Vendor(path, service) as registry:
        registry.good = lambda method, fields, basic: basic == "%s:%s" % (user, password)
        with pytest.raises(AuthError):
            login(Transport(timeout=5), auth, registry.host, user, "wrong")
        assert login(Transport(timeout=5), auth, registry.host, user, password)
        assert pull(registry, lookup(auth, registry.host)) == IMAGE.top
        method, _path, fields, _basic = registry.asked[-1]
        assert method == "GET" and fields["service"] == [service] and fields["account"] == [user]
        assert fields["scope"] == ["repository:team/app:pull"]


def test_public_images_need_a_token_all_the_same() -> None:
    with Vendor("/token", "registry.docker.io") as registry:
        registry.good = lambda method, fields, basic: not basic
        assert pull(registry, None) == IMAGE.top and len(registry.asked) == 1


def test_a_service_that_speaks_only_oauth2_gets_a_password_grant() -> None:
    with Vendor("/oauth2/token", "x") as registry:
        wanted = {"grant_type": ["password"], "username": ["me"], "password": ["p w&d"], "service": ["x"]}
        registry.good = lambda method, fields, basic: (
            405 if method == "GET" else all(fields.get(key) == value for key, value in wanted.items())
        )
        assert pull(registry, Credential("me", "p w&d")) == IMAGE.top
        assert registry.asked[-1][2]["client_id"] == ["wharf.engine"]
        with pytest.raises(AuthError):
            pull(registry, Credential("me", "wrong"))


def test_a_refresh_token_is_posted_and_all_scopes_are_one_word() -> None:
    with Vendor("/token", "s") as registry:
        registry.good = lambda method, fields, basic: method == "POST" and fields["refresh_token"] == ["r/f="]
        assert pull(registry, Credential("", "", identity_token="r/f=")) == IMAGE.top
        assert registry.asked[-1][2]["grant_type"] == ["refresh_token"]
        assert registry.asked[-1][2]["scope"] == ["repository:team/app:pull"]


def jwt(issuer: str) -> str:
    parts = ({"alg": "none"}, {"iss": issuer, "tid": "t"})
    return ".".join(base64.urlsafe_b64encode(json.dumps(p).encode()).decode().rstrip("=") for p in parts) + ".sig"


@pytest.mark.parametrize("kind", ["refresh token", "Entra ID token", "expired"])
def test_acr_exchanges_what_it_has_to(kind: str) -> None:
    """``az acr login --expose-token`` gives ACR's refresh token; a managed identity gives one of Entra ID."""
    entra = jwt("https://sts.windows.net/tenant/")
    refresh = jwt("Azure Container Registry")
    exchanged: list[dict[str, list[str]]] = []

    def exchange(handler: Handler, path: str) -> bool:
        exchanged.append(parse_qs(handler.body.decode()))
        if kind == "expired":
            handler.answer(401, b'{"errors":[{"code":"UNAUTHORIZED","message":"expired"}]}')
        else:
            handler.answer(200, json.dumps({"refresh_token": refresh}).encode())
        return True

    with Vendor("/oauth2/token", "x.azurecr.io") as registry:
        registry.script("/oauth2/exchange", exchange, times=ALWAYS)
        registry.good = lambda method, fields, basic: method == "POST" and fields["refresh_token"] == [refresh]
        credential = Credential(ACR_USER, refresh if kind == "refresh token" else entra)
        if kind == "expired":
            with pytest.raises(AuthError, match="does not exchange the Entra ID token: UNAUTHORIZED: expired"):
                pull(registry, credential)
            return
        assert pull(registry, credential) == IMAGE.top
        wanted = {"grant_type": ["access_token"], "service": ["x.azurecr.io"], "access_token": [entra]}
        assert exchanged == ([wanted] if kind == "Entra ID token" else [])


@pytest.mark.parametrize(
    ("registry", "realm"),
    [
        ("registry-1.docker.io", "auth.docker.io"),
        ("registry.gitlab.com", "gitlab.com"),
        ("registry.example.com:5050", "gitlab.example.com"),
        ("team.jfrog.io", "team.jfrog.io"),
        ("us-docker.pkg.dev", "us-docker.pkg.dev"),
    ],
)
def test_realms_of_vendors_are_of_the_registrys_domain(registry: str, realm: str) -> None:
    assert _related(registry, realm)


# -- Amazon ----------------------------------------------------------------------------------------------------------

HOST = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"


def test_the_signature_is_amazons() -> None:
    """Held against openssl, step by step as Amazon documents them."""
    now = time.struct_time((2026, 1, 2, 3, 4, 5, 0, 0, 0))
    headers = ecr.sign("https://api.ecr.eu-central-1.amazonaws.com/", b"{}", "eu-central-1", KEYS, now)
    assert headers["X-Amz-Date"] == "20260102T030405Z" and headers["X-Amz-Target"] == ecr.TARGET
    assert headers["Authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260102/eu-central-1/ecr/aws4_request, "
        "SignedHeaders=content-type;host;x-amz-date;x-amz-target, Signature=" + openssl_signature()
    )


KEYS = ecr.Keys("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "")


def openssl_signature() -> str:
    import subprocess

    def run(data: bytes, *options: str) -> str:
        command = ["openssl", "dgst", "-sha256", *options]
        return subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout.split()[-1].decode()

    request = (
        b"POST\n/\n\ncontent-type:application/x-amz-json-1.1\nhost:api.ecr.eu-central-1.amazonaws.com\n"
        b"x-amz-date:20260102T030405Z\nx-amz-target:" + ecr.TARGET.encode() + b"\n\n"
        b"content-type;host;x-amz-date;x-amz-target\n" + run(b"{}").encode()
    )
    scope = b"20260102/eu-central-1/ecr/aws4_request"
    text = b"AWS4-HMAC-SHA256\n20260102T030405Z\n" + scope + b"\n" + run(request).encode()
    key = ("AWS4" + KEYS.secret).encode().hex()
    for part in (b"20260102", b"eu-central-1", b"ecr", b"aws4_request"):
        key = run(part, "-mac", "HMAC", "-macopt", "hexkey:" + key)
    return run(text, "-mac", "HMAC", "-macopt", "hexkey:" + key)


@pytest.fixture
def amazon(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRegistry]:
    monkeypatch.setattr(ecr, "_known", {})
    with FakeRegistry() as api:
        monkeypatch.setenv("AWS_ENDPOINT_URL_ECR", api.url)
        token = base64.b64encode(b"AWS:the-password").decode()
        answer = {"authorizationData": [{"authorizationToken": token, "expiresAt": 1.7e9, "proxyEndpoint": "x"}]}
        api.script("/", status(200, json.dumps(answer).encode()), times=ALWAYS)
        yield api


def test_amazon_gives_a_login_for_its_keys(
    amazon: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    auth = str(tmp_path / "auth.json")
    assert lookup(auth, HOST) is None and not amazon.requests  # no keys, no question
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "session")
    for _n in range(2):
        found = lookup(auth, HOST)
        assert found is not None and (found.username, found.password) == ("AWS", "the-password")
    headers = amazon.requests[0].headers
    assert len(amazon.requests) == 1 and headers["x-amz-security-token"] == "session"
    assert headers["x-amz-target"] == ecr.TARGET and headers["content-type"] == "application/x-amz-json-1.1"
    assert "Credential=AKID/" in headers["authorization"] and "x-amz-security-token" in headers["authorization"]
    for other in ("public.ecr.aws", "evil.dkr.ecr.x.amazonaws.com", "1.dkr.ecr.a/b.amazonaws.com", "s3.amazonaws.com"):
        assert lookup(auth, other) is None
    assert len(amazon.requests) == 1


def test_keys_from_the_shared_file(amazon: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "home/.aws"
    path.mkdir(parents=True)
    (path / "credentials").write_text(
        "[default]\nregion = x\n[work]\naws_access_key_id = A%1\naws_secret_access_key = s\n"
    )
    assert ecr.find_keys() is None
    monkeypatch.setenv("AWS_PROFILE", "work")
    assert ecr.find_keys() == ecr.Keys("A%1", "s", "") and "s" not in repr(ecr.find_keys())[5:]
    (path / "credentials").write_bytes(b"\xff[[")
    assert ecr.find_keys() is None


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (status(400, b'{"__type":"x","message":"The security token is expired"}'), AuthError, "token is expired"),
        (status(200, b"{}"), RegistryError, "without a token"),
        (status(200, b'{"authorizationData":[{"authorizationToken":"!"}]}'), RegistryError, "without a token"),
    ],
)
def test_what_amazon_refuses_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: Any, kind: type[Exception], words: str
) -> None:
    monkeypatch.setattr(ecr, "_known", {})
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    with FakeRegistry() as api:
        monkeypatch.setenv("AWS_ENDPOINT_URL_ECR", api.url)
        api.script("/", answer)
        with pytest.raises(kind, match=words) as caught:
            lookup(str(tmp_path / "auth.json"), HOST)
        assert "s3cret" not in str(caught.value)


def test_a_stored_login_comes_before_amazons_keys(
    amazon: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    auth = tmp_path / "auth.json"
    auth.write_text(json.dumps({"auths": {HOST: {"auth": base64.b64encode(b"AWS:mine").decode()}}}))
    found = lookup(str(auth), HOST)
    assert found is not None and found.password == "mine" and not amazon.requests
