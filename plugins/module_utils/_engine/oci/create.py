# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""``create`` and ``run``."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional

from ..errors import KernelError, UsageError, WharfError
from ..kernel import apparmor
from ..kernel.syscalls import PR_SET_DUMPABLE, Kernel
from ..runtime import finalize
from ..tuples import NamedTuple
from . import config as configs
from . import filters, group, hooks, init, launch, limits, seal, states, tree

if TYPE_CHECKING:
    from ..kernel.cgroups import Cgroup
    from .main import Context
    from .systemd import Holder

RESULT = "start.result"


class Made(NamedTuple):
    """A container whose first process is there."""

    directory: str
    state: dict[str, Any]
    child: launch.Child


def create(context: Context, values: dict[str, Any], words: Sequence[str]) -> int:
    config, bundle = _load(values)
    terminal = bool(config["process"].get("terminal"))
    if terminal and not values["console-socket"]:
        raise UsageError(
            "cannot allocate tty if runc will detach without setting console socket", path="console-socket"
        )
    if not terminal and values["console-socket"]:
        raise UsageError("cannot use console socket if runc will not detach or allocate tty", path="console-socket")
    _make(context, config, bundle, values, words[0], wait=True)
    return 0


def run(context: Context, values: dict[str, Any], words: Sequence[str]) -> int:
    config, bundle = _load(values)
    detach, terminal = values["detach"], bool(config["process"].get("terminal"))
    if detach and terminal and not values["console-socket"]:
        raise UsageError(
            "cannot allocate tty if runc will detach without setting console socket", path="console-socket"
        )
    if values["console-socket"] and not (detach and terminal):
        raise UsageError("cannot use console socket if runc will not detach or allocate tty", path="console-socket")
    if not detach and not values["no-subreaper"]:
        from ..kernel.syscalls import PR_SET_CHILD_SUBREAPER

        Kernel().prctl(PR_SET_CHILD_SUBREAPER, 1)
    from . import foreground, lifecycle

    catcher = None if detach else foreground.Catcher()
    made = _make(context, config, bundle, values, words[0], wait=False)

    try:
        hooks.run(config, "poststart", {**_state_for_hooks(made.state), "status": states.RUNNING})
    except WharfError:
        lifecycle.destroy(context, made.state, force=True)
        raise
    if catcher is None:
        return 0
    status = foreground.follow(made.child, catcher)
    if not values["keep"]:
        lifecycle.destroy(context, made.state, force=True)
    return status


