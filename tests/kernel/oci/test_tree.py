# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The container's file tree: mounts and their options, devices, what is hidden, id-mapped mounts, hostile roots."""

from __future__ import annotations

import os
import stat
import subprocess

import pytest

pytestmark = pytest.mark.root


def _mount(bundle, destination, source, kind="bind", options=("rbind",), **more):
    entry = {"destination": destination, "type": kind, "source": source, "options": list(options), **more}
    bundle.config["mounts"].append(entry)


def _volume(bundle, name="volume"):
    path = "%s/%s" % (bundle.path, name)
    os.makedirs(path, exist_ok=True)
    return path


def test_binds_show_directories_and_files_and_their_options_hold(bundle):
    path = _volume(bundle)
    with open(path + "/file", "w") as stream:
        stream.write("content")
    _mount(bundle, "/data", path)
    _mount(bundle, "/one/file", path + "/file", options=["bind", "ro"])
    _mount(bundle, "/locked", path, options=["rbind", "ro", "nosuid", "nodev", "noexec"])
    script = "cat /one/file; echo; touch /data/new && echo written; touch /locked/x 2>&1; touch /one/file 2>&1; "
    script += "grep ' /locked ' /proc/mounts"
    shown = bundle.sh(script)
    assert shown.startswith("content\nwritten\n") and shown.count("Read-only file system") == 2
    assert " ro,nosuid,nodev,noexec" in shown
    assert os.path.exists(path + "/new")


def test_ro_is_for_the_mount_alone_and_rro_for_everything_below_it(bundle):
    path = _volume(bundle)
    os.makedirs(path + "/below")
    subprocess.run(["mount", "-t", "tmpfs", "none", path + "/below"], check=True)
    try:
        _mount(bundle, "/top", path, options=["rbind", "ro"])
        _mount(bundle, "/all", path, options=["rbind", "rro"])
        shown = bundle.sh("touch /top/below/a && echo open; touch /top/b 2>&1; touch /all/below/c 2>&1; true")
    finally:
        subprocess.run(["umount", path + "/below"], check=True)
    assert shown.startswith("open\n") and shown.count("Read-only file system") == 2


def test_a_mount_over_a_directory_hides_it_in_the_order_of_the_config(bundle):
    _mount(bundle, "/a", "tmpfs", "tmpfs", ["mode=700", "size=1m"])
    _mount(bundle, "/a/b", "tmpfs", "tmpfs", ["mode=711"])
    assert bundle.sh("stat -c %a /a /a/b; mount | grep -c ' on /a'").split() == ["700", "711", "2"]


def test_tmpcopyup_begins_with_what_the_root_has(bundle):
    os.makedirs(bundle.path + "/rootfs/etc/deep")
    with open(bundle.path + "/rootfs/etc/deep/secret", "w") as stream:
        stream.write("kept")
    os.chmod(bundle.path + "/rootfs/etc/deep/secret", 0o644)
    os.chown(bundle.path + "/rootfs/etc/deep/secret", 1000, 1000)
    os.symlink("deep/secret", bundle.path + "/rootfs/etc/link")
    _mount(bundle, "/etc", "tmpfs", "tmpfs", ["tmpcopyup", "ro"])
    shown = bundle.sh("cat /etc/link; echo; stat -c '%a %u' /etc/deep/secret; touch /etc/x 2>&1; true")
    assert shown.split("\n")[:2] == ["kept", "644 1000"] and "Read-only" in shown


@pytest.mark.parametrize("word,expected", [("rslave", "master"), ("rshared", "shared"), ("rprivate", "")])
def test_a_binds_propagation_is_as_asked(bundle, word, expected):
    path = _volume(bundle)
    subprocess.run(["mount", "-t", "tmpfs", "none", path], check=True)
    try:
        subprocess.run(["mount", "--make-shared", path], check=True)
        _mount(bundle, "/data", path, options=["rbind", word])
        line = bundle.sh("grep ' /data ' /proc/self/mountinfo")
        tags = line.split(" - ")[0].split()[6:]
    finally:
        subprocess.run(["umount", path], check=True)
    assert [tag.partition(":")[0] for tag in tags] == ([expected] if expected else [])


def test_nothing_the_container_mounts_reaches_the_host(bundle):
    path = _volume(bundle)
    bundle.process["capabilities"] = {key: ["CAP_SYS_ADMIN"] for key in ("bounding", "effective", "permitted")}
    _mount(bundle, "/data", path)
    bundle.sh("mkdir /data/m && mount -t tmpfs none /data/m && touch /data/m/inside")
    assert os.listdir(path + "/m") == []


@pytest.mark.parametrize(
    "word,tag", [("shared", "shared"), ("slave", ""), ("private", ""), ("unbindable", "unbindable")]
)
def test_the_roots_propagation_is_as_asked(bundle, word, tag):
    bundle.linux["rootfsPropagation"] = word
    line = next(x for x in bundle.sh("cat /proc/self/mountinfo").splitlines() if x.split()[4] == "/")
    tags = [found.partition(":")[0] for found in line.split(" - ")[0].split()[6:] if not found.startswith("master")]
    assert tags == ([tag] if tag else [])


def test_a_read_only_root_still_has_its_mounts(bundle):
    bundle.config["root"]["readonly"] = True
    _mount(bundle, "/new/place", "tmpfs", "tmpfs", [])
    shown = bundle.sh("touch /x 2>&1; touch /new/place/y && touch /dev/shm/z && echo fine")
    assert "Read-only file system" in shown and "fine" in shown


