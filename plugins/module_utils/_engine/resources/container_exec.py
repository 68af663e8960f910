# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ``container_exec`` module: one command inside a running container."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import Conflict, NotFound, TimedOut, UsageError
from ..reconcile import values
from .container_actual import state
from .task import Task

if TYPE_CHECKING:
    from ..runtime.client import ExecResult
    from ..runtime.execspec import ExecSpec


_REMEDIES = {"paused": "with paused false unpauses", "restarting": "starts"}


def run(task: Task) -> dict[str, Any]:
    params = task.params
    spec = _spec(params, _argv(params))
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
            hint="wharf.engine.container %s it" % _REMEDIES.get(facts["status"], "with state started starts"),
        )
    if task.check_mode:
        return {"changed": True, "skipped_reason": "check mode: nothing was executed"}
    detach = bool(params.get("detach"))
    result = task.runtime.exec(record.id, spec, _stdin(params), detach=detach)
    if detach:
        return {"changed": True, "pid": result.pid, "exec_id": result.exec_id}
    if result.timed_out:
        raise TimedOut(
            "The command did not end within %g seconds and was killed" % params["timeout"],
            step="exec",
            subject="container %s" % record.name,
            path="timeout",
            details={"result": _result(params, result)},
        )
    out = _result(params, result)
    if result.exit_code:
        # Ansible fails a task with such an rc anyway; it shall say why, and failed_when may think otherwise.
        out.update(_failure(record.name, result.exit_code))
    return out


def _failure(name: str, code: int) -> dict[str, Any]:
    return {
        "failed": True,
        "msg": "The command in container %s ended with exit code %d" % (name, code),
        "error": {
            "kind": "exit_code",
            "step": "exec",
            "subject": "container %s" % name,
            "path": None,
            "errno": None,
            "hint": "stdout and stderr hold what it wrote; use failed_when if another exit code than 0 is fine",
            "exit_code": code,
        },
    }


def _spec(params: dict[str, Any], argv: list[str]) -> ExecSpec:
    """Raises ``UsageError``."""
    from ..runtime.execspec import ExecSpec

    timeout, chdir = params.get("timeout"), params.get("chdir")
    if timeout is not None and not timeout > 0:
        raise values.bad("timeout", timeout, "is no time that a command could take")
    if chdir is not None and not chdir.startswith("/"):
        raise values.bad("chdir", chdir, "is not an absolute path")
    if params.get("detach") and params.get("stdin") is not None:
        raise UsageError("stdin cannot be given to a command that is left to itself (detach)", path="stdin")
    for option, text in [("chdir", chdir), ("user", params.get("user")), *(("argv", word) for word in argv)]:
        if text is not None and "\0" in text:
            raise UsageError("%s holds a NUL byte" % option, step="validate", path=option)
    return ExecSpec(
        argv=argv,
        env=["%s=%s" % item for item in values.env("env", params.get("env")).items()],
        cwd=chdir,
        user=params.get("user") or None,  # Docker takes "" for the container's own
        tty=bool(params.get("tty")),
        timeout=timeout,
        privileged=bool(params.get("privileged")),
    )


def _stdin(params: dict[str, Any]) -> bytes:
    text = params.get("stdin")
    if text is None:
        return b""
    if params.get("stdin_add_newline", True):
        text += "\n"
    return bytes(text.encode("utf-8", "surrogateescape"))


def _result(params: dict[str, Any], result: ExecResult) -> dict[str, Any]:
    out: dict[str, Any] = {"changed": True, "rc": result.exit_code, "pid": result.pid, "exec_id": result.exec_id}
    for name, data in (("stdout", result.stdout), ("stderr", result.stderr)):
        text = data.decode("utf-8", "replace")
        out[name] = text.rstrip("\r\n") if params.get("strip_empty_ends", True) else text
    return out


def _argv(params: dict[str, Any]) -> list[str]:
    if (params.get("argv") is None) == (params.get("command") is None):
        raise UsageError("Exactly one of argv and command is required", step="validate", path="argv")
    argv = values.words("command", params["command"]) if params.get("command") is not None else params["argv"]
    if not argv:
        raise UsageError("The command is empty", step="validate", path="argv")
    return list(argv)
