# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Making a container: its row, volumes, leases and files. Nothing of it runs yet.

The row comes first (in one transaction with leases and ports), the files after it: all files can be made again from
the row, and are, before every start. So a kill at any point leaves either no container or one that the next start
completes.
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any, Optional

from ..errors import DiskFull, KernelError, WharfError
from .container_spec import signal_number
from .task import Task

if TYPE_CHECKING:
    from ..store.records import ContainerRecord, ImageRecord

STOP_TIMEOUT = 10


def create(
    task: Task,
    name: str,
    spec: dict[str, Any],
    image: ImageRecord,
    *,
    inherit: Optional[ContainerRecord] = None,
    lease: bool = True,
    publish: bool = True,
) -> ContainerRecord:
    """A new container in state ``created``. ``inherit``: a container being replaced, whose anonymous volumes (by
    target) go on in this one. With ``lease`` false it has no addresses yet, with ``publish`` false no ports: a
    container being replaced still has them."""
    from ..store.records import ContainerRecord

    store = task.store
    container_id = os.urandom(32).hex()
    mounts, anonymous = resolve_mounts(task, spec, image, inherit)
    if spec.get("userns_mode"):
        from .container_userns import reserve
    record = ContainerRecord(
        id=container_id,
        name=name,
        image_id=image.id,
        image_ref=spec["image"],
        spec=spec,
        desired="created",
        created_at=time.time(),
        resolved={
            "mounts": mounts,
            "anonymous": anonymous,
            "volumes": sorted({mount["source"] for mount in mounts if mount["type"] == "volume"}),
        },
        generation=1,
    )
    for network in spec.get("networks", []):
        task.network.find(network["name"])  # makes the default network, outside of the transaction
    with store.transaction():
        if spec.get("userns_mode"):
            record = record._replace(resolved={**record.resolved, **reserve(task, spec)})
        store.containers.create(record, need_image=True)
        if lease and spec.get("networks"):
            task.network.plan_endpoints(container_id, spec["networks"])
        if publish:
            publish_ports(task, record)
    try:
        _furnish(task, record, image)
    except BaseException as error:  # a disk that is full, say: what was begun is no container
        _take_back(task, record, error, keep_anonymous=inherit is not None)
        raise
    store.events.add("container", "create", container_id)
    return record


def _furnish(task: Task, record: ContainerRecord, image: ImageRecord) -> None:
    """The container's directories and volumes."""
    directory = task.paths.container(record.id)
    for part, mode in (("files", 0o755), ("upper", 0o755), ("work", 0o700)):
        # upper's root directory is the container's "/": Docker's is 0755 root
        _wrap(os.mkdir, "%s/%s" % (directory, part), mode)
        _wrap(os.chmod, "%s/%s" % (directory, part), mode)
    if record.spec.get("storage_opts"):
        from .container_quota import give

        give(task, record)
    fill_volumes(task, record, image)
    if record.spec.get("secrets"):
        from .container_options import store_secrets

        store_secrets(task, record)


def _take_back(task: Task, record: ContainerRecord, error: BaseException, *, keep_anonymous: bool) -> None:
    from .container_run import remove

    try:
        remove(task, record, keep_anonymous=keep_anonymous)
    except WharfError as other:
        if isinstance(error, WharfError):
            error.details.setdefault("not_undone", []).append("create %s: %s" % (record.name, other.msg))


