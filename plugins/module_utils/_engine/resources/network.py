# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ``network`` module: bridge networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional

from ..._args.network import CONFIG as NETWORK
from ..errors import InUse, UsageError
from ..reconcile import options, values
from ..reconcile.options import Difference
from ..reconcile.plan import Operation, Plan
from .container_actual import is_running, state
from .task import Task

if TYPE_CHECKING:
    from ..store.records import ContainerRecord, NetworkRecord

PREDEFINED = ("bridge", "host", "none")


def run(task: Task) -> dict[str, Any]:
    name = values.object_name("name", task.params["name"], "network name")
    if name in PREDEFINED:
        verb = "removed" if task.params["state"] == "absent" else "changed"
        raise UsageError("%s is a pre-defined network and cannot be %s" % (name, verb), step="validate", path="name")
    with task.store.lock("network", name, shared=task.check_mode):
        plan = _plan(task, name)
        if not task.check_mode:
            plan.apply()
        result = plan.result()
        record = task.store.networks.by_name(name)
        result["network"] = inspect(task, record) if record else None
    return result


def wanted(task: Task) -> dict[str, Any]:
    """The canonical spec. IPAM entries keep only what was asked; subnets are in canonical form. Raises UsageError."""
    spec = options.normalise(NETWORK, task.params)
    if "driver_options" in spec:
        spec["driver_options"] = values.strings("driver_options", spec["driver_options"])
    if "labels" in spec:
        spec["labels"] = values.strings("labels", spec["labels"])
    if "ipam_config" in spec:
        spec["ipam_config"] = [_ipam("ipam_config[%d]" % i, entry) for i, entry in enumerate(spec["ipam_config"])]
    return spec


def _ipam(option: str, entry: dict[str, Any]) -> dict[str, Any]:
    """What was asked, with networks and addresses in canonical form."""
    from ..network import ipam

    out: dict[str, Any] = {}
    for key in ("subnet", "iprange"):
        if entry.get(key):
            out[key] = str(ipam.parse(entry[key], "%s.%s" % (option, key)))
    if entry.get("gateway"):
        out["gateway"] = ipam.to_text(*ipam.to_number(entry["gateway"], option + ".gateway"))
    if entry.get("aux_addresses"):
        out["aux_addresses"] = values.strings(option + ".aux_addresses", entry["aux_addresses"])
    if not out.get("subnet") and out:
        raise values.bad(option, entry, "has no subnet; gateway, iprange and aux_addresses need one")
    return out


def _plan(task: Task, name: str) -> Plan:
    plan = Plan()
    record = task.store.networks.by_name(name)
    if task.params["state"] == "absent":
        _plan_absent(task, plan, record)
        return plan
    spec = wanted(task)
    plan.after = spec
    if record is None:
        task.network.preview(name, spec)
        plan.add(Operation("create", "network", name, lambda: task.network.create(name, spec), why="missing"))
        return plan
    plan.before = record.spec
    found = options.differences(NETWORK, record.spec, spec, {})
    replacing = [difference for difference in found if difference.change == "replace"]
    if replacing:
        _plan_replace(task, plan, record, spec, replacing)
        return plan
    for difference in found:
        plan.add(
            Operation(
                "live",
                "network",
                name,
                lambda: task.store.networks.update(record.id, spec=spec),
                detail={"option": difference.option, "before": difference.before, "after": difference.after},
                why=difference.why,
            )
        )
    if not plan.operations:
        drift = task.network.observe(record)["drift"]
        if drift:
            why = "drift: " + "; ".join(drift)
            plan.add(Operation("live", "network", name, lambda: task.network.repair(record), why=why))
    return plan


def _members(task: Task, record: NetworkRecord) -> list[ContainerRecord]:
    ids = {endpoint.container_id for endpoint in task.store.networks.endpoints(network_id=record.id)}
    return [container for container in (task.store.containers.get(i) for i in sorted(ids)) if container is not None]


def _plan_absent(task: Task, plan: Plan, record: Optional[NetworkRecord]) -> None:
    if record is None:
        return
    members = _members(task, record)
    running = [member for member in members if is_running(state(task, member))]
    if running and not task.params.get("force"):
        raise InUse(
            "error while removing network: network %s id %s has active endpoints (%s)"
            % (record.name, record.id, ", ".join(member.name for member in running)),
            step="remove_network",
            subject="network %s" % record.name,
            hint="remove or disconnect the containers, or use force: true to disconnect them",
        )
    plan.before = record.spec
    for member in members:
        plan.add(
            Operation(
                "disconnect",
                "network",
                record.name,
                _disconnect(task, record, member),
                detail={"container": member.name},
            )
        )
    plan.add(Operation("remove", "network", record.name, lambda: task.network.remove(record), why="not wanted"))


