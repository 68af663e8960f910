# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A container in the shape of ``docker inspect`` (Docker 28)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Optional

from ..timestamps import ZERO, rfc3339
from . import container_make as make
from .container_actual import state
from .task import Task

if TYPE_CHECKING:
    from ..store.records import ContainerRecord, EndpointRecord, ImageRecord


def inspect(task: Task, record: ContainerRecord) -> dict[str, Any]:
    """The whole picture, from the row, the monitor's facts and the leases."""
    from ..kernel import apparmor
    from ..runtime.spec import apparmor_profile

    facts = state(task, record)
    image = task.store.images.get(record.image_id)
    config = make.image_config(image) if image else {}
    directory = task.paths.container(record.id)
    argv = process_arguments(record.spec, config)
    return {
        "Id": record.id,
        "Created": rfc3339(record.created_at),
        "Path": argv[0] if argv else "",
        "Args": argv[1:],
        "State": _state(facts),
        "Image": record.image_id,
        "ResolvConfPath": directory + "/files/resolv.conf",
        "HostnamePath": directory + "/files/hostname",
        "HostsPath": directory + "/files/hosts",
        "LogPath": directory + "/log" if record.spec.get("log_driver", "json-file") == "json-file" else "",
        "Name": "/" + record.name,
        "RestartCount": facts.get("restart_count", 0),
        "Driver": "overlay",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": apparmor.shown(apparmor_profile(record.spec)),
        "ExecIDs": _exec_ids(task, record, facts),
        "HostConfig": _host_config(task, record),
        "GraphDriver": {
            "Data": {"ID": record.id, "UpperDir": directory + "/upper", "WorkDir": directory + "/work"},
            "Name": "overlay",
        },
        "Mounts": [_mount(task, mount) for mount in record.resolved["mounts"]],
        "Config": _config(record, config, make.container_hostname(task, record), image),
        "NetworkSettings": _network_settings(task, record, facts, config),
    }


def _exec_ids(task: Task, record: ContainerRecord, facts: dict[str, Any]) -> Optional[list[str]]:
    """As the kernel has them: every exec is a cgroup of its own, for as long as something of it runs."""
    if facts["status"] not in ("running", "paused"):
        return None
    from ..kernel.cgroups import Cgroup

    directory = Cgroup(task.layout, make.cgroup_path(task, record)).unified()
    try:
        names = os.listdir(directory) if directory else []
    except FileNotFoundError:  # it ended this instant
        return None
    found = [name[5:] for name in names if name.startswith("exec-") and len(name) == 5 + 64]
    return sorted(name for name in found if _populated("%s/exec-%s" % (directory, name))) or None


def _populated(directory: str) -> bool:
    try:
        with open(directory + "/cgroup.events", encoding="ascii") as stream:
            return "populated 1" in stream.read()
    except OSError:  # gone
        return False


def process_arguments(spec: dict[str, Any], config: dict[str, Any]) -> list[str]:
    """Entrypoint and command as Docker merges them: an entrypoint of the task drops the image's command."""
    entrypoint = spec.get("entrypoint") or config.get("Entrypoint") or []
    command = spec.get("command") or ([] if spec.get("entrypoint") else config.get("Cmd")) or []
    return [*entrypoint, *command]


def _state(facts: dict[str, Any]) -> dict[str, Any]:
    status = facts["status"]
    out: dict[str, Any] = {
        "Status": status,
        "Running": status in ("running", "paused", "restarting"),
        "Paused": status == "paused",
        "Restarting": status == "restarting",
        "OOMKilled": bool(facts.get("oom_killed")),
        "Dead": False,
        "Pid": facts.get("pid") or 0 if status in ("running", "paused") else 0,
        "ExitCode": facts.get("exit_code") or 0,
        "Error": facts.get("error") or facts.get("log_error") or "",
        "StartedAt": facts.get("started_at") or ZERO,
        "FinishedAt": facts.get("finished_at") or ZERO,
    }
    health = facts.get("health")
    if health:
        out["Health"] = {
            "Status": health["status"],
            "FailingStreak": health["failing_streak"],
            "Log": [
                {"Start": p["start"], "End": p["end"], "ExitCode": p["exit_code"], "Output": p["output"]}
                for p in health.get("log", [])
            ],
        }
    return out


