# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""One container's monitor: parent of its PID 1, so that its exit code is never lost.

Forked from the spawner, independent of it and of any task. It takes the container's output, restarts it by policy,
probes its health, notices OOM kills, runs execs, and writes ``state.json``. When the container has ended for good it
removes what belongs to it and ends. Killed itself, it takes nothing with it: the container has no parent-death signal,
its output waits in the FIFOs, and ``adopt`` continues where it left off.

The same class works in two processes: in the starter, which begins or adopts and then hands over, and in the monitor,
where it is made when something happens (see ``watch``, which also says why).
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional

from ..errors import Conflict, NotFound, StartError, WharfError
from ..kernel import pidfd as pidfds
from ..kernel import procfs
from ..kernel.cgroups import Cgroup, Layout
from ..kernel.cgroups.events import OomSource, oom_source
from ..kernel.syscalls import Kernel
from ..paths import Paths
from . import cleanup, handover, health, joined, logs, parent, restart, statefile
from . import exec as execution
from .control import Control
from .execs import Execs
from .exits import became_program, exit_code
from .kept import Kept
from .loop import Loop, Timer
from .ports import Reservations
from .probes import Probes
from .pump import salvage
from .stdio import Stdio, discard
from .tell import tell

if TYPE_CHECKING:
    from .watch import Watch

_KILL_GRACE = 2.0


