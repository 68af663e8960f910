# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ``container_kill`` module: a signal for a container's first process."""

from __future__ import annotations

import signal as signals
from typing import TYPE_CHECKING, Any

from ..errors import Conflict
from ..reconcile.plan import Operation, Plan
from .container_actual import state
from .container_files import named
from .container_spec import signal_number
from .task import Task

if TYPE_CHECKING:
    from ..store.records import ContainerRecord

_PATIENCE = 30.0


def run(task: Task) -> dict[str, Any]:
    number = signal_number("signal", task.params["signal"])
    record = named(task, task.params["container"])
    status = state(task, record)["status"]
    if status not in ("running", "paused"):
        raise Conflict(
            "Cannot kill container %s: it is %s, not running" % (record.name, status),
            step="kill",
            subject="container %s" % record.name,
            hint="wharf.engine.container with state stopped and force_kill does nothing when it does not run",
        )
    plan = Plan()
    # What the signal makes of the container is its program's business, but for the one that it never sees.
    plan.before = {"status": status}
    plan.after = {"status": "exited" if number == signals.SIGKILL else status}
    detail = {"signal": _name(number), "number": number}
    plan.add(Operation("kill", "container", record.name, lambda: _kill(task, record, number), detail=detail))
    if not task.check_mode:
        plan.apply()
    return plan.result()


def _kill(task: Task, record: ContainerRecord, number: int) -> None:
    """No lock is held: a container that ends gives its network back through a process that wants it."""
    by_hand = number == signals.SIGKILL or number == _stop_signal(task, record)
    if by_hand:  # no restart policy brings it back, nor does the next boot
        task.store.containers.update(record.id, desired="stopped")
    task.runtime.kill(record.id, number)
    if number == signals.SIGKILL:
        task.runtime.wait(record.id, "exited", _PATIENCE)


def _stop_signal(task: Task, record: ContainerRecord) -> int:
    from .container_make import image_config, stop_signal

    image = task.store.images.get(record.image_id)
    return stop_signal(record.spec, image_config(image) if image is not None else {})


def _name(number: int) -> str:
    try:
        return signals.Signals(number).name
    except ValueError:  # real-time signals have no names of their own
        return "SIGRTMIN+%d" % (number - int(signals.SIGRTMIN))
