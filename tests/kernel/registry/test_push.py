# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pushes to a real registry: what skopeo finds there is what was here."""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.engine import Engine
from helpers.images import DOCKER, OCI, build_image, build_index, host_architecture, layer, push
from helpers.registry import Registry, available
from module_utils._engine.errors import AuthError, NotFound, RegistryError, UsageError
from module_utils._engine.images import packing
from module_utils._engine.registry import uploads

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not available(), reason="docker-registry and skopeo are needed"),
]

IMAGE = build_image(
    [layer({"bin/sh": random.Random(1).randbytes(200_000)}), layer({"etc/name": b"two"})],
    config={"Cmd": ["/bin/sh"]},
    types=DOCKER,
)


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    monkeypatch.setenv("HOME", str(tmp_path))
    with Registry(str(tmp_path)) as registry:
        yield registry


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = Engine(str(tmp_path))
    yield engine
    engine.close()


def shown(registry: Registry, name: str) -> dict[str, Any]:
    return dict(json.loads(registry.skopeo("inspect", "docker://%s/%s" % (registry.host, name))))


def tag(engine: Engine, name: str, other: str) -> None:
    from module_utils._engine.images.reference import parse
    from module_utils._engine.store.state import Store

    with Store.open(engine.paths) as store:
        found = store.images.by_reference(parse(name).canonical())
        assert found is not None
        store.images.tag(parse(other).canonical(), found.id)


def test_what_was_pulled_is_pushed_bit_for_bit(engine: Engine, registry: Registry, tmp_path: Path) -> None:
    push(IMAGE, registry.url, "team/app", "1")
    source = registry.host + "/team/app:1"
    engine.run("image", name=source)
    assert not engine.run("image_push", name=source)["changed"]
    with Registry(str(tmp_path / "second")) as second:
        name = second.host + "/other/app:2"
        tag(engine, source, name)
        planned = engine.run("image_push", check=True, name=name)
        assert planned["changed"] and planned["digest"] == IMAGE.top
        with pytest.raises(subprocess.CalledProcessError):
            shown(second, "other/app:2")
        done = engine.run("image_push", name=name)
        detail = done["actions"][0]["detail"]
        assert done["changed"] and done["digest"] == IMAGE.top == shown(second, "other/app:2")["Digest"]
        assert (detail["uploaded"], detail["mounted"], detail["present"]) == (3, 0, 0)
        assert detail["sent"] == sum(len(blob) for blob in IMAGE.blobs.values())
        assert name.rpartition(":")[0] + "@" + IMAGE.top in done["image"]["RepoDigests"]
        again = engine.run("image_push", name=name)
        assert not again["changed"] and again["actions"] == [] and again["digest"] == IMAGE.top
        assert not engine.run("image_push", check=True, name=name)["changed"]
        second.skopeo("inspect", "--raw", "docker://" + name)


def test_layers_of_another_repository_are_mounted(engine: Engine, registry: Registry) -> None:
    push(IMAGE, registry.url, "team/app", "1")
    engine.run("image", name=registry.host + "/team/app:1")
    name = registry.host + "/copy/app:1"
    tag(engine, registry.host + "/team/app:1", name)
    detail = engine.run("image_push", name=name)["actions"][0]["detail"]
    assert (detail["uploaded"], detail["mounted"], detail["present"]) == (1, 2, 0)  # the config is sent
    tag(engine, name, registry.host + "/copy/app:2")
    detail = engine.run("image_push", name=registry.host + "/copy/app:2")["actions"][0]["detail"]
    assert (detail["uploaded"], detail["mounted"], detail["present"], detail["sent"]) == (0, 0, 3, 0)
    assert shown(registry, "copy/app:2")["Digest"] == IMAGE.top


