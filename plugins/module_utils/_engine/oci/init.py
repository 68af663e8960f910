# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The other side of the clone: a container's first process, up to execve. ``main`` never returns.

Errors travel back over the sync socket with the step's name while somebody listens; after ``start`` over
``start.result``. Everything needed is imported before the clone: after the pivot an import would look in the
container's files.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from collections.abc import Mapping
from typing import Any, NoReturn, Optional

from ..errors import KernelError, StartError
from ..kernel import apparmor, capabilities, mounts, procfs
from ..kernel.cgroups import Cgroup
from ..kernel.syscalls import CLONE_NEWCGROUP, CLONE_NEWNS, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS, Kernel
from ..runtime import finalize, rootfs, users, wire
from ..runtime import init as engine
from ..tuples import NamedTuple
from . import attributes, filters, hooks, spaces, tree

_STDIO = (0, 1, 2)


class Plan(NamedTuple):
    """Decided by the parent. ``preserve``: how many descriptors from 3 on the program gets; ``waiting``: the read ends
    ``(exec.fifo, start.result)`` of a created container, or None when it starts at once; ``joined``: clone3 has put
    us into the unified hierarchy."""

    config: Mapping[str, Any]
    spaces: Mapping[str, str]
    tree: tree.Tree
    group: Optional[Cgroup]
    hierarchies: tuple[tuple[str, int, tuple[str, ...]], ...]
    program: Optional[filters.Filter]
    interpreter: tuple[int, int]
    preserve: int
    waiting: Optional[tuple[int, int]]
    no_pivot: bool
    keyring: bool
    state: Mapping[str, Any]
    apparmor: str
    joined: bool = False


def prepare(kernel: Kernel, plan: Plan) -> None:
    """What needs the host's rights, before a user namespace is entered: limits may be raised, the cgroups' files are
    ours to write, and /proc is the host's. For the first process of the chain, whichever that is."""
    process = plan.config["process"]
    finalize.reset_signals(kernel)
    kernel.prctl(PR_SET_DUMPABLE, 0)
    os.umask(0)
    finalize.set_limits(process)
    if process.get("oomScoreAdj") is not None:
        engine.set_oom_score(int(process["oomScoreAdj"]))
    if plan.group is not None:
        plan.group.join_self("", unified=not plan.joined)
    attributes.apply(kernel, process)
    apparmor.confine_next_program(plan.apparmor)


