# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a test run must not leave on the host, and whether another run is going on that could be to blame."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator

_MARKS = (b"module_utils._engine", b"wharf_runtime._engine")
_NETNS_DIRECTORIES = ("/run/netns", "/var/run/netns")

Snapshot = dict[str, set[str]]


def snapshot() -> Snapshot:
    """``{kind: names}`` of everything on this host that the engine could have made."""
    mounts = list(_mounts())
    return {
        "mount": {"%s on %s" % (kind, where) for kind, where in mounts},
        "network link": _listdir("/sys/class/net"),
        "network namespace": {
            "%s/%s" % (directory, name) for directory in _NETNS_DIRECTORIES for name in _listdir(directory)
        },
        "cgroup": {path for kind, where in mounts if kind in ("cgroup", "cgroup2") for path in _cgroups(where)},
        "nft table": _nft_tables(),
        "run directory": {name for name in _listdir("/run") if name.startswith(("wharf", "wt"))},
        "process": set(_processes()),
    }


def leftovers(before: Snapshot, after: Snapshot) -> list[str]:
    return sorted("%s %s" % (kind, name) for kind, names in after.items() for name in names - before[kind])


def wait_for_clean(before: Snapshot, seconds: float) -> list[str]:
    """What is still left after up to ``seconds``: an engine process may be about to end."""
    deadline = time.monotonic() + seconds
    while True:
        left = leftovers(before, snapshot())
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.1)


class Sessions:
    """Notices other test runs on this host. Each appends a line to a log and holds a shared lock on it."""

    def __init__(self, path: str = "") -> None:
        path = path or os.path.join(tempfile.gettempdir(), "wharf-test-sessions-%d" % os.getuid())
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        self._alone = True
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._fd, 0)
        except BlockingIOError:
            self._alone = False
        fcntl.flock(self._fd, fcntl.LOCK_SH)
        os.lseek(self._fd, 0, os.SEEK_END)
        os.write(self._fd, b"%d\n" % os.getpid())
        self._size = os.fstat(self._fd).st_size

    def alone(self) -> bool:
        """Has this been the only run since it began?"""
        return self._alone and os.fstat(self._fd).st_size == self._size

    def close(self) -> None:
        os.close(self._fd)


def _listdir(path: str) -> set[str]:
    try:
        return set(os.listdir(path))
    except (FileNotFoundError, NotADirectoryError):
        return set()


def _mounts() -> Iterator[tuple[str, str]]:
    """``(file system type, mount point)``."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            left, _dash, right = line.partition(" - ")
            yield right.split(" ", 1)[0], left.split(" ")[4]


def _cgroups(top: str) -> Iterator[str]:
    for directory, names, _files in os.walk(top):
        yield from ("%s/%s" % (directory, name) for name in names if name.startswith("wharf"))


def _nft_tables() -> set[str]:
    nft = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if nft is None or os.geteuid() != 0:
        return set()
    listed = subprocess.run([nft, "list", "tables"], capture_output=True, text=True, check=False).stdout
    return {line for line in listed.splitlines() if line.split()[-1].startswith("wharf")}


def _processes() -> Iterator[str]:
    """Engine processes (by their command line), container processes (by their cgroup), and forks of this run."""
    own = _file("/proc/self/cmdline")
    for pid in os.listdir("/proc"):
        if not pid.isdigit() or int(pid) == os.getpid():
            continue
        command = _file("/proc/%s/cmdline" % pid)
        is_fork = command == own and command != b""
        if is_fork or any(mark in command for mark in _MARKS) or b"/wharf" in _file("/proc/%s/cgroup" % pid):
            yield "%s (%s)" % (pid, command.replace(b"\0", b" ").decode(errors="replace")[:200].strip())


def _file(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""
