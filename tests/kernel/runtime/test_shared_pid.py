# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whoever is in a pid namespace sees every process that comes into it: there must be nothing of the host to see.

The observer looks at the container's /proc with the host's privileges, so it sees more than a hostile container with
CAP_SYS_PTRACE could, and as fast as it can.
"""

from __future__ import annotations

import os
import stat
import threading
import time

import pytest
from module_utils._engine.errors import StartError
from module_utils._engine.kernel import procfs
from module_utils._engine.kernel.idmap import Range
from module_utils._engine.kernel.syscalls import Kernel
from module_utils._engine.runtime import rootfs
from module_utils._engine.runtime.execspec import ExecSpec

HOST_ROOT = (os.stat("/").st_dev, os.stat("/").st_ino)


class Observer:
    """``with Observer(pid)``: everything of the host that processes beside ``pid`` in its /proc had meanwhile."""

    def __init__(self, pid):
        self.proc = os.open("/proc/%d/root/proc" % pid, os.O_RDONLY | os.O_DIRECTORY)
        self.host_mounts = os.stat("/proc/self/ns/mnt").st_ino
        self.seen = set()
        self.processes = set()
        self.known = set(os.listdir(self.proc))
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_exception):
        self.stop.set()
        self.thread.join()
        os.close(self.proc)

    def until(self, count):
        deadline = time.monotonic() + 10
        while len(self.processes) < count:
            assert time.monotonic() < deadline, self.processes
            time.sleep(0.001)

    def run(self):
        while not self.stop.is_set():
            for name in os.listdir(self.proc):
                if name.isdigit() and name not in self.known:
                    self.look(name)

    def look(self, pid):
        self.processes.add(pid)
        try:
            info = os.stat(pid + "/root", dir_fd=self.proc)
            if (info.st_dev, info.st_ino) == HOST_ROOT:
                self.seen.add("root")
            if os.stat(pid + "/ns/mnt", dir_fd=self.proc).st_ino == self.host_mounts:
                self.seen.add("mounts")
            table = os.open(pid + "/fd", os.O_RDONLY | os.O_DIRECTORY, dir_fd=self.proc)
        except OSError:  # it ended
            return
        try:
            for number in os.listdir(table):
                kind = os.stat(number, dir_fd=table).st_mode
                link = os.readlink(number, dir_fd=table)
                if int(number) > 2 and not stat.S_ISSOCK(kind) and not link.endswith("/pts/ptmx"):
                    self.seen.add("descriptor of " + link)
        except OSError:  # it has executed its program, or ended
            return
        finally:
            os.close(table)


def test_a_container_that_joins_shows_nothing_of_the_host(engine):
    other = engine.start("sleep 100", capabilities=["SYS_PTRACE"])
    with Observer(engine.runtime.state(other)["pid"]) as observer:
        for number in range(8):
            cid = engine.start("sleep 100", pid_mode="container:" + other, tty=number == 0)
            pid = engine.runtime.state(cid)["pid"]
            assert os.readlink("/proc/%d/ns/pid" % pid) == os.readlink(
                "/proc/%d/ns/pid" % engine.runtime.state(other)["pid"]
            )
            observer.until(number + 1)
    assert observer.seen == set()


@pytest.mark.parametrize("asked", [{"capabilities": ["SYS_PTRACE"]}, {"privileged": True}])
def test_an_exec_where_somebody_may_trace_shows_nothing_of_the_host(engine, asked):
    cid = engine.start("sleep 100", **asked)
    with Observer(engine.runtime.state(cid)["pid"]) as observer:
        assert engine.exec(cid, "sleep", "1", tty=True).exit_code == 0
        for number in range(1, 8):
            engine.runtime.exec(cid, ExecSpec(["sleep", "1000"]), detach=True)
            observer.until(number + 1)
    assert observer.seen == set()


def test_an_exec_into_a_container_whose_processes_another_may_trace_shows_nothing_of_the_host(engine):
    one = engine.start("sleep 100")
    two = engine.start("sleep 100", pid_mode="container:" + one, capabilities=["SYS_PTRACE"])
    for cid in (one, two):
        with Observer(engine.runtime.state(one)["pid"]) as observer:
            for number in range(4):
                engine.runtime.exec(cid, ExecSpec(["sleep", "1000"]), detach=True)
                observer.until(number + 1)
        assert observer.seen == set()


def test_an_exec_after_one_with_every_capability_shows_nothing_of_the_host(engine):
    cid = engine.start("sleep 100")
    engine.runtime.exec(cid, ExecSpec(["sleep", "1000"], privileged=True), detach=True)
    with Observer(engine.runtime.state(cid)["pid"]) as observer:
        for number in range(4):
            engine.runtime.exec(cid, ExecSpec(["sleep", "1000"]), detach=True)
            observer.until(number + 1)
    assert observer.seen == set()


def test_who_joins_sees_the_other_and_has_masks_of_its_own(engine):
    other = engine.start("exec sleep 12345")
    cid = engine.start("sleep 100", pid_mode="container:" + other)
    result = engine.exec(
        cid, "/bin/sh", "-c", "cat /proc/1/cmdline; cat /proc/kcore; echo x >/proc/sys/kernel/hostname"
    )
    assert result.stdout == b"sleep\x0012345\x00"
    assert b"hostname: Read-only file system" in result.stderr
    engine.runtime.stop(other, 9, 0)
    engine.until(lambda: engine.runtime.state(other)["status"] == "exited")
    engine.until(lambda: engine.runtime.state(cid)["status"] == "exited")  # its namespace ended


def test_exit_codes_terminals_restarts_and_timeouts_work_where_a_process_has_moved(engine):
    other = engine.start("sleep 1000")
    share = {"pid_mode": "container:" + other}
    state, out, _err = engine.sh("tty; id -un; exit 7", tty=True, user="app", **share)
    assert state["exit_code"] == 7 and out.replace("\r", "").split() == ["/dev/pts/0", "app"]
    cid = engine.create(
        ["/bin/sh", "-c", "echo once; exit 3"], run={"restart": {"policy": "on-failure", "retries": 2}}, **share
    )
    engine.runtime.start(cid)
    engine.until(lambda: engine.runtime.state(cid)["status"] == "exited")
    assert engine.output(cid) == "once\n" * 3 and engine.runtime.state(cid)["exit_code"] == 3
    cid = engine.start("sleep 1000", **share)
    assert engine.exec(cid, "/bin/sh", "-c", "exit 9").exit_code == 9
    result = engine.exec(cid, "/bin/sh", "-c", "tty; stty size", tty=True)
    assert result.stdout.startswith(b"/dev/pts/")
    assert engine.exec(cid, "sleep", "1000", timeout=0.2).timed_out
    with pytest.raises(StartError, match="not found") as caught:
        engine.exec(cid, "nothing-there")
    assert caught.value.details["exit_code"] == 127
    engine.runtime.stop(cid, 9, 0)
    assert engine.runtime.state(cid)["exit_code"] == 137


def test_the_starting_process_of_a_joined_container_is_reaped(engine):
    other = engine.start("sleep 100")
    cid = engine.start("sleep 100", pid_mode="container:" + other)
    monitor = engine.runtime.state(cid)["monitor_pid"]
    engine.until(lambda: procfs.children(monitor) == [engine.runtime.state(cid)["pid"]])


class BeforeLinux618(Kernel):
    """procfs could not be made of another pid namespace than one's own."""

    def new_fs(self, fstype, options=(), attrs=0):
        if any(key == "pidns" for key, _value in options):
            raise OSError(22, "Invalid argument", fstype)
        return super().new_fs(fstype, options, attrs)


