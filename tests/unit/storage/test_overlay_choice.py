# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which way a root is mounted on which kernel, and what the kernel is told; no root needed."""

from __future__ import annotations

import os

import pytest
from module_utils._engine.errors import KernelError
from module_utils._engine.storage import overlay


class Recorder:
    """Takes down mounts; a descriptor of /dev/null stands for each. ``refuse``: option kinds it does not know; with
    "mount" it tells so only when it mounts, as overlay before 6.5 does."""

    def __init__(self, *refuse):
        self.mounts = []
        self.refuse = refuse
        self.layers = {}

    def fake(self):
        return os.open("/dev/null", os.O_RDONLY)

    def new_fs(self, fstype, options=(), attrs=0):
        for key, value in options:
            kind = "fd" if isinstance(value, int) else "string"
            if key == "lowerdir+" and kind in self.refuse:
                raise OSError(22, "Invalid argument", key)
        self.mounts.append((fstype, tuple(options), attrs))
        return self.fake()

    def clone_tree(self, dirfd, path, *, attr_set=0, recursive=True):
        fd = self.fake()
        self.layers[fd] = os.readlink("/proc/self/fd/%d" % dirfd)
        return fd

    def syscall(self, name, *args, what=None):
        if name == "fsopen":
            return self.fake()
        if name == "fsconfig" and "mount" not in self.refuse and ("string" in self.refuse or args[2] != b"lowerdir+"):
            raise OSError(22, "Invalid argument", "fsconfig")
        return 0


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setattr(overlay, "_mode", None)
    monkeypatch.delenv("WHARF_OVERLAY_MODE", raising=False)


def trees(tmp_path, count):
    for n in range(count):
        (tmp_path / str(n) / "tree").mkdir(parents=True)
    return [(str(tmp_path / str(n)), "tree") for n in range(count)]


@pytest.mark.parametrize(
    ("refuse", "mode"),
    [((), "fd"), (("fd",), "string"), (("fd", "string"), "legacy"), (("fd", "string", "mount"), "legacy")],
    ids=["6.13", "6.8", "6.5", "5.10"],
)
def test_the_newest_way_the_kernel_knows_is_chosen_and_remembered(refuse, mode):
    kernel = Recorder(*refuse)
    assert overlay._best_mode(kernel) == mode
    probes = len(kernel.mounts)
    assert overlay._best_mode(kernel) == mode and len(kernel.mounts) == probes
    assert overlay.probe(kernel, "/nonexistent")["overlay_mode"] in (mode, None)


def test_the_topmost_layer_is_the_first_lower_and_nothing_can_redirect(tmp_path):
    kernel = Recorder()
    os.close(overlay.mount_rootfs(kernel, trees(tmp_path, 3), mode="fd"))
    fstype, options, attrs = kernel.mounts[-1]
    lowers = [kernel.layers[value] for key, value in options if key == "lowerdir+"]
    assert fstype == "overlay" and attrs == 1  # read-only
    assert lowers == [str(tmp_path / n / "tree") for n in ("2", "1", "0")]
    assert {("index", "off"), ("metacopy", "off"), ("redirect_dir", "nofollow")} <= set(options)


def test_an_upper_makes_it_writable_and_volatile_is_only_on_demand(tmp_path):
    kernel = Recorder()
    for volatile in (False, True):
        fd = overlay.mount_rootfs(kernel, trees(tmp_path, 0) or [], str(tmp_path), str(tmp_path), volatile=volatile,
                                  mode="fd")  # fmt: skip
        os.close(fd)
        _fstype, options, attrs = kernel.mounts[-1]
        keys = [key for key, _value in options]
        assert attrs == 0 and keys.count("lowerdir+") == 1 and "upperdir" in keys and "workdir" in keys
        assert ("volatile" in keys) is volatile


def test_only_the_cache_outlives_a_failed_mount(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    cache = {}
    layers = trees(tmp_path, 2)
    with pytest.raises(KernelError) as caught:
        overlay.mount_rootfs(Recorder("fd"), layers, cache=cache, mode="fd")
    assert caught.value.step == "mount_overlay" and caught.value.errno == 22
    assert set(cache) == {path for path, _form in layers}
    for fd in cache.values():
        os.close(fd)
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_environment_decides_for_tests(monkeypatch):
    monkeypatch.setenv("WHARF_OVERLAY_MODE", "legacy")
    assert overlay._best_mode(Recorder()) == "legacy"
