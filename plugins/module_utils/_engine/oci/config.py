# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A foreign ``config.json``: read, checked, and refused with the field's name before anything is made.

What the specification says must be an error is one here; fields nobody knows are left alone, as it demands. What this
runtime cannot do is refused rather than skipped: a caller who asked for a label or a cache partition relies on it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from ..errors import NotFound, Unsupported, UsageError
from . import limits

NAMESPACES = ("cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts")
HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
PROPAGATION = ("private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable")
_IPC_SYSCTLS = (
    "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni",
    "kernel.shm_rmid_forced", "kernel.msg_next_id", "kernel.sem_next_id", "kernel.shm_next_id",
    "kernel.auto_msgmni",
)  # fmt: skip
_MAX_ID = (1 << 32) - 2


def load(bundle: str) -> dict[str, Any]:
    """Raises ``NotFound``, ``UsageError``."""
    path = bundle + "/config.json"
    try:
        with open(path, "rb") as stream:
            config = json.loads(stream.read())
    except FileNotFoundError:
        raise NotFound(
            "JSON specification file config.json not found in %s" % bundle, path=path, hint="`spec` writes one."
        ) from None
    except OSError as error:
        raise NotFound("Cannot read %s: %s" % (path, error.strerror), path=path) from error
    except ValueError as error:
        raise UsageError("%s is not valid JSON: %s" % (path, error), path=path) from None
    if not isinstance(config, dict):
        raise UsageError("%s: an object is needed" % path, path=path)
    return config


def check(config: Mapping[str, Any], bundle: str) -> None:
    """Raises ``UsageError``, ``Unsupported``, ``NotFound``."""
    version = config.get("ociVersion")
    if not isinstance(version, str) or not version.startswith("1."):
        raise UsageError("ociVersion: %r is no version of the 1.x specification" % (version,), path="ociVersion")
    for name in ("solaris", "windows", "vm", "zos", "freebsd"):
        refuse_if(config.get(name), name)
    linux = member(config, "linux", {}, "")
    _check_root(config, bundle)
    check_process(member(config, "process", None, ""), "process")
    spaces = check_namespaces(linux)
    _check_names(config, spaces)
    _check_user_namespace(linux, spaces)
    _check_mounts(config, linux, spaces)
    _check_linux(linux, spaces)
    limits.check(member(linux, "resources", {}, "linux."))
    _check_devices(entries(linux, "devices", "linux."))
    check_hooks(member(config, "hooks", {}, ""))


def member(holder: Mapping[str, Any], key: str, default: Any, where: str) -> Mapping[str, Any]:
    value = holder.get(key)
    if value is None:
        value = default
    if not isinstance(value, Mapping):
        raise UsageError("%s%s: an object is needed" % (where, key), path=where + key)
    return value


def entries(holder: Mapping[str, Any], key: str, where: str) -> list[Any]:
    value = holder.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise UsageError("%s%s: a list is needed" % (where, key), path=where + key)
    return value


def refuse_if(value: Any, field: str, why: str = "") -> None:
    """``value``: whatever the field holds; nothing, an empty thing and zero ask for nothing."""
    if value:
        raise Unsupported("%s is not supported by this runtime%s" % (field, why), step="validate", path=field)


def bad(field: str, why: str) -> UsageError:
    return UsageError("%s: %s" % (field, why), path=field)


def whole(value: Any, field: str, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise bad(field, "%r is no whole number from %d to %d" % (value, least, most))
    return value


def strings(value: Any, field: str) -> Sequence[str]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(word, str) and "\0" not in word for word in value):
        raise bad(field, "a list of strings is needed")
    return value


def _check_root(config: Mapping[str, Any], bundle: str) -> None:
    root = member(config, "root", None, "")
    path = root.get("path")
    if not isinstance(path, str) or not path:
        raise bad("root.path", "the directory with the container's files is needed")
    if not os.path.isdir(os.path.join(bundle, path)):
        raise NotFound("root.path: %s is no directory" % os.path.join(bundle, path), path="root.path")


# -- the process ---------------------------------------------------------------------------------------------------


def check_process(process: Mapping[str, Any], at: str) -> None:
    args = strings(process.get("args"), at + ".args")
    if not args:
        raise bad(at + ".args", "must not be empty")
    cwd = process.get("cwd")
    if not isinstance(cwd, str) or not cwd.startswith("/"):
        raise bad(at + ".cwd", "Cwd must be an absolute path, not %r" % (cwd,))
    strings(process.get("env"), at + ".env")
    user = member(process, "user", {}, at + ".")
    for key in ("uid", "gid"):
        whole(user.get(key, 0), "%s.user.%s" % (at, key), 0, _MAX_ID)
    for group in entries(user, "additionalGids", at + ".user."):
        whole(group, at + ".user.additionalGids", 0, _MAX_ID)
    if user.get("umask") is not None:
        whole(user["umask"], at + ".user.umask", 0, 0o777)
    if process.get("selinuxLabel"):
        refuse_if(True, at + ".selinuxLabel", _selinux())
    if process.get("oomScoreAdj") is not None:
        whole(process["oomScoreAdj"], at + ".oomScoreAdj", -1000, 1000)
    limits.check_rlimits(entries(process, "rlimits", at + "."), at + ".rlimits")
    for name, words in member(process, "capabilities", {}, at + ".").items():
        strings(words, "%s.capabilities.%s" % (at, name))
    from . import attributes

    attributes.check(process, at)


