# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ``container_logs`` module: what a container wrote, from its json-file or local log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional

from ..errors import NotFound, TimedOut, UnhealthyError, UsageError
from .task import Task

if TYPE_CHECKING:
    import re

    from ..runtime.logs import Choice
    from ..store.records import ContainerRecord

_ELSEWHERE = {
    "none": "keeps no log: its log driver is none",
    "journald": "sends its output to systemd-journald, which keeps it: read it with journalctl CONTAINER_NAME=%s",
    "syslog": "sends its output to syslog, which keeps it: read it there",
}
_POLL = 0.05


def run(task: Task) -> dict[str, Any]:
    params = task.params
    record = task.store.containers.get(params["name"])
    if record is None:
        raise NotFound(
            "No such container: %s" % params["name"], step="resolve_container", subject="container %s" % params["name"]
        )
    _check_driver(record)
    from ..runtime import logs

    streams = tuple(name for name in ("stdout", "stderr") if params.get(name, True))
    if not streams:
        raise UsageError("You must choose at least one of stdout and stderr", step="validate", path="stdout")
    since, until = _moment("since", params.get("since")), _moment("until", params.get("until"))
    chosen = logs.choice(since, until, streams)
    path = task.paths.container(record.id) + "/log"
    result: dict[str, Any] = {"changed": False}
    if params.get("wait_for") is not None:
        from .container_logging import pattern

        wanted = pattern("wait_for", params["wait_for"])
        if since is None:  # what an earlier run said is no sign of this one
            chosen = chosen._replace(since=task.runtime.state(record.id)["started_at"])
        result["matched"] = _wait(task, record, wanted, path, chosen)
    lines = [_line(found, bool(params.get("details"))) for found in logs.lines(path, chosen, params.get("tail"))]
    shown = [_shown(line, bool(params.get("timestamps"))) for line in lines]
    return {**result, "lines": lines, "stdout_lines": shown, "stdout": "\n".join(shown)}


def _check_driver(record: ContainerRecord) -> None:
    driver = record.spec.get("log_driver", "json-file")
    words = _ELSEWHERE.get(driver)
    if words is not None:
        raise UsageError(
            "Container %s %s" % (record.name, words % record.name if "%s" in words else words),
            step="read_logs",
            subject="container %s" % record.name,
            path="log_driver",
        )


def _line(found: dict[str, Any], details: bool) -> dict[str, Any]:
    line = {"time": found["time"], "stream": found["stream"], "line": found["log"]}
    if details:
        line["attrs"] = found.get("attrs") or {}
    return line


def _shown(line: dict[str, Any], timestamps: bool) -> str:
    """As ``docker logs`` writes it; values with a comma or a space in them as in a URL."""
    attrs = ""
    if line.get("attrs"):
        from urllib.parse import quote

        attrs = ",".join("%s=%s" % (quote(k), quote(v)) for k, v in sorted(line["attrs"].items())) + " "
    return ("%s " % line["time"] if timestamps else "") + attrs + str(line["line"])


def _wait(task: Task, record: ContainerRecord, wanted: re.Pattern[str], path: str, chosen: Choice) -> dict[str, Any]:
    """The first line that matches. Raises ``TimedOut``, and ``UnhealthyError`` when the container ends without."""
    import time

    from ..runtime import logs

    given = task.params.get("wait_timeout")
    timeout = 60.0 if given is None else float(given)
    deadline = time.monotonic() + timeout
    follower, joiner = logs.Follower(path, chosen), logs.Joiner()
    while True:
        status = task.runtime.state(record.id)["status"]  # before the log: what it said last is read then
        over = time.monotonic() >= deadline
        for line in joiner.add(follower.new()):
            if wanted.search(line["log"]):
                return _line(line, False)
        if status in ("exited", "created"):
            raise UnhealthyError(
                "Container %s is not running, and it has written no line that matches %r"
                % (record.name, wanted.pattern),
                step="wait_for",
                subject="container %s" % record.name,
                path="wait_for",
                details={"logs": _last(path, chosen)},
            )
        if over:
            raise TimedOut(
                "Container %s has written no line that matches %r within %g seconds"
                % (record.name, wanted.pattern, timeout),
                step="wait_for",
                subject="container %s" % record.name,
                path="wait_for",
                hint="look at what it wrote instead, in logs",
                details={"logs": _last(path, chosen)},
            )
        time.sleep(_POLL)


def _last(path: str, chosen: Choice) -> list[str]:
    from ..runtime import logs

    return [line["log"] for line in logs.lines(path, chosen, 20)]


def _moment(option: str, text: Optional[str]) -> Optional[float]:
    """Seconds since the epoch from RFC 3339, a Unix time, or a duration back from now ("10m")."""
    if text is None:
        return None
    import time

    from ..reconcile import values

    if "T" in text:
        import datetime

        try:
            moment = datetime.datetime.fromisoformat(_microseconds(text.replace("Z", "+00:00")))
        except ValueError:
            raise values.bad(option, text, "is not a time such as 2026-11-24T02:00:00Z") from None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=datetime.timezone.utc)
        return moment.timestamp()
    try:
        return float(text)
    except ValueError:
        return time.time() - values.duration(option, text) / 1e9


def _microseconds(text: str) -> str:
    """Before Python 3.11 a fraction has three digits or six; Docker's times have nine."""
    import re

    return re.sub(r"\.(\d+)", lambda found: "." + found.group(1)[:6].ljust(6, "0"), text)