def _host_config(task: Task, record: ContainerRecord) -> dict[str, Any]:
    from ..runtime import spec as oci

    spec = record.spec
    networks = spec.get("networks", [])
    memory = spec.get("memory", 0)
    bare = spec.get("privileged") or "systempaths=unconfined" in (spec.get("security_opts") or ())
    return {
        "Binds": [_bind(m) for m in spec.get("mounts", []) if m["type"] in _BINDS and not m.get("anonymous")] or None,
        "ContainerIDFile": "",
        "LogConfig": {"Type": spec.get("log_driver", "json-file"), "Config": spec.get("log_options", {})},
        "NetworkMode": spec.get("network_mode") or (networks[0]["name"] if networks else "bridge"),
        "PortBindings": _bindings(task, record),
        "RestartPolicy": {
            "Name": spec.get("restart_policy", "no"),
            "MaximumRetryCount": spec.get("restart_retries", 0),
        },
        "AutoRemove": spec.get("auto_remove", False),
        "VolumeDriver": "",
        "VolumesFrom": None,  # they are mounts of its own since it was made
        "ConsoleSize": [0, 0],
        "CapAdd": spec.get("capabilities"),
        "CapDrop": spec.get("cap_drop"),
        "Cgroup": "",
        "CgroupParent": spec.get("cgroup_parent", ""),
        "CgroupnsMode": spec.get("cgroupns_mode", "private"),
        "Dns": spec.get("dns_servers", []),
        "DnsOptions": spec.get("dns_opts", []),
        "DnsSearch": spec.get("dns_search_domains", []),
        "ExtraHosts": ["%s:%s" % item for item in sorted(spec.get("etc_hosts", {}).items())] or None,
        "GroupAdd": spec.get("groups"),
        "IpcMode": spec.get("ipc_mode", "private"),
        "Links": ["%s:/%s/%s" % (link["name"], record.name, link["alias"]) for link in spec.get("links", [])] or None,
        "OomScoreAdj": spec.get("oom_score_adj", 0),
        "PidMode": spec.get("pid_mode", ""),
        "Privileged": spec.get("privileged", False),
        "PublishAllPorts": spec.get("publish_all_ports", False),
        "ReadonlyRootfs": spec.get("read_only", False),
        "SecurityOpt": spec.get("security_opts"),
        "StorageOpt": {name: str(value) for name, value in spec.get("storage_opts", {}).items()} or None,
        "Sysctls": spec.get("sysctls"),
        "Tmpfs": {m["target"]: "" for m in spec.get("mounts", []) if m["type"] == "tmpfs"} or None,
        "UTSMode": spec.get("uts", ""),
        "UsernsMode": spec.get("userns_mode", ""),
        "ShmSize": spec.get("shm_size", 64 << 20),
        "Runtime": "wharf",
        "Isolation": "",
        "CpuShares": spec.get("cpu_shares", 0),
        "Memory": memory,
        "NanoCpus": round(spec.get("cpus", 0) * 10**9),
        "CpusetCpus": spec.get("cpuset_cpus", ""),
        "CpusetMems": spec.get("cpuset_mems", ""),
        "Devices": [
            {"PathOnHost": d["source"], "PathInContainer": d["target"], "CgroupPermissions": d["permissions"]}
            for d in spec.get("devices", [])
        ],
        "MemoryReservation": spec.get("memory_reservation", 0),
        "BlkioWeight": spec.get("blkio_weight", 0),
        "BlkioWeightDevice": [],
        "BlkioDeviceReadBps": _rates(spec, "device_read_bps"),
        "BlkioDeviceWriteBps": _rates(spec, "device_write_bps"),
        "BlkioDeviceReadIOps": _rates(spec, "device_read_iops"),
        "BlkioDeviceWriteIOps": _rates(spec, "device_write_iops"),
        "CpuPeriod": spec.get("cpu_period", 0),
        "CpuQuota": spec.get("cpu_quota", 0),
        "CpuRealtimePeriod": 0,
        "CpuRealtimeRuntime": 0,
        "DeviceCgroupRules": spec.get("device_cgroup_rules"),
        "DeviceRequests": None,
        "OomKillDisable": spec.get("oom_killer", False),
        "MemorySwappiness": spec.get("memory_swappiness"),
        "MemorySwap": spec.get("memory_swap", 2 * memory),
        "PidsLimit": spec.get("pids_limit"),
        "Ulimits": [{"Name": u["name"], "Hard": u["hard"], "Soft": u["soft"]} for u in spec.get("ulimits", [])],
        "CpuCount": 0,
        "CpuPercent": 0,
        "IOMaximumIOps": 0,
        "IOMaximumBandwidth": 0,
        "MaskedPaths": [] if bare else list(oci.MASKED),
        "ReadonlyPaths": [] if bare else list(oci.READONLY),
        "Init": spec.get("init", False),
    }


