# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A container with ids of its own: root inside is nobody outside, and everything inside looks as it does without."""

from __future__ import annotations

import os
import subprocess

import pytest
from module_utils._engine.errors import KernelError, StartError
from module_utils._engine.kernel import capabilities
from module_utils._engine.kernel.idmap import Range

FIRST = 1879048192
RANGE = {"uids": [Range(0, FIRST, 65536)], "gids": [Range(0, FIRST, 65536)]}
KEEP = {"uids": [Range(0, 0, (1 << 32) - 1)], "gids": [Range(0, 0, (1 << 32) - 1)]}


@pytest.fixture(params=["idmapped", "copied"])
def run(request):
    """run.json for both ways of giving an image's files to a range."""
    return {"shift": "copy"} if request.param == "copied" else {}


def test_root_inside_is_nobody_outside_in_namespaces_of_its_own(engine):
    cid = engine.start("sleep 100", userns=RANGE)
    pid = engine.runtime.state(cid)["pid"]
    info = os.stat("/proc/%d" % pid)
    assert (info.st_uid, info.st_gid) == (FIRST, FIRST)
    for name in ("user", "ipc", "uts", "mnt", "net", "cgroup", "pid"):
        assert os.readlink("/proc/%d/ns/%s" % (pid, name)) != os.readlink("/proc/self/ns/" + name)
    with open("/proc/%d/uid_map" % pid) as stream:
        assert stream.read().split() == ["0", str(FIRST), "65536"]
    with open("/proc/%d/status" % pid) as stream:
        assert "Groups:\t%d \n" % FIRST in stream.read()


def test_files_inside_look_as_they_do_without_a_user_namespace(engine, run):
    script = "ls -ln / /etc /home /dev /dev/pts; stat -c '%u:%g %a %n' /etc/hosts /etc/resolv.conf /dev/shm"
    _state, out, err = engine.sh(script, userns=RANGE, run=run)
    assert err == ""
    owners = {tuple(line.split()[2:4]) for line in out.splitlines() if len(line.split()) > 7}
    assert owners <= {("0", "0"), ("1000", "1000"), ("65534", "65534")}
    foreign = {line.split()[-1] for line in out.splitlines() if " 65534 " in line}
    assert foreign == {"proc", "sys"}  # of the host's kernel, and read-only
    assert "0:0 644 /etc/hosts" in out and "0:0 644 /etc/resolv.conf" in out and "0:0 1777 /dev/shm" in out


def test_what_root_writes_inside_is_of_the_range_on_the_disk(engine, run):
    cid = engine.create(
        [
            "/bin/sh",
            "-c",
            "echo x >/root/f && chown 1000:2000 /root/f && mkdir /tmp/d && rm /etc/group && ls -ln /root/f",
        ],
        userns=RANGE,
        run=run,
        working_dir="/made/here",
    )
    engine.runtime.start(cid)
    assert engine.runtime.wait(cid, timeout=20)["exit_code"] == 0
    assert " 1000     2000 " in engine.output(cid)
    upper = engine.paths.container(cid) + "/upper"
    for path, owner in (("root/f", (1000, 2000)), ("tmp/d", (0, 0)), ("made/here", (0, 0)), (".", (0, 0))):
        info = os.stat("%s/%s" % (upper, path))
        assert (info.st_uid - FIRST, info.st_gid - FIRST) == owner, path
    assert os.path.isdir(engine.paths.container(cid) + "/image") is bool(run)


def test_restarts_and_execs_are_inside_too(engine, run):
    cid = engine.create(
        ["/bin/sh", "-c", "id -u; cat /root/n; echo more >>/root/n; exit 1"],
        userns=RANGE,
        run={**run, "restart": {"policy": "on-failure", "retries": 2}},
    )
    engine.runtime.start(cid)
    engine.until(lambda: engine.runtime.state(cid)["status"] == "exited")
    assert engine.output(cid) == "0\n0\nmore\n0\nmore\nmore\n"
    cid = engine.start("sleep 100", userns=RANGE, run=run)
    for more in ({}, {"tty": True}):
        result = engine.exec(
            cid, "/bin/sh", "-c", "id; cat /proc/self/uid_map; readlink /proc/self/ns/user; pwd", **more
        )
        assert result.exit_code == 0, result.stderr
        lines = result.stdout.decode().replace("\r", "").splitlines()
        assert lines[0].startswith("uid=0(root) gid=0(root)") and lines[1].split() == ["0", str(FIRST), "65536"]
        assert lines[2] == os.readlink("/proc/%d/ns/user" % engine.runtime.state(cid)["pid"])
    result = engine.exec(cid, "/bin/sh", "-c", "id; echo x >/tmp/mine; echo y >/root/not", user="app")
    assert b"uid=1000(app) gid=1000(app) groups=1000(app),2000(extra)" in result.stdout
    assert b"/root/not: Permission denied" in result.stderr
    assert os.stat(engine.paths.container(cid) + "/upper/tmp/mine").st_uid == FIRST + 1000


