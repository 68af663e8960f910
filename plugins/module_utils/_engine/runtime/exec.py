# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""One more process in a running container: same namespaces, limits, filter and capabilities as PID 1 had.

The monitor enters the container's pid namespace for its *children* only, clones, and goes back, so that the new
process is the monitor's own child (its exit code is never lost). The child joins the other namespaces last, through
the pidfd of PID 1 (no path, no race), not dumpable and with every other descriptor closed.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import termios
from collections.abc import Mapping
from typing import Any, NoReturn, Optional

from ..errors import KernelError, StartError
from ..kernel import apparmor, capabilities
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
from . import finalize, init, joined, parent, userns, users, wire
from .execspec import ExecSpec

__all__ = ["ExecSpec", "Started", "Target", "set_window", "spawn"]

_OTHERS = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET


class Started(NamedTuple):
    """``sync`` becomes readable when the program runs (end of file) or could not (a message with ``error``); with a tty
    first a message with the master's descriptor."""

    pid: int
    pidfd: int
    sync: socket.socket


class Target(NamedTuple):
    """The container to join. ``pidfd``: of its PID 1; ``program``: its seccomp filter; ``watched``: somebody in its pid
    namespace may open or trace whoever appears there (see ``joined``)."""

    pidfd: int
    config: Mapping[str, Any]
    user: str
    groups: tuple[str, ...]
    program: Optional[bytes]
    cgroup: Cgroup
    watched: bool = False


def spawn(
    kernel: Kernel,
    target: Target,
    spec: ExecSpec,
    stdio: tuple[int, int, int],
    leaf: str,
) -> Started:
    """``stdio``: descriptors for 0, 1, 2, or -1. ``leaf``: of the container's cgroup; it exists. Raises
    ``KernelError``."""
    cgroup_fd = target.cgroup.fd_v2(leaf)
    interpreter = finalize.interpreter_identity()
    profile = apparmor.choose(target.config["process"])
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    home = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if not target.watched:
            kernel.setns(target.pidfd, CLONE_NEWPID)
        try:
            pid, pidfd, joined = parent.clone_into(kernel, 0, cgroup_fd)
            if pid == 0:
                _main(_Exec(kernel, target, spec, stdio, theirs, interpreter, (leaf, joined, profile)))
        finally:
            # What this process forks from here on is on the host again. Failing to return would put every later
            # child into the container: the kernel always allows it, and if not, the exception ends the request.
            if not target.watched:
                kernel.setns(home, CLONE_NEWPID)
    except OSError as error:
        ours.close()
        raise KernelError.wrap(error, "Cannot enter the container", step="exec_join") from error
    finally:
        os.close(home)
        theirs.close()
        if cgroup_fd is not None:
            os.close(cgroup_fd)
    return Started(pid, pidfd, ours)


