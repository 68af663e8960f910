# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a container must not see or be able to do; the same for PID 1 and for an exec."""

from __future__ import annotations

import os

import pytest
from module_utils._engine.errors import StartError
from module_utils._engine.kernel import capabilities
from module_utils._engine.runtime.exec import ExecSpec

EXPECTED_CAPS = 0x00000000A80425FB & capabilities.to_mask(capabilities.available())

AUDIT = """
cat /proc/self/status
echo ns: $(for n in pid mnt ipc uts cgroup; do readlink /proc/self/ns/$n; done)
echo host: $(hostname)
echo cgroup: $(cat /proc/self/cgroup | tr '\\n' ' ' 2>/dev/null || cat /proc/self/cgroup)
"""


def fields(text):
    return {key.strip(): value.strip() for key, _sep, value in (line.partition(":") for line in text.split("\n"))}


def check_audit(text):
    found = fields(text)
    for name in ("CapPrm", "CapEff", "CapBnd"):
        assert int(found[name], 16) == EXPECTED_CAPS, name
    assert int(found["CapInh"], 16) == int(found["CapAmb"], 16) == 0
    assert found["Seccomp"] == "2" and found["NoNewPrivs"] == "0"
    assert int(found["SigIgn"], 16) == 0 and int(found["SigBlk"], 16) == 0
    assert found["host"] == "box"
    for name, link in zip(("pid", "mnt", "ipc", "uts", "cgroup"), found["ns"].split()):
        assert link.startswith(name) and link != os.readlink("/proc/self/ns/" + name)


def test_pid_1_is_confined(engine):
    _state, out, err = engine.sh("echo pid $$; " + AUDIT)
    assert err == ""
    assert out.startswith("pid 1\n")
    check_audit(out)


def test_an_exec_is_confined_alike(engine):
    cid = engine.start("sleep 100")
    result = engine.exec(cid, "/bin/sh", "-c", AUDIT)
    assert result.stderr == b""
    check_audit(result.stdout.decode())


def test_descriptors_0_to_2_are_all_there_is(engine):
    cid = engine.create(["/bin/sleep", "100"])
    pid = engine.runtime.start(cid)["pid"]
    assert sorted(os.listdir("/proc/%d/fd" % pid)) == ["0", "1", "2"]
    assert os.readlink("/proc/%d/fd/0" % pid) == "/dev/null"
    engine.runtime.exec(cid, ExecSpec(["sleep", "99"]), detach=True)
    processes = [int(line) for line in engine.exec(cid, "ps", "-o", "pid").stdout.split()[1:]]
    for name in processes:
        listing = engine.exec(cid, "ls", "/proc/%d/fd" % name)
        assert listing.exit_code or listing.stdout == b"0\n1\n2\n"


def test_a_user_other_than_root_has_no_capabilities(engine):
    _state, out, _err = engine.sh("cat /proc/self/status; id", user="app")
    found = fields(out)
    assert int(found["CapEff"], 16) == int(found["CapPrm"], 16) == 0
    assert int(found["CapBnd"], 16) == EXPECTED_CAPS
    assert "uid=1000(app) gid=1000(app) groups=1000(app),2000(extra)" in out


def test_no_new_privileges_and_dropped_capabilities(engine):
    _state, out, _err = engine.sh(
        "cat /proc/self/status", security_opts=["no-new-privileges"], cap_drop=["ALL"], capabilities=["CAP_CHOWN"]
    )
    found = fields(out)
    assert found["NoNewPrivs"] == "1" and found["Seccomp"] == "2" and int(found["CapBnd"], 16) == 1


def test_privileged_has_what_the_engine_has(engine):
    _state, out, err = engine.sh("cat /proc/self/status; mount -t tmpfs none /tmp && echo mounted", privileged=True)
    found = fields(out)
    assert int(found["CapEff"], 16) == capabilities.to_mask(capabilities.available())
    assert found["Seccomp"] == "0" and "mounted" in out, err