def resolve_mounts(
    task: Task, spec: dict[str, Any], image: Optional[ImageRecord], inherit: Optional[ContainerRecord]
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """All mounts with anonymous volumes named: the task's, and the image's VOLUMEs that no mount of the task covers."""
    mounts = [dict(mount) for mount in spec.get("mounts", [])]
    covered = {mount["target"] for mount in mounts}
    for target in sorted((image_config(image) if image else {}).get("Volumes") or {}):
        clean = "/" + "/".join(part for part in target.split("/") if part not in ("", ".", ".."))
        if clean != "/" and clean not in covered:
            mounts.append({"type": "volume", "source": "", "target": clean, "anonymous": True})
    kept = inherit.resolved.get("anonymous", {}) if inherit else {}
    anonymous = {}
    for mount in mounts:
        if mount.get("anonymous"):
            mount["source"] = anonymous[mount["target"]] = kept.get(mount["target"]) or os.urandom(32).hex()
    return mounts, anonymous


def fill_volumes(task: Task, record: ContainerRecord, image: ImageRecord) -> None:
    """Create missing volumes and bind directories, and copy the image's content into empty volumes."""
    from ..storage import volumes
    from .volume import create as create_volume

    rootfs = -1
    try:
        for mount in record.resolved["mounts"]:
            if mount["type"] == "bind" and mount.get("create_source") and not os.path.lexists(mount["source"]):
                _wrap(os.makedirs, mount["source"], 0o755, True)
            if mount["type"] != "volume":
                continue
            if task.store.volumes.get(mount["source"]) is None:
                labels = {"labels": mount["labels"]} if mount.get("labels") else {}
                create_volume(task, mount["source"], labels, anonymous=bool(mount.get("anonymous")))
            if mount.get("no_copy") or mount.get("subpath") or os.listdir(task.paths.volume_data(mount["source"])):
                continue
            if rootfs < 0:
                rootfs = image_rootfs(task, image)
            volumes.copy_up(task.kernel, rootfs, mount["target"], task.paths.volume_data(mount["source"]))
    finally:
        if rootfs >= 0:
            os.close(rootfs)


def image_rootfs(task: Task, image: ImageRecord) -> int:
    """A detached read-only mount of an image; the caller closes the descriptor and the mount is gone."""
    from ..storage import overlay

    return overlay.mount_rootfs(task.kernel, layer_paths(task, image), None, None)


def layer_paths(task: Task, image: ImageRecord) -> list[tuple[str, str]]:
    """``[(directory, form)]``, base first."""
    out = []
    for reference in image.layers:
        layer = task.store.layers.get(reference.chain_id)
        if layer is None:
            from ..errors import StateError

            raise StateError(
                "Layer %s of image %s is missing from the store" % (reference.chain_id, image.id),
                step="resolve_layers",
                hint="pull or import the image again",
            )
        out.append((task.paths.layer(layer.chain_id), layer.form))
    return out


def image_config(image: ImageRecord) -> dict[str, Any]:
    config: dict[str, Any] = image.config.get("config") or {}
    return config


def publish_ports(task: Task, record: ContainerRecord) -> None:
    """Reserve the published ports in the store; a host port of 0 is chosen here and kept for the container's life."""
    wanted = record.spec.get("published_ports", [])
    if record.spec.get("publish_all_ports"):
        wanted = wanted + _all_ports(task, record, wanted)
    rows = task.network.resolve_ports(record.id, wanted)
    if rows or task.store.networks.ports(record.id):
        task.network.check_ports(rows, record.id)
        task.store.networks.put_ports(record.id, rows)


def _all_ports(task: Task, record: ContainerRecord, published: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every exposed port that is not published yet, on a free port of the host."""
    image = task.store.images.get(record.image_id)
    exposed = {
        *((image_config(image).get("ExposedPorts") or {}) if image else {}),
        *record.spec.get("exposed_ports", []),
    }
    have = {"%d/%s" % (port["container_port"], port["protocol"]) for port in published}
    return [
        {
            "host_ip": "",
            "host_port": 0,
            "container_port": int(port.partition("/")[0]),
            "protocol": port.partition("/")[2],
        }
        for port in sorted({port if "/" in port else port + "/tcp" for port in exposed} - have)
    ]


def write_files(task: Task, record: ContainerRecord) -> None:
    """``config.json``, ``run.json``, hosts, hostname and resolv.conf, from the row alone."""
    from ..runtime import spec as oci

    image = task.store.images.get(record.image_id)
    if image is None:
        raise _no_image(record.image_id, "of container %s" % record.name)
    directory, spec = task.paths.container(record.id), _with_ids(task, record.spec)
    hostname = container_hostname(task, record)
    context: dict[str, Any] = {
        "id": record.id,
        "name": record.name,
        "netns_path": netns_path(task, record),
        "files_dir": directory + "/files",
        "hostname": hostname,
        "cgroup": cgroup_path(task, record),
        "volumes": [host_mount(task, mount) for mount in record.resolved["mounts"] if mount["type"] != "tmpfs"],
    }
    if not owns_network(spec):
        from . import container_etc

        context["etc_dir"] = container_etc.directory(task, record)
        if spec["network_mode"] == "host":
            container_etc.write(task, record)
    if record.resolved.get("userns"):
        from .container_userns import context as userns_context

        context["userns"] = userns_context(task, record)
    if spec.get("timezone"):
        _write_zone(directory + "/files/localtime", spec["timezone"])
    config = oci.generate(spec, image_config(image), context)
    write_json(directory + "/config.json", config)
    write_json(directory + "/run.json", run_settings(task, record, image))


def _no_image(image_id: str, what: str) -> WharfError:
    from ..errors import StateError

    return StateError(
        "Image %s, %s, is missing from the store" % (image_id, what),
        step="write_files",
        hint="pull or import the image again, or remove the container",
    )


def _with_ids(task: Task, spec: dict[str, Any]) -> dict[str, Any]:
    """Containers whose namespaces are shared, by ID: their names may change hands."""
    out = dict(spec)
    for option in ("ipc_mode", "pid_mode"):
        if out.get(option, "").startswith("container:"):
            out[option] = "container:" + shared_container(task, out[option], option).id
    return out


def _write_zone(path: str, name: str) -> None:
    """A copy: the host's file may be a link, and is replaced by updates."""
    from .container_options import zone_file

    try:
        with open(zone_file(name), "rb") as stream:
            data = stream.read()
        with open(path, "wb") as stream:
            stream.write(data)
    except OSError as error:
        raise _disk_error(error, path) from None


def owns_network(spec: dict[str, Any]) -> bool:
    """Whether the container has a network namespace of its own (everything but host and container:)."""
    mode = spec.get("network_mode", "")
    return mode != "host" and not mode.startswith("container:")


def container_hostname(task: Task, record: ContainerRecord) -> str:
    if record.spec.get("hostname"):
        return str(record.spec["hostname"])
    if record.spec.get("network_mode") == "host":
        return os.uname().nodename
    return record.id[:12]


def netns_path(task: Task, record: ContainerRecord) -> Optional[str]:
    """The network namespace to join: ours by default, None for the host's, another container's for container:."""
    mode = record.spec.get("network_mode", "")
    if mode == "host":
        return None
    if mode.startswith("container:"):  # who may share that of a third
        return netns_path(task, shared_container(task, mode))
    return task.paths.container_netns(record.id)


def shared_container(task: Task, mode: str, option: str = "network_mode") -> ContainerRecord:
    from ..errors import NotFound

    name = mode.partition(":")[2]
    other = task.store.containers.get(name)
    if other is None:
        raise NotFound("%s: No such container: %s" % (option, name), step="resolve_network", path=option)
    return other


def cgroup_path(task: Task, record: ContainerRecord) -> str:
    return "%s/%s" % (record.spec.get("cgroup_parent") or task.paths.cgroup, record.id)


def source_stat(task: Task, mount: dict[str, Any]) -> os.stat_result:
    """Of a volume's or bind's source. A part of a volume is found as it was mounted: containers write to volumes, and
    their links do not lead out of them. Raises ``OSError``."""
    path = host_mount(task, mount)["source"]
    if not mount.get("subpath"):
        return os.stat(path)
    root = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = task.kernel.open_in_root(root, mount["subpath"], os.O_PATH)
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)
    finally:
        os.close(root)


def host_mount(task: Task, mount: dict[str, Any]) -> dict[str, Any]:
    if mount["type"] == "volume":
        return {**mount, "source": task.paths.volume_data(mount["source"])}
    if mount["type"] == "image":
        image = task.store.images.get(mount["image_id"])
        if image is None:
            raise _no_image(mount["image_id"], "mounted on %s" % mount["target"])
        return {**mount, "layers": layer_paths(task, image)}
    return mount


def run_settings(task: Task, record: ContainerRecord, image: ImageRecord) -> dict[str, Any]:
    """``run.json``: the engine's side of a container, read by spawner and monitor."""
    spec, paths = record.spec, task.paths
    config = image_config(image)
    directory = paths.container(record.id)
    return {
        "id": record.id,
        "name": record.name,
        "layers": [{"path": path, "form": form} for path, form in layer_paths(task, image)],
        "upper": directory + "/upper",
        "work": directory + "/work",
        "rootfs_readonly": bool(spec.get("read_only")),
        "log": log_settings(record, config, directory),
        "tty": bool(spec.get("tty")),
        "open_stdin": bool(spec.get("interactive")),
        "restart": restart_settings(spec),
        "stop_signal": stop_signal(spec, config),
        "stop_timeout": spec.get("stop_timeout", STOP_TIMEOUT),
        "healthcheck": health_settings(spec, config),
        "reserve": reserve_settings(task, record),
        "cgroup": cgroup_path(task, record),
        "uid_user": spec.get("user") or config.get("User") or "",
        "groups": spec.get("groups", []),
        "init": bool(spec.get("init")),
        "on_exit": on_exit(task, record),
    }


def on_exit(task: Task, record: ContainerRecord) -> list[list[str]]:
    """What the monitor runs when the container has ended for good."""
    from ..process import engine_command

    place = (task.paths.state, task.paths.run, record.id)
    hooks = [engine_command("network.service", "release", *place)] if owns_network(record.spec) else []
    if record.spec.get("auto_remove"):
        hooks.append(engine_command("resources.auto_remove", "soon", *place))
    return hooks


def log_settings(record: ContainerRecord, config: dict[str, Any], directory: str) -> dict[str, Any]:
    if "log_driver" not in record.spec and "log_options" not in record.spec:
        return {"driver": "json-file", "path": directory + "/log", "max_size": None, "max_file": 1}
    from . import container_logging

    return container_logging.settings(record, config, directory)


def restart_settings(spec: dict[str, Any]) -> dict[str, Any]:
    return {"policy": spec.get("restart_policy", "no"), "retries": spec.get("restart_retries", 0)}


def stop_signal(spec: dict[str, Any], config: dict[str, Any]) -> int:
    return signal_number("stop_signal", spec.get("stop_signal") or config.get("StopSignal") or "SIGTERM")


def reserve_settings(task: Task, record: ContainerRecord) -> list[dict[str, Any]]:
    return [
        {"host_ip": port.host_ip, "port": port.host_port, "protocol": port.protocol}
        for port in task.store.networks.ports(record.id)
    ]


_HEALTH_DEFAULTS = {
    "interval": 30 * 10**9,
    "timeout": 30 * 10**9,
    "start_period": 0,
    "start_interval": 5 * 10**9,
    "retries": 3,
}


def health_settings(spec: dict[str, Any], config: dict[str, Any]) -> Optional[dict[str, Any]]:
    """The task's health check over the image's, field by field, over Docker's defaults; None when there is none."""
    mine = spec.get("healthcheck", {})
    image = config.get("Healthcheck") or {}
    theirs = {
        key: image.get(name)
        for key, name in (
            ("test", "Test"),
            ("interval", "Interval"),
            ("timeout", "Timeout"),
            ("start_period", "StartPeriod"),
            ("start_interval", "StartInterval"),
            ("retries", "Retries"),
        )
        if image.get(name)
    }
    merged = {**_HEALTH_DEFAULTS, **theirs, **{key: value for key, value in mine.items() if value}}
    test = merged.get("test")
    return None if not test or test[0] == "NONE" else merged


def write_json(path: str, value: Any) -> None:
    """Replace a file atomically; 0600, because environment values are nobody else's business."""
    temporary = "%s.%d" % (path, os.getpid())
    fd = _wrap(os.open, temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "w") as stream:
            stream.write(json.dumps(value, separators=(",", ":")))  # json.dump has no use for its C encoder
        os.replace(temporary, path)
    except OSError as error:
        raise _disk_error(error, path) from None


def _wrap(function: Any, path: str, *args: Any) -> Any:
    try:
        return function(path, *args)
    except OSError as error:
        raise _disk_error(error, path) from None


def _disk_error(error: OSError, path: str) -> KernelError:
    kind = DiskFull if error.errno in (28, 122) else KernelError
    return kind.wrap(
        error, "Cannot write %s" % path, step="write_container", hint="free some space and run the task again"
    )
