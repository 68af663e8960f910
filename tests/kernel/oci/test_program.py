# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the program is given: user, capabilities, limits, scheduling, filter, descriptors, terminal."""

from __future__ import annotations

import array
import json
import os
import pty
import socket
import subprocess
from typing import Any

import pytest

pytestmark = pytest.mark.root

SETS = ("bounding", "effective", "permitted", "inheritable", "ambient")


def _status(text):
    return {line.partition(":")[0]: line.partition(":")[2].strip() for line in text.splitlines()}


def test_capabilities_are_exactly_those_asked_for_and_unknown_ones_are_left_out_with_a_warning(bundle):
    bundle.process["capabilities"] = {
        "bounding": ["CAP_KILL", "CAP_CHOWN", "CAP_NEVER_HEARD_OF"], "effective": ["CAP_KILL"],
        "permitted": ["CAP_KILL", "CAP_CHOWN"],
    }  # fmt: skip
    bundle.process["args"] = ["cat", "/proc/self/status"]
    result = bundle.call("run", bundle.new_id())
    found = _status(result.stdout)
    assert int(found["CapBnd"], 16) == 1 << 5 | 1 << 0
    assert int(found["CapInh"], 16) == 0 and int(found["CapAmb"], 16) == 0
    assert "CAP_NEVER_HEARD_OF" in result.stderr


def test_ambient_capabilities_reach_a_user_that_is_not_root(bundle):
    bundle.process["capabilities"] = {key: ["CAP_NET_BIND_SERVICE"] for key in SETS}
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    bundle.process["noNewPrivileges"] = False
    found = _status(bundle.sh("cat /proc/self/status"))
    assert int(found["CapEff"], 16) == 1 << 10 and found["NoNewPrivs"] == "0"


def test_without_ambient_a_user_that_is_not_root_has_none(bundle):
    bundle.process["user"] = {"uid": 1000, "gid": 1000, "additionalGids": [10, 20], "umask": 0o27}
    found = _status(bundle.sh("cat /proc/self/status"))
    assert int(found["CapEff"], 16) == 0 and int(found["CapPrm"], 16) == 0
    assert found["Groups"] == "10 20" and found["NoNewPrivs"] == "1" and found["Umask"] == "0027"
    assert found["Uid"].split() == ["1000"] * 4


def test_home_comes_from_the_containers_passwd_unless_it_is_given(bundle):
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    assert bundle.sh("echo $HOME") == "/home/app\n"
    bundle.process["env"].append("HOME=/elsewhere")
    assert bundle.sh("echo $HOME") == "/elsewhere\n"


def test_the_working_directory_is_made_and_must_lie_inside(bundle):
    bundle.process["cwd"] = "/made/here"
    assert bundle.sh("pwd") == "/made/here\n"
    bundle.process["cwd"] = "/proc/self/fd/8"
    error = bundle.refused("run", bundle.new_id())
    assert "/proc/self/fd/8" in error


