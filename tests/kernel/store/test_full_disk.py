# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A full disk: the error names path and bytes, nothing half-done is visible, and the store goes on working."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from helpers.store_kit import check_invariants, container, digest, fork_all, put_image
from module_utils._engine.errors import DiskFull, StateError, WharfError
from module_utils._engine.kernel.syscalls import MNT_DETACH, MS_RDONLY, MS_REMOUNT, Kernel
from module_utils._engine.paths import Paths
from module_utils._engine.store.records import VolumeRecord
from module_utils._engine.store.state import Store

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a tmpfs")


@pytest.fixture
def small(tmp_path) -> Iterator[Paths]:
    """State on a tmpfs of 32 MiB."""
    where = str(tmp_path / "small")
    os.mkdir(where)
    kernel = Kernel()
    kernel.mount("tmpfs", where, "tmpfs", 0, "size=32m,nr_inodes=400")
    try:
        yield Paths(where + "/s", str(tmp_path / "r"))
    finally:
        kernel.umount2(where, MNT_DETACH)


def _fill(paths: Paths, leave: int = 0) -> str:
    path = paths.state + "/ballast"
    stats = os.statvfs(paths.state)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.posix_fallocate(fd, 0, max(1, stats.f_bavail * stats.f_frsize - leave))
    os.close(fd)
    return path


def test_a_blob_that_does_not_fit_gives_its_space_back(small):
    with Store.open(small) as store:
        before = os.statvfs(small.state).f_bavail
        size = 64 << 20
        with pytest.raises(DiskFull) as caught, store.blobs.writer(digest("big"), size) as writer:
            for _n in range(64):
                writer.write(b"x" * (1 << 20))
        assert small.tmp in str(caught.value.path)
        assert caught.value.errno == 28
        assert caught.value.details["bytes_needed"] > 30 << 20
        assert str(caught.value.details["bytes_needed"]) in caught.value.msg
        assert os.listdir(small.tmp) == []
        assert os.statvfs(small.state).f_bavail == before
        store.blobs.put_bytes(b"small")
        check_invariants(store)


def test_a_full_disk_changes_nothing_and_can_still_be_cleaned(small):
    with Store.open(small) as store:
        image = put_image(store, "a", ["base", "a"], ["a:1"])
        store.containers.create(container("web", image.id))
    ballast = _fill(small)
    with Store.open(small) as store:
        failed = 0
        for number in range(300):
            try:
                store.containers.create(container("c%d" % number, spec={"env": {"A": "x" * 5000}}))
            except DiskFull as error:
                failed += 1
                assert small.state in error.msg and "bytes" in error.msg
        assert failed
        with pytest.raises(DiskFull):
            store.blobs.put_bytes(b"x" * 10000)
        with pytest.raises((DiskFull, OSError)):
            put_image(store, "b", ["b"], ["b:1"])
        check_invariants(store, litter=True)
        assert store.images.by_reference("a:1") == image
        assert store.images.by_reference("b:1") is None
        assert store.containers.by_name("web") is not None
    with Store.open(small) as store:
        check_invariants(store)
        # The way out of a full disk is to remove something.
        for record in store.containers.list():
            store.containers.remove(record.id)
        assert store.images.remove(image.id)
        assert store.collect()["bytes"] > 0
    os.unlink(ballast)
    with Store.open(small) as store:
        put_image(store, "b", ["b"], ["b:1"])
        store.containers.create(container("more"))
        check_invariants(store)


def test_no_inodes_left_is_a_full_disk_too(small):
    with Store.open(small) as store:
        count = 0
        try:
            while True:
                os.close(os.open("%s/filler%d" % (small.state, count), os.O_CREAT | os.O_WRONLY))
                count += 1
        except OSError:
            pass
        with pytest.raises(DiskFull):
            store.blobs.put_bytes(b"x")
        with pytest.raises(DiskFull):
            store.layers.stage()
        with pytest.raises(DiskFull):
            store.containers.create(container("web"))
        assert store.containers.by_name("web") is None
        check_invariants(store)
        for number in range(count):
            os.unlink("%s/filler%d" % (small.state, number))
        store.containers.create(container("web"))
        check_invariants(store)


def test_a_full_disk_does_not_keep_the_store_from_opening(small):
    Store.open(small).close()
    os.mkdir(small.layers + "/" + "a" * 64)  # something to repair
    os.makedirs(small.volume_data("found"))
    os.unlink(small.run + "/boot_id")
    ballast = _fill(small)
    for _n in range(10):
        with Store.open(small) as store:
            store.collect()
            store.containers.list()
    os.unlink(ballast)
    with Store.open(small) as store:
        check_invariants(store)
        assert store.volumes.get("found") is not None


@pytest.mark.parametrize("cleanly_closed", [True, False])
def test_a_read_only_state_can_be_read_and_says_so_when_written(cleanly_closed, small):
    def fill() -> None:
        with Store.open(small) as store:
            store.containers.create(container("web", put_image(store, "a", ["base"], ["a:1"]).id))
            if not cleanly_closed:
                os._exit(0)

    fork_all([fill])
    assert os.path.exists(small.database + "-wal") != cleanly_closed
    where = os.path.dirname(small.state)
    kernel = Kernel()
    kernel.mount("none", where, None, MS_REMOUNT | MS_RDONLY, None)
    try:
        with Store.open(small) as reader:
            assert reader.images.by_reference("a:1") is not None
            assert [record.name for record in reader.containers.list()] == ["web"]
            for write in (
                lambda: reader.containers.create(container("more")),
                lambda: reader.volumes.create(VolumeRecord("v", "local", {}, False, {}, 1.0)),
            ):
                with pytest.raises(StateError, match=r"read-?only"):
                    write()
            with pytest.raises(WharfError, match="Read-only"):
                reader.blobs.put_bytes(b"x")
    finally:
        kernel.mount("none", where, None, MS_REMOUNT, None)