def _rates(spec: dict[str, Any], option: str) -> list[dict[str, Any]]:
    return [{"Path": entry["path"], "Rate": entry["rate"]} for entry in spec.get(option, [])]


_BINDS = ("bind", "volume")


def _bind(mount: dict[str, Any]) -> str:
    flags = [name for key, name in (("read_only", "ro"), ("no_copy", "nocopy")) if mount.get(key)]
    if mount.get("propagation"):
        flags.append(mount["propagation"])
    return ":".join([mount["source"], mount["target"], *([",".join(flags)] if flags else [])])


def _bindings(task: Task, record: ContainerRecord) -> dict[str, list[dict[str, str]]]:
    out: dict[str, list[dict[str, str]]] = {}
    for port in task.store.networks.ports(record.id):
        key = "%d/%s" % (port.container_port, port.protocol)
        out.setdefault(key, []).append({"HostIp": port.host_ip, "HostPort": str(port.host_port)})
    return out


def _mount(task: Task, mount: dict[str, Any]) -> dict[str, Any]:
    kind = mount["type"]
    out: dict[str, Any] = {"Type": kind}
    if kind == "volume":
        out.update(Name=mount["source"], Source=task.paths.volume_data(mount["source"]))
    elif kind in ("bind", "image"):
        out["Source"] = mount["source"]
    else:
        out["Source"] = ""
    out["Destination"] = mount["target"]
    if kind == "volume":
        out["Driver"] = "local"
    out.update(Mode="", RW=not mount.get("read_only"), Propagation=mount.get("propagation", "rprivate"))
    if kind != "bind":
        out["Propagation"] = ""
    return out


def _config(
    record: ContainerRecord, config: dict[str, Any], hostname: str, image: Optional[ImageRecord]
) -> dict[str, Any]:
    spec = record.spec
    env = {k: v for k, _s, v in (item.partition("=") for item in config.get("Env") or [])}
    env.update(spec.get("env", {}))
    exposed = set(config.get("ExposedPorts") or {}) | set(spec.get("exposed_ports", []))
    exposed |= {"%d/%s" % (p["container_port"], p["protocol"]) for p in spec.get("published_ports", [])}
    return {
        "Hostname": hostname,
        "Domainname": spec.get("domainname", ""),
        "User": spec.get("user") or config.get("User") or "",
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "ExposedPorts": {port: {} for port in sorted(exposed)},
        "Tty": spec.get("tty", False),
        "OpenStdin": spec.get("interactive", False),
        "StdinOnce": False,
        "Env": ["%s=%s" % item for item in env.items()],
        "Cmd": spec.get("command") or (None if spec.get("entrypoint") else config.get("Cmd")),
        "Healthcheck": _health(make.health_settings(spec, config)),
        "Image": record.image_ref,
        "Volumes": config.get("Volumes"),
        "WorkingDir": spec.get("working_dir") or config.get("WorkingDir") or "",
        "Entrypoint": spec.get("entrypoint") or config.get("Entrypoint"),
        "Labels": {**(config.get("Labels") or {}), **spec.get("labels", {})},
        "StopSignal": spec.get("stop_signal") or config.get("StopSignal") or "SIGTERM",
        "StopTimeout": spec.get("stop_timeout"),
    }


