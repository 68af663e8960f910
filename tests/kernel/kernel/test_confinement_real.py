# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Filters, capabilities, mounts and id maps held against the running kernel, each in a forked child."""

from __future__ import annotations

import ctypes
import os
import platform
import socket
import traceback

import pytest
from module_utils._engine.errors import KernelError
from module_utils._engine.kernel import capabilities, devices, idmap, mounts, procfs, seccomp
from module_utils._engine.kernel.cgroups import Cgroup, Layout
from module_utils._engine.kernel.syscalls import (
    AT_FDCWD,
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNS,
    MS_PRIVATE,
    MS_REC,
    PR_SET_NO_NEW_PRIVS,
    Kernel,
)

pytestmark = pytest.mark.root


def in_child(function):
    """Run in a forked child; its exception's text, or "" when it ended well."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            function()
        except BaseException:
            os.write(write, traceback.format_exc().encode()[-4000:])
        finally:
            os._exit(0)
    os.close(write)
    chunks = []
    while True:
        data = os.read(read, 65536)
        if not data:
            break
        chunks.append(data)
    os.close(read)
    _pid, status = os.waitpid(pid, 0)
    text = b"".join(chunks).decode()
    assert text == "" and status == 0, "status %d\n%s" % (status, text)


def errno_of(function, *args):
    try:
        function(*args)
    except OSError as error:
        return error.errno
    return 0


@pytest.fixture
def group():
    made = Cgroup(Layout.detect(), "wharf-test-%d/%s" % (os.getpid(), os.urandom(4).hex()))
    made.create()
    yield made
    made.remove()
    Cgroup(made.layout, made.path.partition("/")[0]).remove()


# -- devices -------------------------------------------------------------------------------------------------------


def enter(group):
    group.join_self()


def try_device(path, kind, major, minor, flags):
    os.mknod(path, kind | 0o600, os.makedev(major, minor))
    try:
        os.close(os.open(path, flags))
    finally:
        os.unlink(path)


def check_default_devices(tmp_path):
    node = str(tmp_path / "node")
    char = 0o020000
    assert errno_of(try_device, node, char, 1, 3, os.O_RDWR) == 0
    assert errno_of(try_device, node, char, 1, 7, os.O_RDONLY) == 0
    assert errno_of(try_device, node, char, 1, 1, os.O_RDONLY) == 1  # /dev/mem
    assert errno_of(try_device, node, char, 10, 229, os.O_RDONLY) == 1
    assert errno_of(try_device, node, 0o060000, 7, 0, os.O_RDONLY) == 1  # a loop device


def test_the_device_filter_denies_and_is_replaced_in_place(group, tmp_path):
    kernel = Kernel()
    how = devices.apply(kernel, group, devices.DEFAULT)
    assert how in ("bpf", "v1")

    def restricted():
        enter(group)
        check_default_devices(tmp_path)

    in_child(restricted)
    rules = [*devices.DEFAULT, devices.DeviceRule(True, "c", 10, 229, "r")]
    assert devices.apply(kernel, group, rules) == how

    def widened():
        enter(group)
        assert errno_of(try_device, str(tmp_path / "n"), 0o020000, 10, 229, os.O_RDONLY) in (0, 6, 19)

    in_child(widened)
    if how == "bpf":
        fd = group.fd_v2("")
        assert len(devices.attached(kernel, fd)) == 1
        os.close(fd)
    assert devices.apply(kernel, group, devices.PRIVILEGED) == how  # an existing filter is opened, not forgotten

    def open_to_all():
        enter(group)
        assert errno_of(try_device, str(tmp_path / "n"), 0o020000, 1, 1, os.O_RDONLY) in (0, 6, 19)

    in_child(open_to_all)


def test_the_v1_device_controller_denies_too(group, tmp_path):
    if group.directory("devices") is None:
        pytest.skip("no v1 devices controller")
    assert devices._apply_v1(group, devices.DEFAULT)

    def restricted():
        enter(group)
        check_default_devices(tmp_path)

    in_child(restricted)


def test_privileged_needs_no_filter(group):
    assert devices.apply(Kernel(), group, devices.PRIVILEGED) == "none"


def test_the_verifier_refuses_nonsense_with_its_own_words():
    with pytest.raises(OSError) as caught:
        devices.load(Kernel(), b"\x95" + b"\0" * 7)  # exit without a result
    assert "R0" in caught.value.strerror


# -- seccomp -------------------------------------------------------------------------------------------------------


def test_the_default_filter_denies_in_a_real_process():
    kernel = Kernel()
    blob = seccomp.filter_for(None, capabilities.DEFAULT)
    libc = ctypes.CDLL(None, use_errno=True)

    def confined():
        kernel.prctl(PR_SET_NO_NEW_PRIVS, 1)
        kernel.seccomp_load(blob)
        assert errno_of(kernel.unshare, CLONE_NEWNS) == 1
        assert errno_of(kernel.mount, "none", "/proc", "tmpfs", 0) == 1
        assert errno_of(kernel.bpf, 5, b"\0" * 64) == 1
        assert errno_of(kernel.keyctl_join_session) == 1
        assert errno_of(kernel.syscall, "clone3", None, 0) == 38
        assert errno_of(socket.socket, socket.AF_INET) == 0
        assert errno_of(lambda: socket.socket(38, socket.SOCK_SEQPACKET)) == 1  # AF_ALG
        assert errno_of(lambda: socket.socket(40, socket.SOCK_STREAM)) == 1  # AF_VSOCK
        kernel.syscall("personality", 0xFFFFFFFF)
        assert errno_of(kernel.syscall, "personality", 0x40000) == 1
        libc.syscall(ctypes.c_long(5000))
        assert ctypes.get_errno() == 38
        if platform.machine() == "x86_64":
            libc.syscall(ctypes.c_long(0x40000000 | 39))  # x32 getpid
            assert ctypes.get_errno() == 38
        pid = os.fork()  # clone without namespace flags still works
        if pid == 0:
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        with open("/proc/self/status") as stream:
            assert "Seccomp:\t2\n" in stream.read()

    in_child(confined)


def test_the_default_filter_lets_a_program_start():
    blob = seccomp.filter_for(None, capabilities.DEFAULT)

    def confined():
        kernel = Kernel()
        kernel.prctl(PR_SET_NO_NEW_PRIVS, 1)
        kernel.seccomp_load(blob)
        pid = os.fork()
        if pid == 0:
            os.execv("/bin/sh", ["sh", "-c", "echo x | cat >/dev/null; exit 3"])
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3

    in_child(confined)


# -- capabilities --------------------------------------------------------------------------------------------------


def test_dropped_capabilities_are_gone_and_the_own_bounding_set_is_the_ceiling():
    granted = capabilities.resolve()

    def drop():
        capabilities.apply(Kernel(), [*granted, "CAP_SYS_RESOURCE"], granted, granted)
        own = capabilities.own()
        mask = capabilities.to_mask(granted)
        ceiling = mask | 1 << capabilities.NUMBERS["CAP_SYS_RESOURCE"]
        assert own["bounding"] & ~ceiling == 0 and own["bounding"] & mask == mask
        assert (own["effective"], own["permitted"]) == (mask, mask)
        assert (own["inheritable"], own["ambient"]) == (0, 0)
        assert errno_of(os.mknod, "/proc/x", 0) != 0
        assert errno_of(Kernel().unshare, CLONE_NEWNS) == 1

    in_child(drop)


def test_another_user_keeps_nothing_but_ambient_capabilities():
    one = ["CAP_NET_BIND_SERVICE"]

    def become():
        kernel = Kernel()
        capabilities.apply(
            kernel, one, one, one, one, one, switch_user=lambda: capabilities.set_id(65534, 65534, [65533])
        )
        own = capabilities.own()
        mask = capabilities.to_mask(one)
        assert own == dict.fromkeys(("inheritable", "permitted", "effective", "bounding", "ambient"), mask)
        assert os.getresuid() == (65534,) * 3 and os.getresgid() == (65534,) * 3
        assert os.getgroups() == [65533]

    in_child(become)


# -- mounts --------------------------------------------------------------------------------------------------------


def private(kernel):
    kernel.unshare(CLONE_NEWNS | CLONE_NEWIPC)
    kernel.mount(None, "/", None, MS_PRIVATE | MS_REC)


def test_filesystems_are_attached_below_a_root_through_links(tmp_path):
    before = procfs.mountinfo()
    (tmp_path / "evil").symlink_to("/dev")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/hosts").symlink_to("../../../../outside")

    def build():
        kernel = Kernel()
        private(kernel)
        root = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
        source = tmp_path / "source"
        source.write_text("hello")
        for dest, fd in (
            ("/proc", mounts.proc(kernel)),
            ("/dev", mounts.tmpfs(kernel, size=65536 * 1024, mode=0o755)),
            ("/evil/shm", mounts.tmpfs(kernel, size=1 << 20, mode=0o1777, source="shm")),
            ("/dev/pts", mounts.devpts(kernel)),
            ("/dev/mqueue", mounts.mqueue(kernel)),
            ("/sys", mounts.sysfs(kernel)),
        ):
            mounts.attach_at(kernel, root, dest, fd, create="dir")
            os.close(fd)
        fd = mounts.bind(kernel, AT_FDCWD, str(source), ["ro", "nosuid", "bind"])
        mounts.attach_at(kernel, root, "/etc/hosts", fd, create="file")
        os.close(fd)
        found = {m.target[len(str(tmp_path)) :]: m for m in procfs.mountinfo() if m.target.startswith(str(tmp_path))}
        assert set(found) == {"/proc", "/dev", "/dev/shm", "/dev/pts", "/dev/mqueue", "/sys", "/outside"}
        assert "size=1024k" in found["/dev/shm"].super_options
        assert (tmp_path / "dev/shm").stat().st_mode & 0o7777 == 0o1777
        assert "gid=5" in found["/dev/pts"].super_options and "ptmxmode=666" in found["/dev/pts"].super_options
        assert {"ro", "nosuid", "nodev", "noexec"} <= set(found["/sys"].options.split(","))
        assert {"ro", "nosuid"} <= set(found["/outside"].options.split(","))
        assert (tmp_path / "outside").read_text() == "hello"
        assert errno_of(lambda: open(tmp_path / "outside", "w")) == 30

    in_child(build)
    assert procfs.mountinfo() == before
    assert not os.path.exists("/outside") and not os.path.exists(tmp_path.parent / "outside")


def test_wrong_kinds_missing_targets_and_bad_options_are_told(tmp_path):
    (tmp_path / "file").write_text("")

    def build():
        kernel = Kernel()
        private(kernel)
        root = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
        fd = mounts.tmpfs(kernel)
        for dest, errno in (("/file", 20), ("/missing", 2)):
            try:
                mounts.attach_at(kernel, root, dest, fd)
            except KernelError as error:
                assert error.errno == errno and dest in error.msg, error.msg
            else:
                raise AssertionError(dest)
        try:
            mounts.from_options(kernel, "tmpfs", ["size=wrong"])
        except KernelError as error:
            assert "size" in error.msg, error.msg

    in_child(build)


def test_the_cgroup_view_shows_the_own_cgroup_as_root_and_is_read_only(group, tmp_path):
    def build():
        kernel = Kernel()
        enter(group)
        kernel.unshare(CLONE_NEWCGROUP)
        private(kernel)
        root = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
        for path, fd in mounts.cgroup_view(kernel, group.layout.view()):
            mounts.attach_at(kernel, root, "/sys/fs/cgroup/" + path, fd, create="dir")
            os.close(fd)
        base = tmp_path / "sys/fs/cgroup"
        for hierarchy in group.layout.hierarchies:
            own = base / hierarchy.name
            assert str(os.getpid()) in (own / "cgroup.procs").read_text().split()
            assert errno_of(os.mkdir, str(own / "x")) == 30
        assert errno_of(os.mkdir, str(base / "x")) == 30

    in_child(build)


def test_a_private_proc_is_the_real_one_whatever_is_mounted_over_the_visible_one(tmp_path):
    def build():
        kernel = Kernel()
        private(kernel)
        kernel.mount("none", "/proc", "tmpfs", 0)
        assert os.listdir("/proc") == []
        fd = procfs.private_proc(kernel)
        assert os.readlink("self", dir_fd=fd) == str(os.getpid())
        assert errno_of(lambda: os.stat("sys", dir_fd=fd)) == 2
        os.close(fd)
        whole = procfs.private_proc(kernel, whole=True)
        procfs.write_at(whole, "self/oom_score_adj", "500")
        with open("oom_score_adj", opener=lambda _p, f: os.open("self/oom_score_adj", f, dir_fd=whole)) as stream:
            assert stream.read().strip() == "500"
        os.close(whole)

    in_child(build)


# -- id maps -------------------------------------------------------------------------------------------------------


def test_a_user_namespace_with_maps_is_had_by_descriptor():
    ranges = [idmap.Range(0, 100000, 65536)]
    fd = idmap.userns_fd(Kernel(), ranges, ranges)
    try:

        def inside():
            Kernel().setns(fd)
            with open("/proc/self/gid_map") as stream:
                assert stream.read().split()[2] == "65536"

        in_child(inside)
    finally:
        os.close(fd)


def test_no_process_and_no_descriptor_is_left_by_it():
    ranges = [idmap.Range(0, 100000, 10)]
    before = len(os.listdir("/proc/self/fd")), procfs.children(os.getpid())
    for _n in range(5):
        os.close(idmap.userns_fd(Kernel(), ranges, ranges))
    assert (len(os.listdir("/proc/self/fd")), procfs.children(os.getpid())) == before
