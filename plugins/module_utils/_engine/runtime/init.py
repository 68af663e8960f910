# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""PID 1 of a container, from the clone to execve. ``main`` is the whole life of the child; it never returns.

The order is runtime.md's (namespaces, cgroup, mounts, masks, pivot, sysctls, user, seccomp, capabilities, program).
Whatever fails travels back over the sync socket with the step's name; success is the socket's end (close-on-exec).
Everything needed is imported before the clone: after the pivot an import would look in the container's files.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import struct
import termios
from collections.abc import Mapping
from typing import Any, NoReturn, Optional

from ..errors import KernelError, StartError
from ..kernel import apparmor, mounts, procfs
from ..kernel.cgroups import Cgroup
from ..kernel.syscalls import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUTS,
    PR_SET_DUMPABLE,
    Kernel,
)
from ..tuples import NamedTuple
from . import finalize, joined, reaper, rootfs, secrets, userns, users, wire

FLAGS = {
    "mount": CLONE_NEWNS, "cgroup": CLONE_NEWCGROUP, "uts": CLONE_NEWUTS, "ipc": CLONE_NEWIPC, "pid": CLONE_NEWPID,
    "network": CLONE_NEWNET,
}  # fmt: skip

_TIOCGPTPEER = 0x5441  # Linux 4.13; opens the slave without trusting /dev/pts (CVE-2025-52565)
_OPTIONAL_SYSCTLS = ("net.ipv4.ping_group_range", "net.ipv4.ip_unprivileged_port_start")  # set by default, not asked


class Plan(NamedTuple):
    """What the child needs, all decided by the parent. ``stdio``: descriptors for 0, 1, 2, or -1 (the container's
    /dev/null); ``program``: compiled seccomp filter; ``root_mount``: detached overlay."""

    config: Mapping[str, Any]
    user: str
    groups: tuple[str, ...]
    root_mount: int
    hierarchies: tuple[tuple[str, int, tuple[str, ...]], ...]
    program: Optional[bytes]
    stdio: tuple[int, int, int]
    interpreter: tuple[int, int]
    reaper: bool
    cgroup: Cgroup
    joined: bool  # clone3 has put us into the unified hierarchy
    secrets: tuple[secrets.Secret, ...] = ()
    apparmor: str = ""  # the profile; it is loaded
    mapped: Optional[userns.Mapped] = None  # the user namespace; None: the host's


