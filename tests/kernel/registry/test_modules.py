# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""image, registry and registry_info against a real registry that wants a login."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.engine import Engine
from helpers.images import build_image, build_index, layer, push
from helpers.registry import Registry, available
from module_utils._engine.errors import AuthError, NotFound, UsageError

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not available(), reason="docker-registry and skopeo are needed"),
]

LOGIN = {"Authorization": "Basic " + base64.b64encode(b"me:secret").decode()}
ONE = build_image([layer({"etc/name": b"one"})], config={"Cmd": ["/bin/sh"]})
TWO = build_image([layer({"etc/name": b"two"})], config={"Cmd": ["/bin/sh"]})


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    monkeypatch.setenv("HOME", str(tmp_path))
    with Registry(str(tmp_path), users=("me", "secret")) as registry:
        push(ONE, registry.url, "team/app", "1", headers=LOGIN)
        yield registry


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = Engine(str(tmp_path))
    yield engine
    engine.close()


def login(engine: Engine, registry: Registry) -> None:
    engine.run("registry", registry_url=registry.host, username="me", password="secret")


def test_a_login_is_a_state(engine: Engine, registry: Registry) -> None:
    task = {"registry_url": registry.host, "username": "me", "password": "secret"}
    assert engine.run("registry", check=True, **task)["changed"]
    assert [engine.run("registry", **task)["changed"] for _n in range(2)] == [True, False]
    assert not engine.run("registry", reauthorize=True, **task)["changed"]
    with pytest.raises(AuthError):
        engine.run("registry", **{**task, "password": "wrong"})
    shown = engine.run("registry_info", registry_url=registry.host, name="team/app")["registry"]
    assert shown["tags"] == ["1"] and shown["logged_in"]
    task = {"registry_url": registry.host, "state": "absent"}
    assert [engine.run("registry", **task)["changed"] for _n in range(2)] == [True, False]


def test_an_image_is_pulled_once_and_again_only_when_its_tag_moves(engine: Engine, registry: Registry) -> None:
    name = registry.host + "/team/app:1"
    with pytest.raises(AuthError):
        engine.run("image", name=name)
    login(engine, registry)
    assert engine.run("image", check=True, name=name)["changed"]
    assert engine.run("image_info", name=[name])["images"] == []
    assert engine.run("image", name=name)["changed"]
    for pull in ("missing", "always"):
        assert not engine.run("image", name=name, pull=pull)["changed"]
        assert not engine.run("image", name=name, pull=pull, check=True)["changed"]
    push(TWO, registry.url, "team/app", "1", headers=LOGIN)
    assert not engine.run("image", name=name)["changed"]
    assert engine.run("image", name=name, pull="always", check=True)["changed"]
    result = engine.run("image", name=name, pull="always")
    assert result["changed"] and result["image"]["Id"] == TWO.id
    assert engine.run("image", name=name, state="absent")["changed"]


def test_a_digest_names_exactly_one_image(engine: Engine, registry: Registry) -> None:
    login(engine, registry)
    name = "%s/team/app:whatever@%s" % (registry.host, ONE.top)
    assert [engine.run("image", name=name)["changed"] for _n in range(2)] == [True, False]
    shown = engine.run("image_info", name=[name])["images"][0]
    assert shown["Id"] == ONE.id and shown["RepoTags"] == []
    assert shown["RepoDigests"] == ["%s/team/app@%s" % (registry.host, ONE.top)]


def test_mistakes_are_told_before_and_after_asking(engine: Engine, registry: Registry) -> None:
    with pytest.raises(UsageError, match="bad tag"):
        engine.run("image", name=registry.host + "/team/app:1:2")
    login(engine, registry)
    for check in (True, False):
        with pytest.raises(NotFound):
            engine.run("image", check=check, name=registry.host + "/team/app:2")


def test_mirrors_are_a_state_and_are_used(engine: Engine, registry: Registry) -> None:
    task = {"registry_url": "nowhere.invalid", "mirrors": ["http://%s/team/" % registry.host]}
    assert engine.run("registry", check=True, **task)["changed"]
    done = engine.run("registry", **task)
    assert done["changed"] and done["mirrors"] == ["http://%s/team" % registry.host] and done["login_result"] == {}
    assert not engine.run("registry", **task)["changed"]
    login(engine, registry)
    pulled = engine.run("image", name="nowhere.invalid/app:1")
    assert pulled["changed"] and pulled["image"]["RepoTags"] == ["nowhere.invalid/app:1"]
    assert not engine.run("image", name="nowhere.invalid/app:1", pull="always")["changed"]
    assert engine.run("registry", registry_url="nowhere.invalid", mirrors=[])["changed"]
    assert not engine.run("registry", registry_url="nowhere.invalid", state="absent")["changed"]
    with pytest.raises(UsageError, match="username and password are required"):
        engine.run("registry", registry_url="nowhere.invalid")


def test_a_manifest_is_shown_without_a_pull(engine: Engine, registry: Registry) -> None:
    login(engine, registry)
    index = build_index({"linux/s390x": TWO, "linux/amd64": ONE}, attestation=True)
    push(index, registry.url, "team/app", "all", headers=LOGIN)

    def info(**params: Any) -> Any:
        return engine.run("registry_info", registry_url=registry.host, **params)["registry"]

    shown = info(name="team/app:all", referrers=True)
    assert shown["manifest"]["digest"] == index.top and "tags" not in shown
    assert [one["platform"] for one in shown["manifest"]["platforms"]] == ["linux/s390x", "linux/amd64"]
    assert [(one["kind"], one["source"]) for one in shown["referrers"]] == [("attestation", "index")]
    shown = info(name="team/app@" + ONE.top)["manifest"]
    assert shown["config"]["config"] == {"Cmd": ["/bin/sh"]} and shown["document"]["layers"]
    assert shown["total"] == sum(len(blob) for blob in ONE.blobs.values())
    assert info(name="team/app:all", query="manifest.digest") == index.top
    assert [one["name"] for one in info(search="app")["search"]] == ["team/app"]
    assert engine.run("image_info")["images"] == []
    for bad in ({"name": "team/app", "referrers": True}, {"name": "x", "search": "y"}, {"search": "x", "limit": 0}):
        with pytest.raises(UsageError):
            info(**bad)
    with pytest.raises(NotFound):
        info(name="team/app:nothing")
