# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What docker, podman and skopeo write is the same image in our engine."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.engine import Engine
from helpers.images import Image, build_index
from helpers.interop_kit import bring, docker_tree, identity, sample, skopeo, tree_of
from helpers.real_engines import Caller
from helpers.tars import build, file, folder
from module_utils._engine.errors import IntegrityError, NotFound, Unsupported

ROOT = build([folder("bin"), file("bin/sh", b"#!shell" * 300, mode=0o755), folder("srv"), file("srv/old")])


def make(caller: Caller, tmp_path: Path, *commit: str) -> None:
    """base:1 and shop:1 on top of it, made by that engine itself, without a container that runs."""
    (tmp_path / "root.tar").write_bytes(ROOT)
    (tmp_path / "new").write_bytes(b"new")
    caller.must("import", "-c", "CMD /bin/sh", str(tmp_path / "root.tar"), "base:1")
    container = caller.must("create", "--network", "none", "base:1").strip()
    caller.must("cp", str(tmp_path / "new"), container + ":/srv/new")
    caller.must("commit", *commit, "-c", "ENV A=1", "-c", "WORKDIR /srv", container, "shop:1")
    caller.must("rm", container)


@pytest.fixture
def made(docker: Caller, tmp_path: Path) -> Iterator[Caller]:
    make(docker, tmp_path)
    yield docker
    docker.must("rmi", "shop:1", "base:1")


def id_in(caller: Caller, name: str) -> str:
    return "sha256:" + caller.must("image", "inspect", "-f", "{{.Id}}", name).strip().replace("sha256:", "")


def test_docker_save_loads_with_the_same_ids_layers_and_tree(ours: Engine, made: Caller, tmp_path: Path) -> None:
    made.must("save", "-o", str(tmp_path / "saved.tar"), "shop:1", "base:1")
    done = ours.run("image_load", path=str(tmp_path / "saved.tar"))
    assert sorted(done["image_names"]) == ["base:1", "shop:1"]
    for name in ("shop:1", "base:1"):
        shown = json.loads(made.must("image", "inspect", name))[0]
        assert identity(ours, name) == (shown["Id"], shown["RootFS"]["Layers"])
    assert tree_of(ours, "shop:1") == docker_tree(made, "shop:1", tmp_path / "tree")
    assert not ours.run("image_load", path=str(tmp_path / "saved.tar"))["changed"]


def test_one_image_of_a_compressed_docker_save_loads_under_a_name_of_choice(
    ours: Engine, made: Caller, tmp_path: Path
) -> None:
    made.must("save", "-o", str(tmp_path / "saved.tar"), "shop:1")
    (tmp_path / "saved.tgz").write_bytes(gzip.compress((tmp_path / "saved.tar").read_bytes(), 1))
    done = ours.run("image", name="mine:7", source="load", path=str(tmp_path / "saved.tgz"))
    assert done["image"]["Id"] == id_in(made, "shop:1") and done["image"]["RepoTags"] == ["mine:7"]


def test_an_image_goes_through_docker_and_comes_back_as_it_was(
    ours: Engine, second: Engine, docker: Caller, tmp_path: Path
) -> None:
    image = sample()
    bring(ours, image, tmp_path / "in", "shop:1")
    ours.run("image_export", names=["shop:1"], path=str(tmp_path / "out.tar"))
    docker.must("load", "-i", str(tmp_path / "out.tar"))
    try:
        docker.must("save", "-o", str(tmp_path / "back.tar"), "shop:1")
    finally:
        docker.must("rmi", "shop:1")
    second.run("image_load", path=str(tmp_path / "back.tar"))
    assert identity(second, "shop:1") == (image.id, image.diff_ids)
    assert tree_of(second, "shop:1") == tree_of(ours, "shop:1")


