# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""An interpreter that nobody can write to, for runs that a container can look into.

A process of ours that is in a container's pid namespace *is* the host's Python until its last execve. Who may open its
``/proc/<pid>/exe`` could keep that open and write to the file later, when no process executes it any more
(CVE-2019-5736): the next task would run the container's code as the host's root. Not being dumpable keeps everybody
out but a holder of CAP_SYS_PTRACE over us, that is a container without user namespace that was given it. And the
program that an exec names can be made a link to ``/proc/self/exe`` between our look at it and the kernel's.

Before either can happen the runtime executes itself anew out of a sealed file in memory: what a container can reach
then is a copy that the kernel refuses to change, and that is gone with the process.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from ..errors import KernelError

_NAME = "wharf-oci"
_F_ADD_SEALS, _ALL_SEALS = 1033, 0x1 | 0x2 | 0x4 | 0x8  # seal, shrink, grow, write
_CHUNK = 16 << 20


def is_sealed() -> bool:
    return os.readlink("/proc/self/exe").startswith("/memfd:" + _NAME)


def needed_for_start(config: Mapping[str, Any], bundle: str, spaces: Mapping[str, str]) -> bool:
    """Before its program runs nobody is in a pid namespace of the container's own, nor in its files. Another pid
    namespace may be full of people, and into a directory that is mounted others can write: the program may lie there.
    """
    if spaces.get("pid") != "":
        return True
    for mount in config.get("mounts") or ():
        bind = mount.get("type") == "bind" or {"bind", "rbind"} & set(mount.get("options") or ())
        if bind and os.path.isdir(os.path.join(bundle, mount.get("source") or "")):
            return True
    return False


def ensure() -> None:
    """Go on in a sealed interpreter: executes this command line anew, unless that has happened. Called before anything
    was changed. Raises ``KernelError``."""
    if is_sealed():
        return
    fd = -1
    try:
        fd = os.memfd_create(_NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        _copy(fd)
        import fcntl

        fcntl.fcntl(fd, _F_ADD_SEALS, _ALL_SEALS)
        os.execve(fd, _argv(), dict(os.environ))
    except OSError as error:
        raise KernelError.wrap(
            error,
            "Cannot protect the interpreter from the container",
            step="seal",
            hint="sysctl vm.memfd_noexec must not be 2.",
        ) from error
    finally:
        if fd >= 0:
            os.close(fd)


def _copy(target: int) -> None:
    source = os.open("/proc/self/exe", os.O_RDONLY | os.O_CLOEXEC)
    try:
        while os.sendfile(target, source, None, _CHUNK):
            pass
    finally:
        os.close(source)


def _argv() -> list[str]:
    """This command line. The interpreter's own path stays in front: it finds its library by it."""
    given = getattr(sys, "orig_argv", None)  # Python 3.10
    words = list(given[1:]) if given else ["-I", "-S", *sys.argv]
    return [sys.executable, *words]
