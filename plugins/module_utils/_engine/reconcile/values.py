# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""From what people write to one canonical form: sizes, durations, ports, mounts, limits.

Two spellings of the same wish become equal here, so that comparison never sees text. Every refusal is a
``UsageError`` that names the option and the bad part; nothing here touches the host.
"""

from __future__ import annotations

from typing import Any, Optional

from ..errors import UsageError

_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_DURATIONS = {"ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
PROTOCOLS = ("tcp", "udp", "sctp")
MAX_RANGE = 65535


def bad(option: str, text: Any, why: str, hint: Optional[str] = None) -> UsageError:
    """The sentence for a bad value: option, value, reason."""
    return UsageError("%s: %r %s" % (option, text, why), step="validate", path=option, hint=hint)


def size(option: str, text: Any, *, unlimited: bool = False) -> int:
    """Bytes from ``"64m"``, ``"1.5g"``, ``"512KiB"`` or a number; with ``unlimited``, -1 and "unlimited" are -1."""
    raw = str(text).strip().lower()
    if unlimited and raw in ("-1", "unlimited"):
        return -1
    digits = raw.rstrip("abcdefghijklmnopqrstuvwxyz")
    unit = raw[len(digits) :]
    for suffix in ("ib", "b"):
        if len(unit) > 1 and unit.endswith(suffix):
            unit = unit[: -len(suffix)]
            break
    try:
        number = float(digits)
    except ValueError:
        raise bad(option, text, "is not a size; write a number with an optional unit b, k, m, g, t") from None
    if unit not in _UNITS or not 0 <= number < float("inf"):
        raise bad(option, text, "is not a size; write a number with an optional unit b, k, m, g, t")
    return int(number * _UNITS[unit])


def duration(option: str, text: Any) -> int:
    """Nanoseconds from Go's syntax (``"1m30s"``, ``"1.5h"``, ``"200ms"``) or a plain number of seconds."""
    raw = str(text).strip()
    if not raw:
        raise bad(option, text, "is empty; write a duration such as 30s or 1m30s")
    if raw.startswith("-"):
        raise bad(option, text, "is negative")
    try:
        return int(float(raw) * 10**9)
    except (ValueError, OverflowError):  # "1m", but also "nan" and "infinity", which are no durations below either
        pass
    total, rest = 0.0, raw
    while rest:
        cut = 0
        while cut < len(rest) and (rest[cut].isdigit() or rest[cut] == "."):
            cut += 1
        end = cut
        while end < len(rest) and not (rest[end].isdigit() or rest[end] == "."):
            end += 1
        unit = _DURATIONS.get(rest[cut:end])
        try:
            number = float(rest[:cut])
        except ValueError:
            unit = None
            number = 0
        if unit is None:
            raise bad(option, text, "is not a duration; write for example 30s, 1m30s or 500ms")
        total += number * unit
        rest = rest[end:]
    if total == float("inf"):
        raise bad(option, text, "is not a duration; write for example 30s, 1m30s or 500ms")
    return int(total)


def strings(option: str, value: Any) -> dict[str, str]:
    """A dict whose values are strings. Numbers and booleans are refused: YAML would have changed how they look."""
    out = {}
    for key, item in (value or {}).items():
        if isinstance(item, (dict, list)):
            raise bad("%s.%s" % (option, key), item, "is not a string")
        if isinstance(item, (bool, float)) or item is None:
            raise bad(
                "%s.%s" % (option, key),
                item,
                "is not a string; quote it so that YAML does not change how it is written",
            )
        out[str(key)] = str(item)
    return out


def env(option: str, value: Any) -> dict[str, str]:
    """Environment: keys without "=" or NUL, values as strings."""
    out = strings(option, value)
    for key, item in out.items():
        if not key or "=" in key or "\0" in key or "\0" in item:
            raise bad("%s.%s" % (option, key), item, "is not a usable environment variable")
    return out


def env_file(path: str) -> dict[str, str]:
    """Docker's --env-file: ``K=V`` lines, # comments, no quoting; a bare ``K`` takes nothing here and is refused."""
    out: dict[str, str] = {}
    try:
        with open(path, "rb") as stream:
            lines = stream.read().decode("utf-8", "surrogateescape").splitlines()
    except OSError as error:
        raise UsageError(
            "env_file: cannot read %s: %s" % (path, error.strerror), step="validate", path=path, errno=error.errno
        ) from None
    for number, line in enumerate(lines, 1):
        text = line.lstrip()
        if not text or text.startswith("#"):
            continue
        key, found, item = text.partition("=")
        if not found or not key or key != key.strip():
            raise UsageError(
                "env_file: line %d of %s is not NAME=VALUE" % (number, path),
                step="validate",
                path="%s:%d" % (path, number),
            )
        out[key] = item
    return out