class _Exec:
    def __init__(
        self,
        kernel: Kernel,
        target: Target,
        spec: ExecSpec,
        stdio: tuple[int, int, int],
        sync: socket.socket,
        interpreter: tuple[int, int],
        place: tuple[str, bool, str],
    ) -> None:
        self.kernel = kernel
        self.target = target
        self.spec = spec
        self.stdio = stdio
        self.sync = sync
        self.interpreter = interpreter
        self.leaf, self.joined, self.profile = place
        self.process = target.config["process"]
        if spec.privileged:
            self.process = {**self.process, "capabilities": _everything()}
        self.mapped: Optional[userns.Mapped] = None
        if userns.wanted(target.config):
            self.mapped = userns.Mapped(target.pidfd, *userns.maps(target.config))
        self.step = "exec"

    def run(self) -> NoReturn:
        self.prepare()
        identity = self.join()
        self.connect_stdio(self.mapped.identity(identity) if self.mapped else identity)
        self.step = "userns"
        userns.enter(self.kernel, self.mapped, renew=False)
        self.become(identity)

    def prepare(self) -> None:
        """Still on the host's tree, already in the container's pid namespace."""
        self.step = "prepare_process"
        finalize.reset_signals(self.kernel)
        self.kernel.prctl(PR_SET_DUMPABLE, 0)
        os.setsid()
        os.umask(0o022)
        keep = {self.sync.fileno(), self.target.pidfd, *(fd for fd in self.stdio if fd >= 0)}
        low = 3
        for fd in sorted(fd for fd in keep if fd >= 3):
            os.closerange(low, fd)
            low = fd + 1
        os.closerange(low, 1 << 16)
        finalize.set_limits(self.process)
        init.set_oom_score(int(self.process.get("oomScoreAdj") or 0))
        finalize.join_keyring(self.kernel)
        self.target.cgroup.join_self(self.leaf, unified=not self.joined)
        apparmor.confine_next_program(self.profile)

    def join(self) -> users.Identity:
        self.step = "join_namespaces"
        others = _OTHERS | (CLONE_NEWPID if self.target.watched else 0)  # of what this process forks
        self.kernel.setns(self.target.pidfd, others)
        if self.mapped is None:
            os.close(self.target.pidfd)
        self.step = "resolve_user"
        wanted = self.spec.user
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            groups = tuple(self.target.groups) + tuple(self.spec.groups)
            return users.resolve(self.kernel, root, self.target.user if wanted is None else wanted, groups)
        finally:
            os.close(root)

    def connect_stdio(self, identity: users.Identity) -> None:
        self.step = "stdio"
        if self.spec.tty:
            self._terminal(identity)
            return
        for number, fd in enumerate(self.stdio):
            if fd < 0:
                fd = init.open_container_null()
            elif stat.S_ISFIFO(os.fstat(fd).st_mode):
                os.fchown(fd, identity.uid, identity.gid)  # so that /dev/stdout can be opened again
            os.dup2(fd, number)
        for fd in {fd for fd in self.stdio if fd > 2}:
            os.close(fd)

    def _terminal(self, identity: users.Identity) -> None:
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        userns.make_files_as_root_inside(self.kernel, self.mapped)
        try:
            master = init.open_terminal(self.kernel, root)
        finally:
            os.close(root)
        init.attach_terminal(master, identity, controlling=not self.target.watched)
        wire.send_packet(self.sync, {"terminal": True}, (master,))
        os.close(master)

    def become(self, identity: users.Identity) -> NoReturn:
        self.step = "chdir"
        cwd = self.spec.cwd or self.process["cwd"]
        entered = finalize.enter_directory(cwd)
        self.step = "become"
        finalize.become(self.kernel, self.process, identity, self.target.program)
        self.step = "chdir"
        if not entered and not finalize.enter_directory(cwd):
            raise StartError(
                "Cannot change to the working directory %s: permission denied" % cwd,
                step="chdir",
                path="chdir",
                details={"exit_code": 126},
            )
        finalize.verify_directory(cwd)
        if self.target.watched:
            self.step = "join_pid"
            init.close_others(self.sync.fileno())
            joined.move(self.kernel, self.sync, {"moved": True})
            if self.spec.tty:
                fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        self.step = "exec"
        process = {**self.process, "env": [*(self.process.get("env") or ()), *self.spec.env]}
        env = finalize.environment(process, identity)
        if self.spec.tty:
            env.setdefault("TERM", "xterm")
        finalize.set_umask(self.process)
        finalize.execute(self.spec.argv, env, self.interpreter)


def _everything() -> dict[str, list[str]]:
    """As Docker's ``exec --privileged``: all capabilities; seccomp, devices and masked paths stay the container's."""
    names = capabilities.resolve(privileged=True)
    return {"bounding": names, "effective": names, "permitted": names, "inheritable": [], "ambient": []}


def _main(work: _Exec) -> NoReturn:
    try:
        work.run()
    except BaseException as error:  # nothing may unwind into the monitor's frames
        try:
            wire.send_packet(work.sync, {"error": wire.error_to_dict(error, work.step)})
        except OSError:  # nobody is listening any more
            pass
    finally:
        os._exit(1)


def set_window(master: int, rows: int, columns: int) -> None:
    """TIOCSWINSZ on a terminal's master."""
    import struct

    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
