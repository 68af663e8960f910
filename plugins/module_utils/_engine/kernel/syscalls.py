# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every system call the standard library lacks, behind one object.

``Kernel`` is the seam: it is passed down, and a recording fake takes its place where ordering is tested without
root. Failures are ``OSError`` with the call's name and subject in ``filename``; the caller adds the sentence.

``PyDLL`` keeps the GIL across the call: a ``clone3`` through ``CDLL`` deadlocks the child when other threads exist
(measured, 4 of 25 tries). Every integer is passed as a C long; ctypes would pass 32-bit ints to a variadic function.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from typing import Any, Optional, Union

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
AT_SYMLINK_NOFOLLOW = 0x100

# mount(2), <linux/mount.h>
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_MOVE, MS_REC, MS_PRIVATE, MS_SLAVE, MS_SHARED = 4096, 8192, 16384, 1 << 18, 1 << 19, 1 << 20
MNT_DETACH = 2

# mount_setattr(2)/fsmount(2) attributes
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC = 1, 2, 4, 8
MOUNT_ATTR_STRICTATIME, MOUNT_ATTR_NOATIME, MOUNT_ATTR_IDMAP = 0x20, 0x10, 0x100000

OPEN_TREE_CLONE = 1
RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS = 0x01, 0x02, 0x04
RESOLVE_BENEATH, RESOLVE_IN_ROOT = 0x08, 0x10

CLONE_NEWTIME, CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS = 0x80, 0x20000, 0x02000000, 0x04000000
CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x08000000, 0x10000000, 0x20000000, 0x40000000
CLONE_PIDFD, CLONE_PARENT, CLONE_INTO_CGROUP = 0x1000, 0x8000, 0x200000000
CLONE_KEEPS_CPUSET = (6, 3)  # the release whose CLONE_INTO_CGROUP does; see ``old_clone``

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_KEEPCAPS, PR_SET_NAME = 1, 4, 8, 15
PR_CAPBSET_READ, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 23, 24, 36, 38
PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP = 28, 4
PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, PR_CAP_AMBIENT_CLEAR_ALL = 47, 2, 4

_FSCONFIG_SET_FLAG, _FSCONFIG_SET_STRING, _FSCONFIG_SET_FD, _FSCONFIG_CMD_CREATE = 0, 1, 5, 6
_SPLICE_F_NONBLOCK = 2
_FALLOC_FL_KEEP_SIZE, _FALLOC_FL_PUNCH_HOLE = 1, 2
_MOVE_MOUNT_F_EMPTY_PATH, _MOVE_MOUNT_T_EMPTY_PATH = 0x04, 0x40

# Numbers from 424 on are the same on every architecture (but alpha); older ones differ.
_NR = {
    "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "clone3": 435,
    "close_range": 436, "openat2": 437, "mount_setattr": 442, "quotactl_fd": 443,
}  # fmt: skip
_NR_BY_MACHINE = {
    "x86_64": {
        "bpf": 321,
        "clone": 56,
        "seccomp": 317,
        "pivot_root": 155,
        "keyctl": 250,
        "capset": 126,
        "rt_sigaction": 13,
        "capget": 125,
        "personality": 135,
        "eventfd2": 290,
        "splice": 275,
        "fallocate": 285,
        "sched_setattr": 314,
        "ioprio_set": 251,
        "quotactl": 179,
    },
    "aarch64": {
        "bpf": 280,
        "clone": 220,
        "seccomp": 277,
        "pivot_root": 41,
        "keyctl": 219,
        "capset": 91,
        "rt_sigaction": 134,
        "capget": 90,
        "personality": 92,
        "eventfd2": 19,
        "splice": 76,
        "fallocate": 47,
        "sched_setattr": 274,
        "ioprio_set": 30,
        "quotactl": 60,
    },
}
for _generic in ("riscv64", "loongarch64"):  # asm-generic numbers, as arm64
    _NR_BY_MACHINE[_generic] = _NR_BY_MACHINE["aarch64"]

