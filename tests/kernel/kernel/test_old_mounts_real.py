# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The stand-in for mount_setattr(2), held against the call itself on a kernel that has it."""

from __future__ import annotations

import os

import pytest
from module_utils._engine.kernel import procfs
from module_utils._engine.kernel import syscalls as calls

pytestmark = pytest.mark.root
RDONLY, NODEV = calls.MOUNT_ATTR_RDONLY, calls.MOUNT_ATTR_NODEV


class Old(calls.Kernel):
    """Linux 5.10."""

    def syscall(self, name, *args, what=None):
        if name == "mount_setattr":
            raise OSError(38, os.strerror(38), what or name)
        return super().syscall(name, *args, what=what)


def in_own_namespace(work):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            kernel = Old()
            kernel.unshare(calls.CLONE_NEWNS)
            kernel.mount(None, "/", None, calls.MS_REC | calls.MS_PRIVATE)
            work(kernel)
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0


def flags_of(path):
    return os.statvfs(path).f_flag


def test_a_detached_clone_is_read_only_with_all_below_it_and_the_original_is_not(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    for path in (source / "sub", target):
        path.mkdir(parents=True)

    def work(kernel):
        kernel.mount("t", str(source / "sub"), "tmpfs", 0)
        fd = kernel.clone_tree(calls.AT_FDCWD, str(source), attr_set=RDONLY | NODEV)
        assert not os.get_inheritable(fd)
        place = os.open(target, os.O_PATH)
        kernel.move_mount(fd, place)
        for path in (target, target / "sub"):
            assert flags_of(path) & 5 == 5
        assert not flags_of(source) & 1 and not flags_of(source / "sub") & 1

    in_own_namespace(work)


def test_a_file_too(tmp_path):
    for name in ("source", "target"):
        (tmp_path / name).write_text(name)

    def work(kernel):
        fd = kernel.clone_tree(calls.AT_FDCWD, str(tmp_path / "source"), attr_set=RDONLY, recursive=False)
        place = os.open(tmp_path / "target", os.O_PATH)
        kernel.move_mount(fd, place)
        assert (tmp_path / "target").read_text() == "source"
        with pytest.raises(OSError, match="Read-only"):
            os.open(tmp_path / "target", os.O_WRONLY)

    in_own_namespace(work)


def test_an_attached_mount_is_changed_in_place(tmp_path):
    def work(kernel):
        kernel.mount("t", str(tmp_path), "tmpfs", calls.MS_NOSUID)
        fd = os.open(tmp_path, os.O_PATH)
        kernel.mount_setattr(fd, RDONLY)
        assert flags_of(tmp_path) & 3 == 3

    in_own_namespace(work)


def test_a_new_file_system_is_changed_before_it_is_seen(tmp_path):
    def work(kernel):
        fd = kernel.new_fs("tmpfs", (("size", "4k"),))
        kernel.mount_setattr(fd, RDONLY)
        with pytest.raises(OSError, match="Read-only"):
            os.mkdir("x", dir_fd=fd)

    in_own_namespace(work)


def test_a_clone_of_a_shared_mount_is_private(tmp_path):
    def work(kernel):
        kernel.mount("t", str(tmp_path), "tmpfs", 0)
        kernel.mount(None, str(tmp_path), None, calls.MS_SHARED)
        (tmp_path / "m").mkdir()
        place = os.open(tmp_path / "m", os.O_PATH)
        fd = kernel.clone_tree(calls.AT_FDCWD, str(tmp_path), recursive=False)
        kernel.mount(None, str(tmp_path), None, calls.MS_PRIVATE)  # or what is attached below becomes shared, too
        kernel.move_mount(fd, place)
        with open("/proc/self/mountinfo") as stream:
            lines = [line for line in stream if line.split()[4] == str(tmp_path / "m")]
        assert lines and all("shared:" not in line for line in lines)

    in_own_namespace(work)


def test_nothing_stays_in_the_hosts_table(tmp_path):
    before = procfs.parse_mountinfo(open("/proc/self/mountinfo").read())
    fd = Old().clone_tree(calls.AT_FDCWD, str(tmp_path), attr_set=RDONLY)
    os.close(fd)
    assert procfs.parse_mountinfo(open("/proc/self/mountinfo").read()) == before
