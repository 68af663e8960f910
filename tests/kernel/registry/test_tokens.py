# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real registry that wants real, signed tokens: pull, push, mount."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.engine import Engine
from helpers.images import build_image, layer
from helpers.registry import Registry, available
from helpers.token_server import TokenServer
from module_utils._engine.errors import AuthError
from module_utils._engine.registry.client import RegistryClient
from module_utils._engine.registry.transport import Transport

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not available(), reason="docker-registry and skopeo are needed"),
]

USER = ("me", "secret")
IMAGE = build_image([layer({"a%d" % n: random.Random(n).randbytes(50_000)}) for n in range(4)])


@pytest.fixture
def tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TokenServer]:
    monkeypatch.setenv("HOME", str(tmp_path))
    with TokenServer(str(tmp_path / "tokens"), USER) as server:
        yield server


@pytest.fixture
def registry(tmp_path: Path, tokens: TokenServer) -> Iterator[Registry]:
    with Registry(str(tmp_path), users=USER, tokens=tokens) as registry:
        registry.push_layout(IMAGE.write_layout(str(tmp_path / "layout"), "1") + ":1", "public/app:1")
        yield registry


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = Engine(str(tmp_path))
    yield engine
    engine.close()


def test_anonymous_tokens_pull_and_do_not_push(engine: Engine, registry: Registry) -> None:
    name = registry.host + "/public/app:1"
    assert engine.run("image", name=name)["image"]["Id"] == IMAGE.id
    engine.run("image", name=name, tags=[registry.host + "/public/app:2", registry.host + "/team/app:1"])
    for tag in ("public/app:2", "team/app:1"):
        with pytest.raises(AuthError):
            engine.run("image_push", name="%s/%s" % (registry.host, tag))
    with pytest.raises(AuthError):
        engine.run("registry", registry_url=registry.host, username="me", password="wrong")


def test_a_login_pushes_and_mounts(engine: Engine, registry: Registry, tokens: TokenServer) -> None:
    name, copy = registry.host + "/public/app:1", registry.host + "/team/app:1"
    assert engine.run("registry", registry_url=registry.host, username="me", password="secret")["changed"]
    engine.run("image", name=name, tags=[copy])
    del tokens.scopes[:]
    done = engine.run("image_push", name=copy)
    detail = done["actions"][0]["detail"]
    assert done["digest"] == IMAGE.top and (detail["mounted"], detail["uploaded"]) == (4, 1)
    assert "repository:team/app:pull,push" in tokens.scopes and "repository:public/app:pull" in tokens.scopes
    shown = engine.run("registry_info", registry_url=registry.host, name="team/app:1", referrers=True)["registry"]
    assert shown["auth"] == "bearer" and shown["manifest"]["digest"] == IMAGE.top and shown["referrers"] == []
    assert shown["manifest"]["config"]["rootfs"]["diff_ids"] == IMAGE.diff_ids
    with pytest.raises(AuthError):
        engine.run("registry", registry_url=registry.host, username="me", password="wrong")


def test_a_token_that_expires_between_two_requests_is_renewed_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The registry holds the token's own date against its clock (and allows 60 seconds more), whatever we think."""
    monkeypatch.setenv("HOME", str(tmp_path))
    directory = str(tmp_path)
    with TokenServer(directory + "/tokens", USER) as tokens, Registry(directory, users=USER, tokens=tokens) as registry:
        registry.push_layout(IMAGE.write_layout(str(tmp_path / "layout"), "1") + ":1", "public/app:1")
        tokens.life = -45
        client = RegistryClient(registry.host, Transport(timeout=60))
        del tokens.scopes[:]
        deadline = time.monotonic() + 120
        while len(tokens.scopes) < 2:
            assert time.monotonic() < deadline, "the first token was good for ever"
            blob = client.open_blob("public/app", IMAGE.config_digest)
            assert blob.read(1 << 20) == IMAGE.blobs[IMAGE.config_digest]
            blob.close()
