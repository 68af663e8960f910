# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Volumes keep what is theirs; trees are copied and removed without leaving their root."""

from __future__ import annotations

import fcntl
import os
import stat

import pytest
from module_utils._engine.errors import InUse, UsageError
from module_utils._engine.kernel.syscalls import Kernel
from module_utils._engine.paths import Paths
from module_utils._engine.storage import trees, volumes
from module_utils._engine.store import scratch

pytestmark = pytest.mark.root


@pytest.fixture
def kernel():
    return Kernel()


@pytest.fixture
def paths(tmp_path):
    paths = Paths(str(tmp_path / "state"), str(tmp_path / "run"))
    paths.ensure()
    return paths


def image(tmp_path):
    """A root with everything copy_up must keep."""
    root = tmp_path / "image"
    data = root / "data"
    (data / "sub").mkdir(parents=True)
    (data / "file").write_text("hello")
    os.chown(data / "file", 1000, 1001)
    os.chmod(data / "file", 0o4750)
    os.setxattr(data / "file", "user.note", b"kept")
    os.utime(data / "file", ns=(10**18, 10**18 + 5))
    os.link(data / "file", data / "sub" / "twin")
    os.symlink("/etc/passwd", data / "link")
    os.lchown(data / "link", 7, 8)
    os.mkfifo(data / "fifo")
    os.mknod(data / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.chmod(data / "sub", 0o1777)
    os.utime(data / "sub", ns=(10**18, 10**18 + 7))
    os.chown(data, 33, 34)
    os.chmod(data, 0o2770)
    return root


def snapshot(root):
    found = {}
    for directory, names, files in os.walk(root):
        for name in [".", *names, *files]:
            path = os.path.join(directory, name)
            info = os.lstat(path)
            what = os.readlink(path) if stat.S_ISLNK(info.st_mode) else ""
            if stat.S_ISREG(info.st_mode):
                with open(path, "rb") as file:
                    what = file.read()
            keys = {k: os.getxattr(path, k, follow_symlinks=False) for k in os.listxattr(path, follow_symlinks=False)}
            found[os.path.relpath(path, root)] = (
                info.st_mode, info.st_uid, info.st_gid, info.st_rdev, info.st_mtime_ns, what, keys,
            )  # fmt: skip
    return found


def root_fd(path):
    return os.open(path, os.O_PATH)


def test_an_empty_volume_takes_over_the_image_directory_exactly(kernel, paths, tmp_path):
    root = image(tmp_path)
    data = volumes.create(paths, "vol")
    assert stat.S_IMODE(os.stat(data).st_mode) == 0o755
    fd = root_fd(root)
    assert volumes.copy_up(kernel, fd, "/data", data) is True
    assert snapshot(data) == snapshot(root / "data")
    assert os.stat(data + "/file").st_ino == os.stat(data + "/sub/twin").st_ino
    assert os.listdir(paths.volume("vol")) == ["_data"]
    assert volumes.usage(data) >= 4096
    os.close(fd)


def test_a_volume_with_data_is_left_alone(kernel, paths, tmp_path):
    root = image(tmp_path)
    data = volumes.create(paths, "vol")
    with open(data + "/mine", "w") as file:
        file.write("x")
    fd = root_fd(root)
    assert volumes.copy_up(kernel, fd, "/data", data) is False
    assert os.listdir(data) == ["mine"]
    os.close(fd)


def test_an_interrupted_copy_is_finished_and_keeps_what_is_there(kernel, paths, tmp_path):
    root = image(tmp_path)
    data = volumes.create(paths, "vol")
    with open(paths.volume("vol") + "/.copying", "w") as file:
        file.write("1")
    with open(data + "/file", "w") as file:
        file.write("changed since")
    fd = root_fd(root)
    assert volumes.copy_up(kernel, fd, "/data", data) is True
    with open(data + "/file") as file:
        assert file.read() == "changed since"
    assert sorted(os.listdir(data)) == sorted(os.listdir(root / "data"))
    os.close(fd)


@pytest.mark.parametrize("where", ["/absent", "/data/file", "/loop"])
def test_what_is_no_directory_in_the_image_copies_nothing(kernel, paths, tmp_path, where):
    root = image(tmp_path)
    os.symlink("loop", root / "loop")
    data = volumes.create(paths, "vol")
    fd = root_fd(root)
    assert volumes.copy_up(kernel, fd, where, data) is False
    os.close(fd)


def test_the_image_path_is_resolved_inside_the_image(kernel, paths, tmp_path):
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "canary").write_text("no")
    root = image(tmp_path)
    os.symlink("../../../../.." + str(tmp_path / "secret"), root / "out")
    data = volumes.create(paths, "vol")
    fd = root_fd(root)
    assert volumes.copy_up(kernel, fd, "/out", data) is False
    assert volumes.copy_up(kernel, fd, "/../../data", data) is True
    os.close(fd)