def _health(settings: Optional[dict[str, Any]]) -> Optional[dict[str, Any]]:
    if settings is None:
        return None
    return {
        "Test": settings["test"],
        "Interval": settings["interval"],
        "Timeout": settings["timeout"],
        "StartPeriod": settings["start_period"],
        "StartInterval": settings["start_interval"],
        "Retries": settings["retries"],
    }


def _network_settings(
    task: Task, record: ContainerRecord, facts: dict[str, Any], config: dict[str, Any]
) -> dict[str, Any]:
    endpoints = sorted(task.store.networks.endpoints(container_id=record.id), key=lambda e: e.position)
    networks: dict[str, Any] = {}
    bridge: dict[str, Any] = {}
    up = facts["status"] in ("running", "paused", "restarting")
    for endpoint in endpoints:
        network = task.store.networks.get(endpoint.network_id)
        if network is None:
            continue
        asked: dict[str, Any] = next((n for n in record.spec.get("networks", []) if n["name"] == network.name), {})
        networks[network.name] = shown = _endpoint(record, endpoint, network.subnets, up, asked)
        shown["NetworkID"] = network.id
        if network.name == "bridge":
            bridge = shown
    ports: dict[str, Any] = dict.fromkeys(config.get("ExposedPorts") or {})
    ports.update(dict.fromkeys(record.spec.get("exposed_ports", [])))
    if up:
        ports.update(
            {
                key: [{"HostIp": b["HostIp"] or "0.0.0.0", "HostPort": b["HostPort"]} for b in bindings]
                for key, bindings in _bindings(task, record).items()
            }
        )
    netns = make.netns_path(task, record)
    return {
        "Bridge": "",
        "SandboxID": record.id if netns and os.path.exists(netns) else "",
        "SandboxKey": netns or "",
        "Ports": ports if up else {},
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "EndpointID": bridge.get("EndpointID", ""),
        "Gateway": bridge.get("Gateway", ""),
        "GlobalIPv6Address": bridge.get("GlobalIPv6Address", ""),
        "GlobalIPv6PrefixLen": bridge.get("GlobalIPv6PrefixLen", 0),
        "IPAddress": bridge.get("IPAddress", ""),
        "IPPrefixLen": bridge.get("IPPrefixLen", 0),
        "IPv6Gateway": bridge.get("IPv6Gateway", ""),
        "MacAddress": bridge.get("MacAddress", ""),
        "Networks": networks,
    }


def _endpoint(
    record: ContainerRecord, endpoint: EndpointRecord, subnets: Any, up: bool, asked: dict[str, Any]
) -> dict[str, Any]:
    v4 = next((s for s in subnets if ":" not in s["subnet"]), None)
    v6 = next((s for s in subnets if ":" in s["subnet"]), None)
    prefix4 = int(v4["subnet"].partition("/")[2]) if v4 and endpoint.ipv4 else 0
    prefix6 = int(v6["subnet"].partition("/")[2]) if v6 and endpoint.ipv6 else 0
    return {
        "IPAMConfig": {"IPv4Address": endpoint.ipv4} if endpoint.static and endpoint.ipv4 else None,
        "Links": ["%s:%s" % (link["name"], link["alias"]) for link in asked.get("links", [])] or None,
        "Aliases": endpoint.aliases or None,
        "MacAddress": endpoint.mac,
        "DriverOpts": asked.get("driver_opts"),
        "GwPriority": endpoint.priority,
        "NetworkID": "",
        "EndpointID": record.id if up else "",
        "Gateway": v4["gateway"] or "" if v4 else "",
        "IPAddress": endpoint.ipv4 or "",
        "IPPrefixLen": prefix4,
        "IPv6Gateway": v6["gateway"] or "" if v6 else "",
        "GlobalIPv6Address": endpoint.ipv6 or "",
        "GlobalIPv6PrefixLen": prefix6,
        "DNSNames": [record.name, *endpoint.aliases, record.id[:12]],
    }
