# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""An image mounted in a container: read-only, kept from removal, replaced when its name means another one."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from helpers.engine import Engine
from helpers.inside import inside
from helpers.option_laws import SLEEP, mounts
from module_utils._engine.errors import InUse, KernelError, NotFound, StartError, UsageError
from module_utils._engine.kernel.syscalls import CLONE_NEWNS, MNT_DETACH, Kernel
from module_utils._engine.storage import legacy, overlay
from module_utils._engine.store.state import Store


def make(engine: Engine, tmp_path: Path, name: str, word: str) -> None:
    path = str(tmp_path / (word + ".tar"))
    with tarfile.open(path, "w") as tar:
        for directory in ("d", "d/sub"):
            info = tarfile.TarInfo(directory)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(info)
        for file in ("top", "d/sub/file"):
            info = tarfile.TarInfo(file)
            info.size, info.mode, info.uid = len(word), 0o644, 0
            tar.addfile(info, io.BytesIO(word.encode()))
        link = tarfile.TarInfo("out")
        link.type, link.linkname = tarfile.SYMTYPE, "/../../../../../etc"
        tar.addfile(link)
    engine.run("image", name=name, source="import", path=path)


def mount(**more: Any) -> list[dict[str, Any]]:
    return [{"type": "image", "source": "data:1", "target": "/data", **more}]


@pytest.fixture
def data(shared: Engine, tmp_path: Path) -> Engine:
    make(shared, tmp_path, "data:1", "one")
    return shared


def test_an_image_comes_and_goes_while_the_process_stays_and_can_only_be_read(data: Engine) -> None:
    data.container("plain", command=SLEEP)
    pid = data.pid("plain")
    planned = data.container("plain", check=True, command=SLEEP, mounts=mount())
    made = data.container("plain", command=SLEEP, mounts=mount())
    assert [a["how"] for a in made["actions"]] == [a["how"] for a in planned["actions"]] == ["live"]
    assert data.sh("plain", "cat /data/top /data/d/sub/file") == "oneone"
    assert data.exec("plain", "touch", "/data/new")["rc"] != 0
    assert " ro," in " ".join(mounts(data, "plain", "/data")) + ","
    assert not data.container("plain", command=SLEEP, mounts=mount())["changed"]
    shown = next(m for m in data.inspect("plain")["Mounts"] if m["Destination"] == "/data")
    assert (shown["Type"], shown["Source"], shown["RW"]) == ("image", "data:1", False)
    gone = data.container("plain", command=SLEEP)
    assert [a["how"] for a in gone["actions"]] == ["live"] and mounts(data, "plain", "/data") == []
    assert data.pid("plain") == pid
    data.run("container", name="plain", state="absent", force_kill=True)


def test_it_is_there_from_the_start_and_after_a_restart(data: Engine) -> None:
    data.container("begun", command=SLEEP, mounts=mount(subpath="d/sub"))
    assert data.sh("begun", "ls /data; cat /data/file") == "file\none"
    data.run("container", name="begun", state="stopped", force_kill=True)
    data.run("container", name="begun", state="started")
    assert data.sh("begun", "cat /data/file") == "one"
    gone = data.container("begun", command=SLEEP)
    assert [a["how"] for a in gone["actions"]] == ["replace"]
    data.run("container", name="begun", state="absent", force_kill=True)


def test_a_file_of_an_image_can_be_all_there_is(data: Engine) -> None:
    data.container("single", command=SLEEP, mounts=[{**mount(subpath="top")[0], "target": "/etc/word"}])
    assert data.sh("single", "cat /etc/word") == "one"
    data.run("container", name="single", state="absent", force_kill=True)


def test_a_link_of_the_image_leads_nowhere_but_into_it(data: Engine) -> None:
    with pytest.raises(StartError, match="Cannot mount data:1 on /data: Cannot open out in the image"):
        data.container("led", command=SLEEP, mounts=mount(subpath="out"))
    assert not data.run("container_info", name="led")["exists"]


