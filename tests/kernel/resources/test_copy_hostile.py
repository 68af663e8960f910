# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Copying from and to a container that means harm: nothing of the host is read, written, loaded or filled up."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import pytest
from helpers.engine import Engine
from helpers.option_laws import SLEEP
from module_utils._engine.errors import DiskFull, NotFound, UsageError, WharfError
from module_utils._engine.kernel import procfs
from module_utils._engine.kernel.syscalls import Kernel
from module_utils._engine.process import isolated
from module_utils._engine.runtime import inside
from module_utils._engine.storage import copying

ROUNDS = 250


@pytest.mark.parametrize("direction", ["into", "from"])
def test_links_swapped_in_while_copying_never_lead_out_of_the_container(
    shared: Engine, tmp_path: Path, direction: str
) -> None:
    """CVE-2018-15664: the directory on the way is now itself, now a link to a place that the host has, too."""
    canary = tmp_path / "canary"
    canary.mkdir()
    (canary / "file").write_text("the host's")
    script = (
        "mkdir -p /srv/d/e; echo -n mine > /srv/d/file; echo -n mine > /srv/d/e/file; cd /srv; echo ready;"
        "while :; do busybox mv d gone; ln -s %s d; rm d; busybox mv gone d;"
        "busybox mv d/e d/gone; ln -s %s d/e; rm d/e; busybox mv d/gone d/e; done" % (canary, canary)
    )
    name = "swap-" + direction
    shared.container(name, command=["sh", "-c", script])
    while "ready" not in shared.logs(name):
        assert shared.inspect(name)["State"]["Running"]
    done = 0
    for turn in range(ROUNDS):
        try:
            if direction == "into":
                path = ("/srv/d/file", "/srv/d/e/file", "/srv/d/e/new%d" % turn)[turn % 3]
                wish = {"content": "mine", "mode": "0644", "force": True}
                shared.run("container_copy", container=name, container_path=path, **wish)
            else:
                out = tmp_path / ("out%d" % turn)
                path = ("/srv/d/file", "/srv/d", "/srv/d/e/file")[turn % 3]
                shared.run("container_copy", container=name, container_path=path, direction="from", path=str(out))
            done += 1
        except WharfError as error:  # it is not there, or not what it was: that is the container's affair
            assert error.kind in ("not_found", "conflict", "kernel"), error
    assert done > ROUNDS // 10
    assert os.listdir(canary) == ["file"] and (canary / "file").read_text() == "the host's"
    for out in tmp_path.glob("out*"):
        found = (
            [out] if out.is_file() else [path for path in out.rglob("*") if path.is_file() and not path.is_symlink()]
        )
        assert {path.read_text() for path in found if path.parent.resolve() != canary} <= {"mine"}
        assert not any(path.is_symlink() and path.name == "file" for path in out.rglob("*"))


def test_whoever_has_joined_a_container_loads_nothing_from_it(shared: Engine, tmp_path: Path) -> None:
    """CVE-2019-14271: a library of the container's, loaded by the host's root. Here it would be a Python module in a
    directory that the host looks for modules in. (One of the test's own: a test that fails must harm nobody.)"""
    library = str(tmp_path / "library")
    shared.container("trap", command=SLEEP)
    shared.sh("trap", "mkdir -p %s" % library)
    trap = {"container": "trap", "content": "raise SystemExit('loaded')", "mode": "0644"}
    shared.run("container_copy", container_path=library + "/wharf_trap.py", **trap)
    assert not os.path.exists(library)
    shown = shared.inspect("trap")
    pid, start = shown["State"]["Pid"], procfs.start_time(shown["State"]["Pid"])
    kernel = Kernel()

    def look() -> list[bool]:
        view = inside.running(kernel, pid, start or 0)
        inside.enter(kernel, view, pid, ())
        sys.path.insert(0, library)  # even if somebody puts it back
        importlib.invalidate_caches()
        found = os.path.exists(library + "/wharf_trap.py")
        try:
            importlib.import_module("wharf_trap")
        except ImportError:
            return [found, False]
        return [found, True]

    assert isolated(look) == [True, False]


def test_a_container_that_has_ended_is_not_confused_with_another_process(shared: Engine) -> None:
    with pytest.raises(WharfError, match="has ended meanwhile"):
        inside.running(Kernel(), os.getpid(), 1)


def test_a_file_that_is_said_to_be_larger_than_the_disk_is_refused_before_anything_is_written(
    shared: Engine, tmp_path: Path
) -> None:
    shared.container("sparse", command=SLEEP)
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    shared.sh("sparse", "dd if=/dev/zero of=/srv/huge bs=1 count=0 seek=%d 2>&1" % (free + (1 << 30)))
    with pytest.raises(DiskFull, match="bytes are to be copied"):
        shared.run(
            "container_copy", container="sparse", container_path="/srv", direction="from", path=str(tmp_path / "out")
        )
    assert not (tmp_path / "out").exists()


def test_a_file_that_grows_while_it_is_read_is_read_as_far_as_it_was_long(tmp_path: Path) -> None:
    endless = os.open("/dev/zero", os.O_RDONLY)
    with open(tmp_path / "copy", "wb") as stream:
        copying._copy_bytes(endless, stream.fileno(), 3 << 20)
    os.close(endless)
    assert (tmp_path / "copy").stat().st_size == 3 << 20


def test_a_tree_without_bottom_is_refused_before_anything_is_written(shared: Engine, tmp_path: Path) -> None:
    shared.container("deep", command=SLEEP)
    shared.sh("deep", "mkdir -p /srv/deep/%s" % "/".join("d" * 150))
    with pytest.raises(UsageError, match="nested deeper than 128 directories"):
        shared.run(
            "container_copy", container="deep", container_path="/srv/deep", direction="from", path=str(tmp_path / "o")
        )
    assert not (tmp_path / "o").exists()


def test_links_that_lead_in_circles_and_to_proc_are_refused(shared: Engine, tmp_path: Path) -> None:
    shared.container("loop", command=SLEEP)
    shared.sh(
        "loop",
        "cd /srv; ln -s b a; ln -s a b; ln -s /proc/1/environ env; ln -s /proc proc; ln -s /dev/null null",
    )
    wish = {"container": "loop", "direction": "from", "follow": True, "path": str(tmp_path / "out")}
    with pytest.raises(UsageError, match="Too many symbolic links"):
        shared.run("container_copy", container_path="/srv/a", **wish)
    for path in ("/srv/env", "/srv/proc", "/srv/proc/version", "/srv/null"):
        with pytest.raises((UsageError, NotFound)):
            shared.run("container_copy", container_path=path, **wish)
    with pytest.raises(UsageError, match="the kernel's"):
        shared.run("container_copy", container="loop", container_path="/srv/proc/nothing", content="1", mode="0644")
    assert not (tmp_path / "out").exists()


def test_a_stopped_container_is_mounted_where_nobody_else_sees_it(shared: Engine) -> None:
    shared.container("quiet", command=SLEEP, state="present", volumes=["quiet-vol:/data"])
    shared.run("container_copy", container="quiet", container_path="/data/f", content="x", mode="0644")
    shared.run("container_copy", True, container="quiet", container_path="/data/f", content="y", mode="0644")
    assert shared.paths.container("") not in Path("/proc/self/mountinfo").read_text()
    assert shared.inspect("quiet")["State"]["Status"] == "created"