def _port(option: str, text: str, whole: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise bad(option, whole, "has %r where a port number is expected" % text) from None
    if not 0 < number < 65536:
        raise bad(option, whole, "names port %d; ports are 1 to 65535" % number)
    return number


def _range(option: str, text: str, whole: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    low = _port(option, first, whole)
    high = _port(option, last, whole) if dash else low
    if high < low:
        raise bad(option, whole, "has a range that ends before it begins")
    return low, high


def _protocol(option: str, text: str) -> tuple[str, str]:
    body, _slash, protocol = text.partition("/")
    protocol = protocol.lower() or "tcp"
    if protocol not in PROTOCOLS:
        raise bad(option, text, "has protocol %r; known are tcp, udp and sctp" % protocol)
    return body, protocol


def published_port(option: str, text: str) -> list[dict[str, Any]]:
    """``[[HOST_IP:]HOST_PORT[-END]:]PORT[-END][/PROTOCOL]`` as a list of single mappings; host port 0 = choose one."""
    text = str(text).strip()
    body, protocol = _protocol(option, text)
    host_ip, ports = "", body
    if body.startswith("["):
        host_ip, bracket, ports = body[1:].partition("]:")
        if not bracket:
            raise bad(option, text, "has an IPv6 address without a closing bracket and colon")
    elif body.count(":") == 2:
        host_ip, _colon, ports = body.partition(":")
    elif body.count(":") > 2:
        raise bad(option, text, "has too many colons; IPv6 addresses stand in [brackets]")
    host, colon, container = ports.rpartition(":")
    if host_ip:
        host_ip = _address(option, host_ip, text)
    low, high = _range(option, container, text)
    if not colon or host in ("", "0"):
        hosts = [0] * (high - low + 1)
    else:
        first, last = _range(option, host, text)
        if last - first != high - low:
            raise bad(option, text, "maps ranges of different length")
        hosts = list(range(first, last + 1))
    return [
        {"host_ip": host_ip, "host_port": hosts[i], "container_port": low + i, "protocol": protocol}
        for i in range(high - low + 1)
    ]


def _address(option: str, text: str, whole: str) -> str:
    import socket

    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            clean = socket.inet_ntop(family, socket.inet_pton(family, text))
        except OSError:
            continue
        return "" if clean == "0.0.0.0" else clean
    raise bad(option, whole, "has %r where an IP address is expected" % text)


def exposed_port(option: str, text: str) -> list[str]:
    """``PORT[-END][/PROTOCOL]`` as ``["80/tcp", ...]``."""
    body, protocol = _protocol(option, str(text).strip())
    low, high = _range(option, body, str(text))
    return ["%d/%s" % (port, protocol) for port in range(low, high + 1)]


def absolute(option: str, text: str) -> str:
    """A clean absolute container path that is not ``/``."""
    parts: list[str] = []
    if not text.startswith("/"):
        raise bad(option, text, "is not an absolute path in the container")
    if "\0" in text:
        raise bad(option, text, "holds a NUL byte")
    for part in text.split("/"):
        if part == "..":
            parts[-1:] = []
        elif part not in ("", "."):
            parts.append(part)
    if not parts:
        raise bad(option, text, "is refused: destination can't be '/'")
    return "/" + "/".join(parts)


_VOLUME_FLAGS = {
    "ro": ("read_only", True),
    "rw": ("read_only", False),
    "nocopy": ("no_copy", True),
    "private": ("propagation", "private"),
    "rprivate": ("propagation", "rprivate"),
    "shared": ("propagation", "shared"),
    "rshared": ("propagation", "rshared"),
    "slave": ("propagation", "slave"),
    "rslave": ("propagation", "rslave"),
}
_IGNORED_FLAGS = ("z", "Z", "cached", "delegated", "consistent")


def volume_mount(option: str, text: str) -> dict[str, Any]:
    """``[SOURCE:]TARGET[:FLAGS]``: an absolute source is a bind (created when missing), a name a volume, none an
    anonymous volume."""
    fields = str(text).split(":")
    if len(fields) > 3 or not all(fields):
        raise bad(option, text, "is not [SOURCE:]TARGET[:FLAGS]")
    source, target, flags = ("", fields[0], "") if len(fields) == 1 else (fields[0], fields[1], ",".join(fields[2:]))
    mount: dict[str, Any] = {"type": "volume", "source": source, "target": absolute(option, target)}
    if source.startswith("/"):
        mount.update(type="bind", source=absolute_source(option, source), create_source=True)
    elif source.startswith((".", "~")):
        raise bad(option, text, "has a relative source; on a managed host only absolute paths have a meaning")
    elif source:
        mount["source"] = volume_name(option, source)
    else:
        mount["anonymous"] = True
    for flag in filter(None, flags.split(",")):
        if flag in _IGNORED_FLAGS:
            continue
        if flag not in _VOLUME_FLAGS:
            raise bad(option, text, "has the unknown mount option %r" % flag)
        key, value = _VOLUME_FLAGS[flag]
        if value is not False:
            mount[key] = value
    return _check_mount(option, mount)


def absolute_source(option: str, text: str) -> str:
    import os.path

    if not text.startswith("/") or "\0" in text:
        raise bad(option, text, "is not an absolute path on the host")
    return os.path.normpath(text)


def volume_name(option: str, text: str) -> str:
    """``[a-zA-Z0-9][a-zA-Z0-9_.-]+``, Docker's rule."""
    if len(text) == 1:
        raise bad(option, text, "is too short for a volume name; names have at least two alphanumeric characters")
    return object_name(option, text, "volume name")


def object_name(option: str, text: str, what: str) -> str:
    """Docker's rule for names of containers, networks and volumes."""
    import string

    allowed = string.ascii_letters + string.digits
    if len(text) < 2 or text[0] not in allowed or any(c not in allowed + "_.-" for c in text) or len(text) > 255:
        raise bad(
            option, text, "is not a %s; use at least two of a-z A-Z 0-9 _ . - beginning with a letter or digit" % what
        )
    return text


_ONLY = {
    **dict.fromkeys(("propagation", "create_mountpoint", "non_recursive"), ("bind",)),
    **dict.fromkeys(("no_copy", "labels", "volume_driver", "volume_options"), ("volume",)),
    **dict.fromkeys(("tmpfs_size", "tmpfs_mode", "tmpfs_options"), ("tmpfs",)),
    "subpath": ("volume", "image"),
}
_MORE = (*_ONLY, "read_only_non_recursive", "read_only_force_recursive")  # rare


def mount(option: str, value: dict[str, Any]) -> dict[str, Any]:
    """An entry of ``mounts``."""
    kind = value["type"]
    out: dict[str, Any] = {"type": kind, "target": absolute(option + ".target", value["target"])}
    source = value.get("source") or ""
    if kind == "tmpfs":
        if source:
            raise bad(option + ".source", source, "makes no sense for a tmpfs mount")
        if value.get("tmpfs_size"):
            out["tmpfs_size"] = size(option + ".tmpfs_size", value["tmpfs_size"])
        if value.get("tmpfs_mode"):
            out["tmpfs_mode"] = octal(option + ".tmpfs_mode", value["tmpfs_mode"])
    elif kind == "bind":
        if not source:
            raise bad(option + ".source", source, "is required for a bind mount")
        out["source"] = absolute_source(option + ".source", source)
    elif kind == "image":
        from . import values_linux

        out.update(values_linux.image_mount(option, value))
    elif source:
        out["source"] = volume_name(option + ".source", source)
    else:
        out.update(source="", anonymous=True)
    for key, kinds in _ONLY.items():
        if value.get(key) is not None and kind not in kinds:
            words = "is for %s mounts, not for %s" % (" and ".join(kinds), kind)
            raise bad("%s.%s" % (option, key), value[key], words)
    for key in ("read_only", "propagation", "no_copy"):
        if value.get(key):
            out[key] = value[key]
    if any(value.get(key) for key in _MORE):
        from . import values_linux

        out.update(values_linux.mount_more(option, value))
    return _check_mount(option, out)


def _check_mount(option: str, entry: dict[str, Any]) -> dict[str, Any]:
    if entry["target"] in ("/proc", "/sys") and entry["type"] != "bind":
        raise bad(option, entry["target"], "cannot be covered by a %s" % entry["type"])
    return entry


def octal(option: str, text: Any) -> int:
    try:
        number = int(str(text), 8)
    except ValueError:
        number = -1
    if not 0 <= number <= 0o7777:
        raise bad(option, text, "is not an octal file mode")
    return number


_ULIMITS = (
    "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice",
    "nofile", "nproc", "rss", "rtprio", "rttime", "sigpending", "stack",
)  # fmt: skip


def ulimit(option: str, text: str) -> dict[str, Any]:
    """``NAME:SOFT[:HARD]``; -1 is unlimited."""
    fields = str(text).replace("=", ":", 1).split(":")
    if len(fields) not in (2, 3) or fields[0] not in _ULIMITS:
        raise bad(option, text, "is not NAME:SOFT[:HARD] with a known name (%s)" % ", ".join(_ULIMITS))
    try:
        soft = int(fields[1])
        hard = int(fields[-1])
    except ValueError:
        raise bad(option, text, "has a limit that is not a number") from None
    if soft < -1 or hard < -1 or (hard != -1 and (soft == -1 or soft > hard)):
        raise bad(option, text, "has a soft limit above the hard limit")
    return {"name": fields[0], "soft": soft, "hard": hard}


def device(option: str, text: str) -> dict[str, str]:
    """``HOST[:CONTAINER[:rwm]]``."""
    fields = str(text).split(":")
    if len(fields) == 2 and not fields[1].startswith("/"):
        fields = [fields[0], fields[0], fields[1]]
    source = fields[0]
    target = fields[1] if len(fields) > 1 and fields[1] else source
    permissions = fields[2] if len(fields) > 2 else "rwm"
    if len(fields) > 3 or not source.startswith("/") or not target.startswith("/"):
        raise bad(option, text, "is not HOST[:CONTAINER[:rwm]] with absolute paths")
    if not permissions or set(permissions) - set("rwm"):
        raise bad(option, text, "has permissions other than r, w and m")
    return {"source": source, "target": target, "permissions": "".join(c for c in "rwm" if c in permissions)}


def cpuset(option: str, text: str) -> str:
    """``0-3,5`` in canonical order without overlaps, so that ``0,1`` equals ``0-1``."""
    numbers: set[int] = set()
    for part in str(text).split(","):
        low, dash, high = part.strip().partition("-")
        try:
            first, last = int(low), int(high if dash else low)
        except ValueError:
            raise bad(option, text, "is not a list of numbers and ranges such as 0-3,5") from None
        if first < 0 or last < first or last > 65535:
            raise bad(option, text, "has a range that ends before it begins")
        numbers.update(range(first, last + 1))
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join("%d" % a if a == b else "%d-%d" % (a, b) for a, b in runs)


def capability(option: str, text: str) -> str:
    name = str(text).upper()
    if name == "ALL" or name.startswith("CAP_"):
        return name
    return "CAP_" + name


def words(option: str, value: Any) -> list[str]:
    """A command: a list as it is, a string split like a shell would (no expansion)."""
    if isinstance(value, str):
        import shlex

        try:
            return shlex.split(value)
        except ValueError as error:
            raise bad(option, value, "cannot be split into words: %s" % error) from None
    if not isinstance(value, list):
        raise bad(option, value, "is neither a list nor a string")
    out = []
    for item in value:
        if not isinstance(item, str):
            raise bad(option, item, "is not a string; quote it")
        if "\0" in item:
            raise bad(option, item, "holds a NUL byte")
        out.append(item)
    return out


def limit(option: str, text: Any) -> int:
    """A size that may be -1 for unlimited."""
    return size(option, text, unlimited=True)


def endpoint(option: str, value: dict[str, Any]) -> dict[str, Any]:
    """An entry of ``networks``: ``{name, aliases?, ipv4_address?, ipv6_address?, mac_address?}``."""
    out: dict[str, Any] = {"name": object_name(option + ".name", value["name"], "network name")}
    if value.get("aliases"):
        out["aliases"] = sorted(set(value["aliases"]))
    for key, colon in (("ipv4_address", False), ("ipv6_address", True)):
        if value.get(key):
            clean = _address("%s.%s" % (option, key), value[key], value[key])
            if (":" in clean) is not colon or not clean:
                raise bad("%s.%s" % (option, key), value[key], "is an address of the other family")
            out[key] = clean
    if any(value.get(key) for key in ("mac_address", "links", "driver_opts", "gw_priority")):
        from . import values_linux

        out.update(values_linux.endpoint_more(option, value))
    return out


def healthcheck(option: str, value: dict[str, Any]) -> dict[str, Any]:
    """``{test: [...], interval, timeout, start_period, start_interval (ns), retries}``; a string test is a shell's."""
    test = value.get("test")
    if test is None and value.get("test_cli_compatible") is False:
        test = "NONE"
    if isinstance(test, str):
        test = ["NONE"] if test == "NONE" else ["CMD-SHELL", test]
    out: dict[str, Any] = {}
    if test is not None:
        test = words(option + ".test", test)
        if not test or test[0] not in ("CMD", "CMD-SHELL", "NONE") or (test[0] != "NONE" and len(test) < 2):
            raise bad(option + ".test", test, "must begin with CMD, CMD-SHELL or NONE, followed by the command")
        out["test"] = test
    for key in ("interval", "timeout", "start_period", "start_interval"):
        if value.get(key):
            out[key] = duration("%s.%s" % (option, key), value[key])
            if 0 < out[key] < 10**6:
                raise bad("%s.%s" % (option, key), value[key], "is below one millisecond")
    if value.get("retries") is not None:
        if value["retries"] < 0:
            raise bad(option + ".retries", value["retries"], "is negative")
        out["retries"] = value["retries"]
    return out