class Init:
    """The stages in order. ``step`` names what is going on, for errors that do not know it."""

    def __init__(self, kernel: Kernel, plan: Plan, sync: socket.socket) -> None:
        self.kernel = kernel
        self.plan = plan
        self.sync = sync
        self.config = plan.config
        self.linux: Mapping[str, Any] = plan.config["linux"]
        self.process: Mapping[str, Any] = plan.config["process"]
        self.step = "init"
        self.terminal = -1
        self.answer = sync.fileno()

    def run(self, prepared: bool) -> NoReturn:
        self.step = "prepare_process"
        if not prepared:
            prepare(self.kernel, self.plan)
        os.setsid()
        if self.plan.keyring:
            finalize.join_keyring(self.kernel)
        self.enter_namespaces()
        self.build_tree()
        self.call_hooks()
        self.harden()
        identity = self.prepare_user()
        self.leave_host()
        self.become_container(identity)

    # -- on the host's tree ----------------------------------------------------------------------------------------

    def enter_namespaces(self) -> None:
        self.step = "join_namespaces"
        own = self.plan.spaces
        if "user" not in own:
            spaces.join(self.kernel, own)
        self.step = "unshare"
        # The cgroup namespace only now, from inside our cgroup: that becomes its root.
        self.kernel.unshare(CLONE_NEWNS | (CLONE_NEWCGROUP if own.get("cgroup") == "" else 0))
        if own.get("network") == "":
            engine.loopback_up()

    def build_tree(self) -> None:
        self.step = "mounts"
        tree.enter(self.kernel, self.plan.tree)
        tree.build(self.kernel, self.plan.tree, self.config, self.plan.hierarchies)
        if self.process.get("terminal"):
            self.step = "terminal"
            self.terminal = engine.open_terminal(self.kernel, self.plan.tree.root)
            size = self.process.get("consoleSize")
            if size:
                set_size(self.terminal, int(size.get("height") or 0), int(size.get("width") or 0))
            engine.mount_console(self.kernel, self.plan.tree.root, self.terminal)

    def call_hooks(self) -> None:
        """The parent's between our "hooks" and its "go"; ours see the host's files from inside the namespaces."""
        self.step = "hooks"
        if hooks.of(self.config, "prestart") or hooks.of(self.config, "createRuntime"):
            wire.send_packet(self.sync, {"hooks": True})
            self.wait("go")
        if hooks.of(self.config, "createContainer"):
            os.chdir(self.plan.state["bundle"])
            hooks.run(self.config, "createContainer", self.plan.state)

    def wait(self, word: str) -> dict[str, Any]:
        message, _fds = wire.recv_packet(self.sync)
        if message is None or word not in message:
            os._exit(1)  # the parent died or gave up: nobody is left to tell
        return message

    def harden(self) -> None:
        root = self.plan.tree.root
        self.step = "sysctls"
        write_sysctls(self.kernel, self.linux.get("sysctl") or {})
        self.step = "readonly_paths"
        rootfs.make_readonly(self.kernel, root, self.linux.get("readonlyPaths") or ())
        self.step = "mask_paths"
        rootfs.mask(self.kernel, root, self.linux.get("maskedPaths") or ())

    def prepare_user(self) -> users.Identity:
        root = self.plan.tree.root
        self.step = "resolve_user"
        identity = identify(self.kernel, root, self.process)
        self.step = "create_cwd"
        os.umask(0o022)
        if self.process["cwd"] != "/":
            os.close(mounts.mkdir_in_root(self.kernel, root, self.process["cwd"]))
        rootfs.finish(self.kernel, root, bool(self.config["root"].get("readonly")))
        return identity

    def leave_host(self) -> None:
        self.step = "hostname"
        if self.config.get("hostname"):
            self.kernel.sethostname(self.config["hostname"])
        if self.config.get("domainname"):
            self.kernel.setdomainname(self.config["domainname"])
        self.step = "pivot_root"
        word = self.linux.get("rootfsPropagation") or ""
        tree.pivot(self.kernel, self.plan.tree, word, self.plan.no_pivot)

    # -- in the container ------------------------------------------------------------------------------------------

    def become_container(self, identity: users.Identity) -> NoReturn:
        self.step = "stdio"
        if self.terminal >= 0:
            engine.attach_terminal(self.terminal, identity)
        else:
            own_stdio(identity)
        self.step = "chdir"
        cwd = self.process["cwd"]
        entered = finalize.enter_directory(cwd)
        self.step = "ready"
        wire.send_packet(self.sync, {"ready": True}, (self.terminal,) if self.terminal >= 0 else ())
        pid = int(self.wait("run")["run"])
        close_others(self.plan.preserve, (self.sync.fileno(), *(self.plan.waiting or ())))
        self.step = "become"
        attributes.set_personality(self.kernel, self.linux)
        become(self.kernel, self.process, identity, self.plan.program, self.offer_listener)
        enter_again(cwd, entered)
        self.step = "exec"
        env = environment(self.process, identity, self.plan.preserve)
        program = finalize.find_program(self.process["args"][0], env)
        finalize.set_umask(self.process)
        if self.plan.waiting is not None:
            self.wait_for_start(*self.plan.waiting)
        if hooks.of(self.config, "startContainer"):
            self.step = "hooks"
            hooks.run(self.config, "startContainer", {**self.plan.state, "pid": pid, "status": "created"})
        self.step = "exec"
        finalize.execute(self.process["args"], env, self.plan.interpreter, program)

    def offer_listener(self, listener: int) -> None:
        wire.send_packet(self.sync, {"listener": True}, (listener,))
        os.close(listener)
        self.wait("taken")

    def wait_for_start(self, fifo: int, result: int) -> None:
        """Block until ``start`` writes. From then on errors are for it."""
        os.write(self.sync.fileno(), b'{"waiting":true}')
        self.sync.close()
        self.answer = result
        if os.read(fifo, 1) != b"0":
            os._exit(1)

    def tell(self, error: BaseException) -> None:
        import json

        message = {"error": wire.error_to_dict(error, self.step)}
        os.write(
            self.answer, json.dumps(message).encode()[:4000] if self.answer != self.sync.fileno() else _packet(message)
        )


def _packet(message: dict[str, Any]) -> bytes:
    import json

    return json.dumps(message).encode()


def main(kernel: Kernel, plan: Plan, sync: socket.socket, prepared: bool = False) -> NoReturn:
    init = Init(kernel, plan, sync)
    try:
        init.run(prepared)
    except BaseException as error:  # nothing may unwind into the parent's frames
        try:
            init.tell(error)
        except OSError:  # nobody is listening any more
            pass
    finally:
        os._exit(1)


# -- shared with exec ----------------------------------------------------------------------------------------------


