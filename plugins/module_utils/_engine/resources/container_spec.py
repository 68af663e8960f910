# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a container task asks for, checked as far as it can be without touching anything."""

from __future__ import annotations

import os
import stat
from typing import Any

from ..._args.container import CONFIG as CONTAINER
from ..errors import UsageError
from ..reconcile import options, values
from ..reconcile.values import bad
from . import container_options
from .task import Task

MINIMUM_MEMORY = 6 << 20  # Docker's floor; a container below it cannot even start its init
DETACHED_MODES = ("host", "none")
_ETC = ("etc_hosts", "dns_servers", "dns_opts", "dns_search_domains")  # what hosts and resolv.conf are made of


def wanted(task: Task) -> dict[str, Any]:
    """The canonical spec of the task. Raises ``UsageError`` naming the option, before anything changes."""
    params = dict(task.params)
    if params.get("env_file"):
        params["env"] = {**values.env_file(params["env_file"]), **(params.get("env") or {})}
    params.pop("env_file", None)
    spec = options.normalise(CONTAINER, params)
    values.object_name("name", params["name"], "container name")
    _check_memory(spec)
    _check_cpu(spec)
    _check_restart(spec)
    _check_networks(spec, task)
    container_options.check(spec, task)
    _check_ports(spec)
    _check_security(spec, task)
    _check_process(spec)
    _check_mounts(spec, task)
    if "log_driver" in spec or "log_options" in spec:
        from . import container_logging

        container_logging.check(spec)
    return spec


def _check_memory(spec: dict[str, Any]) -> None:
    memory, swap = spec.get("memory"), spec.get("memory_swap")
    if memory is not None and memory < MINIMUM_MEMORY:
        raise bad("memory", memory, "is below the minimum memory limit of 6 MiB")
    if swap is not None and swap != -1:
        if memory is None:
            raise bad("memory_swap", swap, "needs memory to be set too; it is the sum of memory and swap")
        if swap < memory:
            raise bad("memory_swap", swap, "is smaller than memory; it is the sum of memory and swap")
    reservation = spec.get("memory_reservation")
    if reservation is not None and memory is not None and reservation > memory:
        raise bad("memory_reservation", reservation, "is larger than memory")


def _check_cpu(spec: dict[str, Any]) -> None:
    cpus = spec.get("cpus")
    if cpus is not None and not 0.01 <= cpus <= (os.cpu_count() or 1):
        raise bad("cpus", cpus, "is outside what this host has: 0.01 to %d" % (os.cpu_count() or 1))
    shares = spec.get("cpu_shares")
    if shares is not None and not 2 <= shares <= 262144:
        raise bad("cpu_shares", shares, "is outside 2 to 262144")
    if "cpuset_cpus" in spec:
        with open("/sys/devices/system/cpu/online") as stream:
            online = _numbers(stream.read().strip())
        missing = sorted(_numbers(spec["cpuset_cpus"]) - online)
        if missing:
            raise bad("cpuset_cpus", spec["cpuset_cpus"], "names CPU %d, which this host does not have" % missing[0])
    pids = spec.get("pids_limit")
    if pids is not None and pids < 0:
        del spec["pids_limit"]
    score = spec.get("oom_score_adj")
    if score is not None and not -1000 <= score <= 1000:
        raise bad("oom_score_adj", score, "is outside -1000 to 1000")


def _numbers(text: str) -> set[int]:
    out: set[int] = set()
    for part in text.split(","):
        low, _dash, high = part.partition("-")
        out.update(range(int(low), int(high or low) + 1))
    return out


def _check_restart(spec: dict[str, Any]) -> None:
    if spec.get("restart_policy") == "no":
        del spec["restart_policy"]
    if "restart_retries" in spec and spec.get("restart_policy") != "on-failure":
        raise bad("restart_retries", spec["restart_retries"], "only means something with restart_policy=on-failure")
    if spec.get("restart_retries", 0) < 0:
        raise bad("restart_retries", spec["restart_retries"], "is negative")
    if spec.get("stop_timeout", 0) < -1:
        raise bad("stop_timeout", spec["stop_timeout"], "is below -1 (-1 waits for ever)")
    if "stop_signal" in spec:
        spec["stop_signal"] = "SIG" + str(signal_number("stop_signal", spec["stop_signal"]))


def signal_number(option: str, text: str) -> int:
    """A signal's number from ``SIGTERM``, ``TERM``, ``15``, ``SIGRTMIN+3``."""
    import signal

    raw = str(text).upper()
    raw = raw[3:] if raw.startswith("SIG") else raw
    base, plus, offset = raw.partition("+")
    try:
        number = int(raw) if raw.isdigit() else int(getattr(signal, "SIG" + base)) + (int(offset) if plus else 0)
    except (AttributeError, ValueError, TypeError):
        number = 0
    if not 1 <= number <= 64:
        raise bad(option, text, "is not a signal")
    return number


