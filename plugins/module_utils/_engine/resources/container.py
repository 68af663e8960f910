# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ``container`` module: from what a task asks to a container that is exactly that.

With ``image`` the task is the full description (an option left out is an option not wanted); without it, an
existing container is operated on and its description left alone.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Callable, Optional

from ..._args.container import CONFIG as CONTAINER
from ..errors import NotFound
from ..reconcile import options, values
from ..reconcile.options import Difference
from ..reconcile.plan import Operation, Plan
from . import container_inspect, container_options, container_spec
from .container_actual import is_running, is_unwatched, looked_at, missing_mounts, network_drift, observed, state
from .task import Task

if TYPE_CHECKING:
    from ..store.records import ContainerRecord
    from .image_choice import ImageChoice


def run(task: Task) -> dict[str, Any]:
    name = values.object_name("name", task.params["name"], "container name")
    spec = container_spec.wanted(task) if task.params.get("image") else None
    if spec is not None and task.params["state"] != "absent":
        return _reconcile(task, name, spec)
    with task.store.lock("container", name, shared=task.check_mode):
        plan = Plan()
        plan.operations += _recover(task, name)
        record = task.store.containers.by_name(name)
        if task.params["state"] == "absent":
            _plan_absent(task, plan, record)
        elif record is None:
            raise _unknown(name)
        else:
            _Reconciler(task, plan, name, record.spec, None, record).plan_state(record)
        result = _finish(task, plan, name)
    return _follow(task, plan, result)


