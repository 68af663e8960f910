# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""AppArmor: the profile of containers, on hosts where that security module is on.

The profile is the second lock on doors that other means close too (read-only and hidden paths, capabilities, filter):
it holds when one of those has a hole. What it forbids is what Docker's does. The program ``apparmor_parser`` compiles
it; where the host lacks that, containers run without a profile, and ``host_info`` says so.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Optional

from ..errors import KernelError, NotFound, Unsupported

DEFAULT = "wharf-default"
UNCONFINED = "unconfined"
STAMP = "/run/wharf-apparmor"  # hash of the text that is loaded: another engine version may have another
_SWITCH = "/sys/module/apparmor/parameters/enabled"
_LOADED = "/sys/kernel/security/apparmor/profiles"
_PARSERS = ("/usr/sbin/apparmor_parser", "/sbin/apparmor_parser")

# Rules that deny win over rules that allow. Below /proc/sys/kernel, msg*, sem and shm* belong to the container's own
# IPC namespace; /sys/fs/cgroup is the container's own tree, mounted read-only unless it asked otherwise.
TEXT = """
profile %(name)s flags=(attach_disconnected,mediate_deleted) {
  file,
  capability,
  network,
  umount,
  deny mount,

  signal (receive) peer=unconfined,
  signal (send, receive) peer=%(name)s,
  ptrace (trace, read, tracedby, readby) peer=%(name)s,

  deny /proc/* w,
  deny /proc/{acpi,asound,bus,driver,fs,ide,irq,mpt,scsi,sysvipc,tty}/** w,
  deny /proc/sys/[^k]** w,
  deny /proc/sys/kernel/[^ms]** w,
  deny /proc/sys/kernel/m[^s]** w,
  deny /proc/sys/kernel/s[^eh]** w,
  deny /proc/sys/kernel/se[^m]** w,
  deny /proc/sysrq-trigger rwklx,
  deny /proc/kcore rwklx,
  deny /proc/kmem rwklx,

  deny /sys/[^f]*/** wklx,
  deny /sys/f[^s]*/** wklx,
  deny /sys/fs/[^c]*/** wklx,
  deny /sys/fs/c[^g]*/** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/devices/virtual/powercap/** rwklx,
  deny /sys/kernel/security/** rwklx,
}
"""


def is_enabled(switch: str = _SWITCH) -> bool:
    return _read(switch).strip() == "Y"


def parser() -> Optional[str]:
    for path in _PARSERS:
        if os.access(path, os.X_OK):
            return path
    return None


def is_loaded(profile: str, listing: str = _LOADED) -> bool:
    """Whether the kernel knows it, in whatever mode."""
    return any(line.rpartition(" (")[0] == profile for line in _read(listing).split("\n"))


def text(name: str = DEFAULT) -> str:
    return TEXT % {"name": name}


def choose(process: Mapping[str, Any]) -> str:
    """The profile for a container's programs, loaded by then; "" for none. ``process``: of config.json; it names a
    profile only if the task did.

    Raises ``Unsupported``, ``NotFound`` for a profile that was asked for, ``KernelError`` when ours cannot be loaded.
    """
    wanted = str(process.get("apparmorProfile") or "")
    if wanted == UNCONFINED:
        return ""
    if not is_enabled():
        if wanted:
            raise Unsupported(
                "The profile %s cannot be applied: AppArmor is not enabled on this host" % wanted,
                step="apparmor",
                path="security_opts",
            )
        return ""
    if not wanted:
        return DEFAULT if _ensure() else ""
    if not is_loaded(wanted):
        raise NotFound(
            "The AppArmor profile %s is not loaded" % wanted,
            step="apparmor",
            path="security_opts",
            hint="Load it on the host first: apparmor_parser -r FILE",
        )
    return wanted


def shown(wanted: str) -> str:
    """What an inspection says of a container that asked for ``wanted``."""
    return wanted or (DEFAULT if is_enabled() and is_loaded(DEFAULT) else "")


def _ensure() -> bool:
    program = parser()
    wanted = text()
    if program is None:
        return is_loaded(DEFAULT)  # somebody else may have loaded it
    import zlib

    stamp = "%08x" % zlib.crc32(wanted.encode())
    if _read(STAMP) == stamp and is_loaded(DEFAULT):
        return True
    from .. import process

    result = process.run([program, "--replace", "--skip-cache"], stdin=wanted.encode(), timeout=120.0)
    if result.returncode:
        raise KernelError(
            "The AppArmor profile %s cannot be loaded: %s"
            % (DEFAULT, result.stderr.decode(errors="replace").strip()[-500:] or "apparmor_parser failed"),
            step="apparmor",
            subject=DEFAULT,
            hint="security_opts: ['apparmor=unconfined'] starts the container without it.",
        )
    with open(STAMP, "w") as stream:
        stream.write(stamp)
    return True


def confine_next_program(profile: str) -> None:
    """From the next execve on, this process has the profile. Called while /proc is the host's: what a container shows
    as /proc may lead elsewhere (CVE-2019-16884)."""
    if not profile:
        return
    words = ("exec " + profile).encode()
    for path in ("/proc/thread-self/attr/apparmor/exec", "/proc/thread-self/attr/exec"):
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:  # before Linux 5.8 there is only the shared file
            continue
        try:
            os.write(fd, words)
            return
        except OSError as error:
            raise KernelError.wrap(
                error, "Cannot apply the AppArmor profile %s" % profile, step="apparmor", subject=profile
            ) from error
        finally:
            os.close(fd)
    raise KernelError("The kernel offers no way to apply an AppArmor profile", step="apparmor", subject=profile)


def _read(path: str) -> str:
    try:
        with open(path) as stream:
            return stream.read()
    except OSError:  # no such module, or its file system is not mounted
        return ""