def test_hidden_paths_are_empty_and_read_only_ones_cannot_be_written(bundle):
    os.makedirs(bundle.path + "/rootfs/hidden")
    with open(bundle.path + "/rootfs/hidden/file", "w") as stream:
        stream.write("x")
    bundle.linux["maskedPaths"] = ["/hidden", "/etc/passwd", "/proc/keys", "/no/such/thing"]
    bundle.linux["readonlyPaths"] = ["/proc/sys", "/tmp"]
    script = "ls /hidden | wc -l; wc -c < /etc/passwd; ls -l /proc/keys | cut -c1; touch /tmp/x 2>&1; "
    script += "echo 1 > /proc/sys/vm/drop_caches"
    bundle.process["args"] = ["sh", "-c", script]
    result = bundle.call("run", bundle.new_id())
    assert result.stdout.split()[:3] == ["0", "0", "c"]
    assert "Read-only file system" in result.stdout and "Read-only file system" in result.stderr


def test_default_devices_and_links_are_there_and_further_ones_are_made(bundle):
    bundle.linux["devices"] = [
        {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 5, "gid": 6},
        {"path": "/pipe", "type": "p"},
    ]
    shown = bundle.sh(
        "cd /dev; stat -c '%n %F %a %t:%T %u %g' null zero full random urandom tty fuse /pipe; "
        "for n in fd stdin stdout stderr ptmx; do readlink $n; done"
    )
    lines = shown.splitlines()
    numbers = {"null": "1:3", "zero": "1:5", "full": "1:7", "random": "1:8", "urandom": "1:9", "tty": "5:0"}
    for line, (name, number) in zip(lines, numbers.items()):
        assert line == "%s character special file 666 %s 0 0" % (name, number)
    assert lines[6] == "fuse character special file 640 a:e5 5 6" and lines[7].startswith("/pipe fifo")
    assert lines[8:] == ["/proc/self/fd", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2", "pts/ptmx"]


def test_an_idmapped_bind_shows_other_owners(bundle):
    path = _volume(bundle)
    with open(path + "/file", "w") as stream:
        stream.write("x")
    os.chown(path + "/file", 1000, 1000)
    maps = [{"containerID": 1000, "hostID": 5000, "size": 10}]
    _mount(bundle, "/data", path, options=["rbind", "ridmap"], uidMappings=maps, gidMappings=maps)
    assert bundle.sh("stat -c '%u %g' /data/file") == "5000 5000\n"
    assert os.stat(path + "/file").st_uid == 1000


def test_idmapped_mounts_that_cannot_be_are_refused(bundle):
    maps = [{"containerID": 0, "hostID": 5000, "size": 10}]
    _mount(bundle, "/data", "tmpfs", "tmpfs", [], uidMappings=maps, gidMappings=maps)
    assert "bind mounts only" in bundle.refused("create", bundle.new_id())
    bundle.config["mounts"][-1] = {
        "destination": "/data",
        "source": "/tmp",
        "type": "bind",
        "options": ["bind", "idmap"],
    }
    assert "idmap without mappings" in bundle.refused("create", bundle.new_id())


def test_the_cgroup_mount_shows_the_containers_own_with_and_without_a_cgroup_namespace(bundle):
    script = "D=/sys/fs/cgroup; test -d $D/pids && D=$D/pids; wc -l < $D/cgroup.procs; mount | grep -c 'cgroup.*ro,'"
    own = bundle.sh(script).split()
    assert 1 <= int(own[0]) <= 6 and int(own[1]) >= 1
    bundle.linux["namespaces"] = [entry for entry in bundle.linux["namespaces"] if entry["type"] != "cgroup"]
    if os.path.isdir("/sys/fs/cgroup/pids"):  # the unified hierarchy is shown whole there, as others do
        assert 1 <= int(bundle.sh(script).split()[0]) <= 6


# -- hostile roots -------------------------------------------------------------------------------------------------


def test_a_root_whose_proc_is_a_link_is_refused(bundle):
    os.rmdir(bundle.path + "/rootfs/proc")
    os.symlink("/tmp", bundle.path + "/rootfs/proc")
    assert "/proc" in bundle.refused("run", bundle.new_id())


def test_a_destination_that_leads_out_of_the_root_stays_inside(bundle):
    os.symlink("../../../../../../var/tmp", bundle.path + "/rootfs/escape")
    _mount(bundle, "/escape/wharf-must-not-exist", "tmpfs", "tmpfs", [])
    bundle.sh("true")
    assert not os.path.exists("/var/tmp/wharf-must-not-exist")
    assert os.path.isdir(bundle.path + "/rootfs/var/tmp/wharf-must-not-exist")


def test_a_mount_inside_proc_is_refused_also_through_a_link(bundle):
    path = _volume(bundle)
    _mount(bundle, "/proc/self", path)
    assert "inside /proc" in bundle.refused("run", bundle.new_id())
    bundle.config["mounts"].pop()
    os.symlink("/proc/sys", bundle.path + "/rootfs/door")
    _mount(bundle, "/door/kernel", path)
    assert "inside /proc" in bundle.refused("run", bundle.new_id())


def test_a_planted_ptmx_is_replaced_and_a_planted_device_refused(bundle):
    bundle.config["mounts"] = [
        mount for mount in bundle.config["mounts"] if not mount["destination"].startswith("/dev")
    ]
    dev = bundle.path + "/rootfs/dev"
    os.mknod(dev + "/ptmx", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    assert bundle.sh("readlink /dev/ptmx") == "pts/ptmx\n"
    os.unlink(dev + "/null")
    with open(dev + "/null", "w") as stream:
        stream.write("a file in its place")
    assert "/dev/null" in bundle.refused("run", bundle.new_id())


def test_no_pivot_runs_the_program_in_the_root(bundle):
    assert bundle.sh("ls / | head -1; ls -d /var/tmp 2>&1; true", "--no-pivot").split()[0] == "bin"