def _reconcile(task: Task, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Pull before any lock is held (no lock over network I/O), then plan and apply under the container's lock."""
    from . import image_choice

    plan = Plan()
    choice = image_choice.choose(task, plan)
    pulls = plan.operations[:]
    if not task.check_mode:
        plan.apply()
    with task.store.lock("container", name, shared=task.check_mode):
        plan.operations.clear()
        repairs = _recover(task, name)
        record = task.store.containers.by_name(name)
        _Reconciler(task, plan, name, spec, choice, record).plan()
        if not task.check_mode:
            plan.apply()
        plan.operations[:0] = pulls + repairs
        result = _finish(task, plan, name, applied=True)
    return _follow(task, plan, result)


def _follow(task: Task, plan: Plan, result: dict[str, Any]) -> dict[str, Any]:
    """What other containers do in consequence, without this one's lock."""
    if plan.later and not task.check_mode:
        plan.apply_later()
    return result


def preview(task: Task, name: str, choice: Optional[ImageChoice]) -> Plan:
    """The plan alone, for one of many (the task is in check mode); no lock is taken, it is made again under one."""
    plan = Plan()
    spec = container_spec.wanted(task) if task.params.get("image") and task.params["state"] != "absent" else None
    record = task.store.containers.by_name(name)
    if spec is not None:
        _Reconciler(task, plan, name, spec, choice, record).plan()
    elif task.params["state"] == "absent":
        _plan_absent(task, plan, record)
    elif record is None:
        raise _unknown(name)
    else:
        _Reconciler(task, plan, name, record.spec, None, record).plan_state(record)
    plan.operations[:0] = _recover(task, name)
    return plan


def _unknown(name: str) -> NotFound:
    return NotFound(
        "No such container: %s" % name,
        step="resolve_container",
        subject="container %s" % name,
        hint="give image to create it",
    )


def _recover(task: Task, name: str) -> list[Operation]:
    """Two look-ups by name; more only when a replacement was cut short: then it is finished or taken back at once,
    since the plan depends on it, and what is returned tells so. In check mode it only tells."""
    if not any(task.store.containers.by_name(name + end) for end in (".wharf-new", ".wharf-old")):
        return []
    if not task.check_mode:
        from . import container_replace

        container_replace.recover(task, name)
    return [Operation("repair", "container", name, lambda: None, why="a replacement was cut short")]


def _finish(task: Task, plan: Plan, name: str, *, applied: bool = False) -> dict[str, Any]:
    if not task.check_mode and not applied:
        plan.apply()
    result = plan.result()
    if task.brief:
        return result
    record = task.store.containers.by_name(name)
    result["container"] = container_inspect.inspect(task, record) if record else None
    if not task.params.get("detach", True) and not task.check_mode and record is not None:
        from . import container_attached

        container_attached.finish(task, plan, record, result)
    return result


def _plan_absent(task: Task, plan: Plan, record: Optional[ContainerRecord]) -> None:
    from . import container_run

    if record is None:
        return
    plan.before = {**record.spec, "state": state(task, record)["status"]}
    kill, keep = task.params.get("force_kill", False), task.params.get("keep_volumes", True)
    if is_running(state(task, record)):
        plan.add(Operation("stop", "container", record.name, lambda: container_run.stop(task, record, kill=kill)))
    plan.add(
        Operation("remove", "container", record.name, lambda: container_run.remove(task, record, keep_anonymous=keep))
    )


_NOISE = ("stop_timeout", "image")  # image: the name; which image it is has been compared by ID


class _Reconciler:
    """One container: what it is, what it should be, and the operations between the two."""

    def __init__(
        self,
        task: Task,
        plan: Plan,
        name: str,
        spec: dict[str, Any],
        choice: Optional[ImageChoice],
        record: Optional[ContainerRecord],
    ) -> None:
        self._task = task
        self._plan = plan
        self._name = name
        self._spec = spec
        self._choice = choice
        self._record = record
        self._facts: dict[str, Any] = {"status": "absent"}
        self._watched = False  # by a monitor that is surely alive
        if record is not None:
            self._facts, self._watched = looked_at(task, record)
        plan.status = self._facts["status"]

    def plan(self) -> None:
        plan, record = self._plan, self._record
        if record is None:
            self._check_environment(None)
            self._plan_create()
        else:
            self._plan_changes(record)
        if plan.operations or self._task.diff:
            plan.before = self._shown(record.spec, plan.status) if record else {}
            plan.after = self._shown(self._spec, self._state_after())
            self._show_drift()

    def _plan_changes(self, record: ContainerRecord) -> None:
        task = self._task
        found = options.differences(
            CONTAINER, record.spec, self._spec, observed(task, record, self._facts)
        ) + self._image_difference(record)
        if found:
            from .container_live import refine

            found = refine(task, record, self._spec, found)
        self._tell(record, found)
        replacing = [difference for difference in found if difference.change == "replace"]
        if task.params.get("recreate"):
            replacing.append(Difference("recreate", False, True, "replace", "asked"))
        if replacing:
            self._check_environment(record)
            self._plan_replace(record, replacing, found)
            self._plan_followers(record)
            return
        if found:
            self._check_environment(record)
        self._plan_repair(record)
        self._plan_live(record, found)
        self._store_ignored(record)
        if self._spec.get("secrets"):
            self._plan_secrets(record)
        self._plan_state(record)

    def _tell(self, record: ContainerRecord, found: list[Difference]) -> None:
        """Of each difference: live, replace or noise, and why."""
        if not found and record.spec == self._spec:
            return
        noise = [option for option in _NOISE if record.spec.get(option) != self._spec.get(option)]
        if found or noise:
            from .container_differences import tell

            self._plan.differences = tell(found, noise, record.spec, self._spec)

    def _shown(self, spec: dict[str, Any], status: str) -> dict[str, Any]:
        """What --diff prints: the spec without secrets."""
        shown = {**spec, "state": status}
        if "env" in spec:
            from .container_differences import hidden

            shown["env"] = hidden("env", spec["env"])
        return shown

    def _state_after(self) -> str:
        wish = self._task.params["state"]
        if wish == "present":
            return str(self._facts["status"]) if self._record else "created"
        if wish == "stopped":
            return "created" if self._record is None or self._facts["status"] == "created" else "exited"
        return "running"

    def _image_difference(self, record: ContainerRecord) -> list[Difference]:
        choice = self._choice
        if choice is None or choice.new_id == record.image_id:
            return []
        return [Difference("image", record.image_id, choice.new_id, "replace", "asked")]

    def _check_environment(self, record: Optional[ContainerRecord]) -> None:
        """What must hold before anything changes: networks exist, ports are free."""
        task = self._task
        container_id = record.id if record else ""
        for index, network in enumerate(self._spec.get("networks", [])):
            if network["name"] != "bridge" and task.store.networks.get(network["name"]) is None:
                raise NotFound(
                    "networks[%d]: network %s not found" % (index, network["name"]),
                    step="resolve_network",
                    path="networks[%d].name" % index,
                    hint="create it with wharf.engine.network first",
                )
        ports = [port for port in self._spec.get("published_ports", []) if port["host_port"]]
        if ports:
            from ..store.records import PortRecord

            task.network.check_ports(
                [
                    PortRecord(container_id, p["host_ip"], p["host_port"], p["protocol"], p["container_port"])
                    for p in ports
                ],
                container_id,
            )
        for option, name in container_options.shared_with(self._spec):
            if name in task.promised:
                continue
            from . import container_make

            container_make.shared_container(task, "container:" + name, option)

    def _image(self) -> Any:
        record = self._choice.record if self._choice else None
        if record is None:
            raise NotFound("No such image: %s" % self._spec.get("image"), step="resolve_image")
        _require_command(self._spec, record)
        return record

    def _plan_create(self) -> None:
        from . import container_make, container_run

        task, name = self._task, self._name
        made: list[ContainerRecord] = []
        if self._choice and self._choice.record:
            _require_command(self._spec, self._choice.record)

        def create() -> None:
            made.append(container_make.create(task, name, self._spec, self._image()))

        def undo() -> None:
            if made:
                container_run.remove(task, made[0])

        self._plan.add(Operation("create", "container", name, create, undo=undo, why="missing"))
        if task.params["state"] in ("started", "healthy"):
            self._plan.add(Operation("start", "container", name, lambda: container_run.start(task, made[0])))
            if task.params.get("paused"):
                self._plan_paused(lambda: made[0])
        if task.params["state"] == "healthy":
            self._wait(lambda: made[0])

    def _plan_replace(self, record: ContainerRecord, reasons: list[Difference], found: list[Difference]) -> None:
        from . import container_replace
        from .container_differences import hidden

        task = self._task
        running = is_running(self._facts)
        start_new = task.params["state"] in ("started", "healthy") or (task.params["state"] == "present" and running)
        if self._choice and self._choice.record:
            _require_command(self._spec, self._choice.record)

        def execute() -> None:
            container_replace.replace(task, record, self._spec, self._image(), running=running, start_new=start_new)

        detail: dict[str, Any] = {
            difference.option: {
                "before": hidden(difference.option, difference.before),
                "after": hidden(difference.option, difference.after),
            }
            for difference in (*reasons, *(d for d in found if d.change == "live"))
        }
        asked = task.params.get("update") or ""
        detail["order"], detail["order_why"] = container_replace.order(record, self._spec, running and start_new, asked)
        why = ", ".join(sorted({"%s (%s)" % (reason.option, reason.why) for reason in reasons}))
        self._plan.add(Operation("replace", "container", self._name, execute, detail=detail, why=why))
        if task.params["state"] == "healthy":
            self._wait(lambda: task.store.containers.by_name(self._name) or record)
        if start_new:
            self._plan_paused(lambda: task.store.containers.by_name(self._name) or record)

    def _plan_followers(self, record: ContainerRecord) -> None:
        from .container_follow import plan

        plan(self._task, self._plan, record)

    def _plan_strayed(self, record: ContainerRecord) -> None:
        """One that shares namespaces with another, whose namespaces are others by now: it starts again."""
        if not is_running(self._facts) or not self._facts.get("pid") or self._task.params["state"] == "stopped":
            return
        from . import container_follow, container_run

        why = container_follow.strayed(self._task, record, self._facts["pid"])
        if not why:
            return
        task, name = self._task, self._name

        def execute() -> None:
            container_run.stop(task, record, remember=False)
            container_run.start(task, record)

        option, _colon, sentence = why.partition(": ")
        detail = {"option": option, "before": [sentence]}
        self._plan.add(Operation("restart", "container", name, execute, detail=detail, why="drift"))
        self._plan_followers(record)

    def _plan_secrets(self, record: ContainerRecord) -> None:
        from . import container_secrets

        if not self._task.check_mode:
            container_options.store_secrets(self._task, record)  # those that are missing
        runs = is_running(self._facts) and self._task.params["state"] != "stopped"
        if container_secrets.plan(self._task, self._plan, record, self._facts.get("pid") if runs else None):
            self._plan_followers(record)

    def _show_drift(self) -> None:
        """What was found on the host is what --diff shows as before."""
        for operation in self._plan.operations:
            if operation.why != "drift":
                continue
            option, detail = operation.detail["option"], operation.detail
            if "after" in detail:
                self._plan.before[option] = detail["before"]
            else:
                self._plan.before.setdefault("drift", {})[option] = detail.get("before", "")
                self._plan.after["drift"] = {}

    def _plan_repair(self, record: ContainerRecord) -> None:
        """What a container that goes on running has lost: its monitor, of its network, of its mounts."""
        if self._task.params["state"] == "stopped":
            return
        if not self._watched and is_unwatched(self._facts):
            from .container_live import watch

            watch(self._task, self._plan, record)
        sentences = network_drift(self._task, record, self._facts)
        lost = missing_mounts(self._task, record, self._facts)
        if sentences or lost:
            from .container_live import repair

            repair(self._task, self._plan, record, sentences, lost)

    def _plan_live(self, record: ContainerRecord, found: list[Difference]) -> None:
        if not found:
            return
        from .container_live import LiveUpdate

        update = LiveUpdate(self._task, record, self._spec, is_running(self._facts))
        update.plan(self._plan, found)
        self._plan.operations[-1].then(update.store)

    def _store_ignored(self, record: ContainerRecord) -> None:
        """Options that cannot change behaviour by themselves are stored without being a change."""
        if self._task.check_mode or self._plan.operations:
            return
        if record.spec != self._spec and any(record.spec.get(key) != self._spec.get(key) for key in _NOISE):
            self._task.store.containers.update(record.id, spec=self._spec)

    def plan_state(self, record: ContainerRecord) -> None:
        """For a task without a description: running or not, as it asks."""
        self._plan_state(record)
        self._plan.before, self._plan.after = {"state": self._facts["status"]}, {"state": self._state_after()}

    def _plan_state(self, record: ContainerRecord) -> None:
        """Running or not, as the task asks; also restart on demand."""
        task, plan, name = self._task, self._plan, self._name
        wish, running = task.params["state"], is_running(self._facts)
        if container_options.shared_with(record.spec):
            self._plan_strayed(record)
        kill = task.params.get("force_kill", False)

        def current() -> ContainerRecord:
            return task.store.containers.by_name(name) or record

        if wish in ("started", "healthy"):
            if running and task.params.get("restart") and not plan.operations:
                from . import container_run

                # Not remembered as a stop: it is to run, also when this is cut short, and auto_remove must not take it.
                halt = partial(container_run.stop, task, record, kill=kill, remember=False)
                plan.add(Operation("stop", "container", name, halt, why="restart"))
                running = False
            if not running:
                from . import container_run

                why = "is %s" % self._facts["status"]
                plan.add(Operation("start", "container", name, lambda: container_run.start(task, current()), why=why))
                if plan.operations[0].why == "restart":
                    plan.operations[-1].then(lambda: task.store.events.add("container", "restart", current().id))
                self._plan_followers(record)
            if wish == "healthy" and (plan.operations or (self._facts.get("health") or {}).get("status") != "healthy"):
                self._wait(current)
        elif wish == "stopped" and running:
            from . import container_run

            plan.add(Operation("stop", "container", name, lambda: container_run.stop(task, current(), kill=kill)))
            return
        self._plan_paused(current)

    def _plan_paused(self, current: Callable[[], ContainerRecord]) -> None:
        """``paused``: only if the task says so, and only for what will run when all before this is done."""
        task, wanted = self._task, self._task.params.get("paused")
        started = any(o.how in ("start", "replace", "restart") for o in self._plan.operations)
        running = started or self._facts["status"] in ("running", "paused")
        if wanted is None or not running or wanted == (self._facts["status"] == "paused" and not started):
            return

        def execute() -> None:
            (task.runtime.pause if wanted else task.runtime.unpause)(current().id)

        self._plan.add(Operation("pause" if wanted else "unpause", "container", self._name, execute))

    def _wait(self, current: Any) -> None:
        """Waiting changes nothing, so it is no operation: it follows the last one, or runs by itself."""
        from . import container_run

        task, plan = self._task, self._plan

        def wait() -> None:
            container_run.wait_healthy(task, current(), task.params.get("healthy_wait_timeout"))

        if plan.operations:
            plan.operations[-1].then(wait)
        elif not task.check_mode:
            wait()


def _require_command(spec: dict[str, Any], image: Any) -> None:
    from ..errors import UsageError
    from .container_make import image_config

    config = image_config(image)
    if spec.get("command") or spec.get("entrypoint") or config.get("Entrypoint") or config.get("Cmd"):
        return
    raise UsageError(
        "No command specified: the task has no command and the image %s brings none" % spec.get("image"),
        step="validate",
        path="command",
    )