def test_an_image_that_is_mounted_is_in_use(data: Engine) -> None:
    data.container("holder", command=SLEEP, mounts=mount())
    with pytest.raises(InUse, match="holder"):
        data.run("image", name="data:1", state="absent")
    assert data.run("prune", images=True, images_filters={"dangling": False})["images"] == []
    assert data.sh("holder", "cat /data/top") == "one"
    data.run("container", name="holder", state="absent", force_kill=True)
    assert data.run("image", name="data:1", state="absent")["changed"]


def test_another_image_behind_the_same_name_replaces_the_container(data: Engine, tmp_path: Path) -> None:
    data.container("moved", command=SLEEP, mounts=mount())
    make(data, tmp_path, "data:1", "two")
    for check in (True, False):
        changed = data.container("moved", check=check, command=SLEEP, mounts=mount())
        assert [a["how"] for a in changed["actions"]] == ["replace"]
    assert data.sh("moved", "cat /data/top") == "two"
    assert not data.container("moved", command=SLEEP, mounts=mount())["changed"]
    data.run("container", name="moved", state="absent", force_kill=True)


def test_one_that_was_unmounted_inside_is_put_back(data: Engine) -> None:
    data.container("lost", command=SLEEP, mounts=mount())
    inside(data.pid("lost"), lambda kernel: kernel.umount2("/data", MNT_DETACH), CLONE_NEWNS)
    repaired = data.container("lost", command=SLEEP, mounts=mount())
    assert [(a["how"], a["why"]) for a in repaired["actions"]] == [("live", "drift")]
    assert data.sh("lost", "cat /data/top") == "one"
    data.run("container", name="lost", state="absent", force_kill=True)


def test_with_ids_of_its_own_the_images_root_is_the_containers(data: Engine) -> None:
    data.container("mapped", command=SLEEP, userns_mode="auto", mounts=mount())
    assert data.sh("mapped", "stat -c %u:%g /data /data/top") == "0:0\n0:0"
    data.run("container", name="mapped", state="absent", force_kill=True)


def test_a_stopped_containers_image_can_be_copied_from_and_not_to(data: Engine, tmp_path: Path) -> None:
    data.container("copied", command=SLEEP, state="present", mounts=mount())
    wish = {"container": "copied", "container_path": "/data/top", "path": str(tmp_path / "out")}
    data.run("container_copy", direction="from", **wish)
    assert (tmp_path / "out").read_text() == "one"
    (tmp_path / "out").write_text("forged")
    with pytest.raises(KernelError, match="Read-only file system"):
        data.run("container_copy", direction="into", **wish)
    data.run("container", name="copied", state="absent", force_kill=True)


def test_what_cannot_be_is_refused_before_anything_changes(data: Engine) -> None:
    for wish, words in (
        (mount(read_only=False), "nobody writes to an image"),
        (mount(subpath="../x"), "not a path below the image"),
        (mount(propagation="rshared"), "is for bind mounts"),
        ([{"type": "image", "target": "/data"}], "is required for an image mount"),
    ):
        with pytest.raises(UsageError, match=words):
            data.container("refused", command=SLEEP, mounts=wish)
    with pytest.raises(NotFound, match="No such image: nobody:1, to be mounted on /data"):
        data.container("refused", command=SLEEP, mounts=mount(source="nobody:1"))
    assert not data.run("container_info", name="refused")["exists"]


def test_before_linux_615_a_part_is_cut_out_elsewhere(data: Engine) -> None:
    kernel = Kernel()
    found = data.run("image_info", name=["data:1"])["images"][0]
    with Store.open(data.paths) as store:
        image = store.images.get(found["Id"])
        assert image is not None
        layers = [
            (data.paths.layer(layer.chain_id), layer.form)
            for layer in (store.layers.get(reference.chain_id) for reference in image.layers)
            if layer is not None
        ]
    before = Path("/proc/self/mountinfo").read_text()
    whole = overlay.mount_rootfs(kernel, layers)
    fd = legacy.part(kernel, whole, "d/sub")
    try:
        assert os.listdir("/proc/self/fd/%d" % fd) == ["file"]
        with pytest.raises(OSError):
            os.mkdir("new", dir_fd=fd)
    finally:
        os.close(fd)
        os.close(whole)
    assert Path("/proc/self/mountinfo").read_text() == before