def test_removing_takes_the_whole_volume_and_says_so(paths):
    data = volumes.create(paths, "vol")
    os.makedirs(data + "/a/b")
    assert volumes.remove(paths, "vol") is True
    assert volumes.remove(paths, "vol") is False
    assert os.listdir(paths.volumes) == [] and os.listdir(paths.tmp) == []


def test_a_volume_with_a_mount_inside_is_not_removed(kernel, paths, tmp_path):
    data = volumes.create(paths, "vol")
    other = tmp_path / "other"
    other.mkdir()
    (other / "precious").write_text("x")
    os.mkdir(data + "/m")
    kernel.mount(str(other), data + "/m", None, 4096)
    try:
        with pytest.raises(InUse):
            volumes.remove(paths, "vol")
        assert (other / "precious").exists() and os.path.isdir(data + "/m")
    finally:
        kernel.umount2(data + "/m", 2)


@pytest.mark.parametrize("name", ["", "a", "../x", "a/b", ".hidden", "-x", "ü" * 3, "x" * 256, "a\0b"])
def test_bad_names_touch_nothing(paths, name):
    for act in (volumes.create, volumes.remove):
        with pytest.raises(UsageError):
            act(paths, name)
    assert os.listdir(paths.volumes) == []


def test_very_deep_trees_are_removed_with_few_descriptors(kernel, tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY)
    here = os.dup(fd)
    os.mkdir("t", dir_fd=here)
    for _n in range(3000):
        name = "t" if _n == 0 else "d"
        deeper = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
        os.mkdir("d", dir_fd=here)
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    trees.remove_tree(kernel, fd, "t")
    assert os.listdir(fd) == []
    os.close(fd)


def test_removal_does_not_follow_links(kernel, tmp_path):
    (tmp_path / "keep").mkdir()
    (tmp_path / "keep" / "x").write_text("x")
    (tmp_path / "t").mkdir()
    os.symlink(tmp_path / "keep", tmp_path / "t" / "l")
    os.symlink(tmp_path / "keep", tmp_path / "top")
    fd = os.open(tmp_path, os.O_RDONLY)
    for name in ("t", "top", "absent", b"absent\xff"):
        trees.remove_tree(kernel, fd, name)
    assert os.listdir(fd) == ["keep"] and (tmp_path / "keep" / "x").exists()
    os.close(fd)


def test_a_removal_cut_short_is_litter_for_the_next_sweep_unless_somebody_is_at_it(paths):
    """Renamed out of its place, it is nobody's any more."""
    for name in ("volume-held", "volume-left"):
        os.makedirs("%s/%s/_data" % (paths.tmp, name))
    held = os.open(paths.tmp + "/volume-held", os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    assert scratch.sweep(paths.tmp).gone == ["volume-left"]
    assert os.listdir(paths.tmp) == ["volume-held"]
    os.close(held)
    assert scratch.sweep(paths.tmp).gone == ["volume-held"]
