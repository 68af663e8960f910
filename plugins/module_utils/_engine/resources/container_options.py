# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks of the rarer options of a container, and those that are folded into others.

Docker's options that mean nothing here are refused with the reason where ignoring them would leave a wish unmet.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import NotFound, UsageError
from ..reconcile.values import bad
from .task import Task

if TYPE_CHECKING:
    from ..store.records import ContainerRecord

Spec = dict[str, Any]


def check(spec: Spec, task: Task) -> None:
    """Every option is looked at only if it is there: most tasks pay a few dictionary look-ups."""
    for option in [option for option in _CHECKS if option in spec]:
        _CHECKS[option](spec, task)
    spec.pop("platform", None)  # says which image is meant; the image is what is compared


def _refuse(option: str, why: str, hint: str = "", allowed: tuple[str, ...] = ()) -> Callable[[Spec, Task], None]:
    def refuse(spec: Spec, _task: Task) -> None:
        value = spec.pop(option)
        if value not in allowed:
            raise bad(option, value, why, hint or None)

    return refuse


def _folded(option: str) -> Callable[[Spec, Task], None]:
    def fold(spec: Spec, task: Task) -> None:
        _FOLDS[option](spec, task, spec.pop(option))

    return fold


def _mac_address(spec: Spec, _task: Task, value: str) -> None:
    """Of the first network, as Docker takes it."""
    networks = spec.get("networks")
    if not networks:
        raise bad("mac_address", value, "needs a network of the container's own")
    if networks[0].setdefault("mac_address", value) != value:
        raise bad("mac_address", value, "is not the mac_address of the first of networks", "leave out one of the two")


def _default_host_ip(spec: Spec, _task: Task, value: str) -> None:
    from ..reconcile.values import _address

    address = _address("default_host_ip", value, value)
    for port in spec.get("published_ports", []):
        port["host_ip"] = port["host_ip"] or address


_FROM_OTHERS = ("type", "source", "target", "read_only", "propagation", "subpath", "non_recursive", "image_id")


def _volumes_from(spec: Spec, task: Task, wanted: list[dict[str, Any]]) -> None:
    """Volumes and binds of other containers, at the same targets; what the task mounts itself goes before."""
    mounts = spec.setdefault("mounts", [])
    for index, entry in enumerate(wanted):
        other = task.store.containers.get(entry["name"])
        if other is None and entry["name"] in task.promised:
            continue
        if other is None:
            raise NotFound(
                "volumes_from[%d]: No such container: %s" % (index, entry["name"]),
                step="validate",
                path="volumes_from[%d]" % index,
            )
        have = {mount["target"] for mount in mounts}
        for mount in other.resolved["mounts"]:
            if mount["type"] == "tmpfs" or mount["target"] in have:
                continue
            copy = {k: v for k, v in mount.items() if k in _FROM_OTHERS and v}
            if entry.get("read_only"):
                copy["read_only"] = True
            mounts.append(copy)
    if not mounts:
        del spec["mounts"]


_FOLDS: dict[str, Callable[[Spec, Task, Any], None]] = {
    "mac_address": _mac_address,
    "default_host_ip": _default_host_ip,
    "volumes_from": _volumes_from,
}


# -- limits -----------------------------------------------------------------------------------------------------


def _between(option: str, low: int, high: int) -> Callable[[Spec, Task], None]:
    def within(spec: Spec, _task: Task) -> None:
        if not low <= spec[option] <= high:
            raise bad(option, spec[option], "is outside %d to %d" % (low, high))

    return within


def _quota(spec: Spec, _task: Task) -> None:
    if spec.get("cpus"):
        raise bad("cpu_quota", spec["cpu_quota"], "cannot be combined with cpus, which sets the same")
    if spec["cpu_quota"] < 1000:
        raise bad("cpu_quota", spec["cpu_quota"], "is below 1000 microseconds; leave it out for no limit")


def _period(spec: Spec, task: Task) -> None:
    if spec.get("cpus"):
        raise bad("cpu_period", spec["cpu_period"], "cannot be combined with cpus, which sets the same")
    _between("cpu_period", 1000, 1_000_000)(spec, task)


