# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Images into files and out of files: the same bytes every time, the same image everywhere, nothing hostile gets in."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, Optional

import pytest
from helpers.engine import Engine, engine
from helpers.images import DOCKER, Image, build_image, build_index, digest_of, layer
from helpers.tars import build, char, folder, opaque, whiteout
from helpers.tars import file as tar_file
from helpers.tars import link as tar_link
from module_utils._engine.errors import Conflict, IntegrityError, NotFound, UsageError, WharfError

FORMATS = ("docker-archive", "oci-archive", "oci-layout")
BASE = layer({"bin/sh": b"#!shell" * 300, "etc/motd": b"hi\n", "lib": "usr/lib", "usr/lib/so": b"elf"})
UPPER = build(
    [
        folder("etc"), whiteout("etc/motd"), tar_file("etc/new", b"new", xattrs={"user.a": b"\0\xff"}),
        folder("d"), opaque("d"), tar_link("d/link", "etc/new"), char("d/null", 1, 3),
    ]
)  # fmt: skip
# An archive that is no whole number of blocks long: the index pads it, and that must not come out again.
ODD = layer({"odd": b"odd"}) + b"trailing"


@pytest.fixture(params=["erofs", "tree"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("WHARF_LAYER_FORM", request.param)
    return str(request.param)


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Engine]:
    (tmp_path / "one").mkdir()
    with engine(str(tmp_path / "one")) as instance:
        yield instance


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Engine]:
    with engine(str(tmp_path / "two")) as instance:
        yield instance


def sample(**more: Any) -> Image:
    return build_image([BASE, UPPER, ODD], config={"Cmd": ["/bin/sh"], "Env": ["A=1"]}, **more)


def load(instance: Engine, name: str, path: Any, check: bool = False, **more: Any) -> dict[str, Any]:
    return instance.run("image", check, name=name, source="load", path=str(path), **more)


def pack(directory: str, path: Path) -> Path:
    with tarfile.open(path, "w") as tar:
        for name in sorted(os.listdir(directory)):
            tar.add(os.path.join(directory, name), name)
    return path


def old_docker_save(image: Image, path: Path, names: list[str], config_name: Optional[str] = None) -> Path:
    """As Docker before 25 wrote it: a directory per layer, a repeated layer as a symlink."""
    config = image.blobs[image.config_digest]
    layers = [gzip.decompress(data) for digest, data in image.blobs.items() if digest != image.config_digest]
    members: list[tuple[str, Optional[bytes], str]] = [(config_name or image.config_digest[7:] + ".json", config, "")]
    paths = []
    for number, data in enumerate(layers):
        paths.append("%064x/layer.tar" % number)
        members.append(("%064x/VERSION" % number, b"1.0", ""))
        members.append(("real%d.tar" % number, data, "") if number == 1 else (paths[-1], data, ""))
        if number == 1:
            members.append((paths[-1], None, "../real1.tar"))
    manifest = [{"Config": members[0][0], "RepoTags": names, "Layers": paths}]
    members.append(("manifest.json", json.dumps(manifest).encode(), ""))
    write(path, members)
    return path


