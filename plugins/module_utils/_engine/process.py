# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The only place that forks and executes helpers: ansible-core 2.21's sanity tests forbid ``subprocess`` here."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, Optional

from .errors import TimedOut, WharfError
from .tuples import NamedTuple


class Completed(NamedTuple):
    returncode: int
    stdout: bytes
    stderr: bytes


def engine_command(module: str, *args: str) -> list[str]:
    """argv that runs ``main(args)`` of an engine module (dotted, relative to the engine, e.g. ``runtime.spawner``)
    in a fresh isolated interpreter (``-I -S``: no site, no environment, no user directories)."""
    engine = __name__.rpartition(".")[0]  # "wharf_runtime._engine", or "module_utils._engine" in a checkout
    root = os.path.dirname(os.path.abspath(__file__))
    for _part in engine.split("."):
        root = os.path.dirname(root)
    return [sys.executable, "-I", "-S", "-c", _BOOT, root, engine + "." + module, *args]


_BOOT = (
    "import sys; sys.path.insert(0, sys.argv[1]); from importlib import import_module; "
    "import_module(sys.argv[2]).main(sys.argv[3:])"
)


def reset_child(keep: Sequence[int] = ()) -> None:
    """In a freshly forked child: default signal dispositions (CPython ignores SIGPIPE and SIGXFSZ, and ignored
    dispositions survive exec), empty signal mask, and no descriptor but 0, 1, 2 and ``keep``."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    close_from(3, keep)


def close_from(first: int, keep: Sequence[int] = ()) -> None:
    """Close every descriptor from ``first`` on, except ``keep``."""
    low = first
    for n in sorted(n for n in keep if n >= first):
        os.closerange(low, n)
        low = n + 1
    os.closerange(low, _highest_fd() + 1)


def _highest_fd() -> int:
    try:
        return max(int(n) for n in os.listdir("/proc/self/fd"))
    except (OSError, ValueError):
        return 65536


def run(
    argv: Sequence[str],
    *,
    stdin: bytes = b"",
    env: Optional[Mapping[str, str]] = None,
    timeout: Optional[float] = None,
    pass_fds: Sequence[int] = (),
) -> Completed:
    """Run a helper to its end. Output is captured; the helper is killed at ``timeout`` (seconds, monotonic).

    Raises ``FileNotFoundError`` when ``argv[0]`` does not exist and ``TimedOut``.
    """
    in_r, in_w = os.pipe()
    out_r, out_w = os.pipe()
    err_r, err_w = os.pipe()
    fail_r, fail_w = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(in_r, 0)
            os.dup2(out_w, 1)
            os.dup2(err_w, 2)
            for fd in pass_fds:
                os.set_inheritable(fd, True)
            reset_child(keep=(fail_w, *pass_fds))
            os.execvpe(argv[0], list(argv), dict(env if env is not None else {"PATH": _PATH, "LC_ALL": "C"}))
        except OSError as error:
            os.write(fail_w, str(error.errno).encode())
        finally:
            os._exit(127)
    for fd in (in_r, out_w, err_w, fail_w):
        os.close(fd)
    try:
        failed = os.read(fail_r, 16)
        if failed:
            os.waitpid(pid, 0)
            raise OSError(int(failed), os.strerror(int(failed)), argv[0])
        stdout, stderr = _communicate(in_w, stdin, out_r, err_r, timeout)
        in_w = -1
    except TimedOut:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise TimedOut("%s did not finish within %g seconds" % (argv[0], timeout or 0), step="run_helper") from None
    finally:
        for fd in (in_w, out_r, err_r, fail_r):
            if fd >= 0:
                _close_quietly(fd)
    _pid, status = os.waitpid(pid, 0)
    return Completed(os.waitstatus_to_exitcode(status), stdout, stderr)


_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def _close_quietly(fd: int) -> None:
    try:
        os.close(fd)
    except OSError as error:
        if error.errno != 9:  # EBADF: _communicate closed it already
            raise


def _communicate(in_w: int, stdin: bytes, out_r: int, err_r: int, timeout: Optional[float]) -> tuple[bytes, bytes]:
    deadline = None if timeout is None else time.monotonic() + timeout
    poll = select.poll()
    poll.register(out_r, select.POLLIN)
    poll.register(err_r, select.POLLIN)
    chunks: dict[int, list[bytes]] = {out_r: [], err_r: []}
    pending = memoryview(stdin)
    if pending:
        os.set_blocking(in_w, False)
        poll.register(in_w, select.POLLOUT)
    else:
        os.close(in_w)
    open_fds = {out_r, err_r}
    while open_fds:
        wait = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        events = poll.poll(wait)
        if not events and deadline is not None and time.monotonic() >= deadline:
            raise TimedOut("timed out")
        for fd, mask in events:
            if fd == in_w:
                try:
                    pending = pending[os.write(in_w, pending[:65536]) :] if mask & select.POLLOUT else pending[:0]
                except BrokenPipeError:
                    pending = pending[:0]
                if not pending:
                    poll.unregister(in_w)
                    os.close(in_w)
                continue
            data = os.read(fd, 65536)
            if data:
                chunks[fd].append(data)
            else:
                poll.unregister(fd)
                open_fds.discard(fd)
    return b"".join(chunks[out_r]), b"".join(chunks[err_r])


def spawn_daemon(
    argv: Sequence[str],
    *,
    keep: Sequence[int] = (),
    log: str = "/dev/null",
    cwd: str = "/",
    cgroups: Sequence[str] = (),
) -> None:
    """Start ``argv`` as a daemon: double fork, own session, 0 from /dev/null, 1 and 2 to ``log`` (appended, 0600),
    every other descriptor closed except ``keep`` (left open and inheritable, same numbers). ``cgroups``: the
    ``cgroup.procs`` files it enters first (see ``kernel.cgroups.delegation``).

    A child that keeps the task's stdout open would hold the task until it exits, hence no inherited stdio.
    """
    pid = os.fork()
    if pid:
        _pid, status = os.waitpid(pid, 0)
        if status:
            raise WharfError("Cannot start %s" % argv[0], step="spawn_daemon")
        return
    try:
        os.setsid()
        for path in cgroups:
            with open(path, "w") as stream:
                stream.write("0")
        if os.fork():
            os._exit(0)
        null = os.open("/dev/null", os.O_RDWR)
        out = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600) if log != "/dev/null" else null
        os.dup2(null, 0)
        os.dup2(out, 1)
        os.dup2(out, 2)
        for fd in keep:
            os.set_inheritable(fd, True)
        reset_child(keep=keep)
        os.chdir(cwd)
        os.umask(0o022)
        os.execve(argv[0], list(argv), {"PATH": _PATH, "LC_ALL": "C.UTF-8"})
    finally:
        os._exit(127)


def isolated(function: Callable[[], Any]) -> Any:
    """Call ``function`` in a forked child and return its (JSON-able) result, or raise its ``WharfError`` again.

    For work that starts threads (parallel downloads) inside a process that will fork later: a process that forks
    into a container never has threads.
    """
    import json

    from . import errors

    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        _isolated_child(function, write)
    os.close(write)
    chunks = []
    while True:
        data = os.read(read, 65536)
        if not data:
            break
        chunks.append(data)
    os.close(read)
    _pid, status = os.waitpid(pid, 0)
    try:
        answer = json.loads(b"".join(chunks))
    except ValueError:
        raise errors.Interrupted(
            "An internal worker ended unexpectedly (status %d)" % os.waitstatus_to_exitcode(status), step="isolated"
        ) from None
    if "error" in answer:
        fields = answer["error"]
        kind = getattr(errors, fields.pop("class"), errors.WharfError)
        raise kind(fields.pop("msg"), **fields)
    return answer["result"]


def _isolated_child(function: Callable[[], Any], write: int) -> NoReturn:
    import json
    import traceback

    try:
        try:
            answer = {"result": function()}
        except WharfError as error:
            fields = {
                name: getattr(error, name) for name in ("msg", "step", "subject", "path", "errno", "hint", "details")
            }
            # A room's own subclass is told as the nearest class that everybody knows: the kind must survive.
            known = next(base.__name__ for base in type(error).__mro__ if base.__module__ == WharfError.__module__)
            answer = {"error": {"class": known, **fields}}
        except BaseException:  # the child must not unwind into the parent's frames; the text goes to the parent
            text = "Internal error in a worker process: " + traceback.format_exc()
            answer = {"error": {"class": "WharfError", "msg": text}}
        view = memoryview(json.dumps(answer).encode())
        while view:
            view = view[os.write(write, view) :]
    finally:
        os._exit(0)
