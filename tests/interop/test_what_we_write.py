# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What image_export writes is the same image in docker, podman, skopeo and umoci: configuration, layers and tree."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from helpers.engine import Engine
from helpers.images import DOCKER, OCI
from helpers.interop_kit import CONFIG, bare, bring, command, docker_tree, sample, skopeo, tree_of
from helpers.real_engines import Caller
from helpers.tars import snapshot

FORMATS = ("docker-archive", "oci-archive", "oci-layout")
TYPES = {"oci": OCI, "docker": DOCKER}


@pytest.fixture(params=["erofs", "tree"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("WHARF_LAYER_FORM", request.param)
    return str(request.param)


@pytest.mark.parametrize("types", list(TYPES))
def test_docker_loads_the_same_image_under_all_its_names(
    ours: Engine, docker: Caller, tmp_path: Path, form: str, types: str
) -> None:
    image = sample(types=TYPES[types])
    bring(ours, image, tmp_path / "in", "shop:1", "registry.example.com:5000/team/shop:2")
    names = ["shop:1", "registry.example.com:5000/team/shop:2"]
    ours.run("image_export", names=names, path=str(tmp_path / "out.tar"))
    docker.must("load", "-i", str(tmp_path / "out.tar"))
    try:
        for name in names:
            shown = json.loads(docker.must("image", "inspect", name))[0]
            assert shown["Id"] == image.id and shown["RootFS"]["Layers"] == image.diff_ids
            assert {key: shown["Config"][key] for key in CONFIG} == CONFIG
        assert docker_tree(docker, "shop:1", tmp_path / "tree") == tree_of(ours, "shop:1")
    finally:
        docker.must("rmi", *names)


def test_docker_loads_several_images_of_one_archive(ours: Engine, docker: Caller, tmp_path: Path) -> None:
    image, other = sample(), sample(extra={"author": "somebody else"})
    bring(ours, image, tmp_path / "a", "shop:1")
    bring(ours, other, tmp_path / "b", "other:1")
    ours.run("image_export", names=["shop:1", other.id], path=str(tmp_path / "out.tar"))
    docker.must("load", "-i", str(tmp_path / "out.tar"))
    try:
        assert docker.must("image", "inspect", "-f", "{{.Id}}", "shop:1").strip() == image.id
        assert json.loads(docker.must("image", "inspect", other.id))[0]["RepoTags"] == []
    finally:
        docker.must("rmi", "shop:1", other.id)


@pytest.mark.parametrize("types", list(TYPES))
@pytest.mark.parametrize("kind", FORMATS)
def test_podman_loads_the_same_image(
    ours: Engine, podman: Caller, tmp_path: Path, form: str, kind: str, types: str
) -> None:
    image = sample(types=TYPES[types])
    bring(ours, image, tmp_path / "in", "shop:1")
    ours.run("image_export", names=["shop:1"], path=str(tmp_path / "out"), format=kind)
    podman.must("load", "-i", str(tmp_path / "out"))
    shown = json.loads(podman.must("image", "inspect", image.id[7:]))[0]
    assert shown["RootFS"]["Layers"] == image.diff_ids
    assert {key: shown["Config"][key] for key in CONFIG} == CONFIG
    if kind == "docker-archive":
        assert shown["RepoTags"] == ["docker.io/library/shop:1"]
    mounted = podman.must("image", "mount", image.id[7:]).strip()
    try:
        assert bare(snapshot(mounted)) == tree_of(ours, "shop:1")
    finally:
        podman.must("image", "unmount", image.id[7:])


@pytest.mark.parametrize("kind", FORMATS)
def test_skopeo_and_umoci_see_the_same_configuration_layers_and_tree(
    ours: Engine, tmp_path: Path, form: str, kind: str
) -> None:
    image = sample()
    bring(ours, image, tmp_path / "in", "shop:1")
    ours.run("image_export", names=["shop:1"], path=str(tmp_path / "out"), format=kind)
    where = {
        "docker-archive": "docker-archive:%s:docker.io/library/shop:1",
        "oci-archive": "oci-archive:%s:1",
        "oci-layout": "oci:%s:1",
    }[kind] % (tmp_path / "out")
    raw = skopeo("inspect", "--raw", "--config", where).encode()
    assert "sha256:" + hashlib.sha256(raw).hexdigest() == image.id
    skopeo("copy", "-q", where, "oci:%s:x" % (tmp_path / "copy"))
    command("umoci", "unpack", "--image", "%s:x" % (tmp_path / "copy"), str(tmp_path / "bundle"))
    assert bare(snapshot(str(tmp_path / "bundle/rootfs"))) == tree_of(ours, "shop:1")
    if kind != "docker-archive":  # as they were pulled, compressed
        manifest = json.loads(skopeo("inspect", "--raw", where))
        assert [one["digest"] for one in manifest["layers"]] == [
            one["digest"] for one in json.loads(image.manifests[image.top][0])["layers"]
        ]
