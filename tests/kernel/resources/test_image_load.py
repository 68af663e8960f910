# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""An archive with several images comes in whole, once, and no name changes its meaning in silence."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.engine import Engine, engine
from helpers.images import Image, build_image, build_index, host_architecture, layer
from module_utils._engine.errors import Conflict, NotFound, UsageError

BASE = layer({"bin/sh": b"#!shell" * 300})
ONE = build_image([BASE, layer({"one": b"1"})])
TWO = build_image([BASE, layer({"two": b"2"})])


@pytest.fixture(params=["erofs", "tree"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("WHARF_LAYER_FORM", request.param)
    return str(request.param)


@pytest.fixture
def bare(own_network: None, tmp_path: Path) -> Iterator[Engine]:
    (tmp_path / "one").mkdir()
    with engine(str(tmp_path / "one")) as instance:
        yield instance


@pytest.fixture
def other(own_network: None, tmp_path: Path) -> Iterator[Engine]:
    with engine(str(tmp_path / "two")) as instance:
        yield instance


def layout(tmp_path: Path, **images: Image) -> str:
    """An OCI layout of all of them, under their names."""
    path = str(tmp_path / "layout")
    entries: list[Any] = []
    for name, image in images.items():
        image.write_layout(path, name)
        with open(path + "/index.json") as stream:
            entries += json.load(stream)["manifests"]
    with open(path + "/index.json", "w") as stream:
        json.dump({"schemaVersion": 2, "manifests": entries}, stream)
    return path


def names(instance: Engine) -> dict[str, str]:
    return {tag: one["Id"] for one in instance.run("image_info")["images"] for tag in one["RepoTags"]}


@pytest.mark.parametrize("kind", ["docker-archive", "oci-archive", "oci-layout"])
def test_all_images_come_in_under_their_names_and_the_second_time_nothing_changes(
    bare: Engine, other: Engine, tmp_path: Path, kind: str, form: str
) -> None:
    for name, image in (("one:1", ONE), ("team/two:2", TWO)):
        bare.run("image", name=name, source="load", path=image.write_layout(str(tmp_path / image.id[7:]), "x"))
    bare.run("image", name="one:1", source="load", path=str(tmp_path / ONE.id[7:]), tags=["also:1"])
    path = str(tmp_path / "saved")
    bare.run("image_export", names=["one:1", "team/two:2", "also:1"], path=path, format=kind)

    planned = other.run("image_load", check=True, path=path)
    assert planned["changed"] and not names(other) and planned["images"] == []
    done = other.run("image_load", path=path)
    assert done["actions"] == planned["actions"] and done["image_names"] == planned["image_names"]
    assert sorted(done["image_names"]) == ["also:1", "one:1", "team/two:2"]
    assert names(other) == {"one:1": ONE.id, "also:1": ONE.id, "team/two:2": TWO.id}
    assert {one["Id"] for one in done["images"]} == {ONE.id, TWO.id}
    again = other.run("image_load", path=path)
    assert not again["changed"] and again["actions"] == [] and again["image_names"] == done["image_names"]


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is needed")
def test_what_skopeo_saved_with_several_names_comes_in(bare: Engine, tmp_path: Path) -> None:
    source, path = ONE.write_layout(str(tmp_path / "layout"), "x"), str(tmp_path / "saved.tar")
    more = ["--additional-tag", "docker.io/library/also:1"]
    target = "docker-archive:%s:docker.io/library/one:1" % path
    subprocess.run(["skopeo", "--insecure-policy", "copy", *more, "oci:%s:x" % source, target], check=True)
    bare.run("image_load", path=path)
    assert set(names(bare)) == {"one:1", "also:1"} and set(names(bare).values()) == {ONE.id}


def test_only_the_images_that_are_named_come_in(bare: Engine, tmp_path: Path) -> None:
    path = layout(tmp_path, **{"one:1": ONE, "two:2": TWO})
    done = bare.run("image_load", path=path, names=["two:2"])
    assert names(bare) == {"two:2": TWO.id} and done["image_names"] == ["two:2"]
    with pytest.raises(NotFound, match="holds no image called three:3") as caught:
        bare.run("image_load", path=path, names=["one:1", "three:3"])
    assert caught.value.details["available"] == ["one:1", "two:2"]
    assert names(bare) == {"two:2": TWO.id}


def test_a_name_that_means_another_image_is_only_moved_with_a_word_about_it(bare: Engine, tmp_path: Path) -> None:
    bare.run("image_load", path=layout(tmp_path, **{"app:1": ONE}))
    shutil.rmtree(tmp_path / "layout")
    path = layout(tmp_path, **{"app:1": TWO, "new:1": TWO})
    planned = bare.run("image_load", check=True, path=path)
    moved = [one for one in planned["actions"] if one["how"] == "tag" and one["name"].endswith("app:1")]
    assert moved[0]["detail"] == {"image": TWO.id, "replaces": ONE.id} and ONE.id[:19] in moved[0]["why"]
    assert planned["diff"]["before"]["docker.io/library/app:1"] == ONE.id
    assert names(bare) == {"app:1": ONE.id}
    assert bare.run("image_load", path=path)["actions"] == planned["actions"]
    assert names(bare) == {"app:1": TWO.id, "new:1": TWO.id}
    assert ONE.id in {one["Id"] for one in bare.run("image_info")["images"]}  # what it meant is still here


def test_an_image_without_a_name_comes_in_without_one(bare: Engine, tmp_path: Path) -> None:
    path = layout(tmp_path, latest=ONE)
    done = bare.run("image_load", path=path)
    assert done["changed"] and done["image_names"] == [] and done["images"][0]["Id"] == ONE.id
    assert not bare.run("image_load", path=path)["changed"]


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_an_archive_packed_by_any_tar_comes_in(bare: Engine, tmp_path: Path, form: int) -> None:
    """With fractions of seconds, long names and long link names in headers of their own."""
    path, directory = tmp_path / "packed.tar", Path(layout(tmp_path, **{"one:1": ONE}))
    for file in directory.rglob("*"):
        os.utime(file, ns=(0, 1_700_000_000_123_456_789))
    with tarfile.open(path, "w", format=form) as tar:
        if form != tarfile.USTAR_FORMAT:
            tar.addfile(tarfile.TarInfo("x" * 300))
        for name in ("oci-layout", "index.json", "blobs"):
            tar.add(directory / name, name)
    assert bare.run("image_load", path=str(path))["images"][0]["Id"] == ONE.id


def test_of_several_platforms_the_one_that_was_asked_for_is_taken(bare: Engine, tmp_path: Path) -> None:
    foreign = build_image([layer({"s": b"390"})], architecture="s390x")
    index = build_index({"linux/" + host_architecture(): ONE, "linux/s390x": foreign})
    path = layout(tmp_path, **{"app:1": index})
    assert bare.run("image_load", path=path)["images"][0]["Id"] == ONE.id
    done = bare.run("image_load", path=path, platform="linux/s390x")
    assert done["actions"][-1]["detail"]["replaces"] == ONE.id and names(bare) == {"app:1": foreign.id}


def test_an_archive_that_gives_one_name_to_two_images_is_refused_and_leaves_nothing(
    bare: Engine, tmp_path: Path
) -> None:
    path = tmp_path / "saved.tar"
    entries = []
    added: set[str] = set()
    with tarfile.open(path, "w") as tar:
        for image in (ONE, TWO):
            directory = image.write_layout(str(tmp_path / image.id[7:]), "x")
            for name in sorted(os.listdir(directory + "/blobs/sha256")):
                member = "blobs/sha256/" + name
                if member not in added:
                    tar.add(directory + "/" + member, member)
                    added.add(member)
            document = json.loads(image.manifests[image.top][0])
            layers = ["blobs/sha256/" + one["digest"][7:] for one in document["layers"]]
            entries.append({"Config": "blobs/sha256/" + image.id[7:], "RepoTags": ["app:1"], "Layers": layers})
        (tmp_path / "manifest.json").write_text(json.dumps(entries))
        tar.add(tmp_path / "manifest.json", "manifest.json")
    with pytest.raises(Conflict, match="calls two images app:1"):
        bare.run("image_load", path=str(path))
    assert not bare.run("image_info")["images"]


def test_mistakes_are_told_before_anything_is_done(bare: Engine, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Invalid image reference"):
        bare.run("image_load", path=str(tmp_path / "none"), names=["UPPER"])
    with pytest.raises(UsageError, match="No such file"):
        bare.run("image_load", path=str(tmp_path / "none"))
