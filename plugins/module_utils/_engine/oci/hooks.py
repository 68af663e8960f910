# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hooks: programs that the bundle's author wants run at fixed moments, with the container's state on their input."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, Optional

from ..errors import StartError
from ..kernel import pidfd as pidfds

_SHOWN = 2000  # bytes of a failed hook's output that its error repeats


def of(config: Mapping[str, Any], stage: str) -> Sequence[Mapping[str, Any]]:
    return (config.get("hooks") or {}).get(stage) or ()


def run(config: Mapping[str, Any], stage: str, state: Mapping[str, Any]) -> None:
    """All hooks of ``stage`` in order; the first that fails ends it. Raises ``StartError`` with its output."""
    for number, hook in enumerate(of(config, stage)):
        words = _run(hook, json.dumps(state).encode())
        if words is not None:
            raise StartError(
                "error running %s hook #%d: %s" % (stage, number, words), step="hooks", path="hooks.%s" % stage
            )


def run_all(config: Mapping[str, Any], stage: str, state: Mapping[str, Any]) -> list[str]:
    """Every hook of ``stage``, whatever the others did; a sentence for each that failed."""
    failed = []
    for number, hook in enumerate(of(config, stage)):
        words = _run(hook, json.dumps(state).encode())
        if words is not None:
            failed.append("error running %s hook #%d: %s" % (stage, number, words))
    return failed


def _run(hook: Mapping[str, Any], state: bytes) -> Optional[str]:
    """None when it succeeded, otherwise why not. Input and output are files in memory: a hook that does not read its
    input, or leaves somebody behind who holds its output, keeps nobody waiting."""
    given, output = os.memfd_create("state"), os.memfd_create("output")
    try:
        os.write(given, state)
        os.lseek(given, 0, os.SEEK_SET)
        pid = os.fork()
        if pid == 0:
            _child(hook, given, output)
        return _follow(pid, hook.get("timeout"), output)
    finally:
        os.close(given)
        os.close(output)


def _child(hook: Mapping[str, Any], given: int, output: int) -> NoReturn:
    try:
        os.setsid()
        for number, fd in enumerate((given, output, output)):
            os.dup2(fd, number)
        os.closerange(3, 1 << 16)
        for name in ("SIGPIPE", "SIGXFSZ", "SIGINT", "SIGTERM", "SIGHUP", "SIGCHLD"):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        env = {}
        for line in hook.get("env") or ():
            key, _equals, value = line.partition("=")
            env[key] = value
        os.execve(hook["path"], list(hook.get("args") or [hook["path"]]), env)
    except BaseException as error:  # nothing may unwind into the parent's frames
        os.write(2, str(error).encode())
    finally:
        os._exit(127)


def _follow(pid: int, timeout: Optional[int], output: int) -> Optional[str]:
    pidfd = os.pidfd_open(pid)
    try:
        if not pidfds.wait(pidfd, timeout):
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return "it ran longer than %d seconds" % (timeout or 0)
    finally:
        os.close(pidfd)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code == 0:
        return None
    words = "exit status %d" % code if code > 0 else "signal: %s" % signal.Signals(-code).name
    size = os.fstat(output).st_size
    said = os.pread(output, _SHOWN, max(0, size - _SHOWN)).decode(errors="replace").strip()
    return "%s, output: %s" % (words, said) if said else words