class Init:
    """The stages in order. ``step`` names what is going on, for errors that do not know it."""

    def __init__(self, kernel: Kernel, plan: Plan, sync: socket.socket) -> None:
        self.kernel = kernel
        self.plan = plan
        self.sync = sync
        self.config = plan.config
        self.process: Mapping[str, Any] = plan.config["process"]
        self.step = "init"
        self.terminal = -1
        self.joins_pid = False  # a pid namespace that others are in

    def run(self) -> NoReturn:
        self.prepare_process()
        self.join_namespaces()
        self.build_tree()
        identity = self.prepare_user()
        self.leave_host()
        self.become_container(identity)

    # -- on the host's tree ----------------------------------------------------------------------------------------

    def prepare_process(self) -> None:
        self.step = "prepare_process"
        finalize.reset_signals(self.kernel)
        os.setsid()
        os.umask(0)
        self.kernel.prctl(PR_SET_DUMPABLE, 0)
        finalize.set_limits(self.process)
        set_oom_score(int(self.process.get("oomScoreAdj") or 0))
        finalize.join_keyring(self.kernel)
        # By ourselves: moving another process costs a grace period of the kernel per hierarchy, moving oneself nothing.
        self.plan.cgroup.join_self(unified=not self.plan.joined)
        apparmor.confine_next_program(self.plan.apparmor)

    def wait(self, word: str) -> None:
        message, _fds = wire.recv_packet(self.sync)
        if message is None or not message.get(word):
            os._exit(1)  # the parent died or gave up: nobody is left to tell

    def join_namespaces(self) -> None:
        self.step = "join_namespaces"
        unshare = 0
        for namespace in self.config["linux"]["namespaces"]:
            if namespace["type"] == "user":  # once nothing of the host needs doing any more: leave_host
                continue
            flag = FLAGS[namespace["type"]]
            if "path" not in namespace:
                unshare |= flag & (CLONE_NEWNS | CLONE_NEWCGROUP)
                continue
            try:
                fd = os.open(namespace["path"], os.O_RDONLY | os.O_CLOEXEC)
                try:
                    self.kernel.setns(fd, flag)  # the pid namespace for what this process forks: see joined
                    self.joins_pid = self.joins_pid or flag == CLONE_NEWPID
                finally:
                    os.close(fd)
            except OSError as error:
                raise KernelError.wrap(
                    error,
                    "Cannot join the %s namespace %s" % (namespace["type"], namespace["path"]),
                    step="join_namespace",
                ) from error
        self.step = "unshare"
        # The cgroup namespace only now, from inside our cgroup: that becomes its root.
        self.kernel.unshare(unshare)
        networks = [n for n in self.config["linux"]["namespaces"] if n["type"] == "network"]
        if any("path" not in n or n.get("fresh") for n in networks):
            loopback_up()

    def build_tree(self) -> None:
        self.step = "mounts"
        kernel, root, linux = self.kernel, self.plan.root_mount, self.config["linux"]
        mapped = self.plan.mapped
        sources = rootfs.open_sources(kernel, self.config["mounts"], mapped)
        rootfs.isolate(kernel)
        rootfs.enter(kernel, root)
        userns.make_files_as_root_inside(kernel, mapped)
        rootfs.populate(kernel, root, self.config, sources, self.plan.hierarchies, mapped)
        if self.process.get("terminal"):
            self.step = "terminal"
            self.terminal = open_terminal(kernel, root)
            mount_console(kernel, root, self.terminal)
        self.step = "sysctls"
        self._write_sysctls(linux.get("sysctl") or {})
        self.step = "readonly_paths"
        rootfs.make_readonly(kernel, root, linux.get("readonlyPaths") or ())
        self.step = "mask_paths"
        rootfs.mask(kernel, root, linux.get("maskedPaths") or ())

    def _write_sysctls(self, sysctls: Mapping[str, str]) -> None:
        if not sysctls:
            return
        proc = procfs.private_proc(self.kernel, whole=True)
        try:
            for key, value in sysctls.items():
                try:
                    self._write_sysctl(proc, "sys/" + key.replace(".", "/"), value)
                except FileNotFoundError as error:
                    if key in _OPTIONAL_SYSCTLS:
                        continue
                    raise KernelError.wrap(error, "Cannot set the sysctl %s" % key, step="sysctls") from error
                except OSError as error:
                    sentence = "Cannot set the sysctl %s to %r" % (key, value)
                    raise KernelError.wrap(error, sentence, step="sysctls") from error
        finally:
            os.close(proc)

    def _write_sysctl(self, proc: int, path: str, value: str) -> None:
        try:
            procfs.write_at(proc, path, value)
        except PermissionError:
            if self.plan.mapped is None:
                raise
            with userns.acting_as_root_inside(self.kernel, self.plan.mapped):
                procfs.write_at(proc, path, value)

    def prepare_user(self) -> users.Identity:
        """While the root is still writable: the user, and the working directory (0755 root, as Docker makes it)."""
        self.step = "resolve_user"
        root = self.plan.root_mount
        identity = users.resolve(self.kernel, root, self.plan.user, self.plan.groups)
        self.step = "create_cwd"
        os.umask(0o022)
        if self.process["cwd"] != "/":
            os.close(mounts.mkdir_in_root(self.kernel, root, self.process["cwd"]))
        self.step = "secrets"
        secrets.place(self.kernel, root, self.plan.secrets, identity, self.plan.mapped)
        rootfs.finish(self.kernel, root, bool(self.config["root"].get("readonly")))
        return identity

    def leave_host(self) -> None:
        self.step = "hostname"
        if self.config.get("hostname"):
            self.kernel.sethostname(self.config["hostname"])
        if self.config.get("domainname"):
            self.kernel.setdomainname(self.config["domainname"])
        self.step = "pivot_root"
        rootfs.pivot(self.kernel, self.plan.root_mount)

    # -- in the container ------------------------------------------------------------------------------------------

    def become_container(self, identity: users.Identity) -> NoReturn:
        self.step = "stdio"
        self._connect_stdio(self.plan.mapped.identity(identity) if self.plan.mapped else identity)
        self.step = "userns"
        userns.enter(self.kernel, self.plan.mapped)
        self.step = "chdir"
        entered = finalize.enter_directory(self.process["cwd"])
        self.step = "ready"
        # Descriptors of the host end here at the latest; the sync socket is close-on-exec.
        os.close(self.plan.root_mount)
        if self.joins_pid:
            close_others(self.sync.fileno(), self.terminal)
        else:
            wire.send_packet(self.sync, {"ready": True}, (self.terminal,) if self.terminal >= 0 else ())
            self.wait("run")
            close_others(self.sync.fileno())
        self.step = "become"
        finalize.become(self.kernel, self.process, identity, self.plan.program)
        self.step = "chdir"
        if not entered and not finalize.enter_directory(self.process["cwd"]):
            raise StartError(
                "Cannot change to the working directory %s: permission denied" % self.process["cwd"],
                step="chdir",
                path="working_dir",
                details={"exit_code": 126},
            )
        finalize.verify_directory(self.process["cwd"])
        if self.joins_pid:
            self.step = "join_pid"
            joined.move(self.kernel, self.sync, {"ready": True}, self.terminal)
        self.step = "exec"
        env = finalize.environment(self.process, identity)
        finalize.set_umask(self.process)
        if self.plan.reaper:
            reaper.fork_and_reap(self.sync, self.process.get("terminal", False))
        finalize.execute(self.process["args"], env, self.plan.interpreter)

    def _connect_stdio(self, identity: users.Identity) -> None:
        if self.terminal >= 0:
            attach_terminal(self.terminal, identity, controlling=not self.joins_pid)
            return
        for number, fd in enumerate(self.plan.stdio):
            if fd < 0:
                fd = open_container_null()
                os.dup2(fd, number)
                os.close(fd)
            else:
                # So that a non-root user can open /dev/stdout again.
                os.fchown(fd, identity.uid, identity.gid)
                os.dup2(fd, number)


