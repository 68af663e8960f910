# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""``verify`` of the image module against the CNCF registry."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.engine import Engine
from helpers.images import OCI, Image, build_image, digest_of, layer, push
from helpers.registry import Registry, available
from helpers.signing import cosign_manifest, make_key, public_pem
from module_utils._engine.errors import NotFound, UntrustedError, UsageError

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not available(), reason="docker-registry and skopeo are needed"),
]

IMAGE = build_image([layer({"bin/sh": b"#!shell"})], config={"Cmd": ["/bin/sh"]})
NEWER = build_image([layer({"bin/sh": b"#!shell 2"})], config={"Cmd": ["/bin/sh"]})
KEY = make_key()


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    monkeypatch.setenv("HOME", str(tmp_path))
    with Registry(str(tmp_path)) as registry:
        push(IMAGE, registry.url, "team/app", "1")
        yield registry


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = Engine(str(tmp_path))
    yield engine
    engine.close()


def sign(registry: Registry, digest: str, key: Any = KEY, identity: str = "") -> None:
    manifest, blobs = cosign_manifest(digest, identity or registry.host + "/team/app", key)
    top = digest_of(manifest)
    signature = Image(blobs, {top: (manifest, OCI["manifest"])}, top, top, next(iter(blobs)), [])
    push(signature, registry.url, "team/app", digest.replace(":", "-") + ".sig")


def asked(key: Any = KEY, identity: str = "") -> dict[str, str]:
    return {"key": public_pem(key), "identity": identity}


def test_only_what_is_signed_comes_in_and_the_second_time_nothing_changes(
    engine: Engine, registry: Registry, tmp_path: Path
) -> None:
    name = registry.host + "/team/app:1"
    for check in (True, False):
        with pytest.raises(UntrustedError, match="is not signed") as caught:
            engine.run("image", check, name=name, verify=asked())
        assert caught.value.as_dict()["kind"] == "untrusted" and caught.value.as_dict()["reason"] == "unsigned"
    sign(registry, IMAGE.top)
    assert engine.run("image", True, name=name, verify=asked())["changed"]
    (tmp_path / "cosign.pub").write_text(public_pem(KEY))
    done = engine.run("image", name=name, verify={"key": str(tmp_path / "cosign.pub")})
    verified = done["actions"][0]["detail"]["verified"]
    assert verified["digest"] == IMAGE.top and verified["kind"] == "ecdsa P-256"
    assert verified["identity"] == registry.host + "/team/app"
    registry.stop()  # what was verified is not asked for again
    assert not engine.run("image", name=name, verify=asked())["changed"]
    with pytest.raises(Exception, match="refused"):
        engine.run("image", name=name, verify=asked(make_key()))


def test_a_tag_that_moves_to_something_unsigned_is_not_followed(engine: Engine, registry: Registry) -> None:
    name = registry.host + "/team/app:1"
    sign(registry, IMAGE.top)
    first = engine.run("image", name=name, verify=asked())["image"]["Id"]
    push(NEWER, registry.url, "team/app", "1")
    for check in (True, False):
        with pytest.raises(UntrustedError, match="is not signed"):
            engine.run("image", check, name=name, pull="always", verify=asked())
    assert engine.run("image_info", name=[name])["images"][0]["Id"] == first
    sign(registry, NEWER.top)
    assert engine.run("image", name=name, pull="always", verify=asked())["image"]["Id"] == NEWER.id


def test_an_image_that_is_here_is_held_against_its_signature_too(engine: Engine, registry: Registry) -> None:
    name = registry.host + "/team/app:1"
    engine.run("image", name=name)
    with pytest.raises(UntrustedError, match="is not signed"):
        engine.run("image", name=name, verify=asked())
    sign(registry, IMAGE.top)
    assert not engine.run("image", True, name=name, verify=asked())["changed"]
    assert not engine.run("image", name=name, verify=asked())["changed"]
    engine.busybox("local:1")
    with pytest.raises(UntrustedError, match="did not come from its registry"):
        engine.run("image", name="local:1", verify=asked())


def test_a_container_runs_only_from_an_image_that_is_signed(engine: Engine, registry: Registry) -> None:
    name = registry.host + "/team/app:2"
    engine.busybox(name)
    digest = engine.run("image_push", name=name)["digest"]
    engine.run("image", name=name, state="absent")
    wanted = {"image": name, "network_mode": "none", "command": ["sleep", "1000"], "verify": asked()}
    for check in (True, False):
        with pytest.raises(UntrustedError, match="is not signed"):
            engine.container("web", check, **wanted)
        with pytest.raises(UntrustedError, match="is not signed"):
            engine.run("containers", check, containers=[{"name": "web", **wanted}])
    assert not engine.run("container_info")["containers"] and not engine.run("image_info")["images"]
    sign(registry, digest)
    done = engine.container("web", **wanted)
    assert done["actions"][0]["detail"]["verified"]["digest"] == digest
    assert not engine.container("web", **wanted)["changed"]
    assert not engine.container("web", **{**wanted, "verify": None})["changed"]  # it never makes a difference
    both = [{"name": "web", **wanted}, {"name": "other", **wanted, "verify": asked(make_key())}]
    with pytest.raises(UntrustedError, match="not by the key given"):
        engine.run("containers", containers=both)  # of two wishes for one image, neither is forgotten
    assert [one["Name"] for one in engine.run("container_info")["containers"]] == ["/web"]


def test_what_registry_info_lists_beside_an_image_includes_its_signature(engine: Engine, registry: Registry) -> None:
    sign(registry, IMAGE.top)
    shown = engine.run("registry_info", registry_url=registry.host, name="team/app:1", referrers=True)["registry"]
    assert [one["kind"] for one in shown["referrers"]] == ["signature"]


def test_mistakes_in_the_option_are_told_before_anything_is_done(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="No such file"):
        engine.run("image", name="127.0.0.1:1/x", verify={"key": str(tmp_path / "none.pub")})
    with pytest.raises(UsageError, match="it is a private key"):
        engine.run(
            "image", name="127.0.0.1:1/x", verify={"key": "-----BEGIN PRIVATE KEY-----\n\n-----END PRIVATE KEY-----"}
        )
    archive = tmp_path / "x.tar"
    archive.write_bytes(b"")
    with pytest.raises(UsageError, match="source=load asks no registry"):
        engine.run("image", name="x", source="load", path=str(archive), verify=asked())
    assert json.dumps(engine.run("image_info")["images"]) == "[]"
