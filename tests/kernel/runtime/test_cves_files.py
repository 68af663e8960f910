# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Holes that other run-times had in how a container's files are put together, each as the law that closes it.

docs/security.md lists which test stands for which number.
"""

from __future__ import annotations

import contextlib
import os
import stat

import pytest
from module_utils._engine.errors import StartError, WharfError
from module_utils._engine.kernel import procfs
from module_utils._engine.runtime import spec


@pytest.fixture
def hostile(engine, tmp_path):
    """A layer to put on the base: (what to give as ``layers``, its tree)."""
    layer = str(tmp_path / "layer")
    os.makedirs(layer + "/tree")
    return [engine.layers, layer], layer + "/tree"


@pytest.fixture
def volume(tmp_path):
    """A directory that containers share, and what to give as ``volumes`` for it."""
    path = tmp_path / "shared"
    path.mkdir()
    return path, {"type": "bind", "source": str(path), "target": "/shared"}


def listing(path):
    return {(name, os.lstat("%s/%s" % (path, name)).st_mtime_ns) for name in os.listdir(path)}


# -- CVE-2025-31133: what hides files is something the image chose ----------------------------------------------------


@pytest.mark.parametrize("target", ["/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/etc/passwd", "zero"])
def test_files_are_hidden_by_the_hosts_null_device_whatever_the_images_is(engine, hostile, target):
    layers, tree = hostile
    os.mkdir(tree + "/dev")
    os.symlink(target, tree + "/dev/null")
    hidden = next(path for path in spec.MASKED if os.path.exists(path) and not os.path.isdir(path))
    script = "cat %s | wc -c; stat -c '%%t:%%T' %s; echo x >%s; echo end" % (hidden, hidden, hidden)
    _state, out, err = engine.sh(script, layers=layers)
    assert out == "0\n1:3\nend\n", err
    with open("/proc/sys/kernel/core_pattern") as stream:
        assert stream.read() != "x\n"


def test_an_images_dev_is_covered_whatever_is_in_it(engine, hostile):
    """CVE-2026-41579, 2026-47766: the engine's links and nodes are made on a file system of its own."""
    layers, tree = hostile
    os.mkdir(tree + "/dev")
    for name in ("fd", "stdin", "ptmx", "console", "core", "shm", "pts", "mqueue"):
        os.symlink("/etc", "%s/dev/%s" % (tree, name))
    before = listing("/etc"), listing(tree + "/dev")
    _state, out, err = engine.sh(
        "ls /dev; readlink /dev/fd; test -d /dev/shm -a ! -L /dev/shm && echo own", layers=layers
    )
    assert "/proc/self/fd\nown\n" in out and err == ""
    assert (listing("/etc"), listing(tree + "/dev")) == before


def test_a_dev_of_the_images_own_is_written_to_nowhere_on_the_host(engine, hostile):
    """The task mounts its own /dev: nothing of ours is made in it, and what devices it asks for are made in it."""
    layers, tree = hostile
    volume = {"type": "bind", "source": tree, "target": "/dev"}
    cid = engine.create(["/bin/true"], layers=layers, volumes=[volume])
    with pytest.raises(StartError, match="/dev/null"):  # which standard input is, and which is not there
        engine.runtime.start(cid)
    assert os.listdir(tree) == []


# -- CVE-2025-52565: the console is bound by a name that can be exchanged ----------------------------------------------


def test_the_console_is_the_terminal_that_was_opened_not_what_has_its_name(engine, volume):
    """/dev/pts is the container's own file system, made for this start: nobody else can reach into it. What is bound on
    /dev/console is the slave of the master that we hold."""
    _path, mount = volume
    script = "tty; stat -c '%t:%T' /dev/console /dev/pts/0; grep ' /dev/console ' /proc/self/mountinfo | wc -l"
    _state, out, _err = engine.sh(script, tty=True, volumes=[mount])
    words = out.replace("\r", "").split()
    assert words[0] == "/dev/pts/0" and words[1] == words[2] and words[3] == "1"


@pytest.mark.parametrize("name", ["console", "pts", "pts/0", "pts/ptmx"])
def test_a_volume_over_the_terminals_files_does_not_lead_the_engine_elsewhere(engine, volume, name):
    path, _mount = volume
    trap = path / "trap"
    trap.mkdir() if name == "pts" else trap.write_text("untouched")
    mount = {"type": "bind", "source": str(trap), "target": "/dev/" + name}
    cid = engine.create(["/bin/true"], tty=True, volumes=[mount])
    with contextlib.suppress(StartError):
        engine.runtime.start(cid)
        engine.runtime.wait(cid, timeout=20)
    assert os.listdir(trap) == [] if name == "pts" else trap.read_text() == "untouched"
    assert stat.S_IMODE(os.stat(trap).st_mode) in (0o755, 0o644) and os.stat(trap).st_uid == 0


# -- CVE-2025-52881, 2019-16884, 2019-19921: writes to procfs are led elsewhere ----------------------------------------


@pytest.mark.parametrize(
    "target", ["/proc", "/proc/self/attr", "/proc/sys", "/proc/sys/net", "/proc/thread-self", "/proc/1"]
)
def test_nothing_is_mounted_inside_proc(engine, tmp_path, target):
    """Not even by way of a link in the image: what masks and what sysctls and labels are written to must be procfs."""
    for through in (target, "/other" + target[5:], "/./proc/../" + target):
        mount = {"type": "bind", "source": str(tmp_path), "target": through}
        layer = str(tmp_path / "layer")
        os.makedirs(layer + "/tree", exist_ok=True)
        if not os.path.lexists(layer + "/tree/other"):
            os.symlink("/proc", layer + "/tree/other")
        try:
            cid = engine.create(["/bin/sleep", "10"], layers=[engine.layers, layer], volumes=[mount])
            pid = engine.runtime.start(cid)["pid"]
        except WharfError:
            continue
        inside = [m for m in procfs.mountinfo("/proc/%d/mountinfo" % pid) if m.target.startswith("/proc")]
        assert not [m for m in inside if m.root == str(tmp_path)], through
        engine.runtime.stop(cid, 9, 0)


