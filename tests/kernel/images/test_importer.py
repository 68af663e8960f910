# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Importing the same archive with the same changes gives the same image, whatever it is compressed with."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os

import pytest
from helpers.tars import build, file, folder, snapshot
from module_utils._engine.errors import IntegrityError, Unsupported, UsageError
from module_utils._engine.images import importer, seen
from module_utils._engine.images.reference import parse
from module_utils._engine.kernel.syscalls import Kernel
from module_utils._engine.paths import Paths
from module_utils._engine.storage import overlay
from module_utils._engine.store.state import Store

pytestmark = pytest.mark.root
KERNEL = Kernel()
TAR = build([folder("bin"), file("bin/sh", b"#!" * 5000, mode=0o755, mtime=1_600_000_000), file("a", mtime=99)])
CHANGES = ["CMD /bin/sh", "ENV A=1"]


@pytest.fixture
def store(tmp_path):
    with Store.open(Paths(str(tmp_path / "state"), str(tmp_path / "run"))) as store:
        yield store


def put(tmp_path, data, name="root.tar"):
    path = tmp_path / name
    path.write_bytes(data)
    return str(path)


def load(store, path, **options):
    return importer.import_tar(store, KERNEL, path, ref=options.pop("ref", "mine:1"), **options)


def test_an_import_is_a_complete_image(store, tmp_path):
    path = put(tmp_path, TAR)
    record = load(store, path, changes=CHANGES)
    assert store.images.by_reference("docker.io/library/mine:1") == record
    assert record.config["config"] == {"Cmd": ["/bin/sh", "-c", "/bin/sh"], "Env": ["A=1"]}
    assert record.config["created"] == "2023-11-14T22:13:20Z"  # the newest member, here the directory
    assert record.size == 10_000 and len(record.layers) == 1
    assert store.blobs.has(record.id) and store.blobs.has(record.manifest_digest)
    layer = store.layers.get(record.layers[0].chain_id)
    fd = overlay.mount_rootfs(KERNEL, [(store.paths.layer(layer.chain_id), layer.form)])
    assert set(snapshot(fd)) == {b".", b"./bin", b"./bin/sh", b"./a"}
    os.close(fd)
    assert os.listdir(store.paths.tmp) == []


@pytest.mark.parametrize(
    "pack",
    [
        gzip.compress,
        lzma.compress,
        bz2.compress,
        lambda d: gzip.compress(d[:700], 1) + gzip.compress(d[700:]),
        lambda d: lzma.compress(d[:600]) + lzma.compress(d[600:]),
    ],
)
def test_the_same_contents_are_the_same_image(store, tmp_path, pack):
    plain = load(store, put(tmp_path, TAR), changes=CHANGES)
    path = put(tmp_path, pack(TAR), "packed")
    assert importer.image_id(path, changes=CHANGES) == plain.id
    again = load(store, path, changes=CHANGES, ref=parse("other"))
    assert again.id == plain.id
    assert store.images.references(plain.id) == ["docker.io/library/mine:1", "docker.io/library/other:latest"]
    assert len(store.layers.list()) == 1


def test_other_changes_or_platforms_are_other_images(store, tmp_path):
    path = put(tmp_path, TAR)
    ids = {importer.image_id(path, **options) for options in (
        {}, {"changes": CHANGES}, {"platform": "linux/arm64"}, {"platform": "linux/arm/v7"})}  # fmt: skip
    assert len(ids) == 4
    record = load(store, path, platform="linux/arm/v7")
    assert (record.config["architecture"], record.config["variant"]) == ("arm", "v7") and record.id in ids


BAD = {
    "empty": (b"", IntegrityError),
    "noise": (b"x" * 2000, IntegrityError),
    "cut gzip": (gzip.compress(TAR)[:-30], IntegrityError),
    "cut xz": (lzma.compress(TAR)[:-30], IntegrityError),
    "cut bzip2": (bz2.compress(TAR)[:-9], IntegrityError),
    "broken xz": (lzma.compress(TAR)[:20] + b"x" * 40, IntegrityError),
    "broken zstd": (b"\x28\xb5\x2f\xfd" + b"x" * 100, (IntegrityError, Unsupported)),
    "hostile": (build([file("../x")]), IntegrityError),
    "cut tar": (TAR[:3000], IntegrityError),
}


@pytest.mark.parametrize("name", sorted(BAD))
def test_bad_archives_leave_nothing_behind(store, tmp_path, name):
    data, kind = BAD[name]
    path = put(tmp_path, data)
    for act in (lambda: load(store, path), lambda: importer.image_id(path)):
        with pytest.raises(kind):
            act()
    assert store.images.list() == [] and store.layers.list() == [] and os.listdir(store.paths.tmp) == []


def test_wrong_questions_are_answered_before_anything_is_read(store, tmp_path):
    path = put(tmp_path, TAR)
    for options in ({"changes": ["RUN x"]}, {"ref": "UPPER/case:"}, {"ref": "a@sha256:" + "0" * 64}):
        with pytest.raises(UsageError):
            load(store, path, **options)
    for missing in (str(tmp_path / "absent"), str(tmp_path), "/dev/null"):
        with pytest.raises(UsageError, match="Cannot import"):
            load(store, missing)


def test_an_untouched_archive_is_not_read_again(store, tmp_path, monkeypatch):
    path = put(tmp_path, TAR)
    os.utime(path, (1_700_000_000, 1_700_000_000))
    monkeypatch.setattr(seen.time, "time_ns", lambda: 4 * 10**18)
    record = load(store, path, changes=CHANGES)
    monkeypatch.setattr(importer, "_survey", lambda path: pytest.fail("it was read"))
    assert importer.image_id(path, changes=CHANGES, store=store) == record.id
    assert importer.image_id(path, store=store) != record.id
    monkeypatch.undo()
    with open(path, "r+b") as file_:
        file_.write(b"bin2")
    with pytest.raises(IntegrityError):  # its first checksum is wrong now, so it was read
        importer.image_id(path, changes=CHANGES, store=store)


def test_a_file_written_just_now_is_not_trusted_to_stay(store, tmp_path):
    load(store, put(tmp_path, TAR))
    assert not os.path.exists(store.paths.state + "/imports.json")


def test_a_damaged_cache_costs_only_time(store, tmp_path):
    path = put(tmp_path, TAR)
    for text in ("", "[]", '{"%s": 5}' % path, '{"%s": [[1], 2, 3]}' % path, "\xff"):
        with open(store.paths.state + "/imports.json", "w", encoding="latin-1") as file_:
            file_.write(text)
        assert importer.image_id(path, store=store) == importer.image_id(path)
