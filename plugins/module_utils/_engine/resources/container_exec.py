# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ``container_exec`` module: one command inside a running container."""

from __future__ import annotations

from typing import Any

from ..errors import Conflict, NotFound, UsageError
from ..reconcile import values
from .container_actual import state
from .task import Task


def run(task: Task) -> dict[str, Any]:
    params = task.params
    argv = _argv(params)
    record = task.store.containers.get(params["container"])
    if record is None:
        raise NotFound(
            "No such container: %s" % params["container"],
            step="resolve_container",
            subject="container %s" % params["container"],
        )
    facts = state(task, record)
    if facts["status"] != "running":
        raise Conflict(
            "Container %s is %s, it must be running to execute something in it" % (record.name, facts["status"]),
            step="exec",
            subject="container %s" % record.name,
            hint="start it with wharf.engine.container",
        )
    if task.check_mode:
        return {"changed": True, "skipped_reason": "check mode: nothing was executed"}
    stdin = params.get("stdin")
    if stdin is not None and params.get("stdin_add_newline", True):
        stdin += "\n"
    from ..runtime.client import ExecSpec

    result = task.runtime.exec(
        record.id,
        ExecSpec(
            argv=argv,
            env=values.env("env", params.get("env")),
            cwd=params.get("chdir"),
            user=params.get("user"),
            tty=bool(params.get("tty")),
            detach=bool(params.get("detach")),
            stdin=None if stdin is None else stdin.encode("utf-8", "surrogateescape"),
            timeout=params.get("timeout"),
        ),
    )
    if params.get("detach"):
        return {"changed": True, "exec_id": result.exec_id}
    out = {"changed": True, "rc": result.exit_code, "exec_id": result.exec_id}
    for name, data in (("stdout", result.stdout), ("stderr", result.stderr)):
        text = data.decode("utf-8", "surrogateescape").encode("utf-8", "replace").decode()
        out[name] = text.rstrip("\r\n") if params.get("strip_empty_ends", True) else text
    return out


def _argv(params: dict[str, Any]) -> list[str]:
    if (params.get("argv") is None) == (params.get("command") is None):
        raise UsageError("Exactly one of argv and command is required", step="validate", path="argv")
    argv = values.words("command", params["command"]) if params.get("command") is not None else params["argv"]
    if not argv:
        raise UsageError("The command is empty", step="validate", path="argv")
    return list(argv)