def _only_v1(option: str, what: str) -> Callable[[Spec, Task], None]:
    def look(spec: Spec, _task: Task) -> None:
        from ..kernel.cgroups import Layout

        if Layout.detect().controllers.get("memory", (0, ""))[0] != 1:
            raise bad(option, spec[option], what)
        if option == "memory_swappiness" and not 0 <= spec[option] <= 100:
            raise bad(option, spec[option], "is outside 0 to 100")

    return look


# -- namespaces -------------------------------------------------------------------------------------------------


def _mode(option: str, words: tuple[str, ...], joins: bool = True) -> Callable[[Spec, Task], None]:
    def look(spec: Spec, _task: Task) -> None:
        mode = spec[option]
        if joins and mode.startswith("container:") and mode != "container:":
            return
        if mode not in words:
            shown = ", ".join(word for word in (*words, "container:NAME" if joins else "") if word)
            raise bad(option, mode, "is none of %s" % shown)

    return look


def _uts(spec: Spec, task: Task) -> None:
    _mode("uts", ("host",), joins=False)(spec, task)
    for option in ("hostname", "domainname"):
        if option in spec:
            raise bad("uts", "host", "cannot be combined with %s: it would rename the host" % option)


def _pid_mode(spec: Spec, task: Task) -> None:
    _mode("pid_mode", ("host", "private"))(spec, task)
    if spec["pid_mode"] == "private":
        del spec["pid_mode"]


def _ipc_mode(spec: Spec, task: Task) -> None:
    _mode("ipc_mode", ("private", "shareable", "host", "none"))(spec, task)
    if spec["ipc_mode"] in ("private", "shareable"):  # every container's can be shared
        del spec["ipc_mode"]
    elif "shm_size" in spec:
        raise bad("shm_size", spec["shm_size"], "has no meaning with ipc_mode %s" % spec["ipc_mode"])


def _cgroupns(spec: Spec, _task: Task) -> None:
    if spec["cgroupns_mode"] == "private":
        del spec["cgroupns_mode"]


def _userns(spec: Spec, _task: Task) -> None:
    from .container_userns import check as check_userns

    check_userns(spec)


def shared_with(spec: Spec) -> list[tuple[str, str]]:
    """``[(option, container)]``: whom this one needs running."""
    modes = [(option, spec.get(option) or "") for option in ("network_mode", "ipc_mode", "pid_mode")]
    return [(option, mode.partition(":")[2]) for option, mode in modes if mode.startswith("container:")]


# -- others -----------------------------------------------------------------------------------------------------


def _device_requests(spec: Spec, _task: Task) -> None:
    """What Docker gives to a vendor's hook. There is none here: a container without its GPU is not what was meant.

    Raises ``UsageError`` for the first."""
    for index, request in enumerate(spec.pop("device_requests")):
        raise bad(
            "device_requests[%d].driver" % index,
            request.get("driver") or "",
            "is no driver of this engine; there is none",
            "name the device nodes in devices, and mount the driver's libraries",
        )


def _storage_opts(spec: Spec, task: Task) -> None:
    from .container_quota import check as check_quota

    check_quota(spec, task)


def _auto_remove(spec: Spec, _task: Task) -> None:
    if spec.get("restart_policy"):
        raise bad("auto_remove", True, "cannot be combined with a restart_policy: one removes what the other restarts")


def _links(spec: Spec, _task: Task) -> None:
    if not spec.get("networks"):
        raise bad("links", spec["links"][0]["name"], "needs a network of the container's own")


def _timezone(spec: Spec, _task: Task) -> None:
    path = zone_file(spec["timezone"])
    if not os.path.isfile(path):
        raise bad("timezone", spec["timezone"], "is not known on the target: there is no %s" % path)


def zone_file(name: str) -> str:
    """The host's file with the rules of a time zone; ``local``: of its own. Raises ``UsageError``."""
    if name == "local":
        return "/etc/localtime"
    if name.startswith("/") or ".." in name.split("/") or "\0" in name:
        raise bad("timezone", name, "is not the name of a time zone such as Europe/Berlin")
    return "/usr/share/zoneinfo/" + name


