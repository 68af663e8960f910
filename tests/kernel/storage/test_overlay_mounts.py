# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Overlay roots: layer order, every way of mounting, nothing left behind."""

from __future__ import annotations

import os
import stat
import struct

import pytest
from module_utils._engine.errors import KernelError, UsageError
from module_utils._engine.kernel import idmap
from module_utils._engine.kernel.syscalls import Kernel
from module_utils._engine.storage import overlay, shifted

pytestmark = pytest.mark.root
MODES = ["fd", "string", "legacy"]


@pytest.fixture
def kernel():
    return Kernel()


def tree(tmp_path, n, files):
    path = tmp_path / ("layer%d" % n)
    (path / "tree").mkdir(parents=True)
    for name, text in files.items():
        target = path / "tree" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            os.mknod(target, stat.S_IFCHR, 0)
        else:
            target.write_text(text)
    return str(path), "tree"


def read(fd, name):
    file = os.open(name, os.O_RDONLY, dir_fd=fd)
    try:
        return os.read(file, 100)
    finally:
        os.close(file)


def listing(fd, name="."):
    """A mount's descriptor is an O_PATH one."""
    directory = os.open(name, os.O_RDONLY, dir_fd=fd)
    try:
        return os.listdir(directory)
    finally:
        os.close(directory)


def mounts():
    """Only what we could have left: other tests may run."""
    with open("/proc/self/mountinfo") as lines:
        return [line for line in lines if line.split(" - ")[1].split()[0] in ("overlay", "erofs", "tmpfs")]


def open_fds():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("count", [0, 1, 2, 127])
@pytest.mark.parametrize("writable", [True, False])
def test_upper_layers_win_and_nothing_stays_behind(kernel, tmp_path, mode, count, writable):
    layers = [tree(tmp_path, n, {"f%d" % n: "own", "shared": str(n)}) for n in range(count)]
    upper = work = None
    if writable:
        (tmp_path / "u").mkdir()
        (tmp_path / "w").mkdir()
        upper, work = str(tmp_path / "u"), str(tmp_path / "w")
    before, fds = mounts(), open_fds()
    fd = overlay.mount_rootfs(kernel, layers, upper, work, mode=mode)
    assert mounts() == before
    names = set(listing(fd))
    assert names == {"f%d" % n for n in range(count)} | ({"shared"} if count else set())
    if count:
        assert read(fd, "shared") == str(count - 1).encode()
    if writable:
        os.close(os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        assert os.path.exists(upper + "/new")
    else:
        with pytest.raises(OSError):
            os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=fd)
    os.close(fd)
    assert mounts() == before and open_fds() == fds


@pytest.mark.parametrize("mode", MODES)
def test_whiteouts_and_opaque_directories_hide_lower_layers(kernel, tmp_path, mode):
    low = tree(tmp_path, 0, {"gone": "x", "d/a": "1"})
    top = tree(tmp_path, 1, {"gone": None, "d/b": "2"})
    os.setxattr(top[0] + "/tree/d", "trusted.overlay.opaque", b"y")
    fd = overlay.mount_rootfs(kernel, [low, top], mode=mode)
    assert listing(fd) == ["d"] and listing(fd, "d") == ["b"]
    os.close(fd)


def test_a_cache_is_filled_and_used(kernel, tmp_path):
    layers = [tree(tmp_path, n, {"f": str(n)}) for n in range(3)]
    cache = {}
    first = overlay.mount_rootfs(kernel, layers, cache=cache)
    assert sorted(cache) == sorted(path for path, _form in layers)
    kept = dict(cache)
    second = overlay.mount_rootfs(kernel, layers, cache=cache)
    assert cache == kept
    for fd in (first, second, *cache.values()):
        os.close(fd)


def test_long_state_paths_work(kernel, tmp_path):
    deep = tmp_path
    while len(str(deep)) < 600:
        deep = deep / ("x" * 100)
    deep.mkdir(parents=True)
    layers = [tree(deep, n, {"f": str(n)}) for n in range(3)]
    for name in "uw":
        (deep / name).mkdir()
    for mode in MODES:
        fd = overlay.mount_rootfs(kernel, layers, str(deep / "u"), str(deep / "w"), mode=mode)
        assert read(fd, "f") == b"2"
        os.close(fd)


def test_too_many_layers_are_refused_before_anything_is_opened(kernel):
    with pytest.raises(UsageError, match="128 layers"):
        overlay.mount_rootfs(kernel, [("/nonexistent", "tree")] * 128)


@pytest.mark.parametrize("mode", MODES)
def test_a_missing_layer_is_named(kernel, tmp_path, mode):
    layers = [tree(tmp_path, 0, {}), (str(tmp_path / "absent"), "tree")]
    fds = open_fds()
    with pytest.raises(KernelError) as caught:
        overlay.mount_rootfs(kernel, layers, mode=mode)
    assert "No such file" in caught.value.msg and caught.value.errno == 2
    assert open_fds() == fds


