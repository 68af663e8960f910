# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Starting, stopping, removing and waiting for a container whose row exists."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Optional

from ..errors import StartError, TimedOut, UnhealthyError, WharfError
from . import container_make as make
from .container_actual import is_recovering, is_running, state
from .container_options import shared_with
from .task import Task

if TYPE_CHECKING:
    from ..store.records import ContainerRecord

LAST_LINES = 20


def start(task: Task, record: ContainerRecord) -> None:
    """Network, files, then the process. On failure everything the start made is taken back."""
    for option, name in shared_with(record.spec):
        _require_running(task, option, name)
    try:
        if make.owns_network(record.spec):
            task.network.start(record.id)
        make.write_files(task, record)
        moment = time.time()  # it may have ended before the start is told
        task.runtime.start(record.id)
    except WharfError as error:
        if error.subject in (None, record.id, "container %s" % record.id[:12]):  # the rooms below know no names
            error.subject = "container %s" % record.name
        if isinstance(error, StartError):
            error.details.setdefault("logs", last_lines(task, record))
        task.network.release(record.id)
        raise
    task.store.containers.update(record.id, desired="running")
    events = task.store.events
    events.add_all(
        [*events.attachments(record.id, "connect", "mount"), ("container", "start", record.id, {})], at=moment
    )


def _require_running(task: Task, option: str, name: str) -> None:
    other = make.shared_container(task, "container:" + name, option)
    if not is_running(state(task, other)):
        what = option.partition("_")[0]
        raise StartError(
            "%s: cannot join %s of a non running container: %s" % (option, what, other.name),
            step="join_" + what,
            subject="container %s" % other.name,
            path=option,
            hint="start it first",
        )


def stop(task: Task, record: ContainerRecord, *, kill: bool = False, remember: bool = True) -> None:
    """The stop signal, its timeout, then SIGKILL; remembered as a stop by hand (no restart policy brings it back).

    A replacement stops without ``remember``: should it be cut short, the container is one that ought to run.
    """
    if remember:
        task.store.containers.update(record.id, desired="stopped")
    signal_number = 9 if kill else None
    if kill and task.params.get("kill_signal"):
        from .container_spec import signal_number as parse

        signal_number = parse("kill_signal", task.params["kill_signal"])
    timeout = task.params.get("stop_timeout")
    wait = record.spec.get("stop_timeout", 10) if timeout is None else timeout
    task.runtime.stop(record.id, signal_number, wait, hooks=False)  # the hook's work, the network, follows here
    task.network.release(record.id)
    task.store.events.add("container", "stop", record.id)
    if remember and record.spec.get("auto_remove"):  # what the monitor leaves to whoever stops the container
        remove(task, record)


def remove(task: Task, record: ContainerRecord, *, keep_anonymous: bool = False) -> None:
    """Kill if it runs, take back what it held, forget it. Named volumes stay; anonymous ones go unless kept.

    The store takes the directory with the row, the row first: a directory without one is litter that recovery clears.
    """
    if is_running(state(task, record)):
        task.runtime.stop(record.id, 9, 0, hooks=False)
    labels = {key: str(value) for key, value in record.spec.get("labels", {}).items()}
    with task.runtime.removing(record.id):
        task.network.release(record.id)
        if record.spec.get("storage_opts"):
            from .container_quota import release

            release(task, record)
        task.store.events.fold()  # how it ended, while its name and labels are known
        task.store.containers.remove(record.id)
    if not keep_anonymous:
        from . import volume

        for name in record.resolved.get("anonymous", {}).values():
            if task.store.volumes.get(name) is not None and not task.store.volumes.users(name):
                volume.remove(task, name)
    task.store.events.add("container", "destroy", record.id, {**labels, "image": record.image_ref, "name": record.name})


def last_lines(task: Task, record: ContainerRecord, count: int = LAST_LINES) -> list[str]:
    """The newest log lines, for error messages; [] when there is no log."""
    from ..runtime import logs

    path = task.paths.container(record.id) + "/log"
    return [line["log"] for line in logs.lines(path, logs.Choice(), count)]


def wait_healthy(task: Task, record: ContainerRecord, timeout: Optional[float]) -> None:
    """Until the health check says healthy. Fails at once when the container ends or turns unhealthy."""
    limit = 300.0 if timeout is None else float(timeout)
    deadline = time.monotonic() + limit
    while not is_well(task, record):
        if limit and time.monotonic() >= deadline:
            raise TimedOut(
                "Container %s was not healthy within %g seconds" % (record.name, limit),
                step="wait_healthy",
                subject="container %s" % record.name,
                details={"health": state(task, record).get("health"), "logs": last_lines(task, record)},
            )
        time.sleep(0.05)


def is_well(task: Task, record: ContainerRecord) -> bool:
    """One look. Raises ``UnhealthyError`` when it will not be."""
    facts = state(task, record)
    if is_recovering(facts):
        return False
    health = facts.get("health")
    if not is_running(facts):
        raise _unwell(task, record, "exited with code %s before it was healthy" % facts.get("exit_code"), facts)
    if health and health["status"] == "unhealthy":
        raise _unwell(task, record, "is unhealthy: %s" % _last_probe(health), facts)
    if health is None:  # no health check: running is all there is to wait for
        return bool(facts["status"] == "running")
    return bool(health["status"] == "healthy")


def _last_probe(health: dict[str, Any]) -> str:
    log = health.get("log") or []
    return "exit code %s, %r" % (log[-1]["exit_code"], log[-1]["output"][:200]) if log else "no probe has run"


def _unwell(task: Task, record: ContainerRecord, what: str, facts: dict[str, Any]) -> UnhealthyError:
    return UnhealthyError(
        "Container %s %s" % (record.name, what),
        step="wait_healthy",
        subject="container %s" % record.name,
        details={"health": facts.get("health"), "exit_code": facts.get("exit_code"), "logs": last_lines(task, record)},
    )
