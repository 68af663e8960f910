# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ``host_info`` module: what this host can do, and which fallbacks are in use because of it."""

from __future__ import annotations

import os
import platform
import sys
from typing import Any, Optional

from .. import VERSION
from ..errors import KernelError
from .task import Task, query

KERNEL_FLOOR = (5, 10)


def run(task: Task) -> dict[str, Any]:
    host = facts(task)
    if task.params.get("disk_usage"):
        from .sizes import disk_usage

        host["disk_usage"] = disk_usage(task) if os.path.exists(task.paths.database) else None
    return {"changed": False, "host": query(task.params.get("query"), host)}


def facts(task: Task) -> dict[str, Any]:
    """``{kernel, python, cgroups, storage, network, security, state, problems, fallbacks, engine}``."""
    from ..kernel import apparmor
    from ..kernel.cgroups import Layout
    from ..storage import overlay, quota, shifted

    layout = Layout.detect()
    place = task.paths.state if os.path.isdir(task.paths.state) else None
    storage = overlay.probe(task.kernel, place)
    storage["idmapped_layers"] = shifted.idmapped_layers(task.kernel, place or "/var/tmp")
    storage["project_quotas"] = quota.is_possible(task.kernel, task.paths.state)
    host: dict[str, Any] = {
        "engine": {"version": VERSION, "state_dir": task.paths.state, "run_dir": task.paths.run},
        "kernel": {"release": platform.release(), "machine": platform.machine()},
        "python": {"version": platform.python_version(), "executable": sys.executable},
        "cgroups": {
            "kind": layout.kind,
            "controllers": {name: "v%d" % version for name, (version, _mount) in sorted(layout.controllers.items())},
        },
        "storage": storage,
        "network": {
            "ip_forward": _read("/proc/sys/net/ipv4/ip_forward") == "1",
            "ipv6": os.path.exists("/proc/net/if_inet6"),
            "nftables": _nftables(),
            "obstacles": _obstacles(task),
        },
        "security": {
            "seccomp": os.path.exists("/proc/sys/kernel/seccomp/actions_avail"),
            "apparmor": apparmor.is_enabled(),
            "apparmor_parser": apparmor.parser(),
            "selinux": os.path.exists("/sys/fs/selinux/enforce"),
            "user_namespaces": os.path.exists("/proc/self/ns/user"),
            "missing_capabilities": _missing_capabilities(),
        },
        "init_system": "systemd" if os.path.isdir("/run/systemd/system") else "other",
        "objects": _objects(task),
    }
    host["problems"] = _problems(host)
    host["fallbacks"] = _fallbacks(host)
    host["supported"] = not host["problems"]
    return host


def _read(path: str) -> Optional[str]:
    try:
        with open(path) as stream:
            return stream.read().strip()
    except OSError:  # an absent file is the answer: the kernel lacks the feature
        return None


def _nftables() -> bool:
    """Whether the kernel has nf_tables and lets us use it: asked by requesting the ruleset's generation."""
    from ..kernel.nfnetlink import Nfnetlink

    try:
        with Nfnetlink() as netlink:
            netlink.generation()
    except OSError:
        return False
    return True


def _obstacles(task: Task) -> list[str]:
    """Foreign firewall chains that drop what ours lets through."""
    from ..network.firewall import Firewall

    firewall = Firewall(task.paths)
    try:
        return list(firewall.obstacles())
    except KernelError:  # no nf_tables at all: that is told as a problem of its own
        return []
    finally:
        firewall.close()


def _missing_capabilities() -> list[str]:
    from ..kernel import capabilities

    have = capabilities.available()
    return sorted(set(capabilities.from_mask((1 << capabilities.last_cap() + 1) - 1)) - have)


def _objects(task: Task) -> dict[str, int]:
    if not os.path.exists(task.paths.database):
        return {"images": 0, "containers": 0, "networks": 0, "volumes": 0}
    store = task.store
    return {
        "images": len(store.images.list()),
        "containers": len(store.containers.list()),
        "networks": len(store.networks.list()),
        "volumes": len(store.volumes.list()),
    }


def _version(text: str) -> tuple[int, ...]:
    numbers = []
    for part in text.split("-")[0].split(".")[:2]:
        digits = "".join(c for c in part if c.isdigit())
        numbers.append(int(digits or 0))
    return tuple(numbers)


def _problems(host: dict[str, Any]) -> list[str]:
    """What keeps containers from running here, a sentence each."""
    out = []
    if _version(host["kernel"]["release"]) < KERNEL_FLOOR:
        out.append("Linux %s is older than 5.10, the oldest kernel this engine works on" % host["kernel"]["release"])
    if not host["network"]["nftables"]:
        out.append("The kernel has no nf_tables: ports cannot be published and networks not be isolated")
    if not host["storage"]["overlay"]:
        out.append("The kernel has no overlayfs: images cannot be mounted")
    if not host["security"]["seccomp"]:
        out.append("The kernel has no seccomp filters: containers could not be confined")
    for controller in ("memory", "cpu", "pids"):
        if controller not in host["cgroups"]["controllers"]:
            out.append("The cgroup controller %s is not available: its limits cannot be set" % controller)
    return out


def _fallbacks(host: dict[str, Any]) -> list[str]:
    """Where this host makes the engine work another way than on the newest kernels, a sentence each."""
    out = list(host["network"]["obstacles"])
    if not host["storage"].get("erofs_files"):
        out.append("Layers are extracted: this kernel cannot mount EROFS images from files (Linux 6.12)")
    if host["storage"]["overlay_mode"] != "fd":
        out.append("Layers are handed to overlayfs by path: this kernel does not take descriptors (Linux 6.13)")
    if not host["storage"]["idmapped_layers"]:
        out.append(
            "An image is copied for each container with userns_mode auto: its layers cannot be mounted with other IDs"
        )
    if host["security"]["apparmor"] and not host["security"]["apparmor_parser"]:
        out.append("Containers have no AppArmor profile: the program apparmor_parser, which loads it, is missing")
    if "CAP_SYS_RESOURCE" in host["security"]["missing_capabilities"]:
        out.append("Limits above the present hard limits are clamped: CAP_SYS_RESOURCE is missing")
    return out
