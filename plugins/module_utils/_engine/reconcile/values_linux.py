# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Canonical forms of the rarer options of a container: namespaces, block devices, device rules, secrets.

Like ``values``; apart, because most tasks name none of them.
"""

from __future__ import annotations

from typing import Any

from .values import absolute, bad, octal, size


def umask(option: str, text: Any) -> int:
    """Octal, at most 0777."""
    number = octal(option, text)
    if number > 0o777:
        raise bad(option, text, "is not a umask; the largest is 0777")
    return number


def rate_size(option: str, value: dict[str, Any]) -> dict[str, Any]:
    """``{path, rate: "1m"}`` as ``{path, rate: bytes a second}``."""
    return _rate(option, value, size(option + ".rate", value["rate"]))


def rate_count(option: str, value: dict[str, Any]) -> dict[str, Any]:
    """``{path, rate: operations a second}``."""
    return _rate(option, value, int(value["rate"]))


def _rate(option: str, value: dict[str, Any], rate: int) -> dict[str, Any]:
    if rate <= 0:
        raise bad(option + ".rate", value["rate"], "is no limit; leave the entry out for none")
    if not value["path"].startswith("/dev/"):
        raise bad(option + ".path", value["path"], "is not the path of a device below /dev")
    return {"path": value["path"], "rate": rate}


def device_rule(option: str, text: str) -> str:
    """``TYPE MAJOR:MINOR ACCESS``, as the device cgroup takes it."""
    kind, _space, rest = " ".join(str(text).split()).partition(" ")
    numbers, _space, access = rest.partition(" ")
    major, _colon, minor = numbers.partition(":")
    whole = kind in ("a", "b", "c") and access and not set(access) - set("rwm")
    if not whole or not all(part == "*" or part.isdigit() for part in (major, minor)):
        raise bad(option, text, "is not a device rule such as 'c 42:* rwm'")
    return "%s %s:%s %s" % (kind, major, minor, "".join(letter for letter in "rwm" if letter in access))


def storage_opts(option: str, value: dict[str, Any]) -> dict[str, int]:
    """``{size: bytes}``, in whole KiB."""
    out = {}
    for name, text in value.items():
        if name != "size":
            raise bad("%s.%s" % (option, name), text, "is not supported: of the root file system only the size is set")
        out[name] = (size(option + ".size", text) + 1023) // 1024 * 1024
    return {name: number for name, number in out.items() if number}


def link(option: str, text: str) -> dict[str, str]:
    """``CONTAINER[:ALIAS]``."""
    name, _colon, alias = str(text).partition(":")
    if not name:
        raise bad(option, text, "is not CONTAINER[:ALIAS]")
    return {"name": name, "alias": alias or name}


TMPFS_OPTIONS = ("exec", "noexec", "suid", "nosuid", "dev", "nodev", "nr_inodes", "nr_blocks", "uid", "gid")


def tmpfs_mount(option: str, text: str) -> dict[str, Any]:
    """``TARGET[:size=64m,mode=1770,exec,...]``."""
    target, _colon, flags = str(text).partition(":")
    out: dict[str, Any] = {"type": "tmpfs", "target": absolute(option, target)}
    rest = []
    for flag in filter(None, flags.split(",")):
        key, _equals, value = flag.partition("=")
        if key == "size":
            out["tmpfs_size"] = size(option, value)
        elif key == "mode":
            out["tmpfs_mode"] = octal(option, value)
        elif key in ("ro", "rw"):
            if key == "ro":
                out["read_only"] = True
        elif key in TMPFS_OPTIONS:
            rest.append(flag)
        else:
            raise bad(option, text, "has the unknown tmpfs option %r" % flag)
    if rest:
        out["options"] = sorted(rest)
    return out


def image_mount(option: str, value: dict[str, Any]) -> dict[str, Any]:
    """The part of an entry of ``mounts`` that an image is mounted by; it can only be read."""
    source = value.get("source") or ""
    if not source:
        raise bad(option + ".source", source, "is required for an image mount")
    if value.get("read_only") is False:
        raise bad(option + ".read_only", False, "cannot be for an image mount: nobody writes to an image")
    return {"source": source, "read_only": True}


def mount_more(option: str, value: dict[str, Any]) -> dict[str, Any]:
    """What few entries of ``mounts`` have; that it is of the right type has been seen to."""
    out: dict[str, Any] = {}
    if value.get("subpath"):
        parts = [part for part in str(value["subpath"]).split("/") if part not in ("", ".")]
        if not value.get("source"):  # image has one always
            raise bad(option + ".subpath", value["subpath"], "needs a volume with a name: an anonymous one is empty")
        if str(value["subpath"]).startswith("/") or ".." in parts or not parts:
            raise bad(option + ".subpath", value["subpath"], "is not a path below the %s" % value["type"])
        out["subpath"] = "/".join(parts)
    if value.get("labels"):
        out["labels"] = {str(name): str(text) for name, text in value["labels"].items()}
    if value.get("volume_driver") not in (None, "", "local"):
        raise bad(option + ".volume_driver", value["volume_driver"], "is no driver of this engine; there is local")
    if value.get("volume_options"):
        raise bad(option + ".volume_options", sorted(value["volume_options"]), "are not supported: local takes none")
    if value.get("create_mountpoint"):
        out["create_source"] = True
    if value.get("non_recursive"):
        out["non_recursive"] = True
    if value.get("read_only_non_recursive"):
        raise bad(
            option + ".read_only_non_recursive",
            True,
            "is not supported: what is mounted below a read-only bind is read-only, too",
            "use non_recursive to leave out what is mounted below it",
        )
    if value.get("read_only_force_recursive") and not value.get("read_only"):
        raise bad(option + ".read_only_force_recursive", True, "needs read_only")
    words = []
    for entry in value.get("tmpfs_options") or ():
        for name, text in entry.items():
            if name not in TMPFS_OPTIONS:
                raise bad(option + ".tmpfs_options", name, "is none of %s" % ", ".join(TMPFS_OPTIONS))
            words.append(name if text is None else "%s=%s" % (name, text))
    if words:
        out["options"] = sorted(words)
    return out


_ENDPOINT_OPTIONS = ("com.docker.network.endpoint.ifname",)


def endpoint_more(option: str, value: dict[str, Any]) -> dict[str, Any]:
    """What few entries of ``networks`` have: ``mac_address``, ``links``, ``driver_opts`` and ``gw_priority``."""
    out: dict[str, Any] = {}
    if value.get("mac_address"):
        out["mac_address"] = mac_address(option + ".mac_address", value["mac_address"])
    if value.get("links"):
        out["links"] = [link("%s.links[%d]" % (option, index), text) for index, text in enumerate(value["links"])]
    for name, text in (value.get("driver_opts") or {}).items():
        where = "%s.driver_opts" % option
        if name not in _ENDPOINT_OPTIONS:
            raise bad(where, name, "is not known; there is %s" % ", ".join(_ENDPOINT_OPTIONS))
        # The kernel's rule, dev_valid_name: 15 bytes, no slash, colon or space, neither "." nor "..".
        if not 0 < len(str(text).encode()) < 16 or set(str(text)) & set("/: \t\n\0%") or text in (".", "..", "lo"):
            raise bad("%s[%s]" % (where, name), text, "is not the name of an interface")
        out.setdefault("driver_opts", {})[name] = str(text)
    if value.get("gw_priority"):
        out["gw_priority"] = int(value["gw_priority"])
    return out


def volumes_from(option: str, text: str) -> dict[str, Any]:
    """``CONTAINER[:ro|rw]``."""
    name, colon, mode = str(text).partition(":")
    if not name or (colon and mode not in ("ro", "rw")):
        raise bad(option, text, "is not CONTAINER[:ro|rw]")
    return {"name": name, "read_only": True} if mode == "ro" else {"name": name}


def mac_address(option: str, text: str) -> str:
    raw = str(text).lower().replace("-", ":")
    octets = raw.split(":")
    if len(octets) != 6 or any(len(o) != 2 or set(o) - set("0123456789abcdef") for o in octets):
        raise bad(option, text, "is not a MAC address")
    if int(octets[0], 16) & 1:
        raise bad(option, text, "is a multicast address; the lowest bit of its first octet must be 0")
    return raw


def cgroup_parent(option: str, text: str) -> str:
    """A relative path; Docker's leading slash means the same."""
    parts = [part for part in str(text).split("/") if part]
    if not parts or any(part in (".", "..") for part in parts) or "\0" in text:
        raise bad(option, text, "is not the path of a cgroup")
    if parts[-1].endswith(".slice"):
        raise bad(option, text, "is a systemd slice; give the path of a cgroup")
    return "/".join(parts)


def secret(option: str, value: dict[str, Any]) -> dict[str, Any]:
    """``{name, target, mode, uid?, gid?, content | source}``. The content leaves the spec in ``resources``: what is
    stored is a keyed digest of it."""
    name = str(value["name"])
    if "/" in name or "\0" in name or name in ("", ".", ".."):
        raise bad(option + ".name", name, "is not a file name")
    given = [key for key in ("content", "source") if value.get(key) is not None]
    if len(given) != 1:
        raise bad(option, name, "needs one of content and source")
    target = absolute(option + ".target", value.get("target") or "/run/secrets/" + name)
    if not target.startswith("/run/secrets/"):
        raise bad(option + ".target", target, "is outside of /run/secrets")
    out: dict[str, Any] = {"name": name, "target": target, "mode": octal(option + ".mode", value.get("mode") or "0400")}
    for key in ("uid", "gid"):
        if value.get(key) is not None:
            if not 0 <= int(value[key]) < 2**32 - 1:
                raise bad("%s.%s" % (option, key), value[key], "is not an ID")
            out[key] = int(value[key])
    out[given[0]] = value[given[0]]
    return out
