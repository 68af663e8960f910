# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""This side of the clone: cgroup, clone, id maps, hooks, and the talk over the sync socket.

    parent                                     child (init.py)
    cgroup, limits, detached mounts
    clone                                    → limits, cgroup, namespaces, mounts
    prestart and createRuntime hooks         ← "hooks" (if there are any)
    "go"                                     → createContainer hooks, masks, pivot
    console socket, state, pid file          ← "ready" (and the terminal's master)
    "run"                                    → filter, user, capabilities
                                             ← create: "waiting"; run: end of file, the program runs
With a user namespace there is a process in between (``_between``): it asks for its maps with "map" and answers with the
child's pidfd.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, Optional

from ..errors import KernelError, StartError, WharfError
from ..kernel import pidfd as pidfds
from ..kernel import procfs
from ..kernel.syscalls import CLONE_NEWUSER, CLONE_PARENT, Kernel
from ..runtime import wire
from ..tuples import NamedTuple
from . import init, spaces

_TIMEOUT = 120.0
_Message = tuple[dict[str, Any], list[int]]  # and the descriptors it carried


class Child(NamedTuple):
    """``terminal``: master of its pty, or -1; ``start``: clock ticks after boot."""

    pid: int
    pidfd: int
    start: int
    terminal: int


class Talk(NamedTuple):
    """What the parent does in between. ``hooks(pid)`` while the namespaces are there and the host's files still in
    sight; ``ready(pid, start, terminal)`` before the program may run; ``listener(fd, pid)``."""

    hooks: Callable[[int], None]
    ready: Callable[[int, int, int], None]
    listener: Callable[[int, int], None]


def launch(kernel: Kernel, plan: init.Plan, talk: Talk) -> Child:
    """Raises ``WharfError`` and leaves no process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    ours.settimeout(_TIMEOUT)
    try:
        linux = plan.config["linux"]
        with spaces.Detour(kernel, plan.spaces, linux.get("timeOffsets") or {}):
            early: list[_Message] = []
            if "user" in plan.spaces:
                pid, pidfd, early = _clone_between(kernel, plan, ours, theirs)
            else:
                pid, pidfd = _clone(kernel, plan, ours, theirs)
    finally:
        theirs.close()
    try:
        return follow(pid, pidfd, ours, talk, early)
    finally:
        ours.close()


def _clone(kernel: Kernel, plan: init.Plan, ours: socket.socket, theirs: socket.socket) -> tuple[int, int]:
    cgroup_fd = plan.group.fd_v2("") if plan.group is not None else None
    try:
        pid, pidfd, joined = clone_into(kernel, spaces.clone_flags(plan.spaces), cgroup_fd)
        if pid == 0:
            ours.close()
            init.main(kernel, plan._replace(joined=joined), theirs)
    finally:
        if cgroup_fd is not None:
            os.close(cgroup_fd)
    return number(pidfd), pidfd


def clone_into(kernel: Kernel, flags: int, cgroup_fd: Optional[int]) -> tuple[int, int, bool]:
    """clone3 straight into the cgroup; where that is refused without, and the child joins by itself. ``(pid, pidfd,
    joined)``, pid 0 in the child."""
    if cgroup_fd is not None:
        try:
            return (*kernel.clone3(flags, cgroup_fd), True)
        except OSError:  # before Linux 5.7, and on some hybrid hosts; the child will say what is wrong, if anything
            pass
    try:
        return (*kernel.clone3(flags), False)
    except OSError as error:
        raise KernelError.wrap(error, "Cannot create the container's process", step="clone") from error


def number(pidfd: int) -> int:
    """The process id in our own pid namespace, whatever namespace it was cloned from."""
    with open("/proc/self/fdinfo/%d" % pidfd) as stream:
        for line in stream:
            if line.startswith("Pid:"):
                return int(line[4:])
    raise StartError("The container's first process ended at once", step="clone", details={"exit_code": 128})


# -- with a user namespace -----------------------------------------------------------------------------------------


def _clone_between(
    kernel: Kernel, plan: init.Plan, ours: socket.socket, theirs: socket.socket
) -> tuple[int, int, list[_Message]]:
    """With what the child has said already: nothing keeps it from being faster than the process that cloned it."""
    early: list[_Message] = []
    cgroup_fd = plan.group.fd_v2("") if plan.group is not None else None
    try:
        pid, pidfd, joined = clone_into(kernel, 0, cgroup_fd)
        if pid == 0:
            ours.close()
            _between(kernel, plan._replace(joined=joined), theirs)
    finally:
        if cgroup_fd is not None:
            os.close(cgroup_fd)
    try:
        while True:
            message, fds = _receive(ours)
            if "map" in message:
                _write_maps(pid, plan.config["linux"])
                wire.send_packet(ours, {"mapped": True})
            elif "child" in message:
                return number(fds[0]), fds[0], early
            else:
                early.append((message, fds))
    except BaseException:
        _kill(pidfd)
        raise
    finally:
        pidfds.wait(pidfd, 10.0)
        os.waitpid(pid, 0)
        os.close(pidfd)


def _write_maps(pid: int, linux: Mapping[str, Any]) -> None:
    from ..kernel import idmap
    from .config import ranges

    idmap.write_maps(pid, ranges(linux["uidMappings"]), ranges(linux["gidMappings"]))


def _between(kernel: Kernel, plan: init.Plan, sync: socket.socket) -> NoReturn:
    """The whole life of the process in between."""
    step = "prepare_process"
    try:
        init.prepare(kernel, plan)
        step = "user_namespace"
        spaces.join_around_user(kernel, plan.spaces, lambda: _enter_user(kernel, plan.spaces["user"], sync))
        pid, pidfd = kernel.clone3(CLONE_PARENT | spaces.clone_flags(plan.spaces))
        if pid == 0:
            init.main(kernel, plan, sync, prepared=True)
        wire.send_packet(sync, {"child": True}, (pidfd,))
    except BaseException as error:  # nothing may unwind into the parent's frames
        try:
            wire.send_packet(sync, {"error": wire.error_to_dict(error, step)})
        except OSError:  # the parent is gone
            pass
    finally:
        os._exit(0)


def _enter_user(kernel: Kernel, path: str, sync: socket.socket) -> None:
    if path:
        spaces.enter(kernel, "user", path)
    else:
        try:
            kernel.unshare(CLONE_NEWUSER)
        except OSError as error:
            raise KernelError.wrap(
                error,
                "Cannot make a user namespace",
                step="user_namespace",
                hint="user.max_user_namespaces may be 0.",
            ) from error
        wire.send_packet(sync, {"map": True})
        message, _fds = wire.recv_packet(sync)
        if not message or "mapped" not in message:
            os._exit(1)
    try:
        os.setgroups([])
    except PermissionError:  # a namespace that denies setgroups: then the groups are none of the container's
        pass
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


# -- from the clone to the program ---------------------------------------------------------------------------------


def _receive(sync: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """The next message; an error in it, and the socket's end, are raised."""
    try:
        message, fds = wire.recv_packet(sync)
    except OSError as error:
        raise KernelError.wrap(error, "The container's first process does not answer", step="init") from error
    if message is None:
        raise StartError(
            "The container's first process died before it was ready",
            step="init",
            details={"exit_code": 128},
            hint="A memory limit too small to start in kills it here; see the host's kernel log.",
        )
    if "error" in message:
        raise wire.error_from_dict(message["error"])
    return message, fds


def follow(pid: int, pidfd: int, sync: socket.socket, talk: Talk, early: Sequence[_Message] = ()) -> Child:
    """From the clone to the program. ``early``: messages that were received already. Raises ``WharfError``; then the
    process is gone."""
    waiting = list(early)
    terminal = -1
    try:
        start = procfs.start_time(pid) or 0
        while True:
            message, fds = waiting.pop(0) if waiting else _receive(sync)
            if "hooks" in message:
                talk.hooks(pid)
                wire.send_packet(sync, {"go": True})
                continue
            terminal = fds[0] if fds else -1
            break
        talk.ready(pid, start, terminal)
        wire.send_packet(sync, {"run": pid})
        while True:
            message_, fds = wire.recv_packet(sync)
            if message_ is not None and "error" in message_:
                raise wire.error_from_dict(message_["error"])
            if message_ is None or "waiting" in message_:
                return Child(pid, pidfd, start, terminal)
            talk.listener(fds[0], pid)
            wire.send_packet(sync, {"taken": True})
    except BaseException as error:
        _kill(pidfd)
        pidfds.wait(pidfd, 10.0)
        try:
            os.waitpid(pid, 0)
        except ChildProcessError:
            pass
        os.close(pidfd)
        if terminal >= 0:
            os.close(terminal)
        if isinstance(error, OSError):
            raise KernelError.wrap(error, "The container's first process was lost", step="init") from error
        raise


def _kill(pidfd: int) -> None:
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass


def as_start_error(error: WharfError) -> WharfError:
    """In the words that callers look for."""
    if isinstance(error, StartError) and not error.msg.startswith("unable to start"):
        error.msg = "unable to start container process: " + error.msg
    return error
