# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""hosts, hostname and resolv.conf of containers without a network namespace of their own; the network room has those
of the others.

With ``network_mode: host`` they are the host's, as they were when they were written: what the host changes since is
nobody's edit, so what was written is kept beside them and compared. With ``container:NAME`` they are the other
container's very files (Docker's rule): what changes for the one has changed for the other.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Callable

from ..network import files
from . import container_make as make
from .container_actual import state
from .task import Task

if TYPE_CHECKING:
    from ..store.records import ContainerRecord

NAMES = ("hosts", "hostname", "resolv.conf")
_MADE = ".made.json"


def owner(task: Task, record: ContainerRecord) -> ContainerRecord:
    """Whose files it has: its own, or those of the container whose network it is in. Raises ``NotFound``."""
    mode = record.spec.get("network_mode", "")
    return owner(task, make.shared_container(task, mode)) if mode.startswith("container:") else record


def directory(task: Task, record: ContainerRecord) -> str:
    return task.paths.container(owner(task, record).id) + "/files"


def write(task: Task, record: ContainerRecord) -> None:
    """For the host's network. In place, as a running container has them mounted."""
    spec, hostname = record.spec, make.container_hostname(task, record)
    # The host's own, as Docker does, where the task does not say otherwise: loopback resolvers work there.
    texts = {"hostname": hostname + "\n", "hosts": _read("/etc/hosts"), "resolv.conf": _read("/etc/resolv.conf")}
    if spec.get("etc_hosts"):
        texts["hosts"] = files.hosts_text(hostname, [], extra=spec["etc_hosts"], host_gateway="127.0.0.1")
    if spec.get("dns_servers") or spec.get("dns_search_domains") or spec.get("dns_opts"):
        texts["resolv.conf"] = files.resolv_text(
            files.host_resolver(),
            internal=False,
            dns_servers=spec.get("dns_servers", ()),
            search=spec.get("dns_search_domains"),
            options=spec.get("dns_opts"),
        )
    place = task.paths.container(record.id) + "/files"
    # Killed in between, nothing is said of them until they are written again.
    make.write_json("%s/%s" % (place, _MADE), {})
    for name, text in texts.items():
        files.write_in_place("%s/%s" % (place, name), text)
    make.write_json("%s/%s" % (place, _MADE), texts)


def drift(task: Task, record: ContainerRecord) -> list[str]:
    """One sentence for each thing that somebody broke in the network it is in without owning it."""
    whose = owner(task, record)
    if make.owns_network(whose.spec):
        pid = state(task, whose).get("pid")
        return task.network.glance(whose.id, pid, remember=task.remember) if pid else []
    place = task.paths.container(whose.id) + "/files"
    try:
        made = json.loads(_read("%s/%s" % (place, _MADE)) or "{}")
    except ValueError:  # a damaged note says nothing; the next start writes it again
        return []
    return ["/etc/%s is not as it was made" % name for name in NAMES if made.get(name, "") != _have(place, name, made)]


def mender(task: Task, record: ContainerRecord) -> Callable[[], Any]:
    """What puts right what ``drift`` found. Another container's network is mended under that one's lock, which may be
    taken with this one's: who has an owner's never takes a follower's."""
    whose = owner(task, record)

    def mend() -> None:
        if make.owns_network(whose.spec):
            task.network.mend(whose.id)
        else:
            write(task, whose)

    def mend_other() -> None:
        with task.store.lock("container", whose.name):
            mend()

    return mend if whose.id == record.id else mend_other


def _have(place: str, name: str, made: dict[str, str]) -> str:
    return _read("%s/%s" % (place, name)) if name in made else ""


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as stream:
            return stream.read()
    except FileNotFoundError:  # a host without resolv.conf: an empty one means the same, resolv.conf(5)
        return ""
