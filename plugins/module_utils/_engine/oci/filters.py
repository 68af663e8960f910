# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""``linux.seccomp``: the profile as config.json has it, flags and a listener included."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Optional

from ..errors import KernelError, Unsupported, UsageError
from ..tuples import NamedTuple

if TYPE_CHECKING:
    from ..kernel.syscalls import Kernel

FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 1, "SECCOMP_FILTER_FLAG_LOG": 2, "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 32,
}  # fmt: skip
_NEW_LISTENER = 8
NOTIFY = "SCMP_ACT_NOTIFY"


class Filter(NamedTuple):
    """``program``: 8 bytes per instruction; ``listener``: path of the agent's socket, or ""."""

    program: bytes
    flags: int
    listener: str
    metadata: str


def check(profile: Any) -> None:
    """Raises ``UsageError`` naming the field."""
    from ..kernel.seccomp.profile import check as check_profile

    at = "linux.seccomp"
    if not isinstance(profile, Mapping):
        raise UsageError("%s: an object is needed" % at, path=at)
    for key in ("flags", "syscalls"):
        if not isinstance(profile.get(key) or [], list):
            raise UsageError("%s.%s: a list is needed" % (at, key), path="%s.%s" % (at, key))
    for flag in profile.get("flags") or []:
        if flag not in FLAGS:
            raise UsageError("%s.flags: unknown flag %r; known: %s" % (at, flag, ", ".join(FLAGS)), path=at + ".flags")
    check_profile(without_notify(profile), at)
    rules = [rule for rule in profile.get("syscalls") or [] if rule.get("action") == NOTIFY]
    if profile.get("defaultAction") == NOTIFY:
        raise UsageError("%s.defaultAction: %s would ask the agent about its own calls" % (at, NOTIFY), path=at)
    if rules and not profile.get("listenerPath"):
        raise UsageError("%s: %s needs listenerPath" % (at, NOTIFY), path=at + ".listenerPath")
    if any("write" in (rule.get("names") or []) or "sendmsg" in (rule.get("names") or []) for rule in rules):
        # The descriptor for the agent is handed over by those very calls.
        raise UsageError("%s: %s cannot be used for write and sendmsg" % (at, NOTIFY), path=at + ".syscalls")
    if profile.get("listenerMetadata") and not profile.get("listenerPath"):
        raise UsageError("%s: listenerMetadata needs listenerPath" % at, path=at + ".listenerMetadata")


def without_notify(profile: Mapping[str, Any]) -> dict[str, Any]:
    """For the checks of profiles, which know no agents."""
    rules = [
        {**rule, "action": "SCMP_ACT_LOG"} if isinstance(rule, Mapping) and rule.get("action") == NOTIFY else rule
        for rule in profile.get("syscalls") or []
    ]
    default = profile.get("defaultAction")
    return {**profile, "syscalls": rules, "defaultAction": "SCMP_ACT_LOG" if default == NOTIFY else default}


def compile_filter(profile: Optional[Mapping[str, Any]], machine: str) -> Optional[Filter]:
    """None when there is no profile. Raises ``UsageError``, ``Unsupported``."""
    if not profile:
        return None
    from ..kernel.seccomp.compiler import compile_profile

    flags = 0
    for flag in profile.get("flags") or []:
        flags |= FLAGS[flag]
    listener = str(profile.get("listenerPath") or "")
    asks = any(rule.get("action") == NOTIFY for rule in profile.get("syscalls") or [])
    if asks:
        flags |= _NEW_LISTENER
    program = compile_profile(profile, machine)
    return Filter(program, flags, listener if asks else "", str(profile.get("listenerMetadata") or ""))


def load(kernel: Kernel, wanted: Filter) -> int:
    """Load it for this process. The listener's descriptor, or -1. Raises ``KernelError``."""
    buffer = ctypes.create_string_buffer(wanted.program, len(wanted.program))
    header = struct.pack("@HP", len(wanted.program) // 8, ctypes.addressof(buffer))
    try:
        result = kernel.syscall("seccomp", 1, wanted.flags, header)
    except OSError as error:
        if error.errno == 22 and wanted.flags:
            raise Unsupported(
                "This kernel does not know one of the seccomp flags %#x" % wanted.flags, step="seccomp"
            ) from error
        raise KernelError.wrap(error, "Cannot load the seccomp filter", step="seccomp") from error
    return result if wanted.flags & _NEW_LISTENER else -1


def hand_over(listener: int, wanted: Filter, state: Mapping[str, Any], pid: int) -> None:
    """Give the listener to the agent, with the container process state the specification describes."""
    import json
    import socket
    from array import array

    message = {
        "ociVersion": state["ociVersion"],
        "fds": ["seccompFd"],
        "pid": pid,
        "metadata": wanted.metadata,
        "state": state,
    }
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.settimeout(10.0)
        sock.connect(wanted.listener)
        sock.sendmsg([json.dumps(message).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [listener]))])
    except OSError as error:
        raise KernelError.wrap(
            error, "Cannot hand the seccomp listener to %s" % wanted.listener, step="seccomp_listener"
        ) from error
    finally:
        sock.close()
        os.close(listener)
