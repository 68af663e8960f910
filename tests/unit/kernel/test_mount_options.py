# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os

import pytest
from module_utils._engine.errors import KernelError, UsageError
from module_utils._engine.kernel import mounts
from module_utils._engine.kernel.syscalls import MS_PRIVATE, MS_SLAVE, Kernel


def test_option_words_are_sorted_and_later_words_win():
    found = mounts.parse_options(["nosuid", "ro", "rw", "noatime", "strictatime", "rslave", "rbind", "size=64m", "x"])
    assert found.attr_set == 2 | 0x20
    assert found.attr_clear == 1 | 0x70
    assert found.propagation == MS_SLAVE
    assert found.recursive and found.bind
    assert found.data == (("size", "64m"), ("x", None))


def test_propagation_words_are_checked():
    assert mounts.check_propagation("rprivate") == MS_PRIVATE
    with pytest.raises(UsageError, match="propagation"):
        mounts.check_propagation("weird")


@pytest.fixture
def root(tmp_path):
    (tmp_path / "root").mkdir()
    fd = os.open(tmp_path / "root", os.O_PATH | os.O_DIRECTORY)
    yield tmp_path / "root", fd
    os.close(fd)


def test_missing_directories_are_made_with_mode_and_whatever_the_umask(root):
    path, fd = root
    before = os.umask(0o077)
    try:
        os.close(mounts.mkdir_in_root(Kernel(), fd, "/a/b/../c//./d", 0o751))
    finally:
        os.umask(before)
    assert (path / "a/c/d").is_dir() and (path / "a/b").is_dir()
    assert (path / "a/c/d").stat().st_mode & 0o7777 == 0o751


@pytest.mark.parametrize("link", ["../../../../outside", "/outside", "..", "/../../x/.."])
def test_links_and_dot_dots_stay_below_the_root(root, link):
    path, fd = root
    (path / "l").symlink_to(link)
    os.close(mounts.mkdir_in_root(Kernel(), fd, "l/deep/er"))
    os.close(mounts.create_in_root(Kernel(), fd, "../../l/file"))
    assert sorted(p.name for p in path.parent.iterdir()) == ["root"]


def test_a_dangling_link_is_made_where_it_points(root):
    path, fd = root
    (path / "var").mkdir()
    (path / "var/run").symlink_to("/run")
    (path / "etc").symlink_to("usr/etc")
    os.close(mounts.mkdir_in_root(Kernel(), fd, "/var/run/app"))
    os.close(mounts.create_in_root(Kernel(), fd, "/etc/hosts"))
    assert (path / "run/app").is_dir()
    assert (path / "usr/etc/hosts").is_file()


def test_a_dangling_final_link_makes_the_file_it_points_to(root):
    path, fd = root
    (path / "resolv.conf").symlink_to("/run/systemd/resolve/stub")
    os.close(mounts.create_in_root(Kernel(), fd, "resolv.conf"))
    assert (path / "run/systemd/resolve/stub").is_file()


def test_link_loops_files_in_the_way_and_directories_for_files_are_told(root):
    path, fd = root
    (path / "loop").symlink_to("loop/x")
    (path / "file").write_text("")
    (path / "dir").mkdir()
    with pytest.raises(KernelError) as caught:
        mounts.mkdir_in_root(Kernel(), fd, "loop/y")
    assert caught.value.errno == 40
    for dest in ("file", "file/x"):
        with pytest.raises(KernelError) as caught:
            mounts.mkdir_in_root(Kernel(), fd, dest)
        assert caught.value.errno == 20
    with pytest.raises(KernelError) as caught:
        mounts.create_in_root(Kernel(), fd, "dir")
    assert caught.value.errno == 21


def test_no_descriptor_is_left_behind(root):
    path, fd = root
    (path / "l").symlink_to("a/b/c")
    (path / "file").write_text("")
    before = len(os.listdir("/proc/self/fd"))
    os.close(mounts.mkdir_in_root(Kernel(), fd, "l/d"))
    for dest in ("file/x", "l/../../../file/y"):
        with pytest.raises(KernelError):
            mounts.mkdir_in_root(Kernel(), fd, dest)
    assert len(os.listdir("/proc/self/fd")) == before
