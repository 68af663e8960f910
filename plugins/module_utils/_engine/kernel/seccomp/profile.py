# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Seccomp profiles: Docker's default rules as data, and reading Docker's JSON format.

The default is what Docker allows (moby/profiles, ``seccomp/default.json``, Apache-2.0, as of 2026): 361 calls always,
others by capability, architecture or arguments; everything else EPERM. ``clone`` and ``unshare`` cannot make
namespaces, ``clone3`` (whose flags lie in memory where no filter can see them) is ENOSYS so that libc falls back to
``clone``, and sockets of AF_ALG (38, CVE-2026-31431) and AF_VSOCK (40) are refused.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Optional

from ...errors import UsageError
from .tables import DOCKER_ARCH, SCMP_ARCH

VERSION = 1  # part of the cache key: raise it when the rules or the compiler change

EPERM, ENOSYS = 1, 38

ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_NOTIFY": 0x7FC00000,  # only for callers that have an agent: ``check`` refuses it
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
OPERATORS = (
    "SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_MASKED_EQ",
)  # fmt: skip

# CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}
_NAMESPACES = 0x7E020000

_ALLOWED = (
    "accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32 "
    "clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 "
    "clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 "
    "epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait "
    "epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 "
    "fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl "
    "fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 "
    "fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait "
    "futex_waitv futex_wake futimesat getcpu getcwd getdents getdents64 getegid getegid32 geteuid "
    "geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid getppid "
    "getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit get_robust_list "
    "getrusage getsid getsockname getsockopt get_thread_area gettid gettimeofday getuid getuid32 getxattr "
    "getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel ioctl io_destroy "
    "io_getevents io_pgetevents io_pgetevents_time64 ioprio_get ioprio_set io_setup io_submit ipc kill "
    "landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link "
    "linkat listen listmount listxattr listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat "
    "lstat64 madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod "
    "mknodat mlock mlock2 mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive "
    "mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv "
    "msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat _newselect open openat "
    "openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll "
    "ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease pselect6 pselect6_time64 "
    "pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recv recvfrom recvmmsg "
    "recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename renameat renameat2 "
    "restart_syscall riscv_hwprobe rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo "
    "rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo "
    "sched_getaffinity sched_getattr sched_getparam sched_get_priority_max sched_get_priority_min "
    "sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity "
    "sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop "
    "semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto setfsgid setfsgid32 "
    "setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid "
    "setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit set_robust_list "
    "setsid setsockopt set_thread_area set_tid_address setuid setuid32 setxattr setxattrat shmat shmctl "
    "shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn socketcall socketpair "
    "splice stat stat64 statfs statfs64 statmount statx symlink symlinkat sync sync_file_range syncfs "
    "sysinfo tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 "
    "timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime "
    "timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat uretprobe "
    "utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev"
)

_BY_ARCH = (
    (("ppc64le",), "sync_file_range2 swapcontext"),
    (("arm", "arm64"), "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls"),
    (("amd64", "x32"), "arch_prctl"),
    (("amd64", "x32", "x86"), "modify_ldt"),
    (("s390", "s390x"), "s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr"),
    (("riscv64",), "riscv_flush_icache"),
)