def _secrets(spec: Spec, task: Task) -> None:
    """Content leaves the spec; a digest under this instance's own key stays, so that a change is seen and nothing can
    be guessed from what is stored or shown."""
    import hashlib
    import hmac

    key = _key(task)
    targets: set[str] = set()
    for index, secret in enumerate(spec["secrets"]):
        option = "secrets[%d]" % index
        if secret["target"] in targets:
            raise bad(option + ".target", secret["target"], "is given twice")
        targets.add(secret["target"])
        content = _content(option, secret)
        secret["digest"] = hmac.new(key, content, hashlib.sha256).hexdigest()
        task.secrets[secret["name"]] = content


def _content(option: str, secret: dict[str, Any]) -> bytes:
    text = secret.pop("content", None)
    path = secret.pop("source", None)
    if text is not None:
        content = str(text).encode("utf-8", "surrogateescape")
    else:
        try:
            with open(path, "rb") as stream:
                content = stream.read((1 << 20) + 1)
        except OSError as error:
            raise UsageError(
                "%s.source: cannot read %s: %s" % (option, path, error.strerror),
                step="validate",
                path=option + ".source",
                errno=error.errno,
            ) from None
    if len(content) > 1 << 20:
        raise bad(option, secret["name"], "is larger than 1 MiB")
    return content


def _key(task: Task) -> bytes:
    """32 random bytes of this instance, made once; 0600."""
    path = task.paths.state + "/secrets.key"
    for _attempt in range(2):
        try:
            with open(path, "rb") as stream:
                key = stream.read()
            if len(key) == 32:
                return key
        except FileNotFoundError:
            pass
        task.store  # noqa: B018  makes the state directory
        temporary = "%s.%d" % (path, os.getpid())
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, os.urandom(32))
            os.fsync(fd)
        finally:
            os.close(fd)
        try:
            os.link(temporary, path)  # who is first makes it for all
        except FileExistsError:
            pass
        finally:
            os.unlink(temporary)
    return _key(task)


def store_secrets(task: Task, record: ContainerRecord) -> None:
    """The content beside the container, for every start to come. Nothing to do where it is already."""
    directory = task.paths.container(record.id) + "/secrets"
    for secret in record.spec.get("secrets", []):
        path = "%s/%s" % (directory, secret["name"])
        if secret["name"] not in task.secrets or os.path.exists(path):
            continue
        os.makedirs(directory, 0o700, exist_ok=True)
        fd = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "wb") as stream:
            stream.write(task.secrets[secret["name"]])
        os.replace(path + ".new", path)


_V2_SWAPPINESS = "cannot be set on this host: cgroup v2 has no swappiness per group"
_V2_OOM = "cannot be set on this host: cgroup v2 always kills when memory is out; see oom_score_adj and memory_swap"

_CHECKS: dict[str, Callable[[Spec, Task], None]] = {
    "kernel_memory": _refuse(
        "kernel_memory", "cannot be set: Linux has had no limit for kernel memory alone since 5.16", "memory counts it"
    ),
    "runtime": _refuse("runtime", "cannot be chosen: the engine is its own runtime"),
    "storage_opts": _storage_opts,
    "userns_mode": _userns,
    "device_requests": _device_requests,
    "volume_driver": _refuse("volume_driver", "is no driver of this engine; there is local", allowed=("local",)),
    "mac_address": _folded("mac_address"),
    "default_host_ip": _folded("default_host_ip"),
    "volumes_from": _folded("volumes_from"),
    "blkio_weight": _between("blkio_weight", 10, 1000),
    "cpu_quota": _quota,
    "cpu_period": _period,
    "memory_swappiness": _only_v1("memory_swappiness", _V2_SWAPPINESS),
    "oom_killer": _only_v1("oom_killer", _V2_OOM),
    "ipc_mode": _ipc_mode,
    "pid_mode": _pid_mode,
    "uts": _uts,
    "cgroupns_mode": _cgroupns,
    "auto_remove": _auto_remove,
    "links": _links,
    "timezone": _timezone,
    "secrets": _secrets,
}
