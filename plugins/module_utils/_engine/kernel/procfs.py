# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What /proc knows: who is alive, which boot this is, what is mounted; and a /proc nobody can tamper with."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Optional

from ..tuples import NamedTuple

if TYPE_CHECKING:
    from .syscalls import Kernel

# A read of a pseudo-file ends early only before a record that does not fit into the rest of a page (seq_file,
# fs/seq_file.c), and no record is half a page long: less than that is all there is, without a second read.
_SURELY_WHOLE = 2048
_PF_EXITING = 0x4  # include/linux/sched.h; in field 9 of /proc/PID/stat, proc(5)


class Stat(NamedTuple):
    """The fields of ``/proc/<pid>/stat`` the engine needs. ``start``: clock ticks after boot (field 22)."""

    pid: int
    comm: str
    state: str
    parent: int
    threads: int
    start: int
    flags: int


class Mount(NamedTuple):
    """One line of mountinfo. ``root``: the path inside the filesystem that is mounted at ``target``;
    ``options``: of the mount; ``tags``: ``shared:N``, ``master:N`` ...; ``super_options``: of the filesystem."""

    id: int
    parent: int
    device: str
    root: str
    target: str
    options: str
    tags: tuple[str, ...]
    fstype: str
    source: str
    super_options: str


def whole(path: str) -> bytes:
    """All of a pseudo-file, in one read when it is small."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.read(fd, 4096)  # a larger buffer costs more than reading what fits into it
        if len(data) >= _SURELY_WHOLE:
            while True:
                more = os.read(fd, 65536)
                if not more:
                    break
                data += more
        return data
    finally:
        os.close(fd)


def _read(path: str) -> str:
    """Non-UTF-8 bytes survive as surrogates."""
    return whole(path).decode("utf-8", "surrogateescape")


def stat(pid: int, proc: str = "/proc") -> Optional[Stat]:
    """``None`` when there is no such process (any more)."""
    try:
        fd = os.open("%s/%d/stat" % (proc, pid), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        text = os.read(fd, 4096).decode("utf-8", "surrogateescape")  # one line, always whole
    except ProcessLookupError:
        return None
    finally:
        os.close(fd)
    # comm is chosen by the process and may hold spaces and parentheses: the last ")" ends it.
    head, _sep, tail = text.rpartition(")")
    fields = tail.split()
    return Stat(
        pid,
        head.partition("(")[2],
        fields[0],
        parent=int(fields[1]),
        threads=int(fields[17]),
        start=int(fields[19]),
        flags=int(fields[6]),
    )


def is_ending(pid: int) -> bool:
    """Is ``pid`` gone, or on its way out? The first process of a pid namespace is for as long as it takes to end the
    others, and whoever enters meanwhile fails or is killed with them."""
    found = stat(pid)
    return found is None or bool(found.flags & _PF_EXITING and found.threads <= 1)


def start_time(pid: int) -> Optional[int]:
    """Clock ticks after boot at which ``pid`` started; ``None`` when it does not exist."""
    found = stat(pid)
    return None if found is None else found.start


def is_alive(pid: int, start: int) -> bool:
    """Is this very process running? A reused pid has another start time; a zombie is dead, unless only its first
    thread ended (then the others still count in ``threads``)."""
    return living_parent(pid, start) is not None


def living_parent(pid: int, start: int) -> Optional[int]:
    """The parent of this very process (0: one outside our pid namespace); ``None`` when it is not alive."""
    found = stat(pid)
    if found is None or found.start != start or (found.state in "ZXx" and found.threads <= 1):
        return None
    return found.parent


_boot: list[str] = []


def boot_id() -> str:
    """Changes with every boot: what is stored under another one says nothing about the present. No process outlives
    one, so it is read once."""
    if not _boot:
        _boot.append(_read("/proc/sys/kernel/random/boot_id").strip())
    return _boot[0]


def mountinfo(path: str = "/proc/self/mountinfo") -> list[Mount]:
    """The mount table, in the kernel's order (a later mount hides an earlier one on the same target). Raises
    ``FileNotFoundError`` or ``ProcessLookupError`` when the process has ended."""
    try:
        return parse_mountinfo(_read(path))
    except OSError as error:
        if error.errno == errno.EINVAL:  # a zombie has no namespaces any more (mounts_open_common, fs/proc_namespace.c)
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH), path) from None
        raise


def mounted(path: str) -> set[str]:
    """Where something is mounted, and nothing else of the table. Raises as ``mountinfo`` does."""
    try:
        return {unescape(line.split(" ", 5)[4]) for line in _read(path).split("\n") if line}
    except OSError as error:
        if error.errno == errno.EINVAL:  # as in mountinfo
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH), path) from None
        raise


def parse_mountinfo(text: str) -> list[Mount]:
    mounts = []
    for line in text.split("\n"):
        fields = line.split(" ")
        if len(fields) < 10:
            continue
        dash = fields.index("-", 6)
        fstype, source, super_options = [*fields[dash + 1 : dash + 4], "", ""][:3]
        mounts.append(
            Mount(
                int(fields[0]),
                int(fields[1]),
                fields[2],
                unescape(fields[3]),
                unescape(fields[4]),
                fields[5],
                tuple(fields[6:dash]),
                fstype,
                unescape(source),
                super_options,
            )
        )
    return mounts


def unescape(text: str) -> str:
    r"""Undo the kernel's ``\ooo`` escapes (space, tab, newline, backslash, #)."""
    if "\\" not in text:
        return text
    parts = text.split("\\")
    out = [parts[0]]
    for part in parts[1:]:
        digits = part[:3]
        if len(digits) == 3 and all(c in "01234567" for c in digits):
            out.append(chr(int(digits, 8)) + part[3:])
        else:
            out.append("\\" + part)
    return "".join(out)


def children(pid: int) -> list[int]:
    """Direct children of every thread of ``pid`` (needs CONFIG_PROC_CHILDREN; empty where it lacks)."""
    found = []
    try:
        for thread in os.listdir("/proc/%d/task" % pid):
            found += [int(n) for n in _read("/proc/%d/task/%s/children" % (pid, thread)).split()]
    except (FileNotFoundError, ProcessLookupError):
        pass  # the process or thread is gone: what was found is what there is
    return found


def private_proc(kernel: Kernel, *, whole: bool = False) -> int:
    """Descriptor of a detached procfs of the caller's pid namespace. The caller closes it, soon.

    Writing security labels or sysctls through a container-visible /proc lets an image or volume that overmounts parts
    of it redirect the write (CVE-2019-16884, CVE-2025-52881); nothing can be mounted over this one. ``whole`` includes
    ``/proc/sys`` and the other non-process files; otherwise ``subset=pid`` (Linux 5.8) keeps the blast radius small.
    """
    from ..errors import KernelError
    from .syscalls import AT_FDCWD, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID

    attrs = MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NOSUID
    options = () if whole else (("subset", "pid"), ("hidepid", "ptraceable"))
    try:
        return kernel.new_fs("proc", options, attrs)
    except OSError:
        # A user namespace may not mount a proc that reveals more than the visible one: clone that, without submounts.
        try:
            return kernel.clone_tree(AT_FDCWD, "/proc", recursive=False)
        except OSError as error:
            raise KernelError.wrap(error, "Cannot get a private /proc", step="private_proc") from error


def write_at(dirfd: int, path: str, value: str) -> None:
    """Write one value into a pseudo-file below ``dirfd`` in one ``write``. Raises ``OSError``."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=dirfd)
    try:
        os.write(fd, os.fsencode(value))
    finally:
        os.close(fd)