def _load(values: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    bundle = os.path.abspath(values["bundle"] or ".")
    config = configs.load(bundle)
    config.setdefault("linux", {})
    configs.check(config, bundle)
    for fd in range(3, 3 + max(0, values["preserve-fds"])):
        try:
            os.fstat(fd)
        except OSError:
            raise UsageError("--preserve-fds: descriptor %d is not open" % fd, path="preserve-fds") from None
    return config, bundle


def _make(
    context: Context, config: dict[str, Any], bundle: str, values: Mapping[str, Any], name: str, *, wait: bool
) -> Made:
    """Raises ``WharfError``; then nothing of the container is left."""
    if os.geteuid() != 0:
        raise UsageError("this runtime runs as root", path="rootless")
    spaces = configs.check_namespaces(config["linux"])
    if seal.needed_for_start(config, bundle, spaces):
        seal.ensure()
    kernel = Kernel()
    # Inherited by what we clone: no process of ours that a container can see may be looked into (CVE-2019-5736).
    kernel.prctl(PR_SET_DUMPABLE, 0)
    program = filters.compile_filter(config["linux"].get("seccomp"), kernel.machine)
    profile = apparmor.choose(config["process"]) if config["process"].get("apparmorProfile") else ""
    _warn_of_capabilities(context, config["process"])
    placed, scope = _place(context, config, name)
    directory = states.claim(context.root, name)
    state = _first_state(config, bundle, name, group.describe(placed, scope))
    cgroup: Optional[Cgroup] = None
    holder: Optional[Holder] = None
    try:
        states.save(directory, state)
        group.refuse_foreign(placed)
        cgroup = placed
        holder = _hold(cgroup, config, scope, name)
        _limit(kernel, cgroup, config["linux"].get("resources") or {})
        plan = init.Plan(
            config=config,
            spaces=spaces,
            tree=tree.prepare(kernel, config, bundle, spaces, cgroup),
            group=cgroup,
            hierarchies=tuple(cgroup.layout.view()),
            program=program,
            interpreter=finalize.interpreter_identity(),
            preserve=max(0, values["preserve-fds"]),
            waiting=_make_fifos(directory) if wait else None,
            no_pivot=values["no-pivot"],
            keyring=not values["no-new-keyring"],
            state=_state_for_hooks({**state, "status": states.CREATING}),
            apparmor=profile,
        )
        child = launch.launch(kernel, plan, _talk(directory, state, values, program))
        if holder is not None:
            holder.end()
    except BaseException as error:
        if holder is not None:
            holder.end()
        _undo(context, directory, config, state, cgroup)
        if isinstance(error, OSError):
            raise KernelError.wrap(error, "Cannot create the container", step="create") from error
        raise launch.as_start_error(error) if isinstance(error, WharfError) else error
    return Made(directory, state, child)


def _warn_of_capabilities(context: Context, process: Mapping[str, Any]) -> None:
    asked = {name for names in (process.get("capabilities") or {}).values() for name in names or ()}
    unknown = sorted(asked - set(init.known(asked)))
    if unknown:
        context.warn("unknown capabilities are left out: %s" % ", ".join(unknown))


def _place(context: Context, config: Mapping[str, Any], name: str) -> tuple[Cgroup, str]:
    if context.systemd:
        from . import systemd

        return systemd.place(config, name)
    return group.place(config, name), ""


def _hold(cgroup: Cgroup, config: Mapping[str, Any], scope: str, name: str) -> Optional[Holder]:
    if not scope:
        return None
    from .systemd import Holder

    return Holder(cgroup, config, scope, name)


def _limit(kernel: Kernel, cgroup: Cgroup, resources: Mapping[str, Any]) -> None:
    from ..kernel import devices

    cgroup.create("")
    cgroup.apply(limits.for_cgroup(resources))
    devices.apply(kernel, cgroup, limits.device_rules(resources))


def _first_state(config: dict[str, Any], bundle: str, name: str, cgroup: Mapping[str, Any]) -> dict[str, Any]:
    from ..kernel import procfs

    now = time.time()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
    return {
        "ociVersion": config["ociVersion"],
        "id": name,
        "pid": 0,
        "start": 0,
        "creator": (os.getpid(), procfs.start_time(os.getpid())),
        "bundle": bundle,
        "rootfs": os.path.realpath(os.path.join(bundle, config["root"]["path"])),
        "created": "%s.%09dZ" % (stamp, int(now % 1 * 1e9)),
        "annotations": config.get("annotations") or {},
        "owner": "",
        "cgroup": cgroup,
        "config": config,
    }


def _state_for_hooks(state: Mapping[str, Any]) -> dict[str, Any]:
    """What the specification gives hooks to read."""
    return {
        "ociVersion": state["ociVersion"],
        "id": state["id"],
        "status": state.get("status", states.CREATED),
        "pid": state["pid"],
        "bundle": state["bundle"],
        "annotations": state["annotations"],
    }


def _make_fifos(directory: str) -> tuple[int, int]:
    """``start`` writes into the first, and reads from the second what became of it. Held for reading and writing, so
    that neither end waits for the other. Only root may open them."""
    ends = []
    for name in (states.FIFO, RESULT):
        path = "%s/%s" % (directory, name)
        os.mkfifo(path, 0o600)
        ends.append(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    return ends[0], ends[1]


def _talk(
    directory: str, state: dict[str, Any], values: Mapping[str, Any], program: Optional[filters.Filter]
) -> launch.Talk:
    config = state["config"]

    def call_hooks(pid: int) -> None:
        shown = {**_state_for_hooks({**state, "pid": pid}), "status": states.CREATING}
        hooks.run(config, "prestart", shown)
        hooks.run(config, "createRuntime", shown)

    def ready(pid: int, start: int, terminal: int) -> None:
        if terminal >= 0 and values["console-socket"]:
            from .terminal import send_master

            send_master(values["console-socket"], terminal)
        state.update(pid=pid, start=start)
        states.save(directory, state)
        if values["pid-file"]:
            write_pid_file(values["pid-file"], pid)

    def listener(fd: int, pid: int) -> None:
        if program is not None:
            filters.hand_over(fd, program, _state_for_hooks(state), pid)

    return launch.Talk(call_hooks, ready, listener)


def write_pid_file(path: str, pid: int) -> None:
    """As a whole: whoever waits for the file must not read half a number."""
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, ".%s.%d" % (name, os.getpid()))
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            os.write(fd, b"%d" % pid)
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except OSError as error:
        raise KernelError.wrap(error, "Cannot write the pid file %s" % path, step="pid_file") from error


def _undo(
    context: Context, directory: str, config: Mapping[str, Any], state: dict[str, Any], cgroup: Optional[Cgroup]
) -> None:
    """A failed create leaves nothing; its poststop hooks give back what earlier hooks took."""
    if cgroup is not None:
        cgroup.remove(quiet=True)
    if hooks.of(config, "poststop"):
        for words in hooks.run_all(config, "poststop", {**_state_for_hooks(state), "status": states.STOPPED}):
            context.warn(words)
    from .lifecycle import remove_directory

    remove_directory(directory)