def test_masked_and_readonly_paths(engine):
    script = """
    for p in /proc/kcore /proc/keys /proc/timer_list /proc/interrupts; do
      [ -e $p ] && echo "$p $(head -c 10 $p | wc -c)"
    done
    for p in /proc/acpi /proc/scsi /sys/firmware; do [ -d $p ] && echo "$p $(ls $p | wc -l)"; done
    for p in /proc/sys/kernel/hostname /proc/sysrq-trigger /sys/kernel/profiling /proc/sys/kernel/core_pattern; do
      (echo x > $p) 2>/dev/null && echo "wrote $p"
    done
    touch /sys/fs/cgroup/x 2>/dev/null && echo "wrote cgroup"
    mkdir /sys/fs/cgroup/memory/x 2>/dev/null && echo "made cgroup"
    mkdir /sys/fs/cgroup/x 2>/dev/null && echo "made cgroup"
    echo end
    """
    _state, out, _err = engine.sh(script)
    lines = out.split("\n")
    assert "end" in lines
    assert not [line for line in lines if line.startswith(("wrote", "made"))]
    assert all(line.endswith(" 0") for line in lines if line.startswith("/")), out


def test_the_hosts_tree_mounts_and_cgroups_are_out_of_sight(engine):
    _state, out, _err = engine.sh("cat /proc/self/mountinfo; echo CG; cat /proc/self/cgroup")
    mounts, _sep, cgroup = out.partition("CG\n")
    assert engine.paths.state not in "".join(line.split(" - ")[0] for line in mounts.split("\n") if "/etc/" not in line)
    targets = {line.split()[4] for line in mounts.strip().split("\n")}
    assert {"/", "/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/sys/fs/cgroup"} <= targets
    assert not [line for line in cgroup.split("\n") if engine.paths.cgroup in line], cgroup


def test_only_the_containers_processes_are_visible(engine):
    _state, out, _err = engine.sh("ps -o pid,comm")
    assert len(out.strip().split("\n")) <= 3


@pytest.mark.parametrize(
    "command", ["unshare -r true", "unshare -m true", "mount -t tmpfs none /tmp", "umount /proc", "hostname other"]
)
def test_calls_the_default_profile_denies(engine, command):
    state, out, err = engine.sh(command)
    assert state["exit_code"] != 0, out + err
    assert "not permitted" in err or "permission denied" in err


def test_unlisted_devices_cannot_be_used(engine):
    state, out, err = engine.sh(
        "for d in null zero full random urandom tty; do test -c /dev/$d || echo no $d; done;"
        "echo x > /dev/null; head -c 4 /dev/zero | wc -c; ls -l /dev/ptmx /dev/fd /dev/stdin"
    )
    assert "no " not in out and "4\n" in out
    state, out, err = engine.sh("busybox mknod /dev/evil c 1 1 && head -c 1 /dev/evil")
    assert state["exit_code"] != 0 and "not permitted" in err


def test_read_only_root(engine):
    _state, out, err = engine.sh("touch /x; touch /dev/shm/y && echo shm; echo end", read_only=True)
    assert "Read-only file system" in err and out == "shm\nend\n"


def test_mounts_of_a_task(engine, tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "f").write_text("content")
    (tmp_path / "one").write_text("single")
    volumes = [
        {"source": str(tmp_path / "src"), "target": "/data/deep", "read_only": True, "type": "bind"},
        {"source": str(tmp_path / "one"), "target": "/etc/one", "read_only": False, "type": "bind"},
    ]
    mounts = [{"type": "tmpfs", "target": "/scratch", "tmpfs_size": 1 << 20, "tmpfs_mode": 0o700}]
    script = (
        "cat /data/deep/f /etc/one; touch /data/deep/x || echo ro; echo new > /etc/one; "
        "stat -c %a /scratch; grep ' /scratch ' /proc/mounts"
    )
    _state, out, err = engine.sh(script, volumes=volumes, mounts=mounts)
    assert out.startswith("contentsinglero\n700\n"), err
    assert "size=1024k" in out and "noexec" in out
    assert (tmp_path / "one").read_text() == "new\n"


