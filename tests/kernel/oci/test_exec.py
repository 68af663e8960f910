# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""``exec``: where the program runs, as whom, and what it must not bring along or be lured into."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

pytestmark = pytest.mark.root


def test_exec_joins_all_namespaces_and_cgroups_of_the_container(bundle):
    name = bundle.start()
    pid = bundle.state(name)["pid"]
    script = "for n in mnt net pid; do readlink /proc/self/ns/$n; done; cat /proc/1/comm; cat /tmp/gate"
    os.mkfifo(bundle.path + "/rootfs/tmp/gate")
    with subprocess.Popen(
        bundle.argv("exec", name, "sh", "-c", script), stdout=subprocess.PIPE, text=True, cwd=bundle.path
    ) as running:
        for kind in ("mnt", "net", "pid"):
            assert running.stdout.readline().strip() == os.readlink("/proc/%d/ns/%s" % (pid, kind))
        assert running.stdout.readline() == "sleep\n"
        pids = json.loads(bundle.must("ps", "-f", "json", name))
        assert len(pids) >= 2  # the exec's processes are in the container's cgroup
        with open(bundle.path + "/rootfs/tmp/gate", "w") as gate:
            gate.write("done")
        assert running.stdout.read() == "done"
    assert running.returncode == 0


def test_exec_answers_with_the_programs_status_and_255_when_it_cannot_run(bundle):
    name = bundle.start()
    assert bundle.call("exec", name, "sh", "-c", "exit 9").returncode == 9
    assert bundle.call("exec", name, "sh", "-c", "kill -15 $$").returncode == 128 + 15
    assert "executable file not found in $PATH" in bundle.refused("exec", name, "nope", code=255)
    assert "/nope: no such file" in bundle.refused("exec", name, "/nope", code=255)
    assert "does not exist" in bundle.refused("exec", "nobody", "true", code=255)
    bundle.must("kill", name, "KILL")
    bundle.wait_for(name, "stopped")
    assert "stopped container" in bundle.refused("exec", name, "true", code=255)


def test_exec_takes_user_groups_env_directory_and_capabilities_from_its_options(bundle):
    name = bundle.start()
    script = "id -u; id -g; echo $A $B; pwd; grep -E 'Groups|CapEff' /proc/self/status"
    shown = bundle.must(
        "exec", "--user", "1000:1001", "-g", "7", "--env", "A=1", "-e", "B=2", "--cwd", "/tmp", name, "sh", "-c", script
    ).split("\n")  # fmt: skip
    assert shown[:4] == ["1000", "1001", "1 2", "/tmp"]
    assert shown[4].split() == ["Groups:", "7"] and int(shown[5].split()[1], 16) == 0
    effective = bundle.must("exec", "--cap", "CAP_SYS_TIME", name, "grep", "CapEff", "/proc/self/status").split()[1]
    assert int(effective, 16) >> 25 & 1


def test_exec_takes_a_whole_process_from_a_file(bundle):
    name = bundle.start()
    process = {
        "args": ["sh", "-c", "id -u; ulimit -n; grep NoNewPrivs /proc/self/status; echo $X"], "cwd": "/",
        "env": ["PATH=/bin", "X=given"], "user": {"uid": 33, "gid": 33}, "noNewPrivileges": True,
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 64}],
    }  # fmt: skip
    with open(bundle.path + "/process.json", "w") as stream:
        json.dump(process, stream)
    shown = bundle.must("exec", "--process", bundle.path + "/process.json", name).split()
    assert shown == ["33", "64", "NoNewPrivs:", "1", "given"]


def test_a_detached_exec_writes_its_pid_and_returns_while_it_runs(bundle):
    name = bundle.start()
    path = bundle.path + "/exec.pid"
    bundle.must(
        "exec", "-d", "--pid-file", path, name, "sleep", "500", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    with open(path) as stream:
        pid = int(stream.read())
    with open("/proc/%d/cmdline" % pid) as stream:
        assert stream.read().split("\0") == ["sleep", "500", ""]
    assert os.readlink("/proc/%d/ns/pid" % pid) == os.readlink("/proc/%d/ns/pid" % bundle.state(name)["pid"])


def test_an_exec_has_the_containers_filter_and_no_descriptor_of_the_host(bundle):
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}
    bundle.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}
    name = bundle.start()
    script = "mkdir /tmp/x; echo /proc/self/fd/*"
    result = bundle.call("exec", name, "sh", "-c", script)
    assert "Operation not supported" in result.stderr
    assert result.stdout.split() == ["/proc/self/fd/%d" % n for n in range(4)]  # 3 is the shell's, which lists them


