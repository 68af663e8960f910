# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The last steps before a container's program runs, the same for PID 1 and for an exec: signals, limits, user,
capabilities, filter, directory, program. Runs inside the container; imports nothing from here on.

An engine process inside a container still *is* the host's Python until execve. ``PR_SET_DUMPABLE`` 0 keeps others in
the container from opening ``/proc/<pid>/exe``, and no program is executed that turns out to be that interpreter
(CVE-2019-5736). While a container lives its monitor runs the same interpreter, so that the kernel refuses to open it
for writing (ETXTBSY) even if both failed.
"""

from __future__ import annotations

import os
import resource
import signal
import stat
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, Optional

from ..errors import KernelError, StartError
from ..kernel import capabilities
from ..kernel.syscalls import PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS, Kernel
from .users import Identity

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ENOENT, _EACCES, _ENOEXEC, _EPERM, _ENOSYS, _ENOTDIR, _EISDIR = 2, 13, 8, 1, 38, 20, 21
_MAX_SCRIPTS = 6  # the kernel follows five "#!" lines


def interpreter_identity() -> tuple[int, int]:
    """(device, inode) of the program we are; taken on the host, before any container is entered."""
    info = os.stat("/proc/self/exe")
    return info.st_dev, info.st_ino


def reset_signals(kernel: Kernel) -> None:
    """Every disposition to default, nothing blocked: CPython ignores SIGPIPE and SIGXFSZ, whoever started the task may
    ignore more, and all that survives execve."""
    for number in range(1, signal.NSIG):
        try:
            if signal.getsignal(number) != signal.SIG_DFL:
                signal.signal(number, signal.SIG_DFL)
        except (OSError, ValueError):  # SIGKILL, SIGSTOP, and glibc's own 32 and 33
            continue
    kernel.default_signals(32, 33)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def join_keyring(kernel: Kernel) -> None:
    """A session keyring of its own: keys of whoever started the engine stay out of reach."""
    try:
        kernel.keyctl_join_session()
    except OSError as error:
        if error.errno not in (_ENOSYS, _EPERM):  # no keyrings in this kernel, or a filter above us forbids them
            raise KernelError.wrap(error, "Cannot create a session keyring", step="keyring") from error


def set_limits(process: Mapping[str, Any]) -> None:
    infinity = (1 << 64) - 1
    for limit in process.get("rlimits") or ():
        soft, hard = (resource.RLIM_INFINITY if limit[k] == infinity else limit[k] for k in ("soft", "hard"))
        try:
            resource.setrlimit(getattr(resource, limit["type"]), (soft, hard))
        except (OSError, ValueError) as error:
            raise StartError(
                "Cannot set %s to %s:%s: %s" % (limit["type"], soft, hard, error), step="rlimits", path="ulimits"
            ) from error


def set_umask(process: Mapping[str, Any]) -> None:
    """``process.user.umask``; 0022 unless given."""
    os.umask(int((process.get("user") or {}).get("umask", 0o022)))


def environment(process: Mapping[str, Any], identity: Identity) -> dict[str, str]:
    env: dict[str, str] = {}
    for line in process.get("env") or ():
        key, equals, value = line.partition("=")
        if key and equals:
            env[key] = value
    env.setdefault("HOME", identity.home)
    return env


def become(kernel: Kernel, process: Mapping[str, Any], identity: Identity, program: Optional[bytes]) -> None:
    """Filter, user, capabilities, in the order the kernel demands.

    Without no_new_privs the filter is loaded first, while we have CAP_SYS_ADMIN; with it, last of all, so that it need
    not allow what we do in between.
    """
    no_new_privileges = bool(process.get("noNewPrivileges"))
    if program and not no_new_privileges:
        _load_filter(kernel, program)
    caps = process.get("capabilities") or {}
    root = identity.uid == 0
    ambient = caps.get("ambient") or ()
    capabilities.apply(
        kernel,
        caps.get("bounding") or (),
        caps.get("effective") or () if root else ambient,
        caps.get("permitted") or () if root else ambient,
        caps.get("inheritable") or (),
        ambient,
        switch_user=lambda: _switch_user(identity),
    )
    kernel.prctl(PR_SET_DUMPABLE, 0)
    if no_new_privileges:
        kernel.prctl(PR_SET_NO_NEW_PRIVS, 1)
        if program:
            _load_filter(kernel, program)


def _switch_user(identity: Identity) -> None:
    capabilities.set_id(identity.uid, identity.gid, identity.groups)


def _load_filter(kernel: Kernel, program: bytes) -> None:
    try:
        kernel.seccomp_load(program)
    except OSError as error:
        raise KernelError.wrap(error, "Cannot load the seccomp filter", step="seccomp") from error


def enter_directory(path: str) -> bool:
    """chdir; False when it was not permitted (it is tried again as the final user)."""
    try:
        os.chdir(path)
    except OSError as error:
        if error.errno in (_EACCES, _EPERM):
            return False
        raise _directory_error(path, error) from error
    return True


def _directory_error(path: str, error: OSError) -> StartError:
    return StartError(
        "Cannot change to the working directory %s: %s" % (path, error.strerror),
        step="chdir",
        path="working_dir",
        errno=error.errno,
        details={"exit_code": 126 if error.errno in (_EACCES, _ENOTDIR) else 127},
    )


def verify_directory(path: str) -> None:
    """The working directory must be inside the container's root.

    CVE-2024-21626: ``/proc/self/fd/N`` of a leaked descriptor leads to a directory of the host. The kernel then names
    it "(unreachable)/..."; glibc's getcwd answers ENOENT.
    """
    try:
        inside = os.getcwd().startswith("/")
    except OSError:
        inside = False
    if not inside:
        raise StartError(
            "The working directory %s is outside of the container's root" % path,
            step="verify_cwd",
            path="working_dir",
            details={"exit_code": 126},
        )


def execute(
    argv: Sequence[str], env: Mapping[str, str], interpreter: tuple[int, int], program: Optional[str] = None
) -> NoReturn:
    """execve, looking the program up in the container's PATH (unless ``program`` is its path already). Raises
    ``StartError`` with Docker's words and the exit code it would have: 127 not found, 126 found but not executable."""
    path = find_program(argv[0], env) if program is None else program
    _refuse_interpreter(argv[0], path, interpreter)
    try:
        os.execve(path, list(argv), dict(env))
    except OSError as error:
        raise _exec_error(argv[0], path, error) from error


