# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""How info modules answer: everything, what ``query`` (JMESPath) makes of it, or what ``format`` (Go) does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Optional

from ..errors import UsageError
from .task import Task, query

if TYPE_CHECKING:
    from ..templates import Template

# What Docker's API types say of the fields that inspect shows; see ``Template``. What may be absent is a pointer.
_STRINGS = "Annotations AuxiliaryAddresses DriverOpts Labels Options Sysctls Tmpfs"
_MAPS = "Containers Data ExposedPorts Networks Volumes networks"
_LISTS = (
    "Aliases Args Binds BlkioDeviceReadBps BlkioDeviceReadIOps BlkioDeviceWriteBps BlkioDeviceWriteIOps "
    "BlkioWeightDevice CapAdd CapDrop Changes Cmd DNSNames DeviceCgroupRules DeviceRequests Devices Dns DnsOptions "
    "DnsSearch Entrypoint Env ExecIDs ExtraHosts GroupAdd History Links Log MaskedPaths Mounts OnBuild Processes "
    "ReadonlyPaths RepoDigests RepoTags SecondaryIPAddresses SecondaryIPv6Addresses SecurityOpt Shell Titles Ulimits "
    "VolumesFrom"
)
_POINTERS = "Health Healthcheck Init SizeRootFs SizeRw Stats StopTimeout Top UsageData Variant"
SHAPES = {
    **dict.fromkeys(_STRINGS.split(), "strings"),
    **dict.fromkeys(_MAPS.split(), "map"),
    **dict.fromkeys(("Ports", "PortBindings"), "slices"),
    **dict.fromkeys(_LISTS.split(), "list"),
    **dict.fromkeys(_POINTERS.split(), "pointer"),
}


def check(task: Task) -> Optional[Template]:
    """The template of ``format``, parsed before anything is done. Raises ``UsageError``."""
    text = task.params.get("format")
    if text is None:
        return None
    if task.params.get("query"):
        raise UsageError("query and format are two ways to shape one answer: give one of them", path="format")
    from ..templates import Template

    return Template("{{json .}}" if text.strip() == "json" else text, SHAPES)


def answer(
    task: Task, template: Optional[Template], found: Any, view: Optional[Callable[[dict[str, Any]], Any]] = None
) -> Any:
    """``found`` (one object, None, or a list of objects) as the task wants it: with ``format`` a text for each.
    ``view`` adds what only templates see."""
    if template is None:
        return query(task.params.get("query"), found)
    if found is None:
        return None
    if isinstance(found, list):
        return template.render_each(view(one) if view else one for one in found)
    return template.render(view(found) if view else found)
