# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ``prune`` module: what nothing needs any more. Planned as one: an image that only a container uses which is
pruned in the same task goes, too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Callable, Optional

from ..reconcile.plan import Operation, Plan
from .container_actual import is_running, state
from .container_list import labels
from .filters import Filters
from .lists import PREDEFINED, image_created, image_labels
from .task import Task

if TYPE_CHECKING:
    from ..store.records import ContainerRecord, ImageRecord, NetworkRecord, VolumeRecord

_ALLOWED = {
    "containers": ("label", "label!", "until"),
    "images": ("label", "label!", "until", "dangling"),
    "networks": ("label", "label!", "until"),
    "volumes": ("label", "label!", "all"),
}


def run(task: Task) -> dict[str, Any]:
    params = task.params
    filters = {kind: _filters(kind, params.get(kind + "_filters")) for kind in _ALLOWED}
    plan = Plan()
    result: dict[str, Any] = {}
    gone: set[str] = set()
    if params.get("containers"):
        gone = _containers(task, plan, filters["containers"], result)
    for kind, function in (("images", _images), ("networks", _networks), ("volumes", _volumes)):
        if params.get(kind):
            function(task, plan, filters[kind], gone, result)
    if not task.check_mode:
        plan.apply()
        _reclaim(task, result)
        _tell(task, result)
    plan.before = {key: value for key, value in result.items() if isinstance(value, list)}
    plan.after = {key: [] for key in plan.before}
    return {**plan.result(), **result}


def _filters(kind: str, given: Optional[Mapping[str, Any]]) -> Filters:
    """Checked before anything is looked at, also those of kinds that are not pruned."""
    filters = Filters(given, _ALLOWED[kind], option=kind + "_filters")
    for flag in ("dangling", "all"):
        filters.flag(flag)
    filters.moment("until")
    return filters


def _match(filters: Filters, labels: Mapping[str, str], created: float) -> bool:
    until = filters.moment("until")
    return (until is None or created < until) and filters.labels(labels)


def _reclaim(task: Task, result: dict[str, Any]) -> None:
    """Layers and blobs that no image names any more; what the disk really got back is told."""
    if "images" in result:
        freed = task.store.collect()["bytes"]
        result["images_space_reclaimed"] = freed


def _tell(task: Task, result: dict[str, Any]) -> None:
    """One event per kind, as Docker has it: also when there was nothing to prune."""
    task.store.events.add_all(
        [
            (kind[:-1], "prune", "", {"reclaimed": result.get(kind + "_space_reclaimed", 0)})
            for kind in _ALLOWED
            if kind in result
        ]
    )


# -- kinds -------------------------------------------------------------------------------------------------------


def _containers(task: Task, plan: Plan, filters: Filters, result: dict[str, Any]) -> set[str]:
    """Those that do not run. Their anonymous volumes stay, as with Docker: pruning volumes takes them."""
    from .sizes import container_size

    found = [
        record
        for record in task.store.containers.list()
        if not is_running(state(task, record)) and _match(filters, labels(task, record), record.created_at)
    ]
    result["containers"] = [record.id for record in found]
    result["containers_space_reclaimed"] = sum(container_size(task, record)["SizeRw"] for record in found)
    for record in found:
        plan.add(Operation("remove", "container", record.name, _container_removal(task, record), why="does not run"))
    return {record.id for record in found}


def _container_removal(task: Task, record: ContainerRecord) -> Callable[[], None]:
    def execute() -> None:
        from . import container_run

        with task.store.lock("container", record.name):
            present = task.store.containers.get(record.id)
            if present is not None and not is_running(state(task, present)):  # somebody started it meanwhile
                container_run.remove(task, present, keep_anonymous=True)

    return execute


def _images(task: Task, plan: Plan, filters: Filters, gone: set[str], result: dict[str, Any]) -> None:
    """``dangling`` (the default): without a name. Otherwise all that no container uses."""
    from ..images import reference

    everything = task.store.images.list()
    chosen = []
    result["images"] = []
    for record in everything:
        names = task.store.images.references(record.id)
        if filters.flag("dangling") is not False and names:
            continue
        used = any(user.id not in gone for user in task.store.images.users(record.id))
        if used or not _match(filters, image_labels(record), image_created(record)):
            continue
        chosen.append(record)
        result["images"] += [{"Untagged": reference.parse(name).familiar()} for name in names]
        result["images"].append({"Deleted": record.id})
        why = "no container uses it" if names else "has no name"
        plan.add(Operation("remove", "image", names[0] if names else record.id, _image_removal(task, record), why=why))
    result["images_space_reclaimed"] = _freed(task, everything, chosen)


def _freed(task: Task, everything: list[ImageRecord], chosen: list[ImageRecord]) -> int:
    """Bytes of the layers that only the chosen images have: what check mode can say."""
    going = {record.id for record in chosen}
    kept = {layer.chain_id for record in everything if record.id not in going for layer in record.layers}
    chains = {layer.chain_id for record in chosen for layer in record.layers} - kept
    sizes = task.store.layers.sizes()
    return sum(sizes.get(chain, 0) for chain in chains)


def _image_removal(task: Task, record: ImageRecord) -> Callable[[], None]:
    names = task.store.images.references(record.id)

    def execute() -> None:
        if not task.store.images.users(record.id):  # somebody made a container of it meanwhile
            task.store.images.remove(record.id)
            task.store.events.add("image", "delete", record.id, {"name": names[0]} if names else {})

    return execute


def _networks(task: Task, plan: Plan, filters: Filters, gone: set[str], result: dict[str, Any]) -> None:
    result["networks"] = []
    for record in task.store.networks.list():
        members = {endpoint.container_id for endpoint in task.store.networks.endpoints(network_id=record.id)}
        if record.name in PREDEFINED or members - gone:
            continue
        if _match(filters, record.spec.get("labels", {}), record.created_at):
            result["networks"].append(record.name)
            plan.add(Operation("remove", "network", record.name, _network_removal(task, record), why="is not in use"))


def _network_removal(task: Task, record: NetworkRecord) -> Callable[[], None]:
    def execute() -> None:
        with task.store.lock("network", record.name):
            if not task.store.networks.endpoints(network_id=record.id):
                task.network.remove(record)

    return execute


def _volumes(task: Task, plan: Plan, filters: Filters, gone: set[str], result: dict[str, Any]) -> None:
    """Anonymous ones; with ``all`` named ones, too. Data goes here, so only what is on the plan."""
    from ..storage import usage

    result["volumes"] = []
    size = 0
    for record in task.store.volumes.list():
        if not (record.anonymous or filters.flag("all")) or record.driver != "local":
            continue
        used = any(user.id not in gone for user in task.store.volumes.users(record.name))
        if used or not _match(filters, record.labels, record.created_at):
            continue
        result["volumes"].append(record.name)
        size += usage.on_disk(task.paths.volume_data(record.name), task.kernel)
        why = "no container uses it"
        plan.add(Operation("remove", "volume", record.name, _volume_removal(task, record), why=why))
    result["volumes_space_reclaimed"] = size


def _volume_removal(task: Task, record: VolumeRecord) -> Callable[[], None]:
    def execute() -> None:
        from . import volume

        if task.store.volumes.get(record.name) is not None and not task.store.volumes.users(record.name):
            volume.remove(task, record.name)

    return execute