def _selinux() -> str:
    on = os.path.exists("/sys/fs/selinux/enforce")
    return ": it applies no SELinux labels" if on else ": SELinux is off on this host"


# -- namespaces ----------------------------------------------------------------------------------------------------


def check_namespaces(linux: Mapping[str, Any]) -> dict[str, str]:
    """type → path, or "" for a new one."""
    found: dict[str, str] = {}
    for entry in entries(linux, "namespaces", "linux."):
        kind = entry.get("type") if isinstance(entry, Mapping) else None
        if kind not in NAMESPACES:
            raise bad("linux.namespaces", "unknown type %r; known: %s" % (kind, ", ".join(NAMESPACES)))
        if kind in found:
            raise bad("linux.namespaces", "malformed spec file: duplicated ns %s" % kind)
        path = entry.get("path") or ""
        if path and not (isinstance(path, str) and path.startswith("/")):
            raise bad("linux.namespaces", "the path of %s must be absolute, not %r" % (kind, path))
        if path and not os.path.exists(path):
            raise NotFound("linux.namespaces: %s (%s) does not exist" % (path, kind), path="linux.namespaces")
        if not os.path.exists("/proc/self/ns/" + FILES[kind]):
            raise Unsupported(
                "linux.namespaces: this kernel has no %s namespaces" % kind, step="validate", path="linux.namespaces"
            )
        found[kind] = path
    if "mount" not in found:
        raise Unsupported("a container without a mount namespace is not supported", path="linux.namespaces")
    if found["mount"]:
        raise Unsupported(
            "linux.namespaces: joining a mount namespace by path is not supported: the container's root belongs into"
            " one of its own",
            path="linux.namespaces",
        )
    return found


FILES = {
    "cgroup": "cgroup", "ipc": "ipc", "mount": "mnt", "network": "net", "pid": "pid", "time": "time", "user": "user",
    "uts": "uts",
}  # fmt: skip


def _check_names(config: Mapping[str, Any], spaces: Mapping[str, str]) -> None:
    for key in ("hostname", "domainname"):
        value = config.get(key)
        if not value:
            continue
        if not isinstance(value, str) or len(value.encode()) > 64:
            raise bad(key, "a name of at most 64 bytes is needed")
        if "uts" not in spaces:
            raise bad(key, "unable to set %s without a private UTS namespace" % key)


def _check_user_namespace(linux: Mapping[str, Any], spaces: Mapping[str, str]) -> None:
    mappings = [entries(linux, key, "linux.") for key in ("uidMappings", "gidMappings")]
    for key, ranges_ in zip(("uidMappings", "gidMappings"), mappings):
        check_mappings(ranges_, "linux." + key)
    if "user" not in spaces:
        if any(mappings):
            raise bad("linux.uidMappings", "user namespace mappings specified, but user namespace isn't enabled")
    elif not spaces["user"] and not all(mappings):
        raise bad("linux.uidMappings", "a new user namespace needs uidMappings and gidMappings")
    offsets = member(linux, "timeOffsets", {}, "linux.")
    if offsets and (spaces.get("time") is None or spaces["time"]):
        raise bad("linux.timeOffsets", "time namespace offsets need a new time namespace")
    for clock, offset in offsets.items():
        if clock not in ("monotonic", "boottime"):
            raise bad("linux.timeOffsets", "unknown clock %r; known: monotonic, boottime" % clock)
        if not isinstance(offset, Mapping):
            raise bad("linux.timeOffsets.%s" % clock, "an object is needed")
        whole(offset.get("secs", 0), "linux.timeOffsets.secs", -(1 << 63), (1 << 63) - 1)
        whole(offset.get("nanosecs", 0), "linux.timeOffsets.nanosecs", 0, 999_999_999)


def check_mappings(mappings: Sequence[Any], field: str) -> None:
    from ..kernel import idmap

    for entry in mappings:
        for key in ("containerID", "hostID", "size"):
            whole(entry.get(key, 0) if isinstance(entry, Mapping) else None, "%s.%s" % (field, key), 0, 1 << 32)
    if mappings:
        idmap.check(ranges(mappings), field)


def ranges(mappings: Sequence[Mapping[str, Any]]) -> list[Any]:
    from ..kernel.idmap import Range

    return [Range(entry.get("containerID", 0), entry.get("hostID", 0), entry["size"]) for entry in mappings]


# -- mounts and devices --------------------------------------------------------------------------------------------