def identify(kernel: Kernel, root: int, process: Mapping[str, Any]) -> users.Identity:
    """The ids as given; only HOME comes from the container's passwd."""
    user = process.get("user") or {}
    uid, gid = int(user.get("uid") or 0), int(user.get("gid") or 0)
    home = "/"
    if uid <= users.MAX_ID and not any(line.startswith("HOME=") for line in process.get("env") or ()):
        home = users.resolve(kernel, root, str(uid)).home
    return users.Identity(uid, gid, tuple(user.get("additionalGids") or ()), home, "")


def become(
    kernel: Kernel, process: Mapping[str, Any], identity: users.Identity, program: Optional[filters.Filter], offer: Any
) -> None:
    """Filter, user, capabilities. Without no_new_privs the filter is loaded while we have CAP_SYS_ADMIN; with it last.
    ``offer``: called with the listener's descriptor when the profile has an agent."""

    def load() -> None:
        if program is not None:
            listener = filters.load(kernel, program)
            if listener >= 0:
                offer(listener)

    no_new_privileges = bool(process.get("noNewPrivileges"))
    if not no_new_privileges:
        load()
    sets = {key: known(names) for key, names in (process.get("capabilities") or {}).items()}
    capabilities.apply(
        kernel,
        sets.get("bounding", ()),
        sets.get("effective", ()),
        sets.get("permitted", ()),
        sets.get("inheritable", ()),
        [name for name in sets.get("ambient", ()) if name in sets.get("inheritable", ())],
        switch_user=lambda: _switch_user(identity),
    )
    kernel.prctl(PR_SET_DUMPABLE, 0)
    if no_new_privileges:
        kernel.prctl(PR_SET_NO_NEW_PRIVS, 1)
        load()


def known(names: Any) -> list[str]:
    """Those that this kernel could have; others are left out, as the specification wants (with a warning, see
    ``create``)."""
    return [name for name in (names or ()) if name in capabilities.NUMBERS]


def _switch_user(identity: users.Identity) -> None:
    try:
        os.setgroups(list(identity.groups))
    except PermissionError:
        # A user namespace whose maker had no right to setgroups denies it for ever; nothing is lost when none is asked.
        if identity.groups:
            raise
    os.setresgid(identity.gid, identity.gid, identity.gid)
    os.setresuid(identity.uid, identity.uid, identity.uid)


def enter_again(cwd: str, entered: bool) -> None:
    """What root may not enter (a squashed NFS export) the final user may; and it must be inside."""
    if not entered and not finalize.enter_directory(cwd):
        raise StartError(
            "Cannot change to the working directory %s: permission denied" % cwd,
            step="chdir",
            path="process.cwd",
            details={"exit_code": 126},
        )
    finalize.verify_directory(cwd)


def environment(process: Mapping[str, Any], identity: users.Identity, preserve: int) -> dict[str, str]:
    env = finalize.environment(process, identity)
    handed = os.environ.get("LISTEN_FDS", "")
    if handed.isdigit() and 0 < int(handed) <= preserve:  # socket activation: the caller's sockets are the program's
        env.update(LISTEN_FDS=handed, LISTEN_PID="1")
    return env


def own_stdio(identity: users.Identity) -> None:
    """So that a program that is not root can open /dev/stdout again."""
    for fd in _STDIO:
        info = os.fstat(fd)
        null = stat.S_ISCHR(info.st_mode) and info.st_rdev == os.makedev(1, 3)
        if info.st_uid == identity.uid or null:
            continue
        try:
            os.fchown(fd, identity.uid, -1)
        except OSError as error:
            if error.errno not in (1, 22, 30):  # not ours to give, not mapped, read-only: it is readable as it is
                raise KernelError.wrap(error, "Cannot hand over descriptor %d" % fd, step="stdio") from error


def close_others(preserve: int, keep: tuple[int, ...]) -> None:
    """Every descriptor but 0 to 2, the caller's ``preserve`` ones, and ours (closed by execve)."""
    for fd in range(3, 3 + preserve):
        os.set_inheritable(fd, True)
    low = 3 + preserve
    for fd in sorted(fd for fd in keep if fd >= low):
        os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, 1 << 16)


def write_sysctls(kernel: Kernel, sysctls: Mapping[str, Any]) -> None:
    if not sysctls:
        return
    proc = procfs.private_proc(kernel, whole=True)
    try:
        for key, value in sysctls.items():
            try:
                procfs.write_at(proc, "sys/" + key.replace(".", "/"), str(value))
            except OSError as error:
                raise KernelError.wrap(error, "Cannot set the sysctl %s" % key, step="sysctls") from error
    finally:
        os.close(proc)


def set_size(terminal: int, rows: int, columns: int) -> None:
    import struct
    import termios

    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