PathLike = Union[str, bytes]
_CAP_VERSION_3 = 0x20080522


def _bytes(value: Optional[PathLike]) -> Optional[bytes]:
    return None if value is None else os.fsencode(value)


def _release(text: str) -> tuple[int, int]:
    """``(5, 10)`` of "5.10.0-32-cloud-amd64"; (0, 0) of what is none."""
    try:
        major, minor = text.split("-")[0].rstrip("+").split(".")[:2]
        return int(major), int(minor)
    except ValueError:
        return 0, 0


class _CloneArgs(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            "flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack",
            "stack_size", "tls", "set_tid", "set_tid_size", "cgroup",
        )
    ]  # fmt: skip


class Kernel:
    """The running kernel. Stateless; one instance is enough, tests pass a recording subclass."""

    def __init__(self) -> None:
        self._libc = ctypes.PyDLL(None, use_errno=True)
        self._libc.syscall.restype = ctypes.c_long
        self.machine = os.uname().machine
        self.release = _release(os.uname().release)
        self._nr = {**_NR, **_NR_BY_MACHINE.get(self.machine, {})}

    def syscall(self, name: str, *args: Any, what: Optional[PathLike] = None) -> int:
        """Call by name. ``int`` arguments are passed as longs, ``bytes``/``None``/ctypes objects as pointers.

        Raises ``OSError(errno, words, what or name)``; ENOSYS where this machine has no number for ``name``.
        """
        number = self._nr.get(name)
        if number is None:
            raise OSError(38, os.strerror(38), what or name)
        longs = [ctypes.c_long(a) if isinstance(a, int) else a for a in args]
        result: int = self._libc.syscall(ctypes.c_long(number), *longs)
        if result < 0:
            errno = ctypes.get_errno()
            raise OSError(errno, os.strerror(errno), what or name)
        return result

    def _call(self, name: str, *args: Any, what: Optional[PathLike] = None) -> int:
        """A glibc wrapper that exists everywhere (mount, prctl, setns ...)."""
        result: int = getattr(self._libc, name)(*args)
        if result < 0:
            errno = ctypes.get_errno()
            raise OSError(errno, os.strerror(errno), what or name)
        return result

    # -- files ---------------------------------------------------------------------------------------------

    def openat2(self, dirfd: int, path: PathLike, flags: int, mode: int = 0, resolve: int = 0) -> int:
        """openat2(2), Linux 5.6. EAGAIN means a rename raced with the resolution: tried again."""
        how = struct.pack("QQQ", flags | os.O_CLOEXEC, mode, resolve)
        while True:
            try:
                return self.syscall("openat2", dirfd, os.fsencode(path), how, len(how), what=path)
            except BlockingIOError:
                continue

    def open_in_root(self, rootfd: int, path: PathLike, flags: int = os.O_PATH, mode: int = 0) -> int:
        """Open ``path`` as if ``rootfd`` were ``/``: symlinks and ``..`` cannot leave it, magic links are refused.

        This is how every path that a container, an image or a build context can influence is resolved.
        """
        return self.openat2(rootfd, path, flags, mode, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)

    def close_range(self, first: int, last: int = 0xFFFFFFFF, flags: int = 0) -> None:
        self.syscall("close_range", first, last, flags)

    def splice_from_pipe(self, pipe: int, file: int, offset: int, count: int) -> int:
        """splice(2): at most ``count`` bytes out of ``pipe``, without waiting, to ``offset`` of ``file``; how many, 0
        when nobody can write to the pipe any more. What has left the pipe is in the file, also for a process that is
        killed meanwhile: the kernel takes out of the pipe what it has copied, and is not interrupted between the two.
        Raises ``BlockingIOError`` when the pipe is empty."""
        if hasattr(os, "splice"):  # Python 3.10
            return os.splice(pipe, file, count, offset_dst=offset, flags=_SPLICE_F_NONBLOCK)
        where = ctypes.c_longlong(offset)
        return self.syscall("splice", pipe, None, file, ctypes.byref(where), count, _SPLICE_F_NONBLOCK)

    def punch_hole(self, fd: int, offset: int, length: int) -> None:
        """Give the file's blocks in that range back; its size and all offsets stay. EOPNOTSUPP where it cannot."""
        self.syscall("fallocate", fd, _FALLOC_FL_KEEP_SIZE | _FALLOC_FL_PUNCH_HOLE, offset, length)

    def fs_type(self, fd: int) -> int:
        """The magic number of the file system that ``fd`` is on (fstatfs(2): the first word of what it fills in)."""
        buffer = (ctypes.c_long * 16)()
        self._call("fstatfs", ctypes.c_int(fd), ctypes.byref(buffer))
        return int(buffer[0])

    def syncfs(self, fd: int) -> None:
        """Write everything on ``fd``'s file system to the disk, and report write-back errors (Linux 5.8)."""
        self._call("syncfs", ctypes.c_int(fd))

    # -- mounts --------------------------------------------------------------------------------------------

    def mount(
        self,
        source: Optional[PathLike],
        target: PathLike,
        fstype: Optional[str],
        flags: int,
        data: Optional[PathLike] = None,
    ) -> None:
        self._call(
            "mount",
            _bytes(source),
            os.fsencode(target),
            _bytes(fstype),
            ctypes.c_ulong(flags),
            _bytes(data),
            what=target,
        )

    def umount2(self, target: PathLike, flags: int = 0) -> None:
        self._call("umount2", os.fsencode(target), ctypes.c_int(flags), what=target)

    def pivot_root(self, new_root: PathLike, put_old: PathLike) -> None:
        self.syscall("pivot_root", os.fsencode(new_root), os.fsencode(put_old), what=new_root)

    def new_fs(
        self,
        fstype: str,
        options: tuple[tuple[str, Union[str, bytes, int, None]], ...] = (),
        attrs: int = 0,
    ) -> int:
        """A detached mount of a new superblock (fsopen, fsconfig, fsmount; Linux 5.2). Returns its descriptor.

        Option values: ``str``/``bytes`` set a string (the kernel allows 255 bytes), ``int`` a descriptor, ``None``
        a flag. On failure the kernel's own sentence (read from the fs context) is part of the error.
        """
        fs = self.syscall("fsopen", fstype.encode(), 1, what=fstype)
        try:
            for key, value in options:
                if value is None:
                    self.syscall("fsconfig", fs, _FSCONFIG_SET_FLAG, key.encode(), None, 0, what=key)
                elif isinstance(value, int):
                    self.syscall("fsconfig", fs, _FSCONFIG_SET_FD, key.encode(), None, value, what=key)
                else:
                    self.syscall("fsconfig", fs, _FSCONFIG_SET_STRING, key.encode(), os.fsencode(value), 0, what=key)
            self.syscall("fsconfig", fs, _FSCONFIG_CMD_CREATE, None, None, 0, what=fstype)
            return self.syscall("fsmount", fs, 1, attrs, what=fstype)
        except OSError as error:
            words = self._fs_messages(fs)
            if words:
                raise OSError(error.errno, "%s (%s)" % (error.strerror, words), error.filename) from None
            raise
        finally:
            os.close(fs)

    def _fs_messages(self, fs: int) -> str:
        words = []
        while True:
            try:
                words.append(os.read(fs, 4096).decode(errors="replace").strip())
            except OSError:  # ENODATA: no (more) messages
                return "; ".join(words)

    def clone_tree(
        self,
        dirfd: int,
        path: PathLike,
        *,
        attr_set: int = 0,
        attr_clear: int = 0,
        userns_fd: Optional[int] = None,
        propagation: int = MS_PRIVATE,
        recursive: bool = True,
    ) -> int:
        """A detached bind mount (open_tree OPEN_TREE_CLONE, 5.2) with attributes, propagation and id mapping applied
        to every submount before it is visible anywhere (mount_setattr, 5.12). ``path`` "" clones ``dirfd`` itself."""
        rec = AT_RECURSIVE if recursive else 0
        flags = OPEN_TREE_CLONE | os.O_CLOEXEC | rec | (0 if path else AT_EMPTY_PATH)
        fd = self.syscall("open_tree", dirfd, os.fsencode(path), flags, what=path)
        try:
            if userns_fd is not None:
                attr_set |= MOUNT_ATTR_IDMAP
            self.mount_setattr(fd, attr_set, attr_clear, propagation, userns_fd or 0, recursive=recursive, what=path)
        except OSError:
            os.close(fd)
            raise
        return fd

    def mount_setattr(
        self,
        mount_fd: int,
        attr_set: int = 0,
        attr_clear: int = 0,
        propagation: int = 0,
        userns_fd: int = 0,
        *,
        recursive: bool = False,
        what: Optional[PathLike] = None,
    ) -> None:
        """mount_setattr(2), Linux 5.12; before that, see ``old_mounts``."""
        attr = struct.pack("QQQQ", attr_set, attr_clear, propagation, userns_fd)
        flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
        try:
            self.syscall("mount_setattr", mount_fd, b"", flags, attr, len(attr), what=what)
        except OSError as error:
            if error.errno != 38 or attr_set & MOUNT_ATTR_IDMAP:
                raise
            from . import old_mounts

            old_mounts.set_attributes(self, mount_fd, attr_set, attr_clear, propagation, recursive)

    def move_mount(self, mount_fd: int, target_fd: int, what: Optional[PathLike] = None) -> None:
        """Attach a detached mount onto what ``target_fd`` (O_PATH) refers to."""
        flags = _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH
        self.syscall("move_mount", mount_fd, b"", target_fd, b"", flags, what=what)

    # -- processes and namespaces ---------------------------------------------------------------------------

    def unshare(self, flags: int) -> None:
        self._call("unshare", ctypes.c_int(flags))

    def setns(self, fd: int, nstype: int = 0) -> None:
        self._call("setns", ctypes.c_int(fd), ctypes.c_int(nstype))

    def clone3(self, flags: int, cgroup_fd: Optional[int] = None) -> tuple[int, int]:
        """fork() with namespace flags in one call. Returns ``(pid, pidfd)``, ``(0, -1)`` in the child.

        The child must end in ``execve`` or ``os._exit``. Raises ``OSError`` EOPNOTSUPP, too, where the kernel would
        clone into the cgroup but not onto its processors.
        """
        if cgroup_fd is not None and self.release < CLONE_KEEPS_CPUSET:
            from .old_clone import loses_cpuset

            if loses_cpuset(cgroup_fd):
                raise OSError(95, os.strerror(95), "clone3")
        pidfd = ctypes.c_int(-1)
        # A sibling (CLONE_PARENT) takes over our own exit signal; the kernel refuses one named here.
        exit_signal = 0 if flags & CLONE_PARENT else signal.SIGCHLD
        args = _CloneArgs(flags=flags | CLONE_PIDFD, exit_signal=exit_signal, pidfd=ctypes.addressof(pidfd))
        if cgroup_fd is not None:
            args.flags |= CLONE_INTO_CGROUP
            args.cgroup = cgroup_fd
        ctypes.pythonapi.PyOS_BeforeFork()
        pid: int = self._libc.syscall(
            ctypes.c_long(self._nr["clone3"]), ctypes.byref(args), ctypes.c_size_t(ctypes.sizeof(args))
        )
        if pid == 0:
            ctypes.pythonapi.PyOS_AfterFork_Child()
            return 0, -1
        errno = ctypes.get_errno()
        ctypes.pythonapi.PyOS_AfterFork_Parent()
        if pid < 0:
            raise OSError(errno, os.strerror(errno), "clone3")
        return pid, pidfd.value

    def fork_sibling(self) -> int:
        """fork() whose child is our parent's. By clone(2): containers' filters know it, and refuse clone3. The pid is
        as we see it, also when the child is in another pid namespace. 0 in the child."""
        flags = CLONE_PARENT | signal.SIGCHLD
        ctypes.pythonapi.PyOS_BeforeFork()
        pid: int = self._libc.syscall(
            ctypes.c_long(self._nr["clone"]), ctypes.c_long(flags), *[ctypes.c_long(0) for _argument in range(4)]
        )
        if pid == 0:
            ctypes.pythonapi.PyOS_AfterFork_Child()
            return 0
        errno = ctypes.get_errno()
        ctypes.pythonapi.PyOS_AfterFork_Parent()
        if pid < 0:
            raise OSError(errno, os.strerror(errno), "clone")
        return pid

    def prctl(self, option: int, arg2: int = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
        longs = [ctypes.c_ulong(a) for a in (arg2, arg3, arg4, arg5)]
        return self._call("prctl", ctypes.c_int(option), *longs)

    def set_fs_ids(self, uid: int, gid: int) -> None:
        """Who files are made as (setfsuid(2), which tells no error: the second call shows what the first one did)."""
        for name, number in (("setfsgid", gid), ("setfsuid", uid)):
            call = getattr(self._libc, name)
            call(ctypes.c_uint(number))
            if call(ctypes.c_uint(number)) & 0xFFFFFFFF != number:
                raise OSError(1, os.strerror(1), name)

    def capset(self, effective: int, permitted: int, inheritable: int) -> None:
        header = struct.pack("=Ii", _CAP_VERSION_3, 0)
        data = b"".join(
            struct.pack("=III", effective >> s & 0xFFFFFFFF, permitted >> s & 0xFFFFFFFF, inheritable >> s & 0xFFFFFFFF)
            for s in (0, 32)
        )
        self.syscall("capset", header, data)

    def capget(self) -> tuple[int, int, int]:
        """This thread's ``(effective, permitted, inheritable)`` as masks, without /proc."""
        header = struct.pack("=Ii", _CAP_VERSION_3, 0)
        data = ctypes.create_string_buffer(24)
        self.syscall("capget", header, data)
        words: tuple[int, ...] = struct.unpack("=6I", data.raw)
        return words[0] | words[3] << 32, words[1] | words[4] << 32, words[2] | words[5] << 32

    def default_signals(self, *numbers: int) -> None:
        """SIG_DFL by rt_sigaction(2) itself: glibc keeps the signals 32 and 33 to itself and refuses to touch them,
        but a program that ignores them hands that on through fork and execve."""
        action = bytes(32)  # struct kernel_sigaction: handler SIG_DFL, no flags, no restorer, empty mask
        for number in numbers:
            self.syscall("rt_sigaction", number, action, None, 8, what="signal %d" % number)

    def sethostname(self, name: str) -> None:
        raw = name.encode()
        self._call("sethostname", raw, ctypes.c_size_t(len(raw)))

    def setdomainname(self, name: str) -> None:
        raw = name.encode()
        self._call("setdomainname", raw, ctypes.c_size_t(len(raw)))

    def keyctl_join_session(self) -> None:
        """A new anonymous session keyring (KEYCTL_JOIN_SESSION_KEYRING = 1): host keys stay out of the container."""
        self.syscall("keyctl", 1, None)

    # -- filters ---------------------------------------------------------------------------------------------

    def seccomp_load(self, program: bytes) -> None:
        """Load a classic BPF program (8 bytes per instruction) for this thread. Needs no_new_privs or CAP_SYS_ADMIN."""
        buffer = ctypes.create_string_buffer(program, len(program))
        prog = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
        self.syscall("seccomp", 1, 0, prog)

    def bpf(self, command: int, attr: bytes) -> tuple[int, bytes]:
        """bpf(2). Returns the result and the attribute block as the kernel left it (pass 64 bytes to BPF_PROG_QUERY:
        6.17 and later write past shorter ones)."""
        buffer = ctypes.create_string_buffer(attr, len(attr))
        return self.syscall("bpf", command, buffer, len(attr)), buffer.raw