_BY_CAPABILITY = (
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "CAP_SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr "
        "lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl "
        "quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module init_module finit_module"),
    ("CAP_SYS_PACCT", "acct"),
    ("CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace"),
    ("CAP_SYS_RAWIO", "iopl ioperm"),
    ("CAP_SYS_TIME", "settimeofday stime clock_settime clock_settime64"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
    ("CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("CAP_SYSLOG", "syslog"),
    ("CAP_BPF", "bpf"),
    ("CAP_PERFMON", "perf_event_open"),
)


def _allow(names: str, **more: Any) -> dict[str, Any]:
    return {"names": names.split(), "action": "SCMP_ACT_ALLOW", **more}


def _arg(index: int, op: str, value: int, two: int = 0) -> list[dict[str, Any]]:
    return [{"index": index, "value": value, "valueTwo": two, "op": "SCMP_CMP_" + op}]


def default_profile() -> dict[str, Any]:
    """The default rules in Docker's format, freshly made (callers may change theirs)."""
    no_admin: dict[str, Any] = {"excludes": {"caps": ["CAP_SYS_ADMIN"]}}
    rules = [
        _allow(_ALLOWED),
        _allow("process_vm_readv process_vm_writev ptrace", includes={"minKernel": "4.8"}),
        _allow("socket", args=_arg(0, "LT", 38)),
        _allow("socket", args=_arg(0, "EQ", 39)),
        _allow("socket", args=_arg(0, "GT", 40)),
    ]
    rules += [_allow("personality", args=_arg(0, "EQ", value)) for value in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF)]
    rules += [_allow(names, includes={"arches": list(arches)}) for arches, names in _BY_ARCH]
    rules += [_allow(names, includes={"caps": [capability]}) for capability, names in _BY_CAPABILITY]
    rules += [
        _allow("clone", args=_arg(0, "MASKED_EQ", _NAMESPACES, 0), **no_admin),
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS, **no_admin},
    ]
    return {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": EPERM, "syscalls": rules}


def load(text: str, path: str = "seccomp profile") -> dict[str, Any]:
    """A profile from Docker's JSON, checked. ``path`` names it in errors. Raises ``UsageError`` naming the field."""
    import json

    try:
        profile = json.loads(text)
    except ValueError as error:
        raise UsageError("%s is not valid JSON: %s" % (path, error), path=path) from None
    check(profile, path)
    whole: dict[str, Any] = profile
    return whole


def check(profile: Any, path: str = "seccomp profile") -> None:
    """Raises ``UsageError`` with the first bad field in its message and ``path``."""
    if not isinstance(profile, Mapping):
        _bad(path, "", "an object is needed")
    _check_action(profile, "defaultAction", path, "")
    _check_errno(profile, "defaultErrnoRet", path, "")
    if profile.get("architectures") and profile.get("archMap"):
        _bad(path, "archMap", "use either architectures or archMap, not both")
    rules = profile.get("syscalls")
    if rules is not None and not isinstance(rules, list):
        _bad(path, "syscalls", "a list is needed")
    for number, rule in enumerate(rules or []):
        _check_rule(rule, path, "syscalls[%d]" % number)


def _check_rule(rule: Any, path: str, at: str) -> None:
    if not isinstance(rule, Mapping):
        _bad(path, at, "an object is needed")
    if rule.get("name") and rule.get("names"):
        _bad(path, at + ".name", "use either name or names, not both")
    names = names_of(rule)
    if not names or not all(isinstance(name, str) and name for name in names):
        _bad(path, at + ".names", "a list of system call names is needed")
    _check_action(rule, "action", path, at + ".")
    _check_errno(rule, "errnoRet", path, at + ".")
    args = rule.get("args")
    if args is not None and not isinstance(args, list):
        _bad(path, at + ".args", "a list is needed")
    for number, arg in enumerate(args or []):
        _check_arg(arg, path, "%s.args[%d]" % (at, number))
    for side in ("includes", "excludes"):
        _check_condition(rule.get(side), path, "%s.%s" % (at, side))


def _check_arg(arg: Any, path: str, at: str) -> None:
    if not isinstance(arg, Mapping):
        _bad(path, at, "an object is needed")
    if arg.get("op") not in OPERATORS:
        _bad(path, at + ".op", "unknown operator %r; known: %s" % (arg.get("op"), ", ".join(OPERATORS)))
    if not _is_int(arg.get("index"), 5):
        _bad(path, at + ".index", "a number from 0 to 5 is needed, not %r" % (arg.get("index"),))
    for key in ("value", "valueTwo"):
        if not _is_int(arg.get(key, 0), 2**64 - 1):
            _bad(path, "%s.%s" % (at, key), "an unsigned 64-bit number is needed, not %r" % (arg.get(key),))


def _check_condition(condition: Any, path: str, at: str) -> None:
    if condition is None:
        return
    if not isinstance(condition, Mapping):
        _bad(path, at, "an object is needed")
    for key in ("caps", "arches"):
        words = condition.get(key)
        if words is not None and not (isinstance(words, list) and all(isinstance(word, str) for word in words)):
            _bad(path, "%s.%s" % (at, key), "a list of names is needed")
    version = condition.get("minKernel")
    if version is not None and _version(version) is None:
        _bad(path, at + ".minKernel", "a kernel version such as 4.8 is needed, not %r" % (version,))


def _check_action(holder: Mapping[str, Any], key: str, path: str, at: str) -> None:
    action = holder.get(key)
    if action == "SCMP_ACT_NOTIFY":
        _bad(path, at + key, "SCMP_ACT_NOTIFY is not supported: there is no agent to notify")
    if action not in ACTIONS:
        _bad(path, at + key, "unknown action %r; known: %s" % (action, ", ".join(sorted(ACTIONS))))


def _check_errno(holder: Mapping[str, Any], key: str, path: str, at: str) -> None:
    value = holder.get(key)
    if value is not None and not _is_int(value, 0xFFFF):
        _bad(path, at + key, "a number from 0 to 65535 is needed, not %r" % (value,))


def _is_int(value: Any, maximum: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= maximum


def _bad(path: str, field: str, why: str) -> None:
    where = "%s: %s" % (path, field) if field else path
    raise UsageError("%s: %s" % (where, why), path=field or path, hint="The format is Docker's seccomp profile JSON.")


def names_of(rule: Mapping[str, Any]) -> list[Any]:
    names = rule.get("names")
    if isinstance(names, list) and names:
        return names
    return [rule["name"]] if rule.get("name") else []


def resolve(profile: Mapping[str, Any], capabilities: Collection[str], machine: str, kernel: str) -> dict[str, Any]:
    """Docker's conditions applied: OCI's ``linux.seccomp`` (``defaultAction defaultErrnoRet architectures syscalls``).

    A rule counts unless an ``excludes`` entry matches or an ``includes`` entry does not; capabilities are those of the
    container's bounding set, all of ``includes.caps`` must be there, any of ``excludes.caps`` suffices.
    """
    check(profile)
    arch, version, held = DOCKER_ARCH.get(machine, machine), _version(kernel) or (0, 0), set(capabilities)
    rules = []
    for rule in profile.get("syscalls") or []:
        if not _applies(rule, arch, version, held):
            continue
        plain: dict[str, Any] = {"names": names_of(rule), "action": rule["action"]}
        if rule.get("errnoRet") is not None:
            plain["errnoRet"] = rule["errnoRet"]
        if rule.get("args"):
            plain["args"] = [dict(arg) for arg in rule["args"]]
        rules.append(plain)
    resolved: dict[str, Any] = {
        "defaultAction": profile["defaultAction"],
        "architectures": [SCMP_ARCH[machine]] if machine in SCMP_ARCH else [],
        "syscalls": rules,
    }
    if profile.get("defaultErrnoRet") is not None:
        resolved["defaultErrnoRet"] = profile["defaultErrnoRet"]
    return resolved


def _applies(rule: Mapping[str, Any], arch: str, version: tuple[int, int], held: set[str]) -> bool:
    without, only = rule.get("excludes") or {}, rule.get("includes") or {}
    if arch in (without.get("arches") or []) or held & set(without.get("caps") or []):
        return False
    limit = _version(without.get("minKernel"))
    if limit is not None and version >= limit:
        return False
    if only.get("arches") and arch not in only["arches"]:
        return False
    if not set(only.get("caps") or []) <= held:
        return False
    limit = _version(only.get("minKernel"))
    return limit is None or version >= limit


def _version(text: Any) -> Optional[tuple[int, int]]:
    """``"4.8"`` or ``"6.12.3-generic"`` as (6, 12)."""
    if not isinstance(text, str):
        return None
    parts = text.split(".")
    if len(parts) < 2 or not parts[0].isdigit():
        return None
    digits = ""
    for char in parts[1]:
        if not char.isdigit():
            break
        digits += char
    return (int(parts[0]), int(digits)) if digits else None