def test_binds_show_the_ids_they_have_on_the_disk(engine, tmp_path):
    (tmp_path / "mine").write_text("x")
    os.chown(tmp_path / "mine", 1000, 2000)
    bind = {"type": "bind", "source": str(tmp_path), "target": "/mnt"}
    script = "stat -c '%u:%g' /mnt/mine; echo new >/mnt/new; chown 5:6 /mnt/new"
    state, out, err = engine.sh(script, userns=RANGE, volumes=[bind])
    assert (state["exit_code"], out, err) == (0, "1000:2000\n", "")
    info = os.stat(tmp_path / "new")
    assert (info.st_uid, info.st_gid) == (5, 6)


def test_a_bind_whose_file_system_cannot_be_mapped_is_refused_with_a_sentence(engine):
    bind = {"type": "bind", "source": "/sys/kernel", "target": "/mnt"}
    cid = engine.create(["/bin/true"], userns=RANGE, volumes=[bind])
    with pytest.raises(StartError, match="Cannot mount /sys/kernel on /mnt") as caught:
        engine.runtime.start(cid)
    assert "cannot be mounted with other ids" in caught.value.hint
    assert engine.leavings(cid) == []


def test_a_mount_added_to_a_running_container_shows_its_ids_too(engine, tmp_path):
    (tmp_path / "mine").write_text("x")
    os.chown(tmp_path / "mine", 1000, 2000)
    cid = engine.start("sleep 100", userns=RANGE)
    add = [
        {"destination": "/mnt/a", "type": "bind", "source": str(tmp_path), "options": ["rbind", "rw", "ridmap"]},
        {"destination": "/mnt/t", "type": "tmpfs", "source": "tmpfs", "options": ["uid=1000", "mode=700"]},
    ]
    engine.runtime.remount(cid, add)
    result = engine.exec(cid, "/bin/sh", "-c", "stat -c '%u:%g %n' /mnt /mnt/a/mine /mnt/t")
    assert result.stdout == b"0:0 /mnt\n1000:2000 /mnt/a/mine\n1000:0 /mnt/t\n"


def test_the_tree_cannot_be_uncovered_even_with_every_capability(engine):
    """A mount namespace of a less privileged user namespace holds ours locked together (user_namespaces(7))."""
    asked = {"capabilities": ["ALL"], "security_opts": ["seccomp=unconfined", "apparmor=unconfined"]}
    script = """
    for path in /proc/kcore /proc/sys /etc/hosts; do umount $path 2>/dev/null && echo uncovered $path; done
    mount -o remount,bind,rw /proc/sys 2>/dev/null && echo writable
    mount -t tmpfs none /tmp && mount | grep -c ' /tmp '
    hostname changed && hostname
    mknod /tmp/sda b 8 0 2>/dev/null && echo made a device
    echo 1 2>/dev/null >/proc/sysrq-trigger && echo pressed sysrq
    true
    """
    _state, out, _err = engine.sh(script, userns=RANGE, **asked)
    assert out == "1\nchanged\n"


def test_capabilities_count_inside_only(engine, tmp_path):
    """A file that only the host's root may read stays shut to root of the container's user namespace."""
    secret = tmp_path / "secret"
    secret.write_text("of the host")
    secret.chmod(0o600)
    cid = engine.start("sleep 100", userns=RANGE, capabilities=["ALL"])
    pid = engine.runtime.state(cid)["pid"]
    tmp_path.chmod(0o755)
    enter = ["nsenter", "-U", "-t", str(pid), "--", "cat"]
    assert subprocess.run([*enter, "/etc/hostname"], capture_output=True, check=False).returncode == 0
    result = subprocess.run([*enter, str(secret)], capture_output=True, check=False)
    assert result.returncode and b"Permission denied" in result.stderr


