# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ``container_logs`` module: what a container wrote, from its json-file log."""

from __future__ import annotations

from typing import Any, Optional

from ..errors import NotFound, UsageError
from .task import Task


def run(task: Task) -> dict[str, Any]:
    params = task.params
    record = task.store.containers.get(params["name"])
    if record is None:
        raise NotFound(
            "No such container: %s" % params["name"], step="resolve_container", subject="container %s" % params["name"]
        )
    if record.spec.get("log_driver") == "none":
        raise UsageError(
            "Container %s keeps no log: its log driver is none" % record.name,
            step="read_logs",
            subject="container %s" % record.name,
            path="log_driver",
        )
    from ..runtime import logs

    streams = tuple(name for name in ("stdout", "stderr") if params.get(name, True))
    if not streams:
        raise UsageError("You must choose at least one of stdout and stderr", step="validate", path="stdout")
    path = task.paths.container(record.id) + "/log"
    records = logs.read(
        path,
        since=_moment("since", params.get("since")),
        until=_moment("until", params.get("until")),
        tail=params.get("tail"),
        streams=streams,
    )
    lines = [{"time": r["time"], "stream": r["stream"], "line": r["log"].rstrip("\n")} for r in records]
    shown = [("%s " % line["time"] if params.get("timestamps") else "") + line["line"] for line in lines]
    return {"changed": False, "lines": lines, "stdout_lines": shown, "stdout": "\n".join(shown)}


def _moment(option: str, text: Optional[str]) -> Optional[float]:
    """Seconds since the epoch from RFC 3339, a Unix time, or a duration back from now ("10m")."""
    if text is None:
        return None
    import time

    from ..reconcile import values

    if "T" in text:
        import datetime

        try:
            moment = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
        except ValueError:
            raise values.bad(option, text, "is not a time such as 2026-11-24T02:00:00Z") from None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=datetime.timezone.utc)
        return moment.timestamp()
    try:
        return float(text)
    except ValueError:
        return time.time() - values.duration(option, text) / 1e9