class Monitor:
    def __init__(
        self,
        kernel: Kernel,
        paths: Paths,
        container_id: str,
        layout: Layout,
        kept: Kept,
        *,
        pid: int = 0,
        watch: Optional[Watch] = None,
    ) -> None:
        """``pid``: the monitor's, where this is its starter; ``watch``: in the monitor, what it has lived on so far."""
        self.kernel = kernel
        self.paths = paths
        self.id = container_id
        self.directory = paths.container(container_id)
        self.run_directory = paths.container_run(container_id)
        self.kept = kept
        self.pid = pid
        self.loop = watch.loop if watch else Loop()
        self.run_config = watch.values["run"] if watch else parent.load_json(self.directory + "/run.json")
        self.config: Optional[dict[str, Any]] = None  # of the start at hand
        if watch:
            self.state: dict[str, Any] = watch.values["state"]
        else:
            self.state = statefile.read(self.directory + "/state.json") or statefile.blank(container_id)
        self.layout = layout
        self.cgroup = Cgroup(self.layout, self.run_config["cgroup"])
        self.backoff = restart.Backoff()
        self.ports = Reservations()
        self.stdio: Optional[Stdio] = None
        self.control: Optional[Control] = None
        self.execs = Execs(kernel, self.loop, self.cgroup)
        self.probes = Probes(self)
        self.child: Optional[parent.Child] = None
        self.oom: Optional[OomSource] = None
        self.adopted = False
        self.voice = watch.spawner.voice if watch else None
        self.engaged = False  # the container is ours to tidy up
        self.hooks = True  # whoever stops it may do what they do itself
        self.stopping = False  # asked to end: no restart, whatever the policy
        self.started = 0.0  # monotonic
        self._kill_timer: Optional[Timer] = None
        self._restart_timer: Optional[Timer] = None
        if watch:
            self._take_over(watch)

    # -- from process to process -----------------------------------------------------------------------------------

    def hand_over(self, lock: int) -> tuple[dict[str, Any], list[int]]:
        """What the monitor needs to go on: plain values, in which the descriptors are indices into the list. ``awake``:
        there is something to do besides waiting."""
        if self.child is None or self.stdio is None or self.control is None:
            raise StartError("There is nothing to hand over", step="start")
        fds: list[int] = []

        def index(fd: int) -> int:
            fds.append(fd)
            return len(fds) - 1

        oom = self.oom
        values = {
            "id": self.id,
            "run_directory": self.run_directory,
            "run": self.run_config,
            "state": self.state,
            "started": self.started,
            "lock": index(lock),
            "pidfd": index(self.child.pidfd),
            "ended": self.child.ended,
            "control": index(self.control.listener.fileno()),
            "streams": {name: index(fd) for name, fd in self.stdio.held().items()},
            "ports": [(*key, [index(fd) for fd in held]) for *key, held in self.ports.held()],
            "oom": [index(oom.fd), [index(fd) for fd in oom.others], oom.kind, oom.seen, oom.events] if oom else None,
            "adopted": self.adopted,
            "awake": health.enabled(self.run_config.get("healthcheck")),
        }
        return values, fds

    def _take_over(self, watch: Watch) -> None:
        values, fds = watch.values, watch.fds
        self.engaged = True
        self.started = values["started"]
        self.child = parent.Child(
            self.state["pid"], fds[values["pidfd"]], self.state["pid_start"], watch.stdio.terminal
        )
        self.stdio = watch.stdio
        self.ports.take_over([(*key, [fds[at] for at in held]) for *key, held in values["ports"]])
        self.control = Control(self, socket.socket(fileno=fds[values["control"]]))
        if values["oom"]:
            fd, others, kind, seen, _events = values["oom"]
            self.oom = OomSource(self.cgroup, fds[fd], kind, tuple(fds[at] for at in others), seen)
        self._watch(resume=True)

    # -- state -----------------------------------------------------------------------------------------------------

    def save(self, *, sync: bool = False, **changes: Any) -> None:
        self.state.update(changes)
        try:
            statefile.replace(self.directory + "/state.json", self.state, sync=sync)
        except OSError:  # a broken disk must not end the container; the next change tries again
            pass

    @property
    def running(self) -> bool:
        return self.child is not None

    @property
    def waiting(self) -> bool:
        """Between two runs."""
        return self._restart_timer is not None

    # -- starting --------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """The first start, asked for by somebody. Raises ``WharfError``; then ``fail`` tidies up."""
        if statefile.present(self.state)["status"] in ("running", "paused"):
            raise Conflict("Container %s is running already, without a monitor: adopt it" % self.id[:12], step="start")
        self.engaged = True
        # Of an earlier run that ended with its monitor; its cgroup is the helper's to remove.
        self._salvage()
        statefile.sweep(self.directory)
        cleanup.remove_directory(self.run_directory)
        os.mkdir(self.run_directory, 0o700)
        try:
            os.unlink(self.directory + "/" + joined.MARK)  # who shared the pid namespace of that run ended with it
        except FileNotFoundError:
            pass
        self.stdio = Stdio(self.kernel, self.loop, self.run_directory, self.run_config)
        self.stdio.configure(self.run_config.get("log") or {})
        self.ports.set(self.run_config.get("reserve") or ())
        self.control = Control(self)
        self.state.update(
            restart_count=0, manually_stopped=False, oom_killed=False, error="", exit_code=0, log_error=""
        )
        self.state.update(monitor_pid=self.pid, monitor_start=procfs.start_time(self.pid) or 0)
        self.state["boot_id"] = procfs.boot_id()
        self._start()

    def _start(self) -> None:
        """One run: cgroup, streams, process. Raises ``WharfError``."""
        stdio = self._streams()
        stdio.open()
        ends = stdio.container_ends()
        try:
            bundle = parent.Bundle(self.directory, self.run_config, ends, self.kept, self.config)
            self.child = parent.launch(
                self.kernel, self.layout, self.cgroup, bundle, self._about_to_run, helping=bool(self.pid)
            )
        finally:
            discard(ends)
        if self.child.terminal >= 0:
            stdio.attach_terminal(self.child.terminal)
        self.started = time.monotonic()
        self._watch()
        if self.voice is not None:
            self.leave_streams(self.voice)
        self.save(
            status="running", pid=self.child.pid, pid_start=self.child.start, started_at=logs.timestamp(), error=""
        )

    def _streams(self) -> Stdio:
        if self.stdio is None:
            raise StartError("The container's streams are not set up", step="start")
        return self.stdio

    def _about_to_run(self, pid: int, start: int) -> None:
        self.save(status="created", pid=pid, pid_start=start)

    def _watch(self, resume: bool = False) -> None:
        if self.child is None:
            return
        self.loop.add(self.child.pidfd, lambda _events: self._exited())
        if self.oom is None:
            self.oom = oom_source(self.cgroup)
        if self.oom is not None:
            self.loop.add(self.oom.fileno(), lambda _events: self._out_of_memory(), self.oom.events)
        self.probes.begin(resume)

    def adopt(self, streams: Sequence[int] = ()) -> None:
        """Take over a running container whose monitor is gone. Raises ``NotFound`` when it has ended meanwhile; what it
        said last is in ``streams`` then, its pipes, if the spawner has kept them."""
        state = self.state
        fd = pidfds.open_pid(state["pid"], state["pid_start"]) if statefile.process_alive(state) else None
        if fd is None or (state["status"] == "created" and not became_program(state["pid"], fd)):
            self._salvage(streams)
            raise NotFound("Container %s is not running" % self.id[:12], step="adopt")
        statefile.sweep(self.directory)
        self.child = parent.Child(state["pid"], fd, state["pid_start"], -1)
        os.makedirs(self.run_directory, 0o700, exist_ok=True)
        # Its log is opened by the monitor, which can wait for it: a syslog that is down must not orphan the container.
        self.stdio = Stdio(self.kernel, self.loop, self.run_directory, self.run_config)
        self.stdio.open(adopt=True)
        self.adopted = True
        try:
            self.ports.set(self.run_config.get("reserve") or ())
        except WharfError as error:  # taken while nobody watched: the container goes on, the firewall still serves it
            self.state["error"] = error.msg
        self.control = Control(self)
        self.started = time.monotonic()
        self._watch(resume=True)
        if state.get("held"):  # the monitor that would have seen the task's end is gone
            self.cgroup.thaw()
            self.state.update(status="running", held=False)
        self.save(monitor_pid=self.pid, monitor_start=procfs.start_time(self.pid) or 0)
        if state["status"] == "created":  # killed before the start was noted
            self.save(status="running", started_at=logs.timestamp())

    # -- while it runs ---------------------------------------------------------------------------------------------

    def target(self) -> execution.Target:
        """For an exec. Raises ``Conflict`` when nothing runs."""
        if self.child is None:
            raise Conflict("Container %s is not running" % self.id[:12], step="exec")
        if self.state["status"] == "paused":
            raise Conflict("Container %s is paused, unpause the container before exec" % self.id[:12], step="exec")
        config = parent.load_json(self.directory + "/config.json")
        return execution.Target(
            self.child.pidfd,
            config,
            self.run_config.get("uid_user") or "",
            tuple(self.run_config.get("groups") or ()),
            self.kept.program(self.kernel, config),
            self.cgroup,
            self._watched(config),
        )

    def _watched(self, config: Mapping[str, Any]) -> bool:
        if any(n["type"] == "pid" and n.get("path") for n in config["linux"]["namespaces"]):
            return True
        caps = (config["process"].get("capabilities") or {}).get("bounding") or ()
        return "CAP_SYS_PTRACE" in caps or os.path.exists(self.directory + "/" + joined.MARK)

    def stop(self, number: int, timeout: float, manual: bool) -> None:
        """Ask the container to end; SIGKILL after ``timeout`` seconds (negative: never)."""
        self.stopping = True
        if manual:
            self.save(manually_stopped=True)
        if self._restart_timer is not None:
            self._restart_timer.cancel()
            self._restart_timer = None
            self.finish()
            return
        if self.state["status"] == "paused":
            self.pause(False)
        if self.child is not None:
            pidfds.send_signal(self.child.pidfd, number)
            tell(self, "kill", signal=number)
            if timeout >= 0:
                if self._kill_timer is not None:
                    self._kill_timer.cancel()
                self._kill_timer = self.loop.after(timeout, self._kill)

    def _kill(self) -> None:
        if self.child is not None and pidfds.send_signal(self.child.pidfd, signal.SIGKILL):
            tell(self, "kill", signal=int(signal.SIGKILL))

    def kill(self, number: int) -> None:
        """A signal, as ``docker kill``: SIGKILL and the stop signal count as stopping by hand."""
        if self.child is None:
            raise Conflict("Container %s is not running" % self.id[:12], step="kill")
        if number in (signal.SIGKILL, self.run_config.get("stop_signal") or signal.SIGTERM):
            self.stopping = True
            self.save(manually_stopped=True)
            if self.state["status"] == "paused":
                self.pause(False)  # a frozen v1 cgroup does not even die
        pidfds.send_signal(self.child.pidfd, number)
        tell(self, "kill", signal=number)

    def pause(self, paused: bool, held: bool = False) -> None:
        """``held``: by a task, and no longer than that lives."""
        if self.child is None:
            raise Conflict("Container %s is not running" % self.id[:12], step="pause")
        if paused:
            self.cgroup.freeze()
        else:
            self.cgroup.thaw()
        self.save(status="paused" if paused else "running", held=held)
        tell(self, "pause" if paused else "unpause")

    def start_now(self) -> None:
        """A manual start while a restart is pending. Raises ``WharfError``."""
        if self._restart_timer is not None:
            self._restart_timer.cancel()
            self.backoff.reset()
            self.state.update(restart_count=0, manually_stopped=False)
            self._restart()

    def update(self, changes: Mapping[str, Any]) -> None:
        """Merge into run.json and put into force. Raises ``Conflict`` for a taken port, ``StartError`` for
        a log that cannot be opened; then nothing changed."""
        if "reserve" in changes:
            self.ports.set(changes["reserve"] or ())
        if "log" in changes and self.stdio is not None:
            self.stdio.configure(changes["log"] or {})
        before = self.run_config.get("healthcheck")
        self.run_config.update(changes)
        statefile.write_json(self.directory + "/run.json", self.run_config)
        if self.running and self.run_config.get("healthcheck") != before:
            self.probes.begin()
            self.save()  # what the check before it said must not pass for the new one's word

    def _out_of_memory(self, looks: int = 20) -> None:
        if self.oom is None:
            return
        if self.oom.take():
            self.save(oom_killed=True)
            tell(self, "oom")
        elif looks and self.oom.kind == "v1":  # which tells before the kernel has killed, and does not tell again
            self.loop.after(0.1, lambda: self._out_of_memory(looks - 1))

    # -- the end of a run ------------------------------------------------------------------------------------------

    def _exited(self) -> None:
        child = self.child
        if child is None:
            return
        self.loop.remove(child.pidfd)
        code = exit_code(child.pidfd)
        self.child = None
        os.close(child.pidfd)
        if self._kill_timer is not None:
            self._kill_timer.cancel()
            self._kill_timer = None
        self.probes.end()
        self.execs.drain()
        self._close_oom()
        if self.stdio is not None:
            self.stdio.drain()
            self.stdio.close_streams()
        lost = code is None
        self.state.update(pid=0, pid_start=0, exit_code=statefile.NEVER_RECORDED if code is None else code)
        self.state.update(finished_at=logs.timestamp(), error=statefile.LOST if lost else self.state["error"])
        run = self.run_config.get("restart") or {}
        again = not self.stopping and restart.wanted(
            run.get("policy", "no"),
            run.get("retries") or 0,
            self.state["exit_code"],
            self.state["restart_count"],
            self.state["manually_stopped"],
        )
        lasted = int(time.monotonic() - self.started)
        tell(self, "die", over=not again, exitCode=self.state["exit_code"], execDuration=lasted)
        if again:
            self.save(status="restarting")
            delay = self.backoff.delay(time.monotonic() - self.started)
            self._restart_timer = self.loop.after(delay, self._restart_quietly)
            return
        self.finish()

    def _close_oom(self) -> None:
        if self.oom is not None:
            self._out_of_memory(0)  # the last event may still be pending
            self.loop.remove(self.oom.fileno())
            self.oom.close()
            self.oom = None

    def _restart_quietly(self) -> None:
        self.state["restart_count"] += 1
        try:
            self._restart()
        except WharfError:  # recorded in the state by _restart
            return

    def _restart(self) -> None:
        self._restart_timer = None
        self.state.update(oom_killed=False)
        try:
            self._start()
        except WharfError as error:
            if self.stdio is not None:
                self.stdio.close_streams()
            self.state.update(pid=0, pid_start=0, exit_code=error.details.get("exit_code", 128), error=error.msg)
            self.finish()
            raise
        tell(self, "start")
        if self.control is not None:
            self.control.changed()

    def finish(self) -> None:
        """The container has ended for good: record it, let go of everything, tell whoever waits."""
        self.save(sync=True, status="exited", pid=0, pid_start=0)
        if self.stdio is not None:
            self.stdio.close()
        self.ports.close()
        cleanup.tidy(self.paths, self.cgroup, self.id)
        if self.hooks:
            cleanup.run_hooks(self.run_config.get("on_exit") or ())
        self.loop.stopped = True
        if self.control is not None:
            self.control.close()

    def leave_streams(self, voice: socket.socket) -> None:
        """With the spawner, for the case that we are killed and the container ends before somebody else listens."""
        held = self.stdio.held() if self.stdio is not None else {}
        fds = [held[name] for name in ("stdout", "stderr") if name in held]
        try:
            if len(fds) == 2:
                handover.send_order(voice, {"order": "streams", "pid": os.getpid() if not self.pid else self.pid}, fds)
        except OSError:  # the spawner has ended; somebody else would adopt, by the names
            pass

    def _salvage(self, streams: Sequence[int] = ()) -> None:
        """Of a run whose monitor was killed: what it had not brought to the log."""
        try:
            salvage(self.kernel, self.run_directory, self.run_config.get("log") or {}, streams)
        except OSError as error:
            os.write(2, ("%s: its last output is lost: %s\n" % (self.id[:12], error)).encode("utf-8", "replace"))

    def fail(self, error: WharfError) -> None:
        """A first start that did not succeed: nothing stays behind but the reason."""
        if not self.engaged:
            return
        if self.stdio is not None:
            self.stdio.close()
        self.ports.close()
        cleanup.tidy(self.paths, self.cgroup, self.id)
        never_ran = self.state["started_at"] == logs.ZERO_TIME
        self.save(
            status="created" if never_ran else "exited",
            pid=0,
            pid_start=0,
            exit_code=error.details.get("exit_code", 128),
            error=error.msg,
        )