def test_its_own_network_namespace_is_its_own_to_rule(engine):
    cid = engine.start("sleep 100", userns=RANGE, capabilities=["NET_ADMIN"], sysctls={"net.ipv4.ip_forward": "1"})
    pid = engine.runtime.state(cid)["pid"]
    result = subprocess.run(
        ["nsenter", "-U", "-n", "-t", str(pid), "--", "ip", "link", "set", "lo", "mtu", "1400"],
        capture_output=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert engine.exec(cid, "cat", "/proc/sys/net/ipv4/ip_forward").stdout == b"1\n"
    assert engine.exec(cid, "cat", "/sys/class/net/lo/mtu").stdout == b"1400\n"


def test_sysctls_of_the_ipc_namespace_are_set(engine):
    asked = {"kernel.shmmax": "70000", "fs.mqueue.msg_max": "12"}
    _state, out, err = engine.sh("cat /proc/sys/kernel/shmmax /proc/sys/fs/mqueue/msg_max", userns=RANGE, sysctls=asked)
    assert (out, err) == ("70000\n12\n", "")


def test_secrets_and_devices_have_owners_inside(engine):
    cid = engine.create(
        ["/bin/sh", "-c", "stat -c '%u:%g %a %n' /run/secrets/key /dev/zram9 /dev/console; cat /run/secrets/key"],
        userns=RANGE,
        user="app",
        secrets=[{"name": "key", "target": "/run/secrets/key", "mode": 0o400}],
        devices=[{"source": "/dev/zero", "target": "/dev/zram9"}],
    )
    os.makedirs(engine.paths.container(cid) + "/secrets", 0o700)
    with open(engine.paths.container(cid) + "/secrets/key", "w") as stream:
        stream.write("word\n")
    engine.runtime.start(cid)
    engine.runtime.wait(cid, timeout=20)
    out = engine.output(cid)
    assert out == "1000:1000 400 /run/secrets/key\n0:0 666 /dev/zram9\n0:0 600 /dev/console\nword\n"


def test_a_user_beyond_the_range_is_refused_with_a_sentence(engine):
    cid = engine.create(["/bin/true"], userns=RANGE, user="70000")
    with pytest.raises(StartError, match="user 70000 has no mapping") as caught:
        engine.runtime.start(cid)
    assert "auto:size=" in caught.value.hint
    cid = engine.start("sleep 100", userns=RANGE)
    with pytest.raises((StartError, KernelError), match="user 70000 has no mapping"):
        engine.exec(cid, "true", user="70000")


def test_keep_id_changes_no_owner_and_still_confines_capabilities(engine, tmp_path):
    (tmp_path / "mine").write_text("x")
    os.chown(tmp_path / "mine", 1000, 2000)
    bind = {"type": "bind", "source": str(tmp_path), "target": "/mnt"}
    cid = engine.start("sleep 100", userns=KEEP, volumes=[bind], capabilities=["ALL"])
    pid = engine.runtime.state(cid)["pid"]
    assert os.stat("/proc/%d" % pid).st_uid == 0
    assert os.readlink("/proc/%d/ns/user" % pid) != os.readlink("/proc/self/ns/user")
    result = engine.exec(cid, "/bin/sh", "-c", "stat -c '%u:%g' /mnt/mine; mknod /tmp/sda b 8 0 || echo refused")
    assert result.stdout == b"1000:2000\nrefused\n"


def test_it_is_confined_like_any_other_and_sees_no_more(engine):
    """The audit of test_isolation, with capabilities that are those of its own user namespace."""
    script = """
    grep -E '^(Cap|Seccomp:|NoNewPrivs|SigIgn)' /proc/self/status
    cut -d: -f3 /proc/self/cgroup | sort -u
    for f in /proc/sys/kernel/hostname /proc/sysrq-trigger /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/pids/tasks; do
        echo x 2>/dev/null >$f && echo wrote $f
    done
    mkdir /sys/fs/cgroup/x /sys/fs/cgroup/memory/x 2>/dev/null && echo made a cgroup
    ps -o pid,comm | wc -l
    ls /proc/self/fd | wc -l
    """
    cid = engine.start("sleep 100", userns=RANGE)
    for out in (engine.sh(script, userns=RANGE)[1], engine.exec(cid, "/bin/sh", "-c", script).stdout.decode()):
        lines = out.splitlines()
        fields = dict(line.split(":\t") for line in lines if ":\t" in line)
        default = capabilities.to_mask(capabilities.DEFAULT)
        for name in ("CapPrm", "CapEff", "CapBnd"):
            assert int(fields[name], 16) == default & capabilities.to_mask(capabilities.available()), name
        assert int(fields["CapInh"], 16) == int(fields["CapAmb"], 16) == int(fields["SigIgn"], 16) == 0
        assert fields["Seccomp"] == "2" and fields["NoNewPrivs"] == "0"
        assert not [line for line in lines if line.startswith(("wrote", "made"))]
        paths = [line for line in lines if line.startswith("/")]
        assert paths and not [path for path in paths if cid in path or engine.paths.cgroup in path]
