# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Health probes of a running container: when ``health.Health`` says so, an exec with its output caught."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Optional

from ..errors import WharfError
from ..kernel import procfs
from . import health, logs
from .execs import TIMED_OUT
from .execspec import ExecSpec
from .loop import Timer
from .tell import tell

if TYPE_CHECKING:
    from .monitor import Monitor


class Probes:
    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor
        self.health: Optional[health.Health] = None
        self._timer: Optional[Timer] = None
        self._pipe = -1
        self._output = b""
        self._began = 0.0
        self._start = ""

    def begin(self, resume: bool = False) -> None:
        """The container has started, or its check was changed; or (``resume``) another monitor watched it before."""
        known = self.monitor.state.get("health") if resume else None
        self.end()
        check = self.monitor.run_config.get("healthcheck")
        if not health.enabled(check):
            self.health = None
            self.monitor.state["health"] = None
            return
        self.health = health.Health(check or {}, time.monotonic())
        if known:
            self.health.status = known["status"]
            self.health.streak = known["failing_streak"]
            self.health.log = list(known["log"])
        self.monitor.state["health"] = self.health.as_dict()
        self._schedule()

    def end(self) -> None:
        """The container has ended; a probe in flight ends with it, unreported."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._close_pipe()
        if self.health is not None:
            self.health.status = "unhealthy"  # as Docker has it, for compatibility with itself
            self.monitor.state["health"] = self.health.as_dict()
            self.health = None

    def _schedule(self) -> None:
        if self.health is not None:
            self._timer = self.monitor.loop.at(self.health.due, self._probe)

    def _probe(self) -> None:
        checked = self.health
        if checked is None:
            return
        if self.monitor.state["status"] == "paused":
            self._timer = self.monitor.loop.after(checked.pause(time.monotonic()), self._probe)
            return
        self._began, self._start, self._output = time.monotonic(), logs.timestamp(), b""
        read, write = os.pipe()
        os.set_blocking(read, False)
        self._pipe = read
        self.monitor.loop.add(read, lambda _events: self._read())
        spec = ExecSpec(checked.argv, timeout=checked.timeout)
        try:
            self.monitor.execs.start(
                self.monitor.target(),
                spec,
                (-1, write, write),
                lambda error, _pid, _terminal: self._failed(checked, error) if error is not None else None,
                lambda code: self._result(checked, code),
            )
        except WharfError as error:
            self._failed(checked, error)
        finally:
            os.close(write)

    def _read(self) -> None:
        """Beyond the limit output is read and thrown away: the probe must not block on it."""
        try:
            data = os.read(self._pipe, 65536)
        except BlockingIOError:
            return
        if not data:
            self._close_pipe()
        elif len(self._output) < health.MAX_OUTPUT:
            self._output += data

    def _close_pipe(self) -> None:
        if self._pipe >= 0:
            self.monitor.loop.remove(self._pipe)
            os.close(self._pipe)
            self._pipe = -1

    def _failed(self, checked: health.Health, error: WharfError) -> None:
        self._output = error.msg.encode()
        self._result(checked, error.details.get("exit_code", 126))

    def _is_cut_short(self) -> bool:
        """A probe that fails because its container is just ending says nothing: ``end`` comes next."""
        child = self.monitor.child
        return child is None or procfs.is_ending(child.pid)

    def _result(self, checked: health.Health, code: int) -> None:
        if checked is not self.health:  # of a run, or a check, that is over
            return
        while self._pipe >= 0:
            before = len(self._output)
            self._read()
            if len(self._output) == before:
                break
        self._close_pipe()
        if code and self._is_cut_short():
            return
        text = self._output[: health.MAX_OUTPUT].decode("utf-8", "replace")
        if code == TIMED_OUT:
            text = "Health check exceeded timeout (%gs)%s" % (checked.timeout, ": " + text if text else "")
        changed = checked.result(code, text, self._start, logs.timestamp(), self._began, time.monotonic())
        self.monitor.save(health=checked.as_dict())
        if changed:
            tell(self.monitor, "health_status: %s" % checked.status)
        if changed and self.monitor.control is not None:
            self.monitor.control.changed()
        self._schedule()