def main(kernel: Kernel, plan: Plan, sync: socket.socket) -> NoReturn:
    init = Init(kernel, plan, sync)
    try:
        init.run()
    except BaseException as error:  # nothing may unwind into the parent's frames
        try:
            wire.send_packet(sync, {"error": wire.error_to_dict(error, init.step)})
        except OSError:  # the parent is gone
            pass
    finally:
        os._exit(1)


def set_oom_score(wanted: int) -> None:
    """Written while /proc is still the host's: no container's. The monitor protects itself with a low score, which must
    not be inherited."""
    try:
        with open("/proc/thread-self/oom_score_adj", "r+") as stream:
            if int(stream.read()) != wanted:
                stream.seek(0)
                stream.write(str(wanted))
    except OSError as error:
        raise KernelError.wrap(
            error,
            "Cannot set oom_score_adj to %d" % wanted,
            step="oom_score_adj",
            hint="Lowering it needs CAP_SYS_RESOURCE in the engine's environment.",
        ) from error


def open_container_null() -> int:
    """/dev/null of the container (so that no descriptor of the host's /dev gets in), checked to be it."""
    fd = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
    info = os.fstat(fd)
    if not stat.S_ISCHR(info.st_mode) or info.st_rdev != os.makedev(1, 3):
        os.close(fd)
        raise StartError("/dev/null in the container is not the null device", step="stdio", path="/dev/null")
    os.set_blocking(fd, True)
    return fd


def open_terminal(kernel: Kernel, rootfd: int) -> int:
    """Master of a new pty of the container's own devpts, unlocked."""
    try:
        master = kernel.open_in_root(rootfd, "dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY)
        fcntl.ioctl(master, termios.TIOCSPTLCK if hasattr(termios, "TIOCSPTLCK") else 0x40045431, struct.pack("i", 0))
    except OSError as error:
        raise KernelError.wrap(error, "Cannot allocate a terminal", step="terminal") from error
    return master


def attach_terminal(master: int, identity: users.Identity, *, controlling: bool = True) -> None:
    """The slave as controlling terminal (the caller is a session leader then) and as 0, 1, 2."""
    slave = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY)
    os.fchown(slave, identity.uid, -1)
    if controlling:
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for number in (0, 1, 2):
        os.dup2(slave, number)
    if slave > 2:
        os.close(slave)


def mount_console(kernel: Kernel, rootfd: int, master: int) -> None:
    """/dev/console is the pty's slave; bound by descriptor, not by its name in /dev/pts."""
    slave = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY)
    try:
        clone = kernel.clone_tree(slave, "", recursive=False)
        try:
            mounts.attach_at(kernel, rootfd, "/dev/console", clone, "file")
        finally:
            os.close(clone)
    finally:
        os.close(slave)


def close_others(*keep: int) -> None:
    low = 3
    for fd in sorted(fd for fd in keep if fd >= 3):
        os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, 1 << 16)


def loopback_up() -> None:
    """SIOCGIFFLAGS, SIOCSIFFLAGS with IFF_UP on ``lo``."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack_from("h", fcntl.ioctl(sock, 0x8913, request), 16)[0]
        fcntl.ioctl(sock, 0x8914, struct.pack("16sh14x", b"lo", flags | 1))