@pytest.mark.parametrize("form", ["erofs", "tree"])
def test_an_imported_image_always_gets_the_same_layers(
    tmp_path: Path, registry: Registry, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHARF_LAYER_FORM", form)
    digests = set()
    for number in range(2):
        one = Engine(str(tmp_path / str(number)))
        os.makedirs(str(tmp_path / str(number)), exist_ok=True)
        try:
            name = "%s/base%d:1" % (registry.host, number)
            image = one.busybox(name)["image"]
            planned = one.run("image_push", check=True, name=name)
            assert planned["changed"]
            digests.add(one.run("image_push", name=name)["digest"])
            assert not one.run("image_push", name=name)["changed"]
            assert shown(registry, "base%d:1" % number)["Digest"] in digests
            manifest = json.loads(registry.skopeo("inspect", "--raw", "docker://" + name))
            assert [one["mediaType"] for one in manifest["layers"]] == [OCI["layer.gzip"]]
            raw = registry.skopeo("inspect", "--config", "--raw", "docker://" + name)
            assert json.loads(raw)["rootfs"]["diff_ids"] == image["RootFS"]["Layers"]
        finally:
            one.close()
    assert len(digests) == 1


def test_the_same_image_compressed_elsewhere_is_no_change(
    engine: Engine, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = registry.host + "/base:1"
    engine.busybox(name)
    with monkeypatch.context() as patch:
        patch.setattr(packing, "LEVEL", 1)  # as if by another zlib
        assert engine.run("image_push", name=name)["changed"]
    other = Engine(str(tmp_path / "other"))
    os.makedirs(str(tmp_path / "other"), exist_ok=True)
    try:
        other.busybox(name)
        assert not other.run("image_push", name=name)["changed"]
        other.busybox(registry.host + "/other:1")
        assert other.run("image_push", name=registry.host + "/other:1")["digest"] != shown(registry, "base:1")["Digest"]
        assert not other.run("image_push", name=registry.host + "/other:1")["changed"]
    finally:
        other.close()


def test_a_tag_that_names_another_image_is_moved(engine: Engine, registry: Registry) -> None:
    index = build_index({"linux/s390x": IMAGE, "linux/" + host_architecture(): IMAGE}, types=DOCKER)
    push(index, registry.url, "base", "1")
    name = registry.host + "/base:1"
    engine.busybox(name)
    done = engine.run("image_push", name=name)
    assert done["changed"] and "several platforms" in done["warnings"][0]
    assert shown(registry, "base:1")["Digest"] == done["digest"] != index.top
    assert done["diff"] == {"before": {"digest": index.top}, "after": {"digest": done["digest"]}}


def test_an_index_is_not_replaced_by_the_image_that_was_pulled_from_it(engine: Engine, registry: Registry) -> None:
    index = build_index({"linux/" + host_architecture(): IMAGE}, types=DOCKER)
    push(index, registry.url, "base", "1")
    engine.run("image", name=registry.host + "/base:1")
    assert not engine.run("image_push", name=registry.host + "/base:1")["changed"]


def test_pieces_and_restarts(
    engine: Engine, registry: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(uploads, "CHUNK", 1 << 20)
    image = build_image([layer({"a": os.urandom(6 << 20)}), layer({"b": os.urandom(3 << 20)})])
    push(image, registry.url, "big", "1")
    engine.run("image", name=registry.host + "/big:1")
    with Registry(str(tmp_path / "second")) as second:
        name = second.host + "/big:1"
        tag(engine, registry.host + "/big:1", name)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                status = int(engine.run("image_push", name=name)["digest"] != image.top)
            finally:
                os._exit(status)
        for _n in range(2):
            second.stop(kill=True)
            second.start()
        assert os.waitpid(pid, 0)[1] == 0
        assert shown(second, "big:1")["Digest"] == image.top


def test_mistakes_are_told(engine: Engine, registry: Registry) -> None:
    with pytest.raises(NotFound, match=r"does not exist locally with the tag: 127\.0\.0\.1:1/x:7"):
        engine.run("image_push", name="127.0.0.1:1/x", tag="7")
    with pytest.raises(UsageError, match="has a digest"):
        engine.run("image_push", name="x@" + IMAGE.top)
    engine.busybox("127.0.0.1:1/x:7")
    for check in (True, False):
        with pytest.raises(RegistryError, match="refused"):
            engine.run("image_push", check=check, name="127.0.0.1:1/x", tag="7", timeout=0.5)


def test_a_push_needs_a_login_that_may_write(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with Registry(str(tmp_path), tls=True, users=("me", "secret")) as registry:
        name = registry.host + "/base:1"
        engine.busybox(name)
        for check in (True, False):
            with pytest.raises(AuthError):
                engine.run("image_push", check=check, name=name, ca_path=registry.ca)
        engine.run("registry", registry_url=registry.host, username="me", password="secret", ca_path=registry.ca)
        done = engine.run("image_push", name=name, ca_path=registry.ca)
        assert done["changed"] and shown(registry, "base:1")["Digest"] == done["digest"]