def test_rlimits_oom_score_scheduler_and_io_priority(bundle):
    bundle.process["rlimits"] = [
        {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
    ]
    bundle.process["oomScoreAdj"] = 321
    bundle.process["scheduler"] = {"policy": "SCHED_BATCH", "nice": 5}
    bundle.process["ioPriority"] = {"class": "IOPRIO_CLASS_IDLE", "priority": 0}
    name = bundle.start()
    pid = bundle.state(name)["pid"]
    with open("/proc/%d/limits" % pid) as stream:
        limits = {line[:25].strip(): line[25:].split()[:2] for line in stream}
    assert limits["Max open files"] == ["100", "200"] and limits["Max core file size"] == ["0", "0"]
    with open("/proc/%d/oom_score_adj" % pid) as stream:
        assert stream.read() == "321\n"
    assert os.sched_getscheduler(pid) == os.SCHED_BATCH and os.getpriority(os.PRIO_PROCESS, pid) == 5
    shown = subprocess.run(["ionice", "-p", str(pid)], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "idle"


def test_the_oom_score_is_left_alone_unless_asked_for(bundle):
    with open("/proc/self/oom_score_adj") as stream:
        assert bundle.sh("cat /proc/self/oom_score_adj") == stream.read()


def test_personality_makes_a_32_bit_machine(bundle):
    bundle.linux["personality"] = {"domain": "LINUX32"}
    assert bundle.sh("uname -m") == "i686\n"


def test_the_program_has_no_descriptors_but_those_preserved(bundle):
    assert bundle.sh("echo /proc/self/fd/*").split() == ["/proc/self/fd/%d" % n for n in (0, 1, 2, 3)]
    read, write = os.pipe()
    os.write(write, b"handed on")
    os.close(write)
    bundle.process["args"] = ["sh", "-c", "cat <&3; echo /proc/self/fd/*"]
    name = bundle.new_id()
    bundle.call("list")
    argv = bundle.argv("run", "--preserve-fds", "1", name)
    move: dict[str, Any] = {"pass_fds": [3], "preexec_fn": lambda: os.dup2(read, 3)}
    result = subprocess.run(argv, capture_output=True, text=True, cwd=bundle.path, check=False, **move)
    os.close(read)
    assert result.stdout.startswith("handed on"), result.stderr
    assert len(result.stdout.replace("handed on", "").split()) <= 5
    assert "descriptor 3 is not open" in bundle.refused("run", "--preserve-fds", "1", bundle.new_id())


# -- seccomp -------------------------------------------------------------------------------------------------------


def _seccomp(bundle, default, rules, **more):
    bundle.linux["seccomp"] = {
        "defaultAction": default,
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": rules,
        **more,
    }


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_a_filter_forbids_calls_and_lets_all_others_through(bundle, no_new_privileges):
    bundle.process["noNewPrivileges"] = no_new_privileges
    _seccomp(bundle, "SCMP_ACT_ALLOW", [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}])
    shown = bundle.sh("mkdir /tmp/x 2>&1; grep Seccomp: /proc/self/status; touch /tmp/y && echo fine")
    assert "Operation not supported" in shown and "Seccomp:\t2" in shown and "fine" in shown


def test_a_filter_looks_at_arguments_and_the_first_matching_action_counts(bundle):
    rules = [
        {
            "names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 11,
            "args": [{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}],
        },
        {
            "names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95,
            "args": [{"index": 1, "value": 8, "valueTwo": 8, "op": "SCMP_CMP_MASKED_EQ"}],
        },
    ]  # fmt: skip
    _seccomp(bundle, "SCMP_ACT_ALLOW", rules)
    script = "for s in 10 12 1; do kill -$s 1 2>&1; done; echo done"
    bundle.process["args"] = ["sh", "-c", "trap '' USR1 USR2 HUP; sh -c %r; exit 0" % script]
    shown = bundle.must("run", bundle.new_id())
    assert "Resource temporarily unavailable" in shown and "Operation not supported" in shown
    assert shown.count("can't kill") == 2 and "done" in shown


def test_the_default_errno_and_flags_are_the_profiles(bundle):
    allowed = "read write open openat close fstat newfstatat lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask ioctl access dup dup2 getpid execve exit exit_group wait4 arch_prctl set_tid_address set_robust_list rseq prlimit64 getrandom futex stat lstat fcntl getdents64 getcwd getuid geteuid getgid getegid readlink uname prctl capset capget setgroups setresuid setresgid setresgid sendmsg sendto recvmsg recvfrom chdir umask rt_sigreturn sigaltstack clone fork vfork getppid poll ppoll clock_gettime gettid madvise statx close_range socket fchown setuid setgid"  # noqa: E501
    _seccomp(
        bundle, "SCMP_ACT_ERRNO", [{"names": allowed.split(), "action": "SCMP_ACT_ALLOW"}], defaultErrnoRet=111,
        flags=["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"],
    )  # fmt: skip
    assert "Connection refused" in bundle.sh("mkdir /tmp/x 2>&1; true")
    _seccomp(bundle, "SCMP_ACT_ALLOW", [], flags=["SECCOMP_FILTER_FLAG_NOPE"])
    assert "SECCOMP_FILTER_FLAG_NOPE" in bundle.refused("run", bundle.new_id())


def test_an_agent_gets_the_listener_and_the_containers_state(bundle):
    listening = socket.socket(socket.AF_UNIX)
    path = bundle.path + "/agent.sock"
    listening.bind(path)
    listening.listen(1)
    listening.settimeout(60)
    _seccomp(
        bundle, "SCMP_ACT_ALLOW", [{"names": ["mknod", "mknodat"], "action": "SCMP_ACT_NOTIFY"}],
        listenerPath=path, listenerMetadata="for the agent",
    )  # fmt: skip
    name = bundle.start()
    conn, _address = listening.accept()
    text, control, _flags, _from = conn.recvmsg(65536, socket.CMSG_SPACE(4))
    fds = array.array("i", control[0][2])
    assert os.readlink("/proc/self/fd/%d" % fds[0]) == "anon_inode:seccomp notify"
    message = json.loads(text)
    assert message["fds"] == ["seccompFd"] and message["metadata"] == "for the agent"
    assert message["pid"] == bundle.state(name)["pid"] and message["state"]["id"] == name
    os.close(fds[0])
    conn.close()
    listening.close()
    bundle.linux["seccomp"].pop("listenerPath")
    bundle.linux["seccomp"].pop("listenerMetadata")
    assert "needs listenerPath" in bundle.refused("create", bundle.new_id())


# -- terminals -----------------------------------------------------------------------------------------------------


def _receive_master(path):
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen(1)
    listening.settimeout(60)
    return listening


def _take(listening):
    conn, _address = listening.accept()
    _text, control, _flags, _from = conn.recvmsg(100, socket.CMSG_SPACE(4))
    conn.close()
    listening.close()
    return array.array("i", control[0][2])[0]


def _read_all(master):
    text = b""
    while True:
        try:
            data = os.read(master, 4096)
        except OSError:  # EIO: the other end is closed
            break
        if not data:
            break
        text += data
    return text.decode()


def test_a_terminal_goes_to_the_console_socket_with_the_size_asked_for(bundle):
    listening = _receive_master(bundle.path + "/console")
    bundle.process.update(terminal=True, consoleSize={"height": 33, "width": 77})
    bundle.process["args"] = ["sh", "-c", "tty; stty size; ls -l /dev/console | cut -c1; test -t 0 && echo terminal"]
    name = bundle.create("--console-socket", bundle.path + "/console")
    master = _take(listening)
    bundle.must("start", name)
    assert _read_all(master).split() == ["/dev/pts/0", "33", "77", "c", "terminal"]
    os.close(master)


def test_terminals_and_console_sockets_belong_together(bundle):
    assert "cannot use console socket" in bundle.refused("create", "--console-socket", "/x", bundle.new_id())
    bundle.process["terminal"] = True
    assert "without setting console socket" in bundle.refused("create", bundle.new_id())
    assert "without setting console socket" in bundle.refused("run", "-d", bundle.new_id())
    error = bundle.refused("create", "--console-socket", "/no/such/socket", bundle.new_id())
    assert "/no/such/socket" in error and os.listdir(bundle.run_root) == []


def test_run_in_the_foreground_relays_our_terminal(bundle):
    bundle.process.update(terminal=True)
    bundle.process["args"] = ["sh", "-c", "read word; echo got $word; tty"]
    name = bundle.new_id()
    bundle.call("list")
    master, slave = pty.openpty()
    running = subprocess.Popen(bundle.argv("run", name), stdin=slave, stdout=slave, stderr=slave, cwd=bundle.path)
    os.close(slave)
    os.write(master, b"hello\n")
    text = _read_all(master)
    assert running.wait(60) == 0
    os.close(master)
    assert "got hello" in text and "/dev/pts/0" in text
