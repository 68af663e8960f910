# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What tasks cost a registry: every request that arrives is counted."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.engine import Engine
from helpers.fake_registry import FakeRegistry, Handler
from helpers.images import Image, build_image, build_index, host_architecture, layer

pytestmark = pytest.mark.root

noise = random.Random(3).randbytes


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRegistry]:
    monkeypatch.setenv("HOME", str(tmp_path))
    with FakeRegistry() as registry:
        yield registry


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = Engine(str(tmp_path))
    yield engine
    engine.close()


def image(seed: str = "one", layers: int = 3) -> Image:
    contents = [{"etc/seed": seed.encode(), "blob": noise(700_000)}]
    contents += [{"etc/layer-%d" % n: seed.encode()} for n in range(1, layers)]
    return build_image([layer(files) for files in contents])


def index(one: Image) -> Image:
    other = build_image([layer({"other": b"1"})], architecture="s390x")
    return build_index({"linux/" + host_architecture(): one, "linux/s390x": other})


def asked(registry: FakeRegistry) -> list[str]:
    """Method and kind (manifests, blobs) of the requests since the last call, in their order."""
    with registry.lock:
        told = ["%s %s" % (one.method, (one.path.split("/") + [""] * 5)[4]) for one in registry.requests]
        registry.requests.clear()
    return told


@pytest.mark.parametrize("multi", [False, True], ids=["one platform", "index"])
def test_an_unchanged_tag_is_one_head_and_a_digest_that_is_here_nothing(
    engine: Engine, registry: FakeRegistry, multi: bool
) -> None:
    wanted = index(image()) if multi else image()
    name = registry.add("team/app", "1", wanted)
    by_digest = "%s/team/app@%s" % (registry.host, wanted.top)
    assert engine.run("image", name=name)["changed"]
    asked(registry)
    for check in (True, False):
        assert not engine.run("image", check, name=name, pull="always")["changed"]
        assert asked(registry) == ["HEAD manifests"]
    assert not engine.run("image", name=name)["changed"] and not engine.run("image", name=by_digest)["changed"]
    assert asked(registry) == []


def test_every_blob_of_a_new_image_is_asked_for_once(engine: Engine, registry: FakeRegistry) -> None:
    name = registry.add("team/app", "1", index(image()))
    assert engine.run("image", name=name)["changed"]
    told = asked(registry)
    assert told.count("GET blobs") == 4 and told.count("GET manifests") == 2  # config and layers; index and manifest
    assert set(told) == {"HEAD manifests", "GET manifests", "GET blobs"} and told.count("HEAD manifests") == 1


def test_what_the_plan_found_is_pulled_though_the_tag_moves_meanwhile(engine: Engine, registry: FakeRegistry) -> None:
    first, second = image(), image("two")
    name = registry.add("team/app", "1", first)

    def move(_handler: Handler, _path: str) -> bool:
        registry.add("team/app", "1", second)
        return False

    registry.script("/manifests/" + first.top, move)
    result = engine.run("image", name=name)
    assert result["image"]["Id"] == first.id
    assert engine.run("image", name=name, pull="always")["image"]["Id"] == second.id


def test_a_moved_tag_costs_its_new_layers_only(engine: Engine, registry: FakeRegistry) -> None:
    first = layer({"base": noise(50_000)})
    name = registry.add("team/app", "1", build_image([first, layer({"a": b"1"})]))
    engine.run("image", name=name)
    asked(registry)
    registry.add("team/app", "1", build_image([first, layer({"a": b"2"})]))
    assert engine.run("image", name=name, pull="always")["changed"]
    assert asked(registry).count("GET blobs") == 2  # its config, and one layer


def test_pushing_an_image_that_is_there_transfers_nothing(engine: Engine, registry: FakeRegistry) -> None:
    name = registry.add("team/app", "1", image())
    engine.run("image", name=name)
    asked(registry)
    for check in (True, False):
        assert not engine.run("image_push", check, name=name)["changed"]
        told = asked(registry)
        assert len(told) == 1 and told[0] in ("HEAD manifests", "GET manifests")


def test_pushing_an_image_under_a_new_tag_transfers_no_layer(engine: Engine, registry: FakeRegistry) -> None:
    name = registry.add("team/app", "1", image())
    engine.run("image", name=name, tags=[registry.host + "/team/app:2"])
    asked(registry)
    assert engine.run("image_push", name=registry.host + "/team/app:2")["changed"]
    told = asked(registry)
    assert not [one for one in told if one.startswith(("POST", "PATCH")) or one == "PUT blobs"]
    assert told.count("PUT manifests") == 1
    assert registry.manifests[("team/app", "2")] == registry.manifests[("team/app", "1")]
