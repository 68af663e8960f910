# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Layers that must not be: bombs, full disks, aborted writers; and EROFS layers on kernels made to look older."""

from __future__ import annotations

import os
import stat

import pytest
from helpers.tars import build, file, folder, link, pax, repaired, sampler, snapshot, whiteout
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from module_utils._engine.errors import DiskFull, IntegrityError, KernelError
from module_utils._engine.images.layers import LayerWriter, Limits, best_form
from module_utils._engine.kernel.syscalls import Kernel
from module_utils._engine.storage import overlay

pytestmark = pytest.mark.root
KERNEL = Kernel()
FORMS = ["erofs", "tree"]


def fds():
    return sorted(os.listdir("/proc/self/fd"))


def mounts():
    """Only what we could have left: other tests may run."""
    with open("/proc/self/mountinfo") as lines:
        return [line for line in lines if line.split(" - ")[1].split()[0] in ("overlay", "erofs", "tmpfs")]


def write(directory, form, data, **options):
    directory.mkdir()
    with LayerWriter(str(directory), form=form, **options) as writer:
        for at in range(0, len(data), 1 << 16):
            writer.write(data[at : at + (1 << 16)])
        return writer.finish()


@pytest.fixture
def small(tmp_path):
    """A file system of 1 MiB and 200 inodes."""
    mount = KERNEL.new_fs("tmpfs", (("size", "1m"), ("nr_inodes", "200")))
    (tmp_path / "small").mkdir()
    target = os.open(tmp_path / "small", os.O_PATH)
    KERNEL.move_mount(mount, target)
    os.close(target)
    os.close(mount)
    yield tmp_path / "small"
    KERNEL.umount2(str(tmp_path / "small"), 2)


@pytest.mark.parametrize("form", FORMS)
def test_a_full_disk_is_said_and_nothing_stays_open(small, form):
    before = fds()
    with pytest.raises(DiskFull) as caught:
        write(small / "l", form, build([file("big%d" % n, b"x" * 300_000) for n in range(5)]))
    assert caught.value.step == "write_layer" and fds() == before


def test_no_inodes_left_is_a_full_disk(small):
    with pytest.raises(DiskFull):
        write(small / "l", "tree", build([file("f%d" % n) for n in range(300)]))


def test_an_index_that_does_not_fit_is_a_full_disk(small):
    with pytest.raises(DiskFull):
        write(small / "l", "erofs", build([folder("d%d" % n) for n in range(1400)]))


@pytest.mark.parametrize("form", FORMS)
def test_bombs_are_stopped_at_the_limit(tmp_path, form):
    data = build([file("zeros", bytes(300_000))])
    for name, options, match in (
        ("size", {"limits": Limits(size=200_000)}, "300000 bytes"),
        ("total", {"limits": Limits(size=300_100)}, "300100 bytes"),
        ("ratio", {"limits": Limits(ratio=10, ratio_from=1000), "blob_size": 2000}, "20000 bytes"),
        ("entries", {"limits": Limits(entries=0)}, "0 entries"),
    ):
        with pytest.raises(IntegrityError, match=match):
            write(tmp_path / name, form, data, **options)
    assert write(tmp_path / "ok", form, data, blob_size=400).entries == 1  # small things may be packed well


def test_a_sparse_bomb_is_refused_by_its_size(tmp_path):
    records = {"GNU.sparse.size": str(1 << 50), "GNU.sparse.map": "0,1"}
    with pytest.raises(IntegrityError, match="broken sparse map"):
        write(tmp_path / "l", "tree", build([pax(records) + file("f", b"x")]))


@pytest.mark.parametrize("form", FORMS)
def test_leaving_without_finish_closes_everything(tmp_path, form):
    before = fds()
    with LayerWriter(str(tmp_path), form=form) as writer:
        writer.write(build([file("f", b"x" * 600)])[:700])
    writer.abort()
    assert fds() == before