def test_sysctls_are_written_to_the_kernel_whatever_a_volume_shows(engine, volume):
    path, mount = volume
    (path / "sys/net/ipv4").mkdir(parents=True)
    (path / "sys/net/ipv4/ip_forward").write_text("untouched")
    _state, out, err = engine.sh(
        "cat /proc/sys/net/ipv4/ip_forward", volumes=[mount], sysctls={"net.ipv4.ip_forward": "1"}
    )
    assert out == "1\n", err
    assert (path / "sys/net/ipv4/ip_forward").read_text() == "untouched"


# -- CVE-2024-45310, 2021-30465, 2023-27561, 28642: targets are exchanged while they are made --------------------------


def test_no_file_or_directory_is_made_outside_by_a_neighbour_that_exchanges_links(engine, volume):
    path, mount = volume
    (path / "a").mkdir()
    canary = "/etc/wharf-cve-%d" % os.getpid()
    os.symlink("/", path / "b")
    swapper = engine.start("cd /shared; while :; do mv a c; mv b a; mv a b; mv c a; done", volumes=[mount])
    source = path / "file"
    source.write_text("x")
    name = os.path.basename(canary)
    inner = {"type": "bind", "source": str(source), "target": "/shared/a/etc/%s" % name}
    deeper = {"type": "tmpfs", "target": "/shared/a/etc/%s-dir/deep" % name}
    for _round in range(12):
        cid = engine.create(["/bin/sleep", "100"], volumes=[mount, inner], mounts=[deeper])
        with contextlib.suppress(WharfError):  # refused is as good: what counts is the host
            engine.runtime.start(cid)
        engine.runtime.delete(cid)
        assert not os.path.lexists(canary) and not os.path.lexists(canary + "-dir")
    engine.runtime.stop(swapper, 9, 0)


# -- CVE-2026-55686: the working directory is made through a link ------------------------------------------------------


@pytest.mark.parametrize("link", ["/etc", "../../../../../../../../etc", "/proc/1/root/etc", "/proc/self/cwd"])
def test_a_working_directory_through_a_link_is_made_inside(engine, hostile, link):
    layers, tree = hostile
    os.symlink(link, tree + "/work")
    name = "wharf-cwd-%d" % os.getpid()
    cid = engine.create(["/bin/pwd"], layers=layers, working_dir="/work/%s/below" % name)
    with contextlib.suppress(StartError):
        engine.runtime.start(cid)
        engine.runtime.wait(cid, timeout=20)
    assert not os.path.lexists("/etc/" + name) and not os.path.lexists("/" + name)
    assert engine.output(cid) in ("/etc/%s/below\n" % name, "")
    engine.until(lambda: engine.leavings(cid) == [])


# -- what images and tasks name ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["/proc", "/proc/self", "/"])
def test_targets_that_would_hide_what_the_engine_relies_on_are_refused(engine, tmp_path, target):
    with pytest.raises(WharfError, match="mount target"):
        engine.create(["/bin/true"], volumes=[{"type": "bind", "source": str(tmp_path), "target": target}])


@pytest.mark.parametrize("kinds", ["file over directory", "directory over file"])
def test_a_mount_of_the_wrong_kind_is_a_sentence(engine, tmp_path, kinds):
    source, target = (tmp_path / "f", "/etc") if kinds.startswith("file") else (tmp_path, "/etc/passwd")
    (tmp_path / "f").write_text("x")
    cid = engine.create(["/bin/true"], volumes=[{"type": "bind", "source": str(source), "target": target}])
    with pytest.raises(StartError, match=target) as caught:
        engine.runtime.start(cid)
    assert "directory" in caught.value.msg
    engine.until(lambda: engine.leavings(cid) == [])


def test_a_read_only_bind_is_read_only_with_all_that_is_mounted_below_it(engine, tmp_path):
    """``/:/host:ro``: a mount below that stayed writable would be the host's."""
    volume = {"type": "bind", "source": "/", "target": "/host", "read_only": True}
    cid = engine.start("sleep 100", volumes=[volume])
    pid = engine.runtime.state(cid)["pid"]
    below = [m for m in procfs.mountinfo("/proc/%d/mountinfo" % pid) if (m.target + "/").startswith("/host/")]
    assert len(below) > 3 and all("ro" in m.options.split(",") for m in below)
    result = engine.exec(cid, "touch", "/host%s/f" % tmp_path, "/host/run/wharf-f")
    assert result.exit_code and result.stderr.count(b"Read-only file system") == 2


@pytest.mark.parametrize("name", ["etc", "run", "tmp"])
@pytest.mark.parametrize("what", ["link", "file"])
def test_an_images_directories_that_are_none_leave_the_host_untouched(engine, hostile, name, what):
    layers, tree = hostile
    if what == "link":
        os.symlink("/root", "%s/%s" % (tree, name))
    else:
        with open("%s/%s" % (tree, name), "w") as stream:
            stream.write("x")
    before = listing("/root")
    cid = engine.create(["/bin/true"], layers=layers)
    with contextlib.suppress(StartError):
        engine.runtime.start(cid)
        engine.runtime.wait(cid, timeout=20)
    assert listing("/root") == before
    engine.until(lambda: engine.leavings(cid) == [])
