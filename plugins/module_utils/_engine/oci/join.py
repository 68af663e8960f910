# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The child of ``exec``: into a running container's namespaces, and nothing of the host's comes along.

It is cloned into the container's pid namespace, so whoever is in there can see it from its first moment: it is not
dumpable before it exists (its parent is not), keeps no descriptor of the host, joins the other namespaces all at once
through the pidfd of the first process (no path, no race), and gives up what it may not have before anything of the
container's is looked at.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, Optional

from ..errors import KernelError
from ..kernel import apparmor
from ..kernel.syscalls import CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER, PR_SET_DUMPABLE, Kernel
from ..runtime import finalize, wire
from ..runtime import init as engine
from ..tuples import NamedTuple
from . import attributes, filters, init, launch, spaces
from .config import FILES

_FLAGS = {**spaces.FLAGS, "mount": CLONE_NEWNS}


class Plan(NamedTuple):
    """``pidfd``: of the container's first process; ``flags``: the namespaces it does not share with us; ``groups``:
    directories to enter, with their hierarchy's version, the unified one first."""

    config: Mapping[str, Any]
    process: Mapping[str, Any]
    pidfd: int
    flags: int
    groups: tuple[tuple[str, int], ...]
    program: Optional[filters.Filter]
    interpreter: tuple[int, int]
    preserve: int
    apparmor: str


def foreign(pid: int) -> int:
    """Flags of the namespaces in which ``pid`` is and we are not: joining our own user namespace is an error."""
    flags = 0
    for kind, flag in _FLAGS.items():
        try:
            theirs = os.stat("/proc/%d/ns/%s" % (pid, FILES[kind]))
            ours = os.stat("/proc/self/ns/" + FILES[kind])
        except FileNotFoundError:  # a kernel without such namespaces
            continue
        if (theirs.st_dev, theirs.st_ino) != (ours.st_dev, ours.st_ino):
            flags |= flag
    return flags


