# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""``security_opts``: checked, and brought to one form."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Optional

from ..errors import NotFound, UsageError
from ..reconcile.values import bad

if TYPE_CHECKING:
    from .task import Task

_SELINUX = "/sys/fs/selinux/enforce"


def check(spec: dict[str, Any], task: Task) -> None:
    """What means the default is left out. Raises ``UsageError``, ``NotFound``."""
    found: dict[str, Optional[str]] = {}
    for text in spec.get("security_opts", []):
        name, _separator, value = text.partition("=" if "=" in text else ":")
        if name not in _KNOWN:
            raise bad("security_opts", text, "is not supported", "known are " + ", ".join(sorted(_KNOWN)))
        clean = _KNOWN[name](text, value, task)
        if found.get(name, clean) != clean:
            raise bad("security_opts", text, "says something else about %s than another of them" % name)
        found[name] = clean
    kept = sorted(name + ("=" + clean if clean else "") for name, clean in found.items() if clean is not None)
    if kept:
        spec["security_opts"] = kept
    else:
        spec.pop("security_opts", None)


def _no_new_privileges(text: str, value: str, _task: Task) -> Optional[str]:
    if value not in ("", "true", "false"):
        raise bad("security_opts", text, "is neither true nor false")
    return None if value == "false" else ""


def _seccomp(text: str, value: str, _task: Task) -> Optional[str]:
    """``unconfined``, or the profile itself as compact JSON: what is stored does not depend on a file's fate."""
    import json

    if value == "unconfined":
        return value
    if value == "builtin":
        return None
    if not value:
        raise bad("security_opts", text, "names no profile", "seccomp=unconfined, or a path, or the profile's JSON")
    profile = value
    if not value.lstrip().startswith("{"):
        try:
            with open(value, "rb") as stream:
                profile = stream.read(1 << 20).decode("utf-8", "replace")
        except OSError as error:
            raise UsageError(
                "security_opts: cannot read the seccomp profile %s: %s" % (value, error.strerror),
                step="validate",
                path=value,
                errno=error.errno,
            ) from None
    from ..kernel.seccomp import profile as profiles

    loaded = profiles.load(profile, "security_opts" if profile is value else value)
    return json.dumps(loaded, sort_keys=True, separators=(",", ":"))


def _apparmor(text: str, value: str, _task: Task) -> Optional[str]:
    from ..kernel import apparmor

    if not value or any(character.isspace() or character == "\0" for character in value):
        raise bad("security_opts", text, "names no AppArmor profile")
    if value != "unconfined" and not apparmor.is_enabled():
        raise bad("security_opts", text, "cannot be kept: AppArmor is not on on this host")
    if value not in ("unconfined", apparmor.DEFAULT) and not apparmor.is_loaded(value):
        raise NotFound(
            "security_opts: the AppArmor profile %s is not loaded" % value,
            step="validate",
            path="security_opts",
            hint="Load it on the host first: apparmor_parser -r FILE",
        )
    return value


def _label(text: str, value: str, task: Task) -> Optional[str]:
    """As Docker: without SELinux they mean nothing. With it, a label that is not set would be a wish unmet."""
    if value == "disable":
        return None
    if os.path.exists(_SELINUX):
        raise bad("security_opts", text, "is not supported: the engine sets no SELinux labels", "label=disable")
    task.warn("security_opts: %s is ignored, SELinux is not on on this host" % text)
    return None


def _systempaths(text: str, value: str, _task: Task) -> Optional[str]:
    if value != "unconfined":
        raise bad("security_opts", text, "is not systempaths=unconfined, which is all there is")
    return value


def _proc_opts(text: str, value: str, _task: Task) -> Optional[str]:
    """Podman's: how /proc is mounted, see proc(5)."""
    for word in value.split(","):
        key, _equals, what = word.partition("=")
        good = {
            "hidepid": what in ("0", "1", "2", "4", "off", "noaccess", "invisible", "ptraceable"),
            "subset": what == "pid",
            "gid": what.isdigit(),
        }
        if not good.get(key, False):
            raise bad("security_opts", text, "has %r, which is none of hidepid=, gid=, subset=pid" % word)
    return value


_KNOWN: dict[str, Callable[[str, str, Task], Optional[str]]] = {
    "no-new-privileges": _no_new_privileges,
    "seccomp": _seccomp,
    "apparmor": _apparmor,
    "label": _label,
    "systempaths": _systempaths,
    "proc-opts": _proc_opts,
}
