# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where a campaign happens: namespaces, a disk and a boot of its own, so that power can be cut without a machine.

The disk is an ext4 in a file in memory, as a loop device. ``EXT4_IOC_SHUTDOWN`` makes it forget, from one moment to the
next, all that was not on the disk by then, as a power cut does; mounted again, it replays its journal. Where no ext4
can be made it is a tmpfs, and a power cut costs no data.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator

from helpers.engine import Engine
from helpers.private_network import private_network
from module_utils._engine.kernel import procfs
from module_utils._engine.kernel.cgroups import Layout
from module_utils._engine.kernel.netlink import Netlink
from module_utils._engine.kernel.syscalls import CLONE_NEWNS, MNT_DETACH, MS_BIND, MS_PRIVATE, MS_REC, Kernel
from module_utils._engine.network.firewall import Firewall

SIZE = 320 << 20  # bytes of the disk
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_SHUTDOWN, _WITHOUT_THE_LOG = 0x8004587D, 2  # EXT4_IOC_SHUTDOWN, EXT4_GOING_FLAGS_NOLOGFLUSH
_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"
_PATIENCE = 60.0  # seconds for what the kernel does by and by


class Place:
    """``directory`` is the disk's mount point."""

    def __init__(self, directory: str, image: int) -> None:
        """``image``: descriptor of the disk's file, or -1."""
        self.directory, self._image = directory, image
        self._kernel = Kernel()
        self._boot_id = directory + ".boot_id"
        self._new_boot()
        self._kernel.mount(self._boot_id, _BOOT_ID, None, MS_BIND, None)

    @property
    def disk(self) -> str:
        return "ext4" if self._image >= 0 else "tmpfs"

    def mount(self) -> None:
        if self._image >= 0:
            device = _run("losetup", "--find", "--show", _name(self._image))
            self._kernel.mount(device, self.directory, "ext4", 0, None)
            _run("losetup", "--detach", device)  # as soon as it is not mounted any more, however that comes about
        else:
            self._kernel.mount("campaign", self.directory, "tmpfs", 0, "size=%d,mode=0700" % SIZE)

    def _new_boot(self) -> None:
        with open(self._boot_id, "w", encoding="ascii") as out:
            out.write("%s\n" % uuid.uuid4())
        procfs._boot.clear()  # no process outlives a boot, except this one

    def cut_power(self, engine: Engine, kill: Callable[[], bool]) -> None:
        """``kill`` kills what there still is of the engine, its tasks and containers, and says whether it found any."""
        if self._image >= 0:
            fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.ioctl(fd, _SHUTDOWN, struct.pack("I", _WITHOUT_THE_LOG))
            finally:
                os.close(fd)
        wait_for(lambda: not kill(), "an end of all processes")
        for directory in cgroups(engine):
            _remove_cgroup(directory)
        for name in os.listdir(engine.paths.netns):
            with contextlib.suppress(OSError):  # EINVAL: nothing was mounted on it yet
                self._kernel.umount2(engine.paths.netns + "/" + name, MNT_DETACH)
        with Netlink() as netlink:
            for link in netlink.links():
                if link.name.startswith("wh"):
                    netlink.delete_link(link.ifindex)
        firewall = Firewall(engine.paths)
        firewall.remove()
        firewall.close()
        for name in os.listdir(engine.paths.run):
            path = engine.paths.run + "/" + name
            shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
        if self._image >= 0:
            wait_for(self._unmounted, "the end of a dead disk's last user")
            self.mount()
        self._new_boot()

    def _unmounted(self) -> bool:
        try:
            self._kernel.umount2(self.directory)
        except OSError:  # EBUSY: the kernel takes the mounts of dead processes apart by and by
            return False
        return True

    def close(self) -> None:
        wait_for(self._unmounted, "the end of the disk's last user")
        self._kernel.umount2(_BOOT_ID)
        os.unlink(self._boot_id)
        procfs._boot.clear()


@contextlib.contextmanager
def place(disk: str = "") -> Iterator[Place]:
    """``disk``: "ext4", "tmpfs", or the first of them that can be had."""
    kernel = Kernel()
    home = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    directory = tempfile.mkdtemp(prefix="wharf-campaign-")
    image = _empty_disk(disk)
    with private_network():
        kernel.unshare(CLONE_NEWNS)
        try:
            kernel.mount(None, "/", None, MS_REC | MS_PRIVATE, None)
            here = Place(directory, image)
            here.mount()
            try:
                yield here
            finally:
                here.close()
        finally:
            kernel.setns(home, CLONE_NEWNS)
            os.close(home)
            os.rmdir(directory)
            if image >= 0:
                os.close(image)


def _empty_disk(disk: str) -> int:
    """A descriptor of a file in memory with an empty ext4 in it; -1 where there is none to be had."""
    there = all(shutil.which(name, path=_PATH) for name in ("mkfs.ext4", "losetup"))
    if disk == "tmpfs" or not (disk or there):
        return -1
    fd = os.memfd_create("campaign")
    os.truncate(fd, SIZE)
    _run("mkfs.ext4", "-q", "-F", "-m", "0", "-J", "size=8", _name(fd))
    return fd


def _name(fd: int) -> str:
    return "/proc/%d/fd/%d" % (os.getpid(), fd)


def _run(*argv: str) -> str:
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True, env={"PATH": _PATH}).stdout.strip()


def cgroups(engine: Engine) -> list[str]:
    """The engine's own cgroup, in every hierarchy that has it."""
    layout = Layout.detect()
    found = {layout.directory(hierarchy.mountpoint, engine.paths.cgroup) for hierarchy in layout.hierarchies}
    return sorted(directory for directory in found if os.path.isdir(directory))


def _remove_cgroup(top: str) -> None:
    for directory, _names, _files in os.walk(top, topdown=False):
        wait_for(lambda directory=directory: _removed(directory), "an empty cgroup")  # type: ignore[misc]


def _removed(directory: str) -> bool:
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return True
    except OSError:  # EBUSY: the last of it is being reaped
        return False
    return True


def comes_true(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def wait_for(condition: Callable[[], bool], what: str) -> None:
    if not comes_true(condition, _PATIENCE):
        raise RuntimeError("The campaign waited %d seconds in vain for %s" % (_PATIENCE, what))
