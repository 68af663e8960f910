# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""``exec``: one more program in a container; its process comes from a file or from the options."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import Conflict, NotFound, UsageError, WharfError
from ..kernel import apparmor, pidfd
from ..kernel.syscalls import PR_SET_DUMPABLE, Kernel
from ..runtime import finalize
from . import argv, config, filters, join, launch, states

if TYPE_CHECKING:
    from .main import Context


def run(context: Context, values: dict[str, Any], words: Sequence[str]) -> int:
    name = words[0]
    state = states.load(context.root, name)
    now = states.status(context.root, state)
    if now in (states.STOPPED, states.CREATING):
        raise Conflict("cannot exec in a stopped container", subject=name)
    if now == states.PAUSED and not values["ignore-paused"]:
        raise Conflict("cannot exec in a paused container (use --ignore-paused to override)", subject=name)
    process = _process(state["config"], values, words[1:])
    config.check_process(process, "process")
    _check_terminal(values, process)
    kernel = Kernel()
    # Inherited by what we clone: nobody in the container may look into it (CVE-2019-5736).
    kernel.prctl(PR_SET_DUMPABLE, 0)
    plan = join.Plan(
        config=state["config"],
        process=process,
        pidfd=_open_first(state),
        flags=join.foreign(int(state["pid"])),
        groups=tuple(_directories(states.cgroup(state), values["cgroup"])),
        program=filters.compile_filter(state["config"]["linux"].get("seccomp"), kernel.machine),
        interpreter=finalize.interpreter_identity(),
        preserve=max(0, values["preserve-fds"]),
        apparmor=apparmor.choose(process) if process.get("apparmorProfile") else "",
    )
    catcher = None
    if not values["detach"]:
        from . import foreground

        catcher = foreground.Catcher()
    try:
        child = join.start(kernel, plan, lambda terminal: _send(values, terminal), _listener(state, plan))
    except WharfError as error:
        error.msg = "exec failed: " + launch.as_start_error(error).msg
        raise
    finally:
        os.close(plan.pidfd)
    if values["pid-file"]:
        from .create import write_pid_file

        write_pid_file(values["pid-file"], child.pid)
    if catcher is None:
        return 0
    return foreground.follow(child, catcher)


def _open_first(state: Mapping[str, Any]) -> int:
    fd = pidfd.open_pid(int(state["pid"]), int(state["start"]))
    if fd is None:
        raise Conflict("cannot exec in a stopped container", subject=state["id"])
    return fd


def _process(container: Mapping[str, Any], values: Mapping[str, Any], words: Sequence[str]) -> dict[str, Any]:
    if values["process"]:
        try:
            with open(values["process"], "rb") as stream:
                found = json.loads(stream.read())
        except OSError as error:
            raise UsageError("Cannot read %s: %s" % (values["process"], error.strerror), path="process") from None
        except ValueError as error:
            raise UsageError("%s is not valid JSON: %s" % (values["process"], error), path="process") from None
        if not isinstance(found, dict):
            raise UsageError("%s: an object is needed" % values["process"], path="process")
        process = found
    else:
        if not words:
            raise UsageError("process args cannot be empty", path="process.args")
        process = _from_options(container["process"], values, words)
    # Of the container, not of one program in it.
    for key in ("oomScoreAdj", "scheduler", "ioPriority", "execCPUAffinity"):
        if process.get(key) is None and container["process"].get(key) is not None:
            process[key] = container["process"][key]
    return process


def _from_options(base: Mapping[str, Any], values: Mapping[str, Any], words: Sequence[str]) -> dict[str, Any]:
    process: dict[str, Any] = {**base, "args": list(words), "terminal": values["tty"]}
    process.pop("consoleSize", None)
    if values["process-label"]:
        process["selinuxLabel"] = values["process-label"]
    if values["apparmor"]:
        process["apparmorProfile"] = values["apparmor"]
    if values["no-new-privs"]:
        process["noNewPrivileges"] = True
    if values["cwd"]:
        process["cwd"] = values["cwd"]
    process["env"] = [*(base.get("env") or ()), *values["env"]]
    if values["cap"]:
        caps = dict(base.get("capabilities") or {})
        for key in ("bounding", "effective", "permitted"):
            caps[key] = list(dict.fromkeys([*(caps.get(key) or ()), *values["cap"]]))
        process["capabilities"] = caps
    if values["user"]:
        uid, colon, gid = values["user"].partition(":")
        process["user"] = {**(base.get("user") or {}), "uid": argv.number(uid, "user"), "additionalGids": []}
        if colon:
            process["user"]["gid"] = argv.number(gid, "user")
    if values["additional-gids"]:
        gids = [argv.number(word, "additional-gids") for word in values["additional-gids"]]
        process["user"] = {**process["user"], "additionalGids": [*(process["user"].get("additionalGids") or ()), *gids]}
    return process


def _check_terminal(values: Mapping[str, Any], process: Mapping[str, Any]) -> None:
    terminal = bool(process.get("terminal"))
    if terminal and values["detach"] and not values["console-socket"]:
        raise UsageError(
            "cannot allocate tty if runc will detach without setting console socket", path="console-socket"
        )
    if values["console-socket"] and not (terminal and values["detach"]):
        raise UsageError("cannot use console socket if runc will not detach or allocate tty", path="console-socket")
    for fd in range(3, 3 + max(0, values["preserve-fds"])):
        try:
            os.fstat(fd)
        except OSError:
            raise UsageError("--preserve-fds: descriptor %d is not open" % fd, path="preserve-fds") from None


def _send(values: Mapping[str, Any], terminal: int) -> None:
    if values["console-socket"]:
        from .terminal import send_master

        send_master(values["console-socket"], terminal)


def _listener(state: Mapping[str, Any], plan: join.Plan) -> Any:
    from .lifecycle import for_hooks

    def take(fd: int, pid: int) -> None:
        if plan.program is not None:
            filters.hand_over(fd, plan.program, for_hooks(dict(state), states.RUNNING), pid)

    return take


def _directories(group: Any, wanted: Sequence[str]) -> list[tuple[str, int]]:
    """``(directory, version)`` of the cgroups to enter, the unified one first. ``wanted``: ``[controller:]path`` below
    the container's."""
    if group is None:
        return []
    below = {}
    for word in wanted:
        names, colon, path = word.rpartition(":")
        for name in names.split(",") if colon else ("",):
            below[name] = os.path.normpath("/" + path.lstrip("/")).strip("/")
    found = []
    for hierarchy in sorted(group.layout.hierarchies, key=lambda h: -h.version):
        path = group.layout.directory(hierarchy.mountpoint, group.path)
        extra = next((below[name] for name in hierarchy.controllers if name in below), below.get("", ""))
        if extra and (hierarchy.version == 2 or any(name in below for name in hierarchy.controllers) or "" in below):
            path += "/" + extra
            if not os.path.isdir(path):
                raise NotFound("--cgroup: %s does not exist" % path, path="cgroup")
        found.append((path, hierarchy.version))
    return found