def _clone(kernel: Kernel, plan: Plan, theirs: socket.socket, ours: socket.socket) -> tuple[int, int]:
    """``(pid, pidfd)``: a child of ours, in the container's pid namespace."""
    cgroup_fd = -1
    if plan.groups and plan.groups[0][1] == 2:
        cgroup_fd = os.open(plan.groups[0][0], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    home = os.open("/proc/self/ns/pid_for_children", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if plan.flags & CLONE_NEWPID:
            kernel.setns(plan.pidfd, CLONE_NEWPID)
        try:
            # A CPU affinity to start with is set before the container's own cpuset takes hold.
            direct = cgroup_fd if not (plan.process.get("execCPUAffinity") or {}).get("initial") else -1
            pid, pidfd, joined = launch.clone_into(kernel, 0, direct if direct >= 0 else None)
            if pid == 0:
                ours.close()
                _main(kernel, plan, theirs, joined)
        finally:
            if plan.flags & CLONE_NEWPID:
                kernel.setns(home, CLONE_NEWPID)
    except OSError as error:
        raise KernelError.wrap(error, "Cannot enter the container", step="exec_join") from error
    finally:
        os.close(home)
        if cgroup_fd >= 0:
            os.close(cgroup_fd)
    return launch.number(pidfd), pidfd


def start(
    kernel: Kernel, plan: Plan, send: Callable[[int], None], listener: Callable[[int, int], None]
) -> launch.Child:
    """``send(terminal)`` hands a terminal's master on. Raises ``WharfError``; then no process is left."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        pid, pidfd = _clone(kernel, plan, theirs, ours)
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    try:
        return launch.follow(pid, pidfd, ours, launch.Talk(_nothing, lambda _p, _s, fd: _sent(send, fd), listener))
    finally:
        ours.close()


def _nothing(_pid: int) -> None:
    """exec has no hooks."""


def _sent(send: Callable[[int], None], terminal: int) -> None:
    if terminal >= 0:
        send(terminal)


class _Exec:
    def __init__(self, kernel: Kernel, plan: Plan, sync: socket.socket, joined: bool) -> None:
        self.kernel = kernel
        self.plan = plan
        self.sync = sync
        self.joined = joined
        self.process = plan.process
        self.step = "exec"

    def run(self) -> NoReturn:
        self.prepare()
        self.join()
        self.become()

    def prepare(self) -> None:
        """Still on the host's tree, already in the container's pid namespace."""
        self.step = "prepare_process"
        kernel, plan = self.kernel, self.plan
        finalize.reset_signals(kernel)
        kernel.prctl(PR_SET_DUMPABLE, 0)
        os.setsid()
        os.umask(0o022)
        init.close_others(plan.preserve, (self.sync.fileno(), plan.pidfd))
        finalize.set_limits(self.process)
        if self.process.get("oomScoreAdj") is not None:
            engine.set_oom_score(int(self.process["oomScoreAdj"]))
        finalize.join_keyring(kernel)
        attributes.apply(kernel, self.process)
        attributes.set_affinity(self.process, "initial")
        self.step = "join_cgroup"
        for directory, version in plan.groups:
            if version == 1 or not self.joined:
                _enter_cgroup(directory, version)
        attributes.set_affinity(self.process, "final")
        apparmor.confine_next_program(plan.apparmor)

    def join(self) -> None:
        self.step = "join_namespaces"
        flags = self.plan.flags & ~CLONE_NEWPID
        if flags:
            self.kernel.setns(self.plan.pidfd, flags)
        os.close(self.plan.pidfd)
        if flags & CLONE_NEWUSER:
            try:
                os.setgroups([])
            except PermissionError:  # denied there for ever; see init
                pass
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
        os.chdir("/")

    def become(self) -> NoReturn:
        kernel, process = self.kernel, self.process
        self.step = "resolve_user"
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        identity = init.identify(kernel, root, process)
        self.step = "stdio"
        terminal: tuple[int, ...] = ()
        if process.get("terminal"):
            master = engine.open_terminal(kernel, root)
            size = process.get("consoleSize")
            if size:
                init.set_size(master, int(size.get("height") or 0), int(size.get("width") or 0))
            engine.attach_terminal(master, identity)
            terminal = (master,)
        else:
            init.own_stdio(identity)
        os.close(root)
        wire.send_packet(self.sync, {"ready": True}, terminal)
        for fd in terminal:
            os.close(fd)
        message, _fds = wire.recv_packet(self.sync)
        if not message or "run" not in message:
            os._exit(1)
        self.step = "chdir"
        entered = finalize.enter_directory(process["cwd"])
        self.step = "become"
        attributes.set_personality(kernel, self.plan.config["linux"])
        init.become(kernel, process, identity, self.plan.program, self.offer_listener)
        init.enter_again(process["cwd"], entered)
        self.step = "exec"
        env = init.environment(process, identity, self.plan.preserve)
        finalize.set_umask(process)
        finalize.execute(process["args"], env, self.plan.interpreter)

    def offer_listener(self, listener: int) -> None:
        wire.send_packet(self.sync, {"listener": True}, (listener,))
        os.close(listener)
        message, _fds = wire.recv_packet(self.sync)
        if not message or "taken" not in message:
            os._exit(1)


def _enter_cgroup(directory: str, version: int) -> None:
    try:
        fd = os.open(directory + ("/tasks" if version == 1 else "/cgroup.procs"), os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, b"0")
        finally:
            os.close(fd)
    except OSError as error:
        raise KernelError.wrap(error, "Cannot enter the cgroup %s" % directory, step="join_cgroup") from error


def _main(kernel: Kernel, plan: Plan, sync: socket.socket, joined: bool) -> NoReturn:
    work = _Exec(kernel, plan, sync, joined)
    try:
        work.run()
    except BaseException as error:  # nothing may unwind into the parent's frames
        try:
            wire.send_packet(sync, {"error": wire.error_to_dict(error, work.step)})
        except OSError:  # nobody is listening any more
            pass
    finally:
        os._exit(1)