def shown_proc(pid):
    """In a process of its own, as only one without threads can visit a mount namespace: what its pid 1 is, or why
    not."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            ns = ["/proc/%d/ns/%s" % (pid, name) for name in ("pid", "mnt")]
            mount = {"of": ns, "options": ["nosuid", "noexec", "nodev"], "source": "proc", "destination": "/proc"}
            proc = rootfs._proc_of(BeforeLinux618(), mount)
            fd = os.open("1/cmdline", os.O_RDONLY, dir_fd=proc)
            os.write(write, os.read(fd, 1000))
        except BaseException as error:
            os.write(write, ("%s: %s" % (type(error).__name__, error)).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        answer = stream.read().decode()
    os.waitpid(child, 0)
    return answer


@pytest.mark.parametrize(
    "userns", [None, {"uids": [Range(0, 1879048192, 65536)], "gids": [Range(0, 1879048192, 65536)]}]
)
def test_before_linux_618_the_others_proc_is_shown_once_it_is_sure_to_be_that(engine, userns):
    """With a user namespace the kernel locks what masks it together with it: then that comes along."""
    other = engine.start("exec sleep 4321", userns=userns)
    answer = shown_proc(engine.runtime.state(other)["pid"])
    assert answer == "sleep\x004321\x00"


def test_before_linux_618_a_proc_that_is_not_the_containers_own_is_refused(engine):
    asked = {"capabilities": ["SYS_ADMIN"], "security_opts": ["seccomp=unconfined", "apparmor=unconfined"]}
    script = "mkdir -p /tmp/p; mount -t tmpfs none /proc; echo ready >/tmp/ready; exec sleep 1000"
    other = engine.start(script, **asked)
    ready = engine.paths.container(other) + "/upper/tmp/ready"
    engine.until(lambda: os.path.exists(ready))
    answer = shown_proc(engine.runtime.state(other)["pid"])
    assert "Cannot show the processes" in answer or "not its own" in answer, answer