def _check_networks(spec: dict[str, Any], task: Task) -> None:
    mode = spec.get("network_mode", "")
    if mode in ("default", "bridge"):
        mode = spec["network_mode"] = "bridge"
    networks = spec.get("networks", [])
    if mode in DETACHED_MODES or mode.startswith("container:"):
        if networks:
            raise bad("network_mode", mode, "cannot be combined with networks", "leave out one of the two")
        if spec.pop("published_ports", None):
            task.warn("Published ports are discarded when using %s network mode" % mode.partition(":")[0])
        for option in _ETC if mode.startswith("container:") else ():
            if spec.get(option):
                raise bad(option, spec[option], "cannot be combined with network_mode %s, whose files they are" % mode)
    elif mode and all(network["name"] != mode for network in networks):
        networks.insert(0, {"name": mode})
        spec["networks"] = networks
    elif not networks:
        spec["networks"] = [{"name": "bridge"}]
    for index, network in enumerate(networks):
        if network["name"] in DETACHED_MODES:
            raise bad(
                "networks[%d].name" % index, network["name"], "cannot be one of several networks; use network_mode"
            )
        if network["name"] == "bridge":
            if network.get("aliases"):
                raise bad(
                    "networks[%d].aliases" % index,
                    network["aliases"],
                    "are supported only for containers in user defined networks",
                )
            if network.get("ipv4_address") or network.get("ipv6_address"):
                raise bad(
                    "networks[%d]" % index, network["name"], "takes no address; addresses are for user defined networks"
                )
    if spec.get("network_mode") not in (*DETACHED_MODES, None) and not spec["network_mode"].startswith("container:"):
        # With the network itself in networks, the mode says nothing more.
        del spec["network_mode"]


def _check_ports(spec: dict[str, Any]) -> None:
    seen: dict[tuple[Any, ...], int] = {}
    for port in spec.get("published_ports", []):
        key = (port["host_ip"], port["host_port"], port["protocol"])
        if port["host_port"] and key in seen:
            raise bad("published_ports", port["host_port"], "is published twice")
        seen[key] = port["container_port"]


def _check_security(spec: dict[str, Any], task: Task) -> None:
    for option in ("capabilities", "cap_drop"):
        if option in spec:
            from ..kernel import capabilities

            capabilities.parse(spec[option])
    if "security_opts" in spec:
        from . import container_security

        container_security.check(spec, task)
    for name in spec.get("sysctls", {}):
        _check_sysctl(name, spec)


_IPC_SYSCTLS = (
    "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem",
    "kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced",
)  # fmt: skip


def _check_sysctl(name: str, spec: dict[str, Any]) -> None:
    if name.startswith("net."):
        if spec.get("network_mode") == "host":
            raise bad("sysctls.%s" % name, spec["sysctls"][name], "cannot be set in the host's network namespace")
    elif not (name.startswith("fs.mqueue.") or name in _IPC_SYSCTLS):
        raise bad("sysctls.%s" % name, spec["sysctls"][name], "is not a namespaced sysctl; it would change the host")
    if "/" in name or ".." in name:
        raise bad("sysctls.%s" % name, spec["sysctls"][name], "is not a sysctl name")


def _check_process(spec: dict[str, Any]) -> None:
    user = spec.get("user", "")
    for part in user.split(":")[:2]:
        if part.isdigit() and int(part) > 2**31 - 1:
            raise bad("user", user, "has an ID outside 0 to 2147483647")
    for option in ("hostname", "domainname"):
        if len(spec.get(option, "")) > 63 or "/" in spec.get(option, "") or "\0" in spec.get(option, ""):
            raise bad(option, spec[option], "is not a host name of at most 63 characters")
    if "working_dir" in spec and not spec["working_dir"].startswith("/"):
        raise bad("working_dir", spec["working_dir"], "is not an absolute path")
    for name, address in spec.get("etc_hosts", {}).items():
        if address != "host-gateway":
            spec["etc_hosts"][name] = values._address("etc_hosts.%s" % name, address, address) or "0.0.0.0"
    for entry in spec.get("devices", []):
        try:
            mode = os.stat(entry["source"]).st_mode
        except OSError as error:
            raise bad("devices", entry["source"], "cannot be used: %s" % error.strerror) from None
        if not (stat.S_ISCHR(mode) or stat.S_ISBLK(mode) or stat.S_ISDIR(mode)):
            raise bad("devices", entry["source"], "is not a device")


def _check_mounts(spec: dict[str, Any], task: Task) -> None:
    for mount in spec.get("mounts", []):
        if mount["type"] == "image":
            from .container_mounts import mounted_image

            mount["image_id"] = mounted_image(task, mount).id
        if mount["type"] == "volume" and mount.get("read_only") and mount.get("anonymous"):
            raise bad(
                "mounts", mount["target"], "is an anonymous volume, which cannot be read-only: nothing could fill it"
            )
        if mount["type"] == "bind" and not mount.get("create_source") and not os.path.lexists(mount["source"]):
            raise UsageError(
                'mounts: invalid mount config for type "bind": bind source path does not exist: %s' % mount["source"],
                step="validate",
                path=mount["source"],
                hint="create the path first, or use volumes, which creates a missing directory",
            )