def _check_mounts(config: Mapping[str, Any], linux: Mapping[str, Any], spaces: Mapping[str, str]) -> None:
    from . import options

    for number, mount in enumerate(entries(config, "mounts", "")):
        at = "mounts[%d]" % number
        if not isinstance(mount, Mapping) or not isinstance(mount.get("destination"), str) or not mount["destination"]:
            raise bad(at + ".destination", "a path in the container is needed")
        words = strings(mount.get("options"), at + ".options")
        parsed = options.parse(words)
        maps = [entries(mount, key, at + ".") for key in ("uidMappings", "gidMappings")]
        for key, ranges_ in zip(("uidMappings", "gidMappings"), maps):
            check_mappings(ranges_, "%s.%s" % (at, key))
        if any(maps) or parsed.idmap:
            if not (parsed.bind or mount.get("type") == "bind"):
                raise Unsupported("%s: id-mapped mounts are supported for bind mounts only" % at, path=at)
            if any(maps) and not all(maps):
                raise bad(at, "uidMappings and gidMappings belong together")
            if not any(maps) and (spaces.get("user") is None or not linux.get("uidMappings")):
                raise bad(at, "idmap without mappings needs those of a new user namespace")
        if (parsed.bind or mount.get("type") == "bind") and not parsed.remount:
            source = mount.get("source")
            if not isinstance(source, str) or not source:
                raise bad(at + ".source", "a bind mount needs a source")


def _check_devices(devices: Sequence[Any]) -> None:
    for number, device in enumerate(devices):
        at = "linux.devices[%d]" % number
        if not isinstance(device, Mapping) or device.get("type") not in ("b", "c", "u", "p"):
            raise bad(at + ".type", "one of b, c, u, p is needed")
        if not isinstance(device.get("path"), str) or not device["path"].startswith("/"):
            raise bad(at + ".path", "an absolute path is needed")
        if device["type"] != "p":
            for key in ("major", "minor"):
                whole(device.get(key, 0), "%s.%s" % (at, key), 0, (1 << 32) - 1)
        for key, most in (("fileMode", 0o177777), ("uid", _MAX_ID), ("gid", _MAX_ID)):
            if device.get(key) is not None:
                whole(device[key], "%s.%s" % (at, key), 0, most)


# -- the rest of linux ---------------------------------------------------------------------------------------------


def _check_linux(linux: Mapping[str, Any], spaces: Mapping[str, str]) -> None:
    refuse_if(linux.get("intelRdt"), "linux.intelRdt")
    refuse_if(linux.get("netDevices"), "linux.netDevices")
    refuse_if(linux.get("memoryPolicy"), "linux.memoryPolicy")
    if linux.get("mountLabel"):
        refuse_if(True, "linux.mountLabel", _selinux())
    word = linux.get("rootfsPropagation") or ""
    if word and word not in PROPAGATION:
        raise bad("linux.rootfsPropagation", "%r is none of %s" % (word, ", ".join(PROPAGATION)))
    for key in ("maskedPaths", "readonlyPaths"):
        strings(linux.get(key), "linux." + key)
    path = linux.get("cgroupsPath")
    if path is not None and not isinstance(path, str):
        raise bad("linux.cgroupsPath", "a string is needed")
    personality = member(linux, "personality", {}, "linux.")
    domain = personality.get("domain")
    if personality and domain not in ("LINUX", "LINUX32"):
        raise bad("linux.personality", "unknown domain %r; known: LINUX, LINUX32" % (domain,))
    refuse_if(personality.get("flags"), "linux.personality.flags")
    check_sysctls(member(linux, "sysctl", {}, "linux."), spaces)
    if linux.get("seccomp") is not None:
        from . import filters

        filters.check(linux["seccomp"])


def check_sysctls(sysctls: Mapping[str, Any], spaces: Mapping[str, str]) -> None:
    """Only what belongs to a namespace of the container's own: everything else would change the host."""
    for key, value in sysctls.items():
        name = key.replace("/", ".")
        if not isinstance(value, (str, int)) or ".." in name or "\0" in name:
            raise bad("linux.sysctl", "%r is no sysctl with a value" % key)
        needed: Optional[str] = None
        if name in _IPC_SYSCTLS or name.startswith("fs.mqueue."):
            needed = "ipc"
        elif name.startswith("net."):
            needed = "network"
        elif name == "kernel.domainname":
            needed = "uts"
        elif name == "kernel.hostname":
            raise bad("linux.sysctl", "%s is set by hostname, and not as a sysctl" % name)
        if needed is None:
            raise bad("linux.sysctl", "sysctl %r is not in a separate kernel namespace" % key)
        if needed not in spaces:
            raise bad("linux.sysctl", "sysctl %r is not allowed without a %s namespace" % (key, needed))


def check_hooks(hooks: Mapping[str, Any]) -> None:
    for stage in HOOKS:
        for number, hook in enumerate(entries(hooks, stage, "hooks.")):
            at = "hooks.%s[%d]" % (stage, number)
            path = hook.get("path") if isinstance(hook, Mapping) else None
            if not isinstance(path, str) or not path.startswith("/"):
                raise bad(at + ".path", "an absolute path is needed, not %r" % (path,))
            strings(hook.get("args"), at + ".args")
            strings(hook.get("env"), at + ".env")
            if hook.get("timeout") is not None:
                whole(hook["timeout"], at + ".timeout", 1, 1 << 31)