def test_an_exec_into_a_directory_outside_of_the_root_is_refused(bundle):
    """CVE-2024-21626: a working directory reached through a descriptor of the runtime's own."""
    name = bundle.start()
    for number in range(3, 12):
        error = bundle.refused("exec", "--cwd", "/proc/self/fd/%d" % number, name, "true", code=255)
        assert "/proc/self/fd/%d" % number in error


def test_an_exec_of_the_runtimes_own_interpreter_is_refused(bundle):
    """CVE-2019-5736: a program that is a link to /proc/self/exe would run the host's interpreter inside."""
    os.symlink("/proc/self/exe", bundle.path + "/rootfs/bin/lure")
    with open(bundle.path + "/rootfs/bin/script", "w") as stream:
        stream.write("#!/proc/self/exe\n")
    os.chmod(bundle.path + "/rootfs/bin/script", 0o755)
    name = bundle.start()
    for program in ("lure", "/proc/self/exe", "script"):
        assert "refusing to execute" in bundle.refused("exec", name, program, code=255)
    bundle.process["args"] = ["lure"]
    assert "refusing to execute" in bundle.refused("run", bundle.new_id())


def test_nobody_in_the_container_can_look_into_the_runtime_that_enters_it(bundle):
    """The container watches for a process that is not its own and tries to open its files."""
    # What it reads is named, so that a program the runtime has meanwhile become is not taken for the runtime.
    watch = (
        # Builtins only until something is there: a process is visible for a moment.
        "exec 2>/dev/null; while :; do for p in /proc/[0-9]*; do read -r c < $p/comm || continue; "
        "case $c in python*|memfd*|[0-9]*) echo seen >> /tmp/seen; "
        "case $(readlink $p/exe 2>/dev/null) in *python*|*memfd*) echo exe >> /tmp/leak;; esac; "
        "grep -q -e python -e memfd $p/maps 2>/dev/null && echo maps >> /tmp/leak;; esac; done; done"
    )
    bundle.process["args"] = ["sh", "-c", watch]
    name = bundle.start()
    tries = 0
    while not os.path.exists(bundle.path + "/rootfs/tmp/seen") and tries < 1000:
        bundle.must("exec", name, "true")
        tries += 1
    assert os.path.exists(bundle.path + "/rootfs/tmp/seen"), (
        "the container never saw the runtime: the test proves nothing"
    )
    assert not os.path.exists(bundle.path + "/rootfs/tmp/leak")


@pytest.mark.parametrize("how", ["exec", "a container in the same pid namespace"])
def test_a_container_that_may_trace_finds_a_sealed_copy_and_not_the_hosts_interpreter(bundle, how):
    """CVE-2019-5736: with CAP_SYS_PTRACE it can open the exe of whoever enters, and cannot write what it gets."""
    bundle.process["capabilities"] = {key: ["CAP_SYS_PTRACE"] for key in ("bounding", "effective", "permitted")}
    watch = (
        "while :; do for p in /proc/[0-9]*; do e=$(readlink $p/exe 2>/dev/null); "
        "case $e in /bin/*|'') ;; *) echo $e >> /tmp/seen;; esac; done; done"
    )
    bundle.process["args"] = ["sh", "-c", watch]
    name = bundle.start()
    seen = bundle.path + "/rootfs/tmp/seen"
    bundle.process["args"] = ["true"]
    pid = bundle.state(name)["pid"]
    if how != "exec":
        spaces = [entry for entry in bundle.linux["namespaces"] if entry["type"] != "pid"]
        bundle.linux["namespaces"] = [*spaces, {"type": "pid", "path": "/proc/%d/ns/pid" % pid}]
    tries = 0
    while not os.path.exists(seen) and tries < 200:
        tries += 1
        if how == "exec":
            bundle.must("exec", name, "true")
        else:
            bundle.must("run", bundle.new_id())
    with open(seen) as stream:
        assert {line.strip() for line in stream} == {"/memfd:wharf-oci (deleted)"}


def test_exec_into_a_sub_cgroup_and_refusal_of_one_that_is_missing(bundle):
    name = bundle.start()
    assert "does not exist" in bundle.refused("exec", "--cgroup", "nowhere", name, "true", code=255)
    top = "/sys/fs/cgroup/pids/" + name if os.path.isdir("/sys/fs/cgroup/pids") else None
    if top is None:
        pytest.skip("needs a v1 pids hierarchy")
    os.mkdir(top + "/sub")
    shown = bundle.must("exec", "--cgroup", "pids:sub", name, "cat", "/proc/self/cgroup")
    assert ":pids:/sub\n" in shown


def test_exec_affinity_is_in_force(bundle):
    bundle.process["execCPUAffinity"] = {"initial": "0", "final": "0"}
    name = bundle.start()
    assert bundle.must("exec", name, "grep", "Cpus_allowed_list", "/proc/self/status").split() == [
        "Cpus_allowed_list:",
        "0",
    ]
