# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Under systemd: a part of the cgroup tree that is ours.

systemd owns the tree. What is started by a task would live in the cgroup of the ssh session that brought the task, and
die with it where ``KillUserProcesses=yes``; cgroups made beside systemd's own may be changed by it at any time. So all
containers of a host, and the processes that watch them, live below one unit with ``Delegate=yes``, made on demand:

    system.slice/wharf-containers.service     ``Delegate=yes``: systemd looks at nothing below
        engine/                               the unit's main process, spawners, monitors, resolvers
        wharf/<container id>/ctr              containers, as on other hosts below the root

Stopping the unit (the host going down does) stops every container as it wants to be stopped; they count as running, so
restart policies bring them back at the next boot. Nothing else stops with it by accident: ``KillMode=process``, so
that even a killed main process costs no container. The main process only sleeps: systemd removes the cgroup of a unit
that has none (seen with 252 and 257).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Optional

from ...errors import KernelError

if TYPE_CHECKING:
    from .layout import Hierarchy, Layout

UNIT = "wharf-containers.service"
SLICE = "system.slice"
ENGINE = "engine"
# Outside of all state directories: engines with different ones share the unit, and it outlives each of them.
STOP_SCRIPT = "/run/wharf-containers-stop.py"
_STOP_TIMEOUT = 600  # seconds; a container may ask for more than the ten of the default, but not hold a host for ever
_ESRCH = 3


def base(booted: str = "/run/systemd/system") -> str:
    """Below which cgroup of each hierarchy systemd looks after ours are; "" where systemd is not in charge."""
    return SLICE + "/" + UNIT if os.path.isdir(booted) else ""


def ensure(layout: Layout) -> list[str]:
    """See that the unit runs. Returns the files to which a process that outlives the task writes itself (``"0"``)
    before it does anything else; none where systemd is not in charge.

    Raises ``KernelError`` when systemd does not make the unit.
    """
    if not layout.base:
        return []
    managed = [hierarchy for hierarchy in layout.hierarchies if layout.is_managed(hierarchy.mountpoint)]
    if not all(_is_there(layout, hierarchy) for hierarchy in managed):
        _start()
    out = []
    for hierarchy in managed:
        top = layout.directory(hierarchy.mountpoint, "")
        leaf = top + "/" + ENGINE
        _mkdir(leaf)
        # A cgroup that hands controllers to its children may hold no process itself.
        for pid in layout.files.read(top + "/cgroup.procs").split():
            _move(layout, leaf, pid)
        out.append(leaf + "/cgroup.procs")
    return out


def _is_there(layout: Layout, hierarchy: Hierarchy) -> bool:
    return os.path.isdir(layout.directory(hierarchy.mountpoint, ENGINE))


def _mkdir(path: str) -> None:
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        pass
    except OSError as error:
        raise KernelError.wrap(
            error, "systemd made the unit %s, but not its cgroup %s" % (UNIT, path), step="delegation", subject=UNIT
        ) from error


def _move(layout: Layout, leaf: str, pid: str) -> None:
    try:
        layout.files.write(leaf + "/cgroup.procs", pid)
    except OSError as error:
        if error.errno != _ESRCH:  # it ended meanwhile
            raise KernelError.wrap(error, "Cannot move process %s to %s" % (pid, leaf), step="delegation") from error


def command(python: str, timeout: int = _STOP_TIMEOUT) -> list[str]:
    """The program and arguments that make the unit. ``After=``: at shutdown, units stop in the opposite order, so
    containers stop while there is a network and everything is mounted."""
    properties = (
        "Description=Containers of wharf.engine",
        "Delegate=yes",
        "KillMode=process",
        "TimeoutStopSec=%d" % timeout,
        "TasksMax=infinity",
        "OOMPolicy=continue",
        "After=network.target local-fs.target remote-fs.target dbus.service",
        "ExecStop=%s -I -S %s" % (python, STOP_SCRIPT),
    )
    argv = ["systemd-run", "--quiet", "--collect", "--no-ask-password", "--unit=" + UNIT, "--slice=" + SLICE]
    argv += ["--service-type=exec"]
    for text in properties:
        argv += ["-p", text]
    return [*argv, "sleep", "infinity"]


def _start() -> None:
    import sys

    from ... import process

    _write_stop_script()
    try:
        result = process.run(command(sys.executable), timeout=60.0)
        words: Optional[str] = result.stderr.decode(errors="replace").strip() if result.returncode else None
    except FileNotFoundError:
        words = "there is no systemd-run on this host"
    if words is not None and "already" not in words:  # another task was faster
        raise KernelError(
            "systemd did not start %s, in which containers are to run: %s" % (UNIT, words),
            step="delegation",
            subject=UNIT,
            hint="See what it says: systemctl status " + UNIT,
        )


def _write_stop_script() -> None:
    """The unit outlives every bundle, so it cannot point into one."""
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    with open(here + "/runtime/halt.py", "rb") as source:
        text = source.read()
    temporary = "%s.%d" % (STOP_SCRIPT, os.getpid())
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, text)
    finally:
        os.close(fd)
    os.rename(temporary, STOP_SCRIPT)