def _disconnect(task: Task, record: NetworkRecord, member: ContainerRecord) -> Any:
    def execute() -> None:
        task.network.disconnect(member.id, record)
        rest = [network for network in member.spec.get("networks", []) if network["name"] != record.name]
        task.store.containers.update(member.id, spec={**member.spec, "networks": rest})

    return execute


def _plan_replace(
    task: Task, plan: Plan, record: NetworkRecord, spec: dict[str, Any], reasons: list[Difference]
) -> None:
    """A subnet cannot change under its members' feet: refuse while containers are attached, unless forced; then
    they are disconnected, the network is made anew, and they are connected again."""
    members = _members(task, record)
    names = ", ".join(sorted(difference.option for difference in reasons))
    if members and not task.params.get("force"):
        raise InUse(
            "Changing %s of network %s means making it anew, and containers are attached: %s"
            % (names, record.name, ", ".join(member.name for member in members)),
            step="replace_network",
            subject="network %s" % record.name,
            hint="use force: true to disconnect them, replace the network and connect them again",
        )

    def execute() -> None:
        for member in members:
            task.network.disconnect(member.id, record)
        task.network.remove(record)
        try:
            task.network.create(record.name, spec)
        except BaseException:
            task.network.create(record.name, record.spec)
            raise
        finally:
            for member in members:
                for network in member.spec.get("networks", []):
                    if network["name"] == record.name:
                        task.network.connect(member.id, network)

    detail = {d.option: {"before": d.before, "after": d.after} for d in reasons}
    plan.add(Operation("replace", "network", record.name, execute, detail=detail, why=names))


def inspect(task: Task, record: NetworkRecord) -> dict[str, Any]:
    """Docker's network-inspect shape. ``Containers`` lists the running ones."""
    from ..timestamps import rfc3339

    containers = {}
    for endpoint in task.store.networks.endpoints(network_id=record.id):
        member = task.store.containers.get(endpoint.container_id)
        if member is None or not is_running(state(task, member)):
            continue
        containers[member.id] = {
            "Name": member.name,
            "EndpointID": member.id,
            "MacAddress": endpoint.mac,
            "IPv4Address": _with_prefix(endpoint.ipv4, record.subnets),
            "IPv6Address": _with_prefix(endpoint.ipv6, record.subnets),
        }
    return {
        "Name": record.name,
        "Id": record.id,
        "Created": rfc3339(record.created_at),
        "Scope": "local",
        "Driver": record.driver,
        "EnableIPv4": True,
        "EnableIPv6": bool(record.spec.get("enable_ipv6")),
        "IPAM": {
            "Driver": "default",
            "Options": None,
            "Config": [
                {
                    key: value
                    for key, value in (
                        ("Subnet", subnet["subnet"]),
                        ("IPRange", subnet.get("ip_range")),
                        ("Gateway", subnet.get("gateway")),
                        ("AuxiliaryAddresses", subnet.get("aux")),
                    )
                    if value
                }
                for subnet in record.subnets
            ],
        },
        "Internal": bool(record.spec.get("internal")),
        "Attachable": bool(record.spec.get("attachable")),
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": containers,
        "Options": record.spec.get("driver_options", {}),
        "Labels": record.spec.get("labels", {}),
    }


def _with_prefix(address: Optional[str], subnets: Any) -> str:
    if not address:
        return ""
    for subnet in subnets:
        if (":" in subnet["subnet"]) == (":" in address):
            return "%s/%s" % (address, subnet["subnet"].partition("/")[2])
    return address


def info(task: Task) -> dict[str, Any]:
    """``network_info``: one by name or ID, or all that the filters let through."""
    from . import answer, lists

    template, filters = answer.check(task), lists.network_filters(task)
    name = task.params.get("name")
    if name is not None:
        record = task.store.networks.get(name)
        network = inspect(task, record) if record else None
        return {"changed": False, "exists": record is not None, "network": answer.answer(task, template, network)}
    everything = [inspect(task, record) for record in lists.networks(task, filters)]
    return {"changed": False, "networks": answer.answer(task, template, everything)}