def write(path: Path, members: list[tuple[str, Optional[bytes], str]]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data, target in members:
            info = tarfile.TarInfo(name)
            if data is None:
                info.type, info.linkname = tarfile.SYMTYPE, target
                tar.addfile(info)
            else:
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def read(path: Any) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {info.name: tar.extractfile(info).read() for info in tar if info.isreg()}  # type: ignore[union-attr]


def tools(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, "%s: %s%s" % (argv, done.stdout, done.stderr)
    return done.stdout


# -- round trips -------------------------------------------------------------------------------------------------


def test_a_layout_comes_in_and_goes_out_bit_for_bit_and_the_second_time_nothing_changes(
    bare: Engine, other: Engine, form: str, tmp_path: Path
) -> None:
    image = sample()
    layout = image.write_layout(str(tmp_path / "in"), "2")
    planned = load(bare, "shop:2", layout, check=True)
    assert planned["changed"] and planned["actions"][0]["how"] == "load"
    assert bare.run("image_info")["images"] == []
    done = load(bare, "shop:2", layout)
    assert done["changed"] and done["image"]["Id"] == image.id and done["image"]["RepoTags"] == ["shop:2"]
    assert done["image"]["Descriptor"]["digest"] == image.manifest_digest
    assert not load(bare, "shop:2", layout)["changed"]
    for kind in FORMATS:
        path = str(tmp_path / kind)
        params: dict[str, Any] = {"names": ["shop:2"], "path": path, "format": kind}
        assert bare.run("image_export", True, **params)["changed"] and not os.path.exists(path)
        assert bare.run("image_export", **params)["changed"]
        assert not bare.run("image_export", **params)["changed"]
        assert not bare.run("image_export", True, **params)["changed"]
        back = load(other, "back:%s" % kind, path)
        assert back["image"]["Id"] == image.id
        assert back["actions"][0]["how"] == ("load" if kind == FORMATS[0] else "tag")
        again = tmp_path / ("again-" + kind)
        other.run("image_export", names=["back:" + kind], path=str(again), format=kind)
    blobs = os.listdir(tmp_path / "oci-layout/blobs/sha256")
    assert {"sha256:" + name for name in blobs} == {*image.blobs, image.manifest_digest}


def test_the_same_image_is_the_same_file_on_every_host(
    bare: Engine, other: Engine, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = sample()
    layout = image.write_layout(str(tmp_path / "in"), "1")
    load(bare, "shop:1", layout)
    monkeypatch.setenv("WHARF_LAYER_FORM", "tree" if form == "erofs" else "erofs")
    load(other, "shop:1", layout)
    for number, instance in enumerate((bare, other)):
        instance.run("image_export", names=["shop:1"], path=str(tmp_path / ("%d.tar" % number)))
    assert (tmp_path / "0.tar").read_bytes() == (tmp_path / "1.tar").read_bytes()
    assert os.stat(tmp_path / "0.tar").st_mode & 0o777 == 0o600


def test_an_imported_image_can_be_exported_and_has_its_diff_ids(
    bare: Engine, other: Engine, form: str, tmp_path: Path
) -> None:
    image = bare.busybox()["image"]
    for kind in FORMATS:
        bare.run("image_export", names=["bb:1"], path=str(tmp_path / kind), format=kind)
    assert load(other, "bb:1", tmp_path / "docker-archive")["image"]["RootFS"] == image["RootFS"]
    assert not load(other, "bb:1", tmp_path / "oci-archive")["changed"]


def test_what_we_write_is_read_by_skopeo_and_umoci(bare: Engine, form: str, tmp_path: Path) -> None:
    if not shutil.which("skopeo") or not shutil.which("umoci"):
        pytest.skip("skopeo and umoci are needed")
    image = sample()
    load(bare, "shop:1", image.write_layout(str(tmp_path / "in"), "1"))
    bare.busybox()
    names = ["shop:1", "bb:1"]
    for kind in FORMATS:
        bare.run(
            "image_export", names=names if kind != "oci-layout" else ["shop:1"], path=str(tmp_path / kind), format=kind
        )
    where = {
        "docker-archive": "docker-archive:%s:docker.io/library/shop:1" % (tmp_path / "docker-archive"),
        "oci-archive": "oci-archive:%s:docker.io/library/shop:1" % (tmp_path / "oci-archive"),
        "oci-layout": "oci:%s:1" % (tmp_path / "oci-layout"),
    }
    for kind in FORMATS:
        tools("skopeo", "--insecure-policy", "copy", "-q", where[kind], "oci:%s:x" % (tmp_path / ("copy-" + kind)))
        assert load(bare, "copy:" + kind, tmp_path / ("copy-" + kind))["image"]["RootFS"]["Layers"] == image.diff_ids
        tools("umoci", "unpack", "--image", "%s:x" % (tmp_path / ("copy-" + kind)), str(tmp_path / ("bundle-" + kind)))
        assert sorted(os.listdir(tmp_path / ("bundle-" + kind) / "rootfs/d")) == ["link", "null"]
    tools("umoci", "unpack", "--image", "%s:1" % (tmp_path / "oci-layout"), str(tmp_path / "bundle"))
    assert not os.path.exists(tmp_path / "bundle/rootfs/etc/motd")


def test_what_skopeo_writes_is_read_by_us(bare: Engine, tmp_path: Path) -> None:
    if not shutil.which("skopeo"):
        pytest.skip("skopeo is needed")
    image = sample()
    source = "oci:%s:1" % image.write_layout(str(tmp_path / "in"), "1")
    tools("skopeo", "--insecure-policy", "copy", "-q", source, "docker-archive:%s:shop:1" % (tmp_path / "a.tar"))
    tools("skopeo", "--insecure-policy", "copy", "-q", source, "oci-archive:%s:shop:1" % (tmp_path / "b.tar"))
    assert load(bare, "shop:1", tmp_path / "a.tar")["image"]["RootFS"]["Layers"] == image.diff_ids
    assert load(bare, "shop:1", tmp_path / "b.tar")["image"]["RootFS"]["Layers"] == image.diff_ids


def test_images_in_docker_format_become_oci_in_a_layout(bare: Engine, tmp_path: Path) -> None:
    image = sample(types=DOCKER)
    load(bare, "shop:1", image.write_layout(str(tmp_path / "in"), "1"))
    bare.run("image_export", names=["shop:1"], path=str(tmp_path / "out"), format="oci-layout")
    entry = json.loads((tmp_path / "out/index.json").read_bytes())["manifests"][0]
    manifest = json.loads((tmp_path / "out/blobs/sha256" / entry["digest"][7:]).read_bytes())
    types = {entry["mediaType"], manifest["config"]["mediaType"], *(one["mediaType"] for one in manifest["layers"])}
    assert all(kind.startswith("application/vnd.oci.image.") for kind in types)


def test_a_layout_keeps_what_is_in_it_under_other_names(bare: Engine, tmp_path: Path) -> None:
    sample().write_layout(str(tmp_path / "out"), "theirs")
    bare.busybox()
    params: dict[str, Any] = {"names": ["bb:1"], "path": str(tmp_path / "out"), "format": "oci-layout"}
    assert bare.run("image_export", **params)["changed"]
    assert not bare.run("image_export", **params)["changed"]
    entries = json.loads((tmp_path / "out/index.json").read_bytes())["manifests"]
    assert [entry["annotations"]["org.opencontainers.image.ref.name"] for entry in entries] == ["theirs", "1"]
    damaged = tmp_path / "out/blobs/sha256" / entries[1]["digest"][7:]
    damaged.write_bytes(b"x" * damaged.stat().st_size)
    mended = bare.run("image_export", **params)
    assert mended["actions"][0]["why"] == "a blob is missing or damaged"
    assert digest_of(damaged.read_bytes()) == entries[1]["digest"]


def test_a_directory_that_is_no_layout_is_never_written_to(bare: Engine, tmp_path: Path) -> None:
    bare.busybox()
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("root")
    with pytest.raises(Conflict, match="not empty"):
        bare.run("image_export", names=["bb:1"], path=str(tmp_path / "etc"), format="oci-layout")
    with pytest.raises(UsageError, match="directory"):
        bare.run("image_export", names=["bb:1"], path=str(tmp_path / "etc"))
    with pytest.raises(UsageError, match="no directory"):
        bare.run("image_export", names=["bb:1"], path=str(tmp_path / "no/such/place"))
    assert os.listdir(tmp_path / "etc") == ["passwd"]


def test_a_file_that_was_altered_is_written_again(bare: Engine, tmp_path: Path) -> None:
    bare.busybox()
    path = tmp_path / "bb.tar"
    params: dict[str, Any] = {"names": ["bb:1"], "path": str(path)}
    bare.run("image_export", **params)
    good = path.read_bytes()
    for bad in (good[:-1], good + b"\0", good[:5000] + b"?" + good[5001:], b""):
        path.write_bytes(bad)
        assert bare.run("image_export", **params)["changed"]
        assert path.read_bytes() == good
    assert sorted(os.listdir(tmp_path)) == ["bb.tar", "one"]


# -- archives of others ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "squeeze", [bytes, gzip.compress, bz2.compress, lzma.compress], ids=["plain", "gz", "bz2", "xz"]
)
def test_docker_save_of_old_plain_and_compressed(
    bare: Engine, form: str, tmp_path: Path, squeeze: Callable[[bytes], bytes]
) -> None:
    image = sample()
    path = old_docker_save(image, tmp_path / "old.tar", ["shop:1"])
    path.write_bytes(squeeze(path.read_bytes()))
    done = load(bare, "shop:1", path)
    assert done["image"]["Id"] == image.id
    assert not load(bare, "shop:1", path)["changed"] and not load(bare, "shop:1", path, check=True)["changed"]
    assert os.listdir(bare.paths.tmp) == []


def test_the_image_meant_is_found_by_name_by_tag_or_by_being_alone(bare: Engine, tmp_path: Path) -> None:
    first, second = sample(), build_image([BASE])
    bare_names = first.write_layout(str(tmp_path / "in"), "1")
    load(bare, "anything:at-all", bare_names)
    load(bare, "shop:2", second.write_layout(str(tmp_path / "in2"), "2"))
    bare.run("image_export", names=["anything:at-all", "shop:2"], path=str(tmp_path / "both.tar"))
    assert load(bare, "docker.io/library/shop:2", tmp_path / "both.tar")["image"]["Id"] == second.id
    with pytest.raises(NotFound, match=r"holds 2 images.*anything:at-all"):
        load(bare, "shop:3", tmp_path / "both.tar")
    index = json.loads((tmp_path / "in/index.json").read_text())
    second.write_layout(str(tmp_path / "in"), "2")
    index["manifests"] += json.loads((tmp_path / "in/index.json").read_text())["manifests"]
    (tmp_path / "in/index.json").write_text(json.dumps(index))
    assert load(bare, "x:2", tmp_path / "in")["image"]["Id"] == second.id
    with pytest.raises(NotFound, match="holds 2 images"):
        load(bare, "x:3", tmp_path / "in")


def test_of_several_platforms_the_hosts_is_taken_and_others_are_refused_by_name(bare: Engine, tmp_path: Path) -> None:
    ours, theirs = build_image([BASE]), build_image([BASE], architecture="s390x")
    index = build_index(
        {"linux/s390x": theirs, "linux/" + json.loads(ours.blobs[ours.id])["architecture"]: ours}, attestation=True
    )
    layout = index.write_layout(str(tmp_path / "in"), "1")
    assert load(bare, "x:1", layout)["image"]["Id"] == ours.id
    assert load(bare, "x:2", layout, platform="linux/s390x")["image"]["Id"] == theirs.id
    with pytest.raises(NotFound, match="linux/riscv64"):
        load(bare, "x:3", layout, platform="linux/riscv64")


def test_a_name_that_means_another_image_is_only_moved_with_a_word_about_it(bare: Engine, tmp_path: Path) -> None:
    first, second = sample(), build_image([BASE])
    load(bare, "x:1", first.write_layout(str(tmp_path / "a"), "1"))
    planned = load(bare, "x:1", second.write_layout(str(tmp_path / "b"), "1"), check=True)["actions"][0]
    assert planned["detail"]["replaces"] == first.id and first.id[:19] in planned["why"]
    moved = load(bare, "x:1", tmp_path / "b")
    assert moved["actions"] == [planned] and moved["image"]["Id"] == second.id
    load(bare, "y:1", tmp_path / "b")
    assert {one["Id"] for one in bare.run("image_info")["images"]} == {first.id, second.id}


# -- hostile archives --------------------------------------------------------------------------------------------


def hostile() -> Iterator[tuple[str, Callable[[dict[str, bytes]], Any]]]:
    def both(members: dict[str, bytes]) -> None:
        index = json.loads(members["index.json"])
        other = build_image([BASE])
        members.update({"blobs/sha256/" + d[7:]: b for d, b in other.blobs.items()})
        data = other.manifests[other.top][0]
        members["blobs/sha256/" + other.top[7:]] = data
        index["manifests"][0].update(digest=other.top, size=len(data))
        members["index.json"] = json.dumps(index).encode()

    def wrong_layer(members: dict[str, bytes]) -> None:
        manifest = json.loads(members["manifest.json"])
        members[manifest[0]["Layers"][0]] = ODD

    def wrong_config(members: dict[str, bytes]) -> None:
        name = json.loads(members["manifest.json"])[0]["Config"]
        members[name] = members[name].replace(b"A=1", b"A=2")

    def missing(members: dict[str, bytes]) -> None:
        del members[json.loads(members["manifest.json"])[0]["Layers"][1]]

    def swapped(members: dict[str, bytes]) -> None:
        manifest = json.loads(members["manifest.json"])
        manifest[0]["Layers"].reverse()
        members["manifest.json"] = json.dumps(manifest).encode()
        del members["index.json"]

    def outside(members: dict[str, bytes]) -> None:
        manifest = json.loads(members["manifest.json"])
        manifest[0]["Layers"][0] = "../../../../etc/passwd"
        members["manifest.json"] = json.dumps(manifest).encode()
        del members["index.json"]

    def bad_name(members: dict[str, bytes]) -> None:
        manifest = json.loads(members["manifest.json"])
        manifest[0]["RepoTags"] = ["../../x:1"]
        members["manifest.json"] = json.dumps(manifest).encode()

    def escape(members: dict[str, bytes]) -> None:
        members["../evil"] = b"x"

    def absolute(members: dict[str, bytes]) -> None:
        members["/evil"] = b"x"

    for function in (both, wrong_layer, wrong_config, missing, swapped, outside, bad_name, escape, absolute):
        yield function.__name__, function
    for text in (
        b"",
        b"{}",
        b"[]",
        b"[1]",
        b'[{"Config": 1}]',
        b"\xff",
        b"[" * 100000,
        b'[{"Config":"x","Layers":[1]}]',
    ):
        yield "json", lambda members, text=text: members.update({"manifest.json": text})


@pytest.mark.parametrize("spoil", [case[1] for case in hostile()], ids=[case[0] for case in hostile()])
def test_a_hostile_archive_is_refused_and_leaves_nothing(
    bare: Engine, tmp_path: Path, spoil: Callable[[dict[str, bytes]], Any]
) -> None:
    good = exported(tmp_path)
    members = read(good)
    spoil(members)
    write(tmp_path / "bad.tar", [(name, data, "") for name, data in members.items()])
    with pytest.raises((IntegrityError, UsageError, WharfError)) as caught:
        load(bare, "x:1", tmp_path / "bad.tar")
    assert "bad.tar" in caught.value.msg or caught.value.kind in ("integrity", "registry")
    assert bare.run("image_info")["images"] == []
    assert os.listdir(bare.paths.tmp) == []


def exported(tmp_path: Path) -> Path:
    """Written by hand in Docker's layout, so that the test does not need a second engine."""
    image = sample(compress=False)
    members = {"blobs/sha256/" + digest[7:]: data for digest, data in image.blobs.items()}
    manifest, kind = image.manifests[image.top]
    members["blobs/sha256/" + image.top[7:]] = manifest
    entry = {"mediaType": kind, "digest": image.top, "size": len(manifest),
             "annotations": {"io.containerd.image.name": "docker.io/library/x:1"}}  # fmt: skip
    members["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    members["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
    docker = [{"Config": "blobs/sha256/" + image.id[7:], "RepoTags": ["x:1"],
               "Layers": ["blobs/sha256/" + one[7:] for one in image.diff_ids]}]  # fmt: skip
    members["manifest.json"] = json.dumps(docker).encode()
    path = tmp_path / "good.tar"
    write(path, [(name, data, "") for name, data in members.items()])
    return path


def test_links_in_an_archive_lead_nowhere_but_into_it(bare: Engine, tmp_path: Path) -> None:
    image = sample()
    for number, target in enumerate(("/etc/passwd", "../../../etc/passwd", "loop")):
        config = image.blobs[image.id]
        manifest = json.dumps([{"Config": "c.json", "RepoTags": ["x:1"], "Layers": ["l"] * 3}]).encode()
        members: list[tuple[str, Optional[bytes], str]] = [("c.json", config, ""), ("manifest.json", manifest, "")]
        members += [("loop", None, "l"), ("l", None, target)]
        write(tmp_path / ("%d.tar" % number), members)
        with pytest.raises(IntegrityError, match=r"leads|does not hold"):
            load(bare, "x:1", tmp_path / ("%d.tar" % number))


def test_a_symlink_in_a_layout_directory_is_not_followed(bare: Engine, tmp_path: Path) -> None:
    image = sample()
    layout = image.write_layout(str(tmp_path / "in"), "1")
    victim = next(digest for digest in image.blobs if digest != image.id)
    blob = "%s/blobs/sha256/%s" % (layout, victim[7:])
    os.rename(blob, tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", blob)
    with pytest.raises(IntegrityError, match="cannot be opened inside"):
        load(bare, "x:1", layout)


def test_members_twice_cut_off_archives_and_no_archives_are_refused(bare: Engine, tmp_path: Path) -> None:
    good = exported(tmp_path)
    members = [(name, data, "") for name, data in read(good).items()]
    write(tmp_path / "twice.tar", [*members, ("manifest.json", b"[]", "")])
    with pytest.raises(IntegrityError, match="twice"):
        load(bare, "x:1", tmp_path / "twice.tar")
    data = good.read_bytes()
    for cut in (1, 511, 600, 5000, len(data) // 2):
        (tmp_path / "cut.tar").write_bytes(data[:cut])
        with pytest.raises(WharfError):
            load(bare, "x:1", tmp_path / "cut.tar")
        (tmp_path / "cut.tar.gz").write_bytes(gzip.compress(data, 1)[: cut // 20 + 1])
        with pytest.raises(WharfError):
            load(bare, "x:1", tmp_path / "cut.tar.gz")
    for path, words in (
        (tmp_path / "none.tar", "No such file"),
        (Path("/dev/null"), "neither"),
        (tmp_path, "manifest.json"),
    ):
        with pytest.raises(UsageError, match=words):
            load(bare, "x:1", path)
    (tmp_path / "rootfs.tar").write_bytes(BASE)
    with pytest.raises(UsageError, match="no image archive") as caught:
        load(bare, "x:1", tmp_path / "rootfs.tar")
    assert "import" in str(caught.value.hint)


def test_a_damaged_layer_never_leaves_the_host(bare: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHARF_LAYER_FORM", "erofs")
    load(bare, "x:1", exported(tmp_path))
    layers = bare.paths.layers
    victim = "%s/%s/tar" % (layers, sorted(os.listdir(layers))[0])
    with open(victim, "r+b") as stream:
        stream.seek(100)
        stream.write(b"?")
    with pytest.raises(IntegrityError, match="damaged on disk"):
        bare.run("image_export", names=["x:1"], path=str(tmp_path / "out.tar"))
    assert not os.path.exists(tmp_path / "out.tar")


def test_a_layer_whose_blob_another_image_brought_can_be_exported(
    bare: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHARF_LAYER_FORM", "tree")
    load(bare, "one:1", build_image([BASE]).write_layout(str(tmp_path / "a"), "1"))
    two = build_image([BASE, UPPER], compress=False)
    load(bare, "two:1", two.write_layout(str(tmp_path / "b"), "1"))
    bare.run("image", name="one:1", state="absent")
    bare.run("image_export", names=["two:1"], path=str(tmp_path / "two.tar"))
    assert sum(name.startswith("blobs/sha256/") for name in read(tmp_path / "two.tar")) == 4