@pytest.mark.parametrize("form", FORMS)
def test_a_refused_layer_never_touched_anything_outside(tmp_path, form):
    (tmp_path / "canary").mkdir()
    stage = tmp_path / "l"
    for evil in ("../canary/x", "a/../../canary/x", str(tmp_path / "canary/x")):
        try:
            write(stage, form, build([file(evil, b"x")]))
        except IntegrityError:
            pass
        assert os.listdir(tmp_path / "canary") == []
        os.rename(stage, tmp_path / ("done" + os.urandom(4).hex()))


def test_a_missing_stage_is_a_kernel_error():
    with pytest.raises(KernelError):
        LayerWriter("/nonexistent", form="erofs")


def test_tmpfs_gets_trees(small, monkeypatch):
    monkeypatch.delenv("WHARF_LAYER_FORM", raising=False)
    assert overlay.erofs_files(KERNEL, str(small)) is False
    assert best_form(KERNEL, str(small)) == "tree"


@pytest.mark.parametrize("mode", ["fd", "string", "legacy"])
@pytest.mark.parametrize("count", [1, 2, 60])
def test_stacks_of_both_forms_mount_in_every_way(tmp_path, mode, count):
    if not overlay.erofs_files(KERNEL, str(tmp_path)):
        pytest.skip("no file-backed EROFS here")
    layers = []
    for n in range(count):
        entries = [folder("d"), file("d/f%d" % n, b"%d" % n), file("shared", b"%d" % n)]
        if n:
            entries.append(whiteout("d/f%d" % (n - 1)))
        form = FORMS[n % 2]
        write(tmp_path / str(n), form, build(entries), parents=tuple(layers))
        layers.append((str(tmp_path / str(n)), form))
    (tmp_path / "u").mkdir()
    (tmp_path / "w").mkdir()
    before = mounts()
    fd = overlay.mount_rootfs(KERNEL, layers, str(tmp_path / "u"), str(tmp_path / "w"), mode=mode)
    assert mounts() == before
    shown = snapshot(fd)
    assert set(shown) == {b".", b"./d", b"./d/f%d" % (count - 1), b"./shared"}
    os.unlink("shared", dir_fd=fd)
    copied = os.open("d/f%d" % (count - 1), os.O_WRONLY | os.O_APPEND, dir_fd=fd)
    os.write(copied, b"+")
    os.close(copied)
    assert set(snapshot(fd)) == {b".", b"./d", b"./d/f%d" % (count - 1)}
    assert stat.S_ISCHR(os.lstat(tmp_path / "u" / "shared").st_mode)
    os.close(fd)


def test_indexes_are_deterministic(tmp_path):
    """The same archive twice is the same index, byte for byte; another archive is another."""
    data = build([folder("d"), file("d/f", b"1", xattrs={"user.b": b"2", "user.a": b"1"}), link("l", "d/f")])
    for name in "ab":
        write(tmp_path / name, "erofs", data)
    write(tmp_path / "c", "erofs", data + b"\0")
    read = {name: (tmp_path / name / "index").read_bytes() for name in "abc"}
    assert read["a"] == read["b"] != read["c"]


SEED = sampler()
CHANGES = st.tuples(st.integers(0, len(SEED) - 1), st.binary(min_size=1, max_size=12))


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(CHANGES, min_size=1, max_size=6))
def test_mutated_archives_are_the_same_in_both_forms_and_stay_inside(tmp_path, changes):
    data = bytearray(SEED)
    for at, text in changes:
        data[at : at + len(text)] = text
    base = tmp_path / os.urandom(6).hex()
    base.mkdir()
    outcomes = {}
    for form in FORMS:
        try:
            result = write(base / form, form, repaired(bytes(data)))
        except IntegrityError as error:
            outcomes[form] = error.msg
            continue
        fd = overlay.mount_rootfs(KERNEL, [(str(base / form), result.form)])
        outcomes[form] = snapshot(fd)
        os.close(fd)
        assert set(os.listdir(base / form)) == ({"tar", "index"} if result.form == "erofs" else {"tree"})
    assert outcomes["erofs"] == outcomes["tree"]
    assert set(os.listdir(base)) == set(FORMS)