def find_program(name: str, env: Mapping[str, str]) -> str:
    if "/" in name:
        _check_program(name)
        return name
    if name:
        for directory in env.get("PATH", _DEFAULT_PATH).split(":"):
            candidate = "%s/%s" % (directory or ".", name)
            try:
                info = os.stat(candidate)
            except (OSError, ValueError):  # not here; ENOTDIR, EACCES: not reachable here
                continue
            if stat.S_ISREG(info.st_mode) and os.access(candidate, os.X_OK):
                return candidate
    raise StartError(
        'exec: "%s": executable file not found in $PATH' % name,
        step="exec",
        path=name,
        errno=_ENOENT,
        details={"exit_code": 127},
    )


def _check_program(path: str) -> None:
    try:
        info = os.stat(path)
    except ValueError:
        raise StartError('exec: "%s": invalid argument' % path, step="exec", details={"exit_code": 127}) from None
    except OSError as error:
        code = 126 if error.errno == _EACCES else 127
        raise StartError(
            'exec: "%s": stat %s: %s' % (path, path, (error.strerror or "").lower()),
            step="exec",
            path=path,
            errno=error.errno,
            details={"exit_code": code},
        ) from error
    if stat.S_ISDIR(info.st_mode):
        raise StartError(
            'exec: "%s": is a directory' % path, step="exec", path=path, errno=_EISDIR, details={"exit_code": 126}
        )
    if not os.access(path, os.X_OK):
        raise StartError(
            'exec: "%s": permission denied' % path,
            step="exec",
            path=path,
            errno=_EACCES,
            details={"exit_code": 126},
            hint="The file is not executable by the container's user.",
        )


def _exec_error(name: str, path: str, error: OSError) -> StartError:
    words = {_EACCES: "permission denied", _ENOEXEC: "exec format error", _ENOENT: "no such file or directory"}
    hints = {
        _ENOENT: "The file exists, but the interpreter or loader it names does not.",
        _ENOEXEC: "The program is for another architecture, or a script without a #! line.",
    }
    number = error.errno or 0
    return StartError(
        'exec: "%s": %s' % (name, words.get(number) or (error.strerror or "").lower()),
        step="exec",
        path=path,
        errno=number,
        details={"exit_code": 127 if number == _ENOENT else 126},
        hint=hints.get(number),
    )


def _refuse_interpreter(name: str, path: str, interpreter: tuple[int, int]) -> None:
    """Follow the chain of ``#!`` lines as the kernel would; none may end at the host program we are."""
    for _depth in range(_MAX_SCRIPTS):
        try:
            info = os.stat(path)
        except OSError:  # execve reports it
            return
        if (info.st_dev, info.st_ino) == interpreter:
            raise StartError(
                'exec: "%s": refusing to execute the engine\'s own interpreter (CVE-2019-5736)' % name,
                step="exec",
                path=path,
                details={"exit_code": 126},
            )
        script = _shebang(path)
        if script is None:
            return
        path = script


def _shebang(path: str) -> Optional[str]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # execute-only
        return None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        head = os.read(fd, 256)
    except OSError:
        return None
    finally:
        os.close(fd)
    if not head.startswith(b"#!"):
        return None
    words = head[2:].split(b"\n", 1)[0].split()
    return os.fsdecode(words[0]) if words else None