def test_probe_says_what_this_kernel_does(kernel, tmp_path):
    found = overlay.probe(kernel, str(tmp_path))
    assert found["overlay"] is True and found["overlay_mode"] in MODES
    assert found["erofs_files"] in (True, False)


def test_an_overlay_survives_the_moves_into_a_private_namespace(kernel, tmp_path):
    """What the runtime does with it: attach in a new mount namespace, pivot, detach."""
    layers = [tree(tmp_path, n, {"f": str(n)}) for n in range(2)]
    for mode in MODES:
        fd = overlay.mount_rootfs(kernel, layers, mode=mode)
        (tmp_path / "m").mkdir(exist_ok=True)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                kernel.unshare(0x20000)
                kernel.mount(None, "/", None, 16384 | 1 << 18)
                target = os.open(str(tmp_path / "m"), os.O_PATH)
                kernel.move_mount(fd, target)
                status = 0 if (tmp_path / "m" / "f").read_text() == "1" else 2
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0
        os.close(fd)


FIRST = 1879048192


@pytest.fixture
def owner(kernel):
    """A user namespace whose root is the id FIRST outside."""
    ranges = [idmap.Range(0, FIRST, 65536)]
    fd = idmap.userns_fd(kernel, ranges, ranges)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("cached", [False, True])
def test_layers_are_shown_with_the_ids_of_a_user_namespace(kernel, tmp_path, owner, mode, cached):
    layers = [tree(tmp_path, n, {"f%d" % n: "own"}) for n in range(3)]
    os.chown(layers[1][0] + "/tree/f1", 1000, 2000)
    os.chown(layers[2][0] + "/tree/f2", 70000, 0)
    for name in ("u", "w"):
        (tmp_path / name).mkdir()
    before, fds = mounts(), open_fds()
    cache = {path: overlay.open_layer(kernel, path, form) for path, form in layers} if cached else None
    fd = overlay.mount_rootfs(
        kernel, layers, str(tmp_path / "u"), str(tmp_path / "w"), mode=mode, cache=cache, userns_fd=owner
    )
    owners = [(os.stat("f%d" % n, dir_fd=fd).st_uid, os.stat("f%d" % n, dir_fd=fd).st_gid) for n in range(3)]
    assert owners == [(FIRST, FIRST), (FIRST + 1000, FIRST + 2000), (65534, FIRST)]  # 70000 is nobody's
    for held in (fd, *(cache or {}).values()):
        os.close(held)
    assert mounts() == before and open_fds() == fds
    assert os.stat(layers[1][0] + "/tree/f1").st_uid == 1000


def test_an_image_that_cannot_be_mounted_with_other_ids_is_copied_once_and_whole(kernel, tmp_path, owner):
    layers = [tree(tmp_path, n, {"d/f%d" % n: "own", "shared": str(n)}) for n in range(2)]
    program = layers[1][0] + "/tree/d/f1"
    os.chown(program, 1000, 2000)
    os.chmod(program, 0o4755)
    os.setxattr(program, "user.mark", b"kept")
    value = struct.pack("<IIIII", 0x02000001, 1, 0, 0, 0)
    os.setxattr(program, "security.capability", value)
    os.link(program, layers[1][0] + "/tree/other")
    ranges = (idmap.Range(0, FIRST, 65536),)
    owners = shifted.Owners(ranges, ranges)
    for name in ("u", "w"):
        (tmp_path / name).mkdir()
    (tmp_path / "image.new").mkdir()  # of a copy that was cut off
    (tmp_path / "image.new/rubbish").write_text("x")
    place = str(tmp_path / "image")

    def mounted():
        return shifted.mount_rootfs(
            kernel, layers, str(tmp_path / "u"), str(tmp_path / "w"), place, owner, owners, how="copy"
        )

    fd = mounted()
    info = os.stat("d/f1", dir_fd=fd)
    assert (info.st_uid - FIRST, info.st_gid - FIRST, stat.S_IMODE(info.st_mode)) == (1000, 2000, 0o4755)
    assert os.stat("other", dir_fd=fd).st_ino == info.st_ino and read(fd, "shared") == b"1"
    copied = place + "/tree/d/f1"
    assert os.getxattr(copied, "user.mark") == b"kept"
    # The kernel shows version 3 to whoever is not of that namespace; its root is the last word.
    raw = os.getxattr(copied, "security.capability")
    assert struct.unpack("<IIIIII", raw)[5] == FIRST
    assert owners.capability(raw, inward=True) == value
    os.close(fd)
    made = os.stat(place).st_ino
    os.close(mounted())
    assert os.stat(place).st_ino == made and not (tmp_path / "image.new").exists()


def test_whether_layers_can_be_mapped_is_found_by_trying_and_leaves_nothing(kernel, tmp_path):
    fds = open_fds()
    assert shifted.idmapped_layers(kernel, str(tmp_path)) in (True, False)
    assert not shifted.idmapped_layers(kernel, "/proc")
    assert os.listdir(tmp_path) == [] and open_fds() == fds