@pytest.mark.parametrize("kind", ["docker-archive", "oci-archive", "oci-dir", "docker-dir"])
@pytest.mark.parametrize("own", ["oci", "docker"])
def test_podman_save_loads_with_the_same_id_and_layers(
    ours: Engine, podman: Caller, tmp_path: Path, kind: str, own: str
) -> None:
    make(podman, tmp_path, "-f", own)
    podman.must("save", "--format", kind, "-o", str(tmp_path / "saved"), "shop:1")
    done = ours.run("image", name="shop:1", source="load", path=str(tmp_path / "saved"))
    shown = json.loads(podman.must("image", "inspect", "shop:1"))[0]
    assert done["image"]["RootFS"]["Layers"] == shown["RootFS"]["Layers"]
    if kind.startswith(own):  # another format's configuration is another document
        assert done["image"]["Id"] == "sha256:" + shown["Id"]
    tree = tree_of(ours, "shop:1")
    assert b"./srv/new" in tree and b"./srv/old" in tree
    assert not ours.run("image_load", path=str(tmp_path / "saved"))["actions"][1:]


def test_podman_save_of_several_images_loads_them_all(ours: Engine, podman: Caller, tmp_path: Path) -> None:
    make(podman, tmp_path, "-f", "docker")
    podman.must("save", "-m", "--format", "docker-archive", "-o", str(tmp_path / "saved"), "shop:1", "base:1")
    done = ours.run("image_load", path=str(tmp_path / "saved"))
    assert sorted(done["image_names"]) == ["localhost/base:1", "localhost/shop:1"]
    assert identity(ours, "localhost/shop:1")[0] == id_in(podman, "shop:1")


@pytest.mark.parametrize("transport", ["oci", "oci-archive", "docker-archive", "dir"])
def test_what_skopeo_copies_loads_with_the_same_id_layers_and_tree(
    ours: Engine, second: Engine, tmp_path: Path, transport: str
) -> None:
    image = sample()
    bring(ours, image, tmp_path / "in", "shop:1")
    name = "" if transport == "dir" else ":docker.io/library/shop:1"
    skopeo("copy", "-q", "oci:%s:1" % (tmp_path / "in"), "%s:%s%s" % (transport, tmp_path / "out", name))
    done = second.run("image_load", path=str(tmp_path / "out"))
    assert done["image_names"] == ([] if transport == "dir" else ["shop:1"])
    second.run("image", name="shop:1", source="load", path=str(tmp_path / "out"))
    assert identity(second, "shop:1") == (image.id, image.diff_ids)
    assert tree_of(second, "shop:1") == tree_of(ours, "shop:1")


def skopeo_dir(image: Image, tmp_path: Path, *options: str) -> Path:
    source = image.write_layout(str(tmp_path / "in"), "1")
    skopeo("copy", "-q", *options, "oci:%s:1" % source, "dir:%s" % (tmp_path / "out"))
    return tmp_path / "out"


def test_a_skopeo_dir_of_several_platforms_gives_the_one_that_is_asked_for(ours: Engine, tmp_path: Path) -> None:
    images = {"linux/amd64": sample(architecture="amd64"), "linux/arm64": sample(architecture="arm64")}
    path = str(skopeo_dir(build_index(images), tmp_path, "--all"))
    for platform, image in images.items():
        done = ours.run("image", name=platform[6:], source="load", path=path, platform=platform)
        assert done["image"]["Id"] == image.id
    with pytest.raises(NotFound, match="linux/s390x"):
        ours.run("image", name="other", source="load", path=path, platform="linux/s390x")


def test_a_skopeo_dir_that_is_not_what_its_manifest_says_is_refused(ours: Engine, tmp_path: Path) -> None:
    image = sample()
    path = skopeo_dir(image, tmp_path)
    config = path / image.id[7:]
    data = config.read_bytes()
    config.write_bytes(data.replace(b"echo hi", b"echo ha"))
    with pytest.raises(IntegrityError, match=image.id):
        ours.run("image", name="shop:1", source="load", path=str(path))
    config.unlink()
    with pytest.raises(IntegrityError, match="which it does not hold"):
        ours.run("image", name="shop:1", source="load", path=str(path))
    config.symlink_to("/etc/hostname")
    with pytest.raises(IntegrityError, match="cannot be opened inside it"):
        ours.run("image", name="shop:1", source="load", path=str(path))
    (path / "version").write_text("Directory Transport Version: 2.0\n")
    with pytest.raises(Unsupported, match=r"version 2\.0"):
        ours.run("image", name="shop:1", source="load", path=str(path))
    assert ours.run("image_info")["images"] == []
