# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of a container. One table: argument spec, normalising, comparison and live update all derive from it.

Names, types and meaning follow community.docker's docker_container; docs/differences.md lists what differs.
"""

from __future__ import annotations

from .common import VERIFY, Table

HEALTHCHECK: Table = {
    "test": {"type": "raw"},
    "test_cli_compatible": {"type": "bool"},
    "interval": {"type": "str"},
    "timeout": {"type": "str"},
    "start_period": {"type": "str"},
    "start_interval": {"type": "str"},
    "retries": {"type": "int"},
}

MOUNT: Table = {
    "target": {"type": "str", "required": True},
    "source": {"type": "str"},
    "type": {"type": "str", "choices": ["bind", "image", "tmpfs", "volume"], "default": "volume"},
    "read_only": {"type": "bool"},
    "propagation": {
        "type": "str",
        "choices": ["private", "rprivate", "shared", "rshared", "slave", "rslave"],
    },
    "no_copy": {"type": "bool"},
    "tmpfs_size": {"type": "str"},
    "tmpfs_mode": {"type": "str"},
    "tmpfs_options": {"type": "list", "elements": "dict"},
    "subpath": {"type": "str"},
    "labels": {"type": "dict"},
    "volume_driver": {"type": "str"},
    "volume_options": {"type": "dict"},
    "create_mountpoint": {"type": "bool"},
    "non_recursive": {"type": "bool"},
    "read_only_non_recursive": {"type": "bool"},
    "read_only_force_recursive": {"type": "bool"},
    "consistency": {"type": "str", "choices": ["cached", "consistent", "default", "delegated"]},
}

DEVICE_REQUEST: Table = {
    "capabilities": {"type": "list", "elements": "list"},
    "count": {"type": "int"},
    "device_ids": {"type": "list", "elements": "str"},
    "driver": {"type": "str"},
    "options": {"type": "dict"},
}

NETWORK: Table = {
    "name": {"type": "str", "required": True},
    "aliases": {"type": "list", "elements": "str"},
    "ipv4_address": {"type": "str"},
    "ipv6_address": {"type": "str"},
    "mac_address": {"type": "str"},
    "links": {"type": "list", "elements": "str"},
    "driver_opts": {"type": "dict"},
    "gw_priority": {"type": "int"},
}

RATE_SIZE: Table = {
    "path": {"type": "str", "required": True},
    "rate": {"type": "str", "required": True},
}

RATE_COUNT: Table = {
    "path": {"type": "str", "required": True},
    "rate": {"type": "int", "required": True},
}

SECRET: Table = {
    "name": {"type": "str", "required": True},
    "content": {"type": "str", "no_log": True},
    "source": {"type": "path"},
    "target": {"type": "str"},
    "mode": {"type": "str", "default": "0400"},
    "uid": {"type": "int"},
    "gid": {"type": "int"},
}

# What the container is. An option left out of a task that names an image is an option not wanted (law 1).
CONFIG: Table = {
    "image": {"type": "str", "compare": "ignore", "change": "replace"},  # compared by image ID, in resources/container
    "command": {"normal": "words", "type": "raw", "compare": "list", "change": "replace"},
    "entrypoint": {"normal": "words", "type": "list", "elements": "str", "compare": "list", "change": "replace"},
    "env": {"normal": "env", "type": "dict", "compare": "dict", "change": "replace"},
    "env_file": {"type": "path", "compare": "ignore", "change": "ignore"},  # folded into env
    "labels": {"normal": "strings", "type": "dict", "compare": "dict", "change": "live"},
    "hostname": {"type": "str", "compare": "scalar", "change": "replace"},
    "domainname": {"type": "str", "compare": "scalar", "change": "replace"},
    "user": {"type": "str", "compare": "scalar", "change": "replace"},
    "groups": {"type": "list", "elements": "str", "compare": "set", "change": "replace"},
    "working_dir": {"type": "str", "compare": "scalar", "change": "replace"},
    "tty": {"type": "bool", "compare": "scalar", "change": "replace"},
    "interactive": {"type": "bool", "compare": "scalar", "change": "replace"},
    "init": {"type": "bool", "compare": "scalar", "change": "replace"},
    "network_mode": {"type": "str", "compare": "scalar", "change": "replace"},
    "networks": {
        "normal": "endpoint",
        "type": "list",
        "elements": "dict",
        "options": NETWORK,
        "compare": "named",
        "key": "name",
        "change": "live",
    },
    "published_ports": {
        "normal": "published_port",
        "type": "list",
        "elements": "str",
        "aliases": ["ports"],
        "compare": "set",
        "change": "live",
    },
    "exposed_ports": {
        "normal": "exposed_port",
        "type": "list",
        "elements": "str",
        "aliases": ["exposed", "expose"],
        "compare": "set",
        "change": "live",
    },
    "dns_servers": {"type": "list", "elements": "str", "compare": "list", "change": "live"},
    "dns_opts": {"type": "list", "elements": "str", "compare": "list", "change": "live"},
    "dns_search_domains": {"type": "list", "elements": "str", "compare": "list", "change": "live"},
    "etc_hosts": {"normal": "strings", "type": "dict", "compare": "dict", "change": "live"},
    "volumes": {
        "normal": "volume_mount",
        "into": "mounts",
        "type": "list",
        "elements": "str",
        "compare": "set",
        "change": "replace",
    },
    "mounts": {
        "normal": "mount",
        "type": "list",
        "elements": "dict",
        "options": MOUNT,
        "compare": "named",
        "key": "target",
        "change": "live",
    },
    "tmpfs": {
        "normal": "tmpfs_mount",
        "into": "mounts",
        "type": "list",
        "elements": "str",
        "compare": "set",
        "change": "replace",
    },
    "read_only": {"type": "bool", "compare": "scalar", "change": "replace"},
    "shm_size": {"normal": "size", "type": "str", "compare": "scalar", "change": "replace"},
    "devices": {"normal": "device", "type": "list", "elements": "str", "compare": "set", "change": "replace"},
    "memory": {"normal": "size", "type": "str", "compare": "scalar", "change": "live"},
    "memory_swap": {"normal": "limit", "type": "str", "compare": "scalar", "change": "live"},
    "memory_reservation": {"normal": "size", "type": "str", "compare": "scalar", "change": "live"},
    "cpus": {"type": "float", "compare": "scalar", "change": "live"},
    "cpu_shares": {"type": "int", "compare": "scalar", "change": "live"},
    "cpuset_cpus": {"normal": "cpuset", "type": "str", "compare": "scalar", "change": "live"},
    "cpuset_mems": {"normal": "cpuset", "type": "str", "compare": "scalar", "change": "live"},
    "pids_limit": {"type": "int", "compare": "scalar", "change": "live"},
    "cpu_period": {"type": "int", "compare": "scalar", "change": "live"},
    "cpu_quota": {"type": "int", "compare": "scalar", "change": "live"},
    "blkio_weight": {"type": "int", "compare": "scalar", "change": "live"},
    "device_read_bps": {
        "normal": "rate_size",
        "type": "list",
        "elements": "dict",
        "options": RATE_SIZE,
        "compare": "named",
        "key": "path",
        "change": "live",
    },
    "device_write_bps": {
        "normal": "rate_size",
        "type": "list",
        "elements": "dict",
        "options": RATE_SIZE,
        "compare": "named",
        "key": "path",
        "change": "live",
    },
    "device_read_iops": {
        "normal": "rate_count",
        "type": "list",
        "elements": "dict",
        "options": RATE_COUNT,
        "compare": "named",
        "key": "path",
        "change": "live",
    },
    "device_write_iops": {
        "normal": "rate_count",
        "type": "list",
        "elements": "dict",
        "options": RATE_COUNT,
        "compare": "named",
        "key": "path",
        "change": "live",
    },
    "memory_swappiness": {"type": "int", "compare": "scalar", "change": "live", "zero": True},
    "oom_killer": {"type": "bool", "compare": "scalar", "change": "live"},
    "kernel_memory": {"type": "str", "compare": "ignore", "change": "ignore"},  # refused, with the reason
    "cgroup_parent": {"normal": "cgroup_parent", "type": "str", "compare": "scalar", "change": "replace"},
    "cgroupns_mode": {"type": "str", "choices": ["host", "private"], "compare": "scalar", "change": "replace"},
    "ipc_mode": {"type": "str", "compare": "scalar", "change": "replace"},
    "pid_mode": {"type": "str", "compare": "scalar", "change": "replace"},
    "uts": {"type": "str", "compare": "scalar", "change": "replace"},
    "userns_mode": {"type": "str", "compare": "scalar", "change": "replace"},
    "device_requests": {  # refused, with the reason
        "type": "list",
        "elements": "dict",
        "options": DEVICE_REQUEST,
        "compare": "ignore",
        "change": "ignore",
    },
    "device_cgroup_rules": {
        "normal": "device_rule",
        "type": "list",
        "elements": "str",
        "compare": "list",
        "change": "replace",
    },
    "links": {
        "normal": "link",
        "type": "list",
        "elements": "str",
        "compare": "named",
        "key": "alias",
        "change": "live",
    },
    "mac_address": {"normal": "mac_address", "type": "str", "compare": "ignore", "change": "ignore"},  # into networks
    "default_host_ip": {"type": "str", "compare": "ignore", "change": "ignore"},  # into published_ports
    "publish_all_ports": {"type": "bool", "compare": "scalar", "change": "live"},
    "volumes_from": {  # into mounts
        "normal": "volumes_from",
        "type": "list",
        "elements": "str",
        "compare": "ignore",
        "change": "ignore",
    },
    "volume_driver": {"type": "str", "compare": "ignore", "change": "ignore"},  # there is one
    "runtime": {"type": "str", "compare": "ignore", "change": "ignore"},  # refused, with the reason
    "storage_opts": {"normal": "storage_opts", "type": "dict", "compare": "dict", "change": "live"},
    "platform": {"type": "str", "compare": "ignore", "change": "ignore"},  # the image differs then
    "auto_remove": {"type": "bool", "compare": "scalar", "change": "live"},
    "secrets": {
        "normal": "secret",
        "type": "list",
        "elements": "dict",
        "options": SECRET,
        "no_log": False,
        "compare": "named",
        "key": "name",
        "change": "replace",
    },
    "timezone": {"type": "str", "compare": "scalar", "change": "replace"},
    "umask": {"normal": "umask", "type": "str", "compare": "scalar", "change": "replace", "zero": True},
    "oom_score_adj": {"type": "int", "compare": "scalar", "change": "replace"},
    "capabilities": {"normal": "capability", "type": "list", "elements": "str", "compare": "set", "change": "replace"},
    "cap_drop": {"normal": "capability", "type": "list", "elements": "str", "compare": "set", "change": "replace"},
    "privileged": {"type": "bool", "compare": "scalar", "change": "replace"},
    "security_opts": {"type": "list", "elements": "str", "compare": "set", "change": "replace"},
    "ulimits": {"normal": "ulimit", "type": "list", "elements": "str", "compare": "set", "change": "live"},
    "sysctls": {"normal": "strings", "type": "dict", "compare": "dict", "change": "replace"},
    "restart_policy": {
        "type": "str",
        "choices": ["no", "always", "on-failure", "unless-stopped"],
        "compare": "scalar",
        "change": "live",
    },
    "restart_retries": {"type": "int", "compare": "scalar", "change": "live"},
    "stop_signal": {"type": "str", "compare": "scalar", "change": "live"},
    "stop_timeout": {"type": "int", "compare": "ignore", "change": "ignore", "zero": True},
    "healthcheck": {
        "normal": "healthcheck",
        "type": "dict",
        "options": HEALTHCHECK,
        "compare": "dict",
        "change": "live",
    },
    "log_driver": {
        "type": "str",
        "choices": ["json-file", "local", "journald", "syslog", "none"],
        "compare": "scalar",
        "change": "live",
    },
    "log_options": {"normal": "strings", "type": "dict", "aliases": ["log_opt"], "compare": "dict", "change": "live"},
}

# How this run goes about it: never stored, never compared.
OPERATION: Table = {
    "name": {"type": "str", "required": True},
    "state": {
        "type": "str",
        "choices": ["absent", "present", "healthy", "started", "stopped"],
        "default": "started",
    },
    "pull": {"type": "str", "choices": ["never", "missing", "always"], "default": "missing"},
    "verify": {"type": "dict", "options": VERIFY},
    "recreate": {"type": "bool", "default": False},
    "update": {"type": "str", "choices": ["start_first", "stop_first"]},
    "restart": {"type": "bool", "default": False},
    "force_kill": {"type": "bool", "default": False, "aliases": ["forcekill"]},
    "kill_signal": {"type": "str"},
    "keep_volumes": {"type": "bool", "default": True},
    "paused": {"type": "bool"},
    "detach": {"type": "bool", "default": True},
    "cleanup": {"type": "bool", "default": False},
    "output_logs": {"type": "bool", "default": False},
    "removal_wait_timeout": {"type": "float"},
    "healthy_wait_timeout": {"type": "float", "default": 300},
    "validate_certs": {"type": "bool", "default": True},
    "ca_path": {"type": "path"},
}
DEPENDENCY: Table = {
    "name": {"type": "str", "required": True},
    "condition": {"type": "str", "choices": ["started", "healthy", "completed"], "default": "started"},
}

# An entry of ``containers``: the container module's options that are about one container.
ENTRY: Table = {
    **{
        name: option
        for name, option in {**OPERATION, **CONFIG}.items()
        if name not in ("pull", "validate_certs", "ca_path", "detach", "cleanup", "output_logs", "removal_wait_timeout")
    },
    "depends_on": {"type": "list", "elements": "dict", "options": DEPENDENCY},
}

MANY: Table = {
    "containers": {"type": "list", "elements": "dict", "required": True, "options": ENTRY},
    "inspect": {"type": "bool", "default": False},
    "pull": OPERATION["pull"],
    "validate_certs": OPERATION["validate_certs"],
    "ca_path": OPERATION["ca_path"],
}

EXEC: Table = {
    "container": {"type": "str", "required": True, "aliases": ["name"]},
    "argv": {"type": "list", "elements": "str"},
    "command": {"type": "str"},
    "chdir": {"type": "str"},
    "detach": {"type": "bool", "default": False},
    "user": {"type": "str"},
    "stdin": {"type": "str"},
    "stdin_add_newline": {"type": "bool", "default": True},
    "strip_empty_ends": {"type": "bool", "default": True},
    "tty": {"type": "bool", "default": False},
    "env": {"type": "dict"},
    "timeout": {"type": "float"},
    "privileged": {"type": "bool", "default": False},
}

LOGS: Table = {
    "name": {"type": "str", "required": True},
    "tail": {"type": "int"},
    "since": {"type": "str"},
    "until": {"type": "str"},
    "stdout": {"type": "bool", "default": True},
    "stderr": {"type": "bool", "default": True},
    "timestamps": {"type": "bool", "default": False},
    "details": {"type": "bool", "default": False},
    "wait_for": {"type": "str"},
    "wait_timeout": {"type": "float", "default": 60},
}

INFO: Table = {
    "name": {"type": "str"},
    "size": {"type": "bool", "default": False},
    "changes": {"type": "bool", "default": False},
    "stats": {"type": "bool", "default": False},
    "stats_interval": {"type": "float", "default": 0.0},
    "top": {"type": "bool", "default": False},
    "ps_args": {"type": "str", "default": "-ef"},
    "filters": {"type": "dict"},
    "format": {"type": "str"},
    "query": {"type": "str"},
}
