# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""From what a task asked (the normalised container spec) and what the image says to an OCI runtime-spec 1.2 config.

Pure but for three looks at the host that the result must record: devices (major, minor), our own capabilities and
rlimits (nobody can give more than they have), and which CPUs have a thermal throttle file to mask.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from ..errors import UsageError

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SHM_SIZE = 67108864

MASKED = [
    "/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
    "/sys/devices/virtual/powercap",
]  # fmt: skip
READONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]

# These stay writable under read_only: nothing starts without them, and nothing in them outlives the container.
_WRITABLE = ("/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue")


_IPC_SYSCTLS = (
    "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax",
    "kernel.shmmni", "kernel.shm_rmid_forced", "kernel.auto_msgmni", "kernel.msg_next_id", "kernel.sem_next_id",
    "kernel.shm_next_id",
)  # fmt: skip


def generate(spec: Mapping[str, Any], image_config: Mapping[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
    """The OCI config as a dict.

    ``spec``: as in the contract, absent keys = not asked. ``image_config``: the ``config`` object of the image.
    ``context``: ``id``, ``name``, ``netns_path`` (None: the host's network), ``hostname``, ``files_dir`` (None: no
    /etc files are mounted), ``volumes`` [{source, target, read_only, propagation, type, recursive?}], ``cgroup``,
    optional ``etc_dir`` (hosts, hostname and resolv.conf are there: another container's), ``join`` {namespace type:
    path}, ``new_netns`` (a fresh one with only a loopback, for tests and builds), ``userns`` {"uids", "gids":
    ``idmap.Range``s, "path"} (a user namespace of its own; without path a new one).

    Raises ``UsageError`` for what cannot be: bad sysctls, ulimits, devices, security options, mount targets.
    """
    privileged = bool(spec.get("privileged"))
    security = security_options(spec.get("security_opts") or ())
    # An inspection, which every container task ends with, asks this module for a few words only.
    from ..kernel import capabilities
    from ..kernel import devices as device_rules
    from ..kernel.cgroups import resources as limits
    from . import spec_devices

    caps = capabilities.resolve(
        tuple(spec.get("capabilities") or ()), tuple(spec.get("cap_drop") or ()), privileged=privileged
    )
    join = dict(context.get("join") or {})
    own_net = bool(context.get("netns_path") or context.get("new_netns"))
    shared = shared_namespaces(spec)
    own_ipc = "ipc" not in join and "ipc" not in shared
    sysctls = check_sysctls(spec.get("sysctls") or {}, own_net=own_net, own_ipc=own_ipc)
    if own_net and "network" not in join:
        for key, value in (("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 2147483647")):
            sysctls.setdefault(key, value)
    devices, rules = spec_devices.nodes(spec.get("devices") or (), privileged)
    rules += device_rules.to_oci(device_rules.parse_rule(text) for text in spec.get("device_cgroup_rules") or ())
    root_readonly = bool(spec.get("read_only"))
    linux: dict[str, Any] = {
        "namespaces": _namespaces(context, {**join, **shared}),
        "cgroupsPath": context.get("cgroup", ""),
        "resources": limits.from_options(spec),
        "sysctl": sysctls,
        "devices": devices,
        "rootfsPropagation": "private",
        "maskedPaths": [] if privileged or security.get("systempaths") == "unconfined" else MASKED + _throttles(),
        "readonlyPaths": [] if privileged or security.get("systempaths") == "unconfined" else list(READONLY),
    }
    linux["resources"]["devices"] = rules
    mapping = context.get("userns")
    if mapping:
        for key, name in (("uidMappings", "uids"), ("gidMappings", "gids")):
            linux[key] = [{"containerID": r[0], "hostID": r[1], "size": r[2]} for r in mapping[name]]
    seccomp = _seccomp(security.get("seccomp"), privileged)
    if seccomp is not None:
        linux["seccomp"] = seccomp
    own_uts = "uts" not in shared  # or the host would be renamed
    config: dict[str, Any] = {
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs", "readonly": root_readonly},
        "hostname": (context.get("hostname") or "") if own_uts else "",
        "domainname": (spec.get("domainname") or "") if own_uts else "",
        "process": _process(spec, image_config, context, caps, security),
        "mounts": _with_proc_options(_mounts(spec, context, privileged, root_readonly), security),
        "linux": linux,
        "annotations": {},  # never from the image: labels must not become control data (CVE-2026-53488)
    }
    if spec.get("secrets"):
        keys = ("name", "target", "mode", "uid", "gid")
        config["wharf"] = {"secrets": [{k: s[k] for k in keys if k in s} for s in spec["secrets"]]}
    return config


# -- the process ---------------------------------------------------------------------------------------------------


def command(spec: Mapping[str, Any], image_config: Mapping[str, Any]) -> list[str]:
    """Docker's rule: an entrypoint given by the task also discards the image's command."""
    entrypoint = spec.get("entrypoint")
    args = spec.get("command")
    if entrypoint is None:
        entrypoint = image_config.get("Entrypoint") or []
        if args is None:
            args = image_config.get("Cmd") or []
    elif list(entrypoint) == [""]:
        entrypoint = []
    argv = [*entrypoint, *(args or [])]
    if not argv:
        raise UsageError(
            "No command specified: neither the task nor the image names one",
            path="command",
            hint="Give command or entrypoint.",
        )
    return argv


def environment(spec: Mapping[str, Any], image_config: Mapping[str, Any], hostname: str, tty: bool) -> list[str]:
    """``KEY=value`` lines: defaults, then the image's, then the task's. The engine's own environment never gets in:
    an image's ``Env`` entry without ``=``, or without a name, is dropped (CVE-2026-57231)."""
    lines = [PATH, "HOSTNAME=" + hostname]
    if tty:
        lines.append("TERM=xterm")
    lines += [line for line in image_config.get("Env") or () if isinstance(line, str) and line.find("=") > 0]
    lines += ["%s=%s" % (key, value) for key, value in (spec.get("env") or {}).items() if key]
    merged: dict[str, str] = {}
    for line in lines:
        merged[line.partition("=")[0]] = line
    return list(merged.values())


def _process(
    spec: Mapping[str, Any],
    image_config: Mapping[str, Any],
    context: Mapping[str, Any],
    caps: list[str],
    security: Mapping[str, str],
) -> dict[str, Any]:
    tty = bool(spec.get("tty"))
    process: dict[str, Any] = {
        "terminal": tty,
        "args": command(spec, image_config),
        "env": environment(spec, image_config, context.get("hostname") or "", tty),
        "cwd": _absolute(spec.get("working_dir") or image_config.get("WorkingDir") or "/", "working_dir"),
        "user": {"uid": 0, "gid": 0},  # placeholder: resolved in the container from run.json's uid_user
        "capabilities": {
            "bounding": caps, "effective": caps, "permitted": caps,
            "inheritable": [], "ambient": [],
        },
        "rlimits": rlimits(spec.get("ulimits") or ()),
        "noNewPrivileges": security.get("no-new-privileges", "false") == "true",
    }  # fmt: skip
    profile = apparmor_profile(spec)
    if profile:
        process["apparmorProfile"] = profile
    if spec.get("umask") is not None:
        process["user"]["umask"] = spec["umask"]
    if spec.get("oom_score_adj"):
        process["oomScoreAdj"] = int(spec["oom_score_adj"])
    return process


def _absolute(path: str, option: str) -> str:
    if not path.startswith("/") or "\0" in path:
        raise UsageError("%s must be an absolute path, not %r" % (option, path), path=option)
    return path


def rlimits(ulimits: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """OCI ``rlimits``. -1 is "unlimited"; hard limits above ours are cut down to ours (raising needs
    CAP_SYS_RESOURCE, which the engine's own environment may lack)."""
    import resource

    found = []
    for limit in ulimits:
        name = str(limit["name"]).upper()
        number = getattr(resource, "RLIMIT_" + name, None)
        if number is None:
            raise UsageError("invalid ulimit type: %s" % limit["name"], path="ulimits")
        soft, hard = int(limit["soft"]), int(limit.get("hard", limit["soft"]))
        if hard != -1 and (soft == -1 or soft > hard):
            raise UsageError(
                "ulimit soft limit must be less than or equal to hard limit: %s=%d:%d" % (limit["name"], soft, hard),
                path="ulimits",
            )
        from ..kernel import capabilities

        if "CAP_SYS_RESOURCE" not in capabilities.available():
            ceiling = resource.getrlimit(number)[1]
            if ceiling != resource.RLIM_INFINITY:
                hard = ceiling if hard == -1 else min(hard, ceiling)
                soft = hard if soft == -1 else min(soft, hard)
        unlimited = (1 << 64) - 1
        found.append(
            {
                "type": "RLIMIT_" + name,
                "soft": unlimited if soft == -1 else soft,
                "hard": unlimited if hard == -1 else hard,
            }
        )
    return found


def security_options(options: Sequence[str]) -> dict[str, str]:
    """``["no-new-privileges", "seccomp=unconfined"]`` → ``{"no-new-privileges": "true", "seccomp": "unconfined"}``.

    ``:`` is taken for ``=`` as Docker does. Raises ``UsageError`` for an option nobody knows.
    """
    known = ("no-new-privileges", "seccomp", "apparmor", "label", "systempaths", "proc-opts")
    found = {}
    for option in options:
        separator = "=" if "=" in option else ":"
        name, _sep, value = option.partition(separator)
        if name not in known:
            raise UsageError(
                "invalid --security-opt: %r" % option,
                path="security_opts",
                hint="Known: no-new-privileges, seccomp=<unconfined|profile.json>, systempaths=unconfined, "
                "apparmor=<unconfined|profile>, label=disable, proc-opts=<options>.",
            )
        if name == "no-new-privileges" and value not in ("", "true", "false"):
            raise UsageError("no-new-privileges is true or false, not %r" % value, path="security_opts")
        found[name] = value or ("true" if name == "no-new-privileges" else "")
    return found


def apparmor_profile(spec: Mapping[str, Any]) -> str:
    """As asked; "" leaves it to the host (see ``kernel.apparmor``)."""
    asked = security_options(spec.get("security_opts") or ()).get("apparmor")
    return asked or ("unconfined" if spec.get("privileged") else "")


def _seccomp(choice: Optional[str], privileged: bool) -> Optional[dict[str, Any]]:
    """The profile in Docker's format, for ``kernel.seccomp``; None for no filter.

    ``{"defaultProfile": true}`` stands for the built-in one: 15 KB of names need not be in every container's config.
    """
    if choice == "unconfined" or (privileged and not choice):
        return None
    if not choice or choice == "builtin":
        return {"defaultProfile": True}
    from ..kernel.seccomp import profile

    if choice.lstrip().startswith("{"):
        return profile.load(choice, "security_opts")
    try:
        with open(choice, encoding="utf-8") as stream:
            text = stream.read()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("opening seccomp profile (%s) failed: %s" % (choice, error), path="security_opts") from error
    return profile.load(text, choice)


# -- namespaces, sysctls ---------------------------------------------------------------------------------------------


def shared_namespaces(spec: Mapping[str, Any]) -> dict[str, str]:
    """Namespace type → "" (the host's) or ``container:<id>``, for those that are not the container's own."""
    found = {}
    for option, kind in (("ipc_mode", "ipc"), ("pid_mode", "pid"), ("uts", "uts"), ("cgroupns_mode", "cgroup")):
        mode = spec.get(option) or ""
        if mode == "host":
            found[kind] = ""
        elif mode.startswith("container:"):
            found[kind] = mode
    return found


def _namespaces(context: Mapping[str, Any], join: Mapping[str, str]) -> list[dict[str, str]]:
    found = []
    if context.get("userns"):
        path = context["userns"].get("path")
        found.append({"type": "user", "path": path} if path else {"type": "user"})
    for kind in ("mount", "uts", "ipc", "pid", "cgroup"):
        entry = {"type": kind}
        if kind in join:
            entry["path"] = join[kind]
        if entry.get("path") != "":  # "" is the host's: neither joined nor made
            found.append(entry)
    path = join.get("network") or context.get("netns_path")
    if path:
        found.append({"type": "network", "path": path})
    elif context.get("new_netns"):
        found.append({"type": "network"})
    return found


def check_sysctls(asked: Mapping[str, str], *, own_net: bool, own_ipc: bool) -> dict[str, str]:
    """Only what a namespace of the container's own confines; everything else would change the host."""
    checked = {}
    for raw, value in asked.items():
        key = raw.replace("/", ".")
        if ".." in key or not all(c.isalnum() or c in "._-:*@" for c in key):
            raise UsageError("sysctl %r is no valid name" % raw, path="sysctls")
        if key.startswith("net."):
            if not own_net:
                raise UsageError("sysctl %s is not allowed in the host's network namespace" % raw, path="sysctls")
        elif key in _IPC_SYSCTLS or key.startswith("fs.mqueue."):
            if not own_ipc:
                raise UsageError("sysctl %s is not allowed in a shared IPC namespace" % raw, path="sysctls")
        else:
            raise UsageError(
                "sysctl %s is not in a separate kernel namespace" % raw,
                path="sysctls",
                hint="Set it on the host; a container can set net.*, fs.mqueue.* and kernel.{msg*,sem,shm*}.",
            )
        checked[key] = str(value)
    return checked


# -- mounts --------------------------------------------------------------------------------------------------------


def _mount(target: str, kind: str, source: str, *options: str) -> dict[str, Any]:
    return {"destination": target, "type": kind, "source": source, "options": list(options)}


def _default_mounts(spec: Mapping[str, Any], privileged: bool) -> list[dict[str, Any]]:
    ro = [] if privileged else ["ro"]
    return [
        _mount("/proc", "proc", "proc", "nosuid", "noexec", "nodev"),
        _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _mount(
            "/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"
        ),
        _mount("/sys", "sysfs", "sysfs", "nosuid", "noexec", "nodev", *ro),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid", "noexec", "nodev", *ro),
        _mount("/dev/mqueue", "mqueue", "mqueue", "nosuid", "noexec", "nodev"),
        _mount(
            "/dev/shm",
            "tmpfs",
            "shm",
            "nosuid",
            "noexec",
            "nodev",
            "mode=1777",
            "size=%d" % (spec.get("shm_size") or SHM_SIZE),
        ),
    ]


def _mounts(
    spec: Mapping[str, Any], context: Mapping[str, Any], privileged: bool, root_readonly: bool
) -> list[dict[str, Any]]:
    """Defaults, the three /etc files, then what was asked; one per target, the last one wins, parents first."""
    words = id_words(context.get("userns"))
    tmpfs = [entry for entry in spec.get("mounts") or () if entry.get("type") == "tmpfs"]
    asked = _asked([*(context.get("volumes") or ()), *tmpfs], words)
    targets = [mount["destination"] for mount in asked]
    defaults = _default_mounts(spec, privileged)
    if "/dev" in targets:
        defaults = [mount for mount in defaults if not (mount["destination"] + "/").startswith("/dev/")]
    if root_readonly:
        for mount in defaults:
            if mount["destination"] not in _WRITABLE and "ro" not in mount["options"]:
                mount["options"].append("ro")
    mode = spec.get("ipc_mode") or ""
    if mode == "none":
        defaults = [mount for mount in defaults if mount["destination"] != "/dev/shm"]
    elif mode == "host" or mode.startswith("container:"):
        defaults = [mount for mount in defaults if mount["destination"] != "/dev/shm"]
        defaults.append(_mount("/dev/shm", "bind", "/dev/shm", "rbind", "rprivate"))
        if mode != "host":
            defaults[-1]["from"] = mode
    files = context.get("files_dir")
    if files and spec.get("timezone"):
        defaults.append(_mount("/etc/localtime", "bind", files + "/localtime", "rbind", "rprivate", "ro", *words))
        defaults[-1].update({"own": True} if words else {})
    etc = context.get("etc_dir") or files
    for name in ("resolv.conf", "hostname", "hosts") if files else ():
        more = [*words, *(["ro"] if root_readonly else [])]
        defaults.append(_mount("/etc/" + name, "bind", "%s/%s" % (etc, name), "rbind", "rprivate", *more))
        defaults[-1].update({"own": True} if words and etc == files else {})  # may be given to the container's root
    chosen: dict[str, dict[str, Any]] = {}
    for mount in defaults + asked:
        chosen.pop(mount["destination"], None)
        chosen[mount["destination"]] = mount
    return sorted(chosen.values(), key=lambda mount: mount["destination"].count("/"))


def _with_proc_options(mounts: list[dict[str, Any]], security: Mapping[str, str]) -> list[dict[str, Any]]:
    for mount in mounts:
        if mount["type"] == "proc" and security.get("proc-opts"):
            mount["options"] += security["proc-opts"].split(",")
    return mounts


def _target(path: str) -> str:
    """Normalised mount target. A container's root is the engine's, /proc must stay procfs: it is what masking and
    the checks of later steps rely on (CVE-2019-16884)."""
    clean = os.path.normpath(_absolute(path, "mounts"))
    if clean.startswith("//"):
        clean = clean[1:]
    if clean == "/":
        raise UsageError("invalid mount target: destination can't be '/'", path="mounts")
    allowed = {"cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo"}
    if clean == "/proc" or (clean.startswith("/proc/") and clean[6:] not in allowed):
        raise UsageError("invalid mount target %s: nothing may be mounted inside /proc" % clean, path="mounts")
    return clean


def id_words(mapping: Optional[Mapping[str, Any]]) -> list[str]:
    """Mount options of binds: shown with the container's ids, unless they are the host's."""
    return ["ridmap"] if mapping and any(r[0] != r[1] for r in [*mapping["uids"], *mapping["gids"]]) else []


def mount(entry: Mapping[str, Any], words: Sequence[str] = ()) -> dict[str, Any]:
    """The OCI form of one mount, whose ``source`` is a path of the host by now. ``words``: see ``id_words``."""
    if entry.get("type") == "image":
        return _image(entry, words)
    return _tmpfs(entry) if entry.get("type") == "tmpfs" else _bind(entry, words)


def _asked(entries: Sequence[Mapping[str, Any]], words: Sequence[str]) -> list[dict[str, Any]]:
    return [mount(entry, words) for entry in entries]


def _bind(volume: Mapping[str, Any], more: Sequence[str] = ()) -> dict[str, Any]:
    words = ["bind" if volume.get("non_recursive") else "rbind", volume.get("propagation") or "rprivate"]
    words.append("ro" if volume.get("read_only") else "rw")
    made = _mount(_target(volume["target"]), "bind", volume["source"], *words, *more)
    if volume.get("subpath"):
        made["within"] = volume["subpath"]
    return made


def _image(entry: Mapping[str, Any], more: Sequence[str]) -> dict[str, Any]:
    """A type of our own: ``layers`` [(directory, form)], base first."""
    made = _mount(_target(entry["target"]), "image", entry["source"], "ro", *more)
    made["layers"] = entry["layers"]
    if entry.get("subpath"):
        made["within"] = entry["subpath"]
    return made


def _tmpfs(mount: Mapping[str, Any]) -> dict[str, Any]:
    words = ["nosuid", "nodev", "noexec"]
    words += list(mount.get("options") or ())
    if mount.get("tmpfs_size"):
        words.append("size=%d" % mount["tmpfs_size"])
    if mount.get("tmpfs_mode") is not None:
        words.append("mode=%o" % mount["tmpfs_mode"])
    if mount.get("read_only"):
        words.append("ro")
    return _mount(_target(mount["target"]), "tmpfs", "tmpfs", *words)


def _throttles() -> list[str]:
    base = "/sys/devices/system/cpu"
    try:
        cpus = [name for name in os.listdir(base) if name.startswith("cpu") and name[3:].isdigit()]
    except OSError:  # no sysfs on the host: then there is nothing to mask either
        return []
    paths = ["%s/%s/thermal_throttle" % (base, cpu) for cpu in sorted(cpus)]
    return [path for path in paths if os.path.exists(path)]
