# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The starting side: cgroup, mounts, clone, and the talk over the sync socket.

    helper                                     child (init.py)
    cgroup, limits, devices, overlay
    clone3(CLONE_PARENT, pid, ipc, uts)      → v1 cgroups, namespaces, mounts, user, pivot
                                             ← "ready" (and the terminal's master)
    save state, "run"                        → filter, capabilities, execve
                                             ← end of file: the program runs; or an error with its step

The helper is a short-lived child of the monitor: the starter for a first start, one forked for the clone alone when a
container is restarted. It does what touches much memory (JSON, mount options, system calls by ctypes) and takes that
along when it ends. Its child is the monitor's child all the same (CLONE_PARENT). State is saved before the program
runs: whoever finds the state file later can clean up.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, Optional

from ..errors import KernelError, NotFound, StartError, WharfError
from ..kernel import apparmor, devices, procfs
from ..kernel import pidfd as pidfds
from ..kernel.cgroups import Cgroup, Layout
from ..kernel.syscalls import CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWPID, CLONE_NEWUTS, CLONE_PARENT, Kernel
from ..paths import Paths
from ..storage import overlay
from ..tuples import NamedTuple
from . import finalize, init, secrets, sharing, userns, wire
from .kept import Kept

# What can be asked of clone3: the mount and cgroup namespaces come later, from inside (see init.join_namespaces).
_AT_CLONE = {"pid": CLONE_NEWPID, "ipc": CLONE_NEWIPC, "uts": CLONE_NEWUTS, "network": CLONE_NEWNET}
_START_TIMEOUT = 60.0
_NEEDED = {"config.json": ("process", "linux", "mounts"), "run.json": ("cgroup", "layers")}
_AGAIN = "A container's files are made again when it is started: restart it."


class Child(NamedTuple):
    """A running container's init. ``terminal``: master of its pty, or -1. ``start``: clock ticks (procfs). ``ended``: a
    process that has made it and ended, to be reaped by the monitor; 0 for none."""

    pid: int
    pidfd: int
    start: int
    terminal: int
    ended: int = 0


class Bundle(NamedTuple):
    """One start's input. ``directory``: of the container, where config.json is; ``run``: run.json; ``stdio``:
    descriptors for 0, 1, 2 (-1: /dev/null); ``config``: the parsed config.json, if it is at hand."""

    directory: str
    run: Mapping[str, Any]
    stdio: tuple[int, int, int]
    kept: Kept
    config: Optional[dict[str, Any]] = None


def launch(
    kernel: Kernel,
    layout: Layout,
    cgroup: Cgroup,
    bundle: Bundle,
    on_ready: Callable[[int, int], None],
    *,
    helping: bool = False,
) -> Child:
    """Start the container. ``on_ready(pid, start)`` saves the state. ``helping``: we are the monitor's helper, not the
    monitor itself; the new process is the monitor's child either way.

    Raises ``StartError`` (``details.exit_code``) and leaves no process; the caller removes the cgroup.
    """
    try:
        clone = _make if helping else _clone_by_helper
        pid, pidfd, sync = clone(kernel, layout, cgroup, bundle)
        return _follow(pid, pidfd, sync, on_ready)
    except StartError:
        raise
    except WharfError as error:
        raise as_start_error(error) from error


def _clone_by_helper(kernel: Kernel, layout: Layout, cgroup: Cgroup, bundle: Bundle) -> tuple[int, int, socket.socket]:
    """``(pid, pidfd, sync socket)`` of the new child."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    helper = os.fork()
    if helper == 0:
        ours.close()
        _help(kernel, layout, cgroup, bundle, theirs)
    theirs.close()
    try:
        ours.settimeout(_START_TIMEOUT)
        message, fds = wire.recv_packet(ours, 2)
    except OSError as error:
        os.kill(helper, signal.SIGKILL)
        raise _lost(error) from error
    finally:
        ours.close()
        os.waitpid(helper, 0)
    if message is None:
        raise StartError("The process that prepares a start was killed", step="start", details={"exit_code": 128})
    if "error" in message:
        raise wire.error_from_dict(message["error"])
    return message["pid"], fds[0], socket.socket(fileno=fds[1])


def _help(kernel: Kernel, layout: Layout, cgroup: Cgroup, bundle: Bundle, monitor: socket.socket) -> NoReturn:
    """The helper's whole life."""
    pidfd = -1
    try:
        pid, pidfd, sync = _make(kernel, layout, cgroup, bundle)
        wire.send_packet(monitor, {"pid": pid}, (pidfd, sync.fileno()))
    except BaseException as error:  # nothing may unwind into the monitor's frames
        if pidfd >= 0:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        try:
            wire.send_packet(monitor, {"error": wire.error_to_dict(error, "start")})
        except OSError:  # the monitor was killed
            pass
    finally:
        os._exit(0)


def _make(kernel: Kernel, layout: Layout, cgroup: Cgroup, bundle: Bundle) -> tuple[int, int, socket.socket]:
    """``(pid, pidfd, sync socket)`` of the new child, a sibling of this process."""
    config = sharing.resolve(kernel, _paths(bundle), bundle.config or load_json(bundle.directory + "/config.json"))
    config, mapped = userns.prepare(kernel, config)
    cgroup.remove()  # of an earlier run, with whatever still runs in it
    cgroup.create()
    resources = config["linux"].get("resources") or {}
    cgroup.apply({key: value for key, value in resources.items() if key != "devices"})
    rules = resources.get("devices")
    if rules:
        devices.apply(kernel, cgroup, devices.from_oci(rules), bundle.kept.devices)
    return _clone(kernel, cgroup, _plan(kernel, layout, cgroup, bundle, config, mapped))


def load_json(path: str) -> dict[str, Any]:
    """config.json or run.json. Raises ``NotFound``, ``StartError``."""
    try:
        with open(path, "rb") as stream:
            value: Any = json.loads(stream.read())
    except FileNotFoundError:
        raise NotFound("The container has no %s" % path, step="load", path=path) from None
    except ValueError as error:
        raise StartError("%s is damaged: %s" % (path, error), step="load", path=path, hint=_AGAIN) from error
    found: dict[str, Any] = value if isinstance(value, dict) else {}
    missing = [key for key in _NEEDED.get(path.rpartition("/")[2], ()) if key not in found]
    if missing:
        words = "%s is damaged: there is no %s in it" % (path, " and no ".join(missing))
        raise StartError(words, step="load", path=path, hint=_AGAIN)
    return found


def as_start_error(error: WharfError) -> StartError:
    details = {"exit_code": 128, **error.details}
    return StartError(error.msg, step=error.step, path=error.path, errno=error.errno, hint=error.hint, details=details)


def _plan(
    kernel: Kernel,
    layout: Layout,
    cgroup: Cgroup,
    bundle: Bundle,
    config: Mapping[str, Any],
    mapped: Optional[userns.Mapped],
) -> init.Plan:
    run = bundle.run
    layers = [(layer["path"], layer["form"]) for layer in run["layers"]]
    for directory in (run.get("upper"), run.get("work")):
        if directory:
            os.makedirs(directory, 0o755, exist_ok=True)
    return init.Plan(
        config=config,
        user=run.get("uid_user") or "",
        groups=tuple(run.get("groups") or ()),
        root_mount=_root_mount(kernel, bundle, layers, mapped),
        hierarchies=tuple(layout.view()),
        program=bundle.kept.program(kernel, config),
        stdio=bundle.stdio,
        interpreter=finalize.interpreter_identity(),
        reaper=bool(run.get("init")),
        cgroup=cgroup,
        joined=False,
        secrets=secrets.load(bundle.directory, (config.get("wharf") or {}).get("secrets") or ()),
        apparmor=apparmor.choose(config["process"]),
        mapped=mapped,
    )


def _root_mount(kernel: Kernel, bundle: Bundle, layers: list[tuple[str, str]], mapped: Optional[userns.Mapped]) -> int:
    upper, work = bundle.run.get("upper"), bundle.run.get("work")
    if mapped is None:
        return overlay.mount_rootfs(kernel, layers, upper, work, cache=bundle.kept.layers)
    from ..storage import shifted

    if upper and os.stat(upper).st_uid == 0:
        os.chown(upper, *mapped.owner(0, 0))
    place = bundle.directory + "/" + shifted.NAME
    owners, how = shifted.Owners(mapped.uids, mapped.gids), bundle.run.get("shift", "")
    return shifted.mount_rootfs(kernel, layers, upper, work, place, mapped.fd, owners, bundle.kept.layers, how)


def _paths(bundle: Bundle) -> Paths:
    """Of the instance whose container this is: ``<state>/containers/<id>``."""
    return Paths(os.path.dirname(os.path.dirname(bundle.directory)))


def _clone_flags(config: Mapping[str, Any]) -> int:
    flags = 0
    for namespace in config["linux"]["namespaces"]:
        if "path" not in namespace:
            flags |= _AT_CLONE.get(namespace["type"], 0)
    return flags


def clone_into(kernel: Kernel, flags: int, cgroup_fd: Optional[int]) -> tuple[int, int, bool]:
    """clone3 straight into the cgroup; where that is refused (before 5.7, some hybrid set-ups) without, and the child
    joins by itself. ``(pid, pidfd, joined)``, pid 0 in the child."""
    if cgroup_fd is not None:
        try:
            return (*kernel.clone3(flags, cgroup_fd), True)
        except OSError:
            pass
    try:
        return (*kernel.clone3(flags), False)
    except OSError as error:
        raise KernelError.wrap(error, "Cannot create the container's process", step="clone") from error


def _clone(kernel: Kernel, cgroup: Cgroup, plan: init.Plan) -> tuple[int, int, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    cgroup_fd = cgroup.fd_v2()
    pid, pidfd, joined = clone_into(kernel, CLONE_PARENT | _clone_flags(plan.config), cgroup_fd)
    if pid == 0:
        ours.close()
        init.main(kernel, plan._replace(joined=joined), theirs)
    theirs.close()
    return pid, pidfd, ours


def _follow(pid: int, pidfd: int, sync: socket.socket, on_ready: Callable[[int, int], None]) -> Child:
    """From the clone to the running program."""
    terminal, ended = -1, 0
    try:
        sync.settimeout(_START_TIMEOUT)
        moved, terminal = _expect_ready(sync)
        if moved:
            ended, (pid, pidfd) = pid, _moved(pidfd, moved)
            try:
                os.waitpid(ended, 0)
                ended = 0
            except ChildProcessError:  # the monitor's child, not ours
                pass
        start = procfs.start_time(pid) or 0
        on_ready(pid, start)
        wire.send_packet(sync, {"run": True})
        message, _fds = wire.recv_packet(sync)
        if message is not None:
            raise wire.error_from_dict(message["error"])
        return Child(pid, pidfd, start, terminal, ended)
    except BaseException as error:
        _abandon(pid, pidfd, terminal)
        if isinstance(error, OSError):
            raise _lost(error) from error
        raise
    finally:
        sync.close()


def _moved(pidfd: int, pid: int) -> tuple[int, int]:
    """The process that went into a shared pid namespace in the place of ``pidfd``'s, which ends. It cannot be another
    one by now: it is a child that nobody reaps but who gets this answer."""
    try:
        other = os.pidfd_open(pid)
    except OSError as error:
        raise KernelError.wrap(error, "Cannot follow the container's process", step="join_pid") from error
    pidfds.wait(pidfd)
    os.close(pidfd)
    return pid, other


def _expect_ready(sync: socket.socket) -> tuple[int, int]:
    """(pid of the process that has taken over or 0, the terminal's master or -1)."""
    message, fds = wire.recv_packet(sync)
    if message is None:
        raise StartError(
            "The container's first process died before it was ready",
            step="init",
            details={"exit_code": 128},
            hint="A memory limit too small to start in kills it here; see the host's kernel log.",
        )
    if "error" in message:
        raise wire.error_from_dict(message["error"])
    return int(message.get("pid") or 0), fds[0] if fds else -1


def _lost(error: OSError) -> StartError:
    if isinstance(error, TimeoutError):
        words = "it did not get ready within %d seconds" % _START_TIMEOUT
    else:
        words = error.strerror or str(error)
    return StartError("The container's first process was lost: %s" % words, step="init", details={"exit_code": 128})


def _abandon(pid: int, pidfd: int, terminal: int) -> None:
    """No process and no descriptor stays behind a failed start."""
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass
    pidfds.wait(pidfd)
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:  # the monitor's child, not ours
        pass
    os.close(pidfd)
    if terminal >= 0:
        os.close(terminal)