def test_sysctls_and_limits(engine):
    _state, out, err = engine.sh(
        "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/msgmax; ulimit -n; grep -c . /proc/net/dev",
        sysctls={"kernel.msgmax": "9000"},
        ulimits=[{"name": "nofile", "soft": 100, "hard": 200}],
    )
    assert out.split("\n")[:3] == ["0", "9000", "100"], err


def test_environment_is_the_containers_alone(engine):
    os.environ["WHARF_SECRET_TEST"] = "leak"
    _state, out, _err = engine.sh("env", env={"A": "b=c"}, user="app")
    assert sorted(line for line in out.split("\n") if line and not line.startswith(("PWD", "SHLVL"))) == [
        "A=b=c",
        "HOME=/home/app",
        "HOSTNAME=box",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ]


# -- hostile images --------------------------------------------------------------------------------------------------


@pytest.fixture
def hostile(engine, tmp_path):
    """A second layer on top of the base one; returns (layer directory, its tree)."""
    layer = str(tmp_path / "layer")
    os.makedirs(layer + "/tree")
    return layer, layer + "/tree"


@pytest.mark.parametrize("name", ["dev", "proc", "sys"])
def test_an_image_whose_mountpoint_is_a_link_is_refused_and_the_host_untouched(engine, hostile, name):
    layer, tree = hostile
    os.symlink("/etc", "%s/%s" % (tree, name))
    before = sorted(os.listdir("/etc"))
    cid = engine.create(["/bin/true"], layers=[engine.layers, layer])
    with pytest.raises(StartError, match="no ordinary directory"):
        engine.runtime.start(cid)
    assert sorted(os.listdir("/etc")) == before
    assert engine.leavings(cid) == []


def test_a_mount_target_through_a_link_stays_in_the_container(engine, hostile, tmp_path):
    layer, tree = hostile
    os.symlink("/../../../../../../../../%s" % tmp_path, tree + "/data")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "f").write_text("here")
    volume = {"source": str(tmp_path / "src"), "target": "/data/sub", "type": "bind"}
    _state, out, err = engine.sh("cat /data/sub/f", layers=[engine.layers, layer], volumes=[volume])
    assert out == "here", err
    assert not (tmp_path / "sub").exists()


@pytest.mark.parametrize("number", [3, 7, 8, 12, 20])
def test_a_working_directory_in_a_leaked_descriptor_is_refused(engine, number):
    cid = engine.create(["/bin/true"], working_dir="/proc/self/fd/%d" % number)
    with pytest.raises(StartError):
        engine.runtime.start(cid)
    assert engine.leavings(cid) == []


def test_a_working_directory_is_made(engine):
    _state, out, _err = engine.sh("pwd; stat -c '%u %a' .", working_dir="/new/place")
    assert out == "/new/place\n0 755\n"


@pytest.mark.parametrize(
    ("user", "words"),
    [
        ("nosuch", "unable to find user nosuch: no matching entries in passwd file"),
        ("1a", "unable to find user 1a"),
        ("+1", "unable to find user +1"),
        ("-1", "unable to find user -1"),
        ("4294967296", "uids and gids must be in range 0-2147483647"),
        ("4294967295", "uids and gids must be in range 0-2147483647"),
        ("0:nogroup", "unable to find group nogroup"),
        ("bad", "unable to find user bad"),
    ],
)
def test_a_user_that_is_none_is_refused(engine, user, words):
    cid = engine.create(["/bin/true"], user=user)
    with pytest.raises(StartError) as caught:
        engine.runtime.start(cid)
    assert words in caught.value.msg


def test_numeric_users_and_groups(engine):
    _state, out, _err = engine.sh("id -u; id -g; id -G", user="1234:3000", groups=["extra", "77"])
    assert out == "1234\n3000\n3000 77 2000\n"
