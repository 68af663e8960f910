# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""An index is pushed as it was pulled: the same bytes, whatever is on the host of what it leads to."""

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
from helpers.images import OCI, Image, build_image, build_index, descriptor, digest_of, host_architecture, layer, push
from helpers.registry import Registry, available
from module_utils._engine.errors import RegistryError, UsageError
from module_utils._engine.images.reference import parse
from module_utils._engine.store.state import Store

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not available(), reason="docker-registry and skopeo are needed"),
]

CHANCE = random.Random(11)
OURS = build_image([layer({"bin/sh": CHANCE.randbytes(100_000)}), layer({"etc/name": b"ours"})])
THEIRS = build_image([layer({"bin/sh": CHANCE.randbytes(150_000)})], architecture="s390x")


def with_attestation() -> Image:
    """Two platforms and BuildKit's provenance of the first, which is no image."""
    index = build_index({"linux/" + host_architecture(): OURS, "linux/s390x": THEIRS})
    statement = b'{"_type": "https://in-toto.io/Statement/v0.1"}'
    config = b"{}"
    document = {
        "schemaVersion": 2,
        "mediaType": OCI["manifest"],
        "config": descriptor(config, OCI["config"]),
        "layers": [descriptor(statement, "application/vnd.in-toto+json")],
    }
    manifest = json.dumps(document).encode()
    notes = {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": OURS.top}
    entry = descriptor(manifest, OCI["manifest"], annotations=notes)
    entries = json.loads(index.manifests[index.top][0])["manifests"]
    entries.append({**entry, "platform": {"os": "unknown", "architecture": "unknown"}})
    data = json.dumps({"schemaVersion": 2, "mediaType": OCI["index"], "manifests": entries}, indent=1).encode()
    blobs = {**index.blobs, digest_of(config): config, digest_of(statement): statement}
    manifests = {
        **OURS.manifests, **THEIRS.manifests,
        digest_of(manifest): (manifest, OCI["manifest"]), digest_of(data): (data, OCI["index"]),
    }  # fmt: skip
    return index._replace(blobs=blobs, manifests=manifests, top=digest_of(data))


INDEX = with_attestation()


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    monkeypatch.setenv("HOME", str(tmp_path))
    with Registry(str(tmp_path)) as registry:
        push(INDEX, registry.url, "team/app", "1")
        yield registry


@pytest.fixture
def second(tmp_path: Path) -> Iterator[Registry]:
    with Registry(str(tmp_path / "second")) as registry:
        yield registry


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = Engine(str(tmp_path))
    yield engine
    engine.close()


def whole(registry: Registry, name: str, directory: Path) -> dict[str, bytes]:
    """All that skopeo gets of an index and what it leads to, by digest."""
    source, target = "docker://%s/%s" % (registry.host, name), "oci:%s:x" % directory

    subprocess.run(
        ["skopeo", "--insecure-policy", "copy", "-q", "--src-tls-verify=false", "--all", source, target], check=True
    )
    blobs = directory / "blobs/sha256"
    return {"sha256:" + one: (blobs / one).read_bytes() for one in os.listdir(blobs)}


def blobs_here(engine: Engine) -> set[str]:
    with Store.open(engine.paths) as store:
        return set(store.blobs.list())


def test_an_index_arrives_bit_for_bit_with_all_platforms_and_what_else_it_lists(
    engine: Engine, registry: Registry, second: Registry, tmp_path: Path
) -> None:
    name = second.host + "/copy/app:1"
    engine.run("image", name=registry.host + "/team/app:1", tags=[name])
    before = blobs_here(engine)
    planned = engine.run("image_push", check=True, name=name, all_platforms=True)
    assert planned["changed"] and planned["digest"] == INDEX.top
    done = engine.run("image_push", name=name, all_platforms=True)
    detail = done["actions"][0]["detail"]
    assert done["digest"] == INDEX.top and detail["uploaded"] == len(INDEX.blobs)
    assert detail["sent"] == sum(map(len, INDEX.blobs.values()))
    copied = whole(second, "copy/app:1", tmp_path / "copied")
    assert copied == whole(registry, "team/app:1", tmp_path / "original")
    for digest, (data, _kind) in INDEX.manifests.items():
        assert second.skopeo("inspect", "--raw", "docker://%s/copy/app@%s" % (second.host, digest)) == data
    assert blobs_here(engine) == before  # what the others needed was only passed on
    again = engine.run("image_push", name=name, all_platforms=True)
    assert not again["changed"] and again["digest"] == INDEX.top
    assert not engine.run("image_push", name=name)["changed"]  # an index with this image is not replaced by it


def test_in_the_same_registry_nothing_is_sent(engine: Engine, registry: Registry) -> None:
    name = registry.host + "/copy/app:1"
    engine.run("image", name=registry.host + "/team/app:1", tags=[name, registry.host + "/team/app:2"])
    detail = engine.run("image_push", name=name, all_platforms=True)["actions"][0]["detail"]
    assert (detail["uploaded"], detail["mounted"], detail["sent"]) == (0, len(INDEX.blobs), 0)
    detail = engine.run("image_push", name=registry.host + "/team/app:2", all_platforms=True)["actions"][0]["detail"]
    assert (detail["uploaded"], detail["present"], detail["digest"]) == (0, len(INDEX.blobs), INDEX.top)


def test_a_single_image_under_the_tag_is_replaced_by_the_index(
    engine: Engine, registry: Registry, second: Registry
) -> None:
    name = second.host + "/copy/app:1"
    engine.run("image", name=registry.host + "/team/app:1", tags=[name])
    assert engine.run("image_push", name=name)["digest"] == OURS.top
    assert not engine.run("image_push", name=name)["changed"]
    assert engine.run("image_push", name=name, all_platforms=True)["digest"] == INDEX.top


def test_of_several_indexes_the_one_that_came_last_is_pushed(
    engine: Engine, registry: Registry, second: Registry
) -> None:
    name = second.host + "/copy/app:1"
    engine.run("image", name=registry.host + "/team/app:1")
    grown = build_index({"linux/" + host_architecture(): OURS})
    push(grown, registry.url, "team/other", "1")
    engine.run("image", name=registry.host + "/team/other:1", tags=[name])
    with Store.open(engine.paths) as store:
        os.utime(store.blobs.path(INDEX.top), (1, 1))
    assert engine.run("image_push", name=name, all_platforms=True)["digest"] == grown.top


def test_an_image_that_came_from_no_index_is_told_so(engine: Engine, second: Registry) -> None:
    name = second.host + "/base:1"
    engine.busybox(name)
    for check in (True, False):
        with pytest.raises(UsageError, match="did not come from an index"):
            engine.run("image_push", check, name=name, all_platforms=True)


def test_where_the_index_came_from_is_needed_and_nothing_is_half_pushed(
    engine: Engine, registry: Registry, second: Registry
) -> None:
    name = second.host + "/copy/app:1"
    engine.run("image", name=registry.host + "/team/app:1", tags=[name])
    registry.stop()
    with pytest.raises(RegistryError, match=r"cannot be had from where it came from: .*refused"):
        engine.run("image_push", name=name, all_platforms=True, timeout=1)
    assert parse(name).tag == "1"
    with pytest.raises(Exception, match="returned non-zero"):
        second.skopeo("inspect", "--raw", "docker://" + name)


def test_a_blob_that_was_altered_where_it_came_from_is_not_passed_on(
    engine: Engine, registry: Registry, second: Registry
) -> None:
    name = second.host + "/copy/app:1"
    engine.run("image", name=registry.host + "/team/app:1", tags=[name])
    victim: Any = json.loads(THEIRS.manifests[THEIRS.top][0])["layers"][0]["digest"]
    with open(registry.blob_path(victim), "r+b") as stream:
        stream.seek(1000)
        stream.write(b"altered")
    with pytest.raises(Exception, match=r"digest|differs|damaged"):
        engine.run("image_push", name=name, all_platforms=True)
    assert not os.path.exists(second.blob_path(victim))
