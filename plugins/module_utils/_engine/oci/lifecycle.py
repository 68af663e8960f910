# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""``start`` and ``delete``."""

from __future__ import annotations

import fcntl
import json
import os
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import Conflict, InUse, KernelError, NotFound, StateError, WharfError
from ..kernel import pidfd as pidfds
from . import hooks, states

if TYPE_CHECKING:
    from .main import Context


class Lock:
    """Of one container: two who start or delete it come one after the other."""

    def __init__(self, root: str, name: str) -> None:
        self.path = states.directory(root, name)
        self.name = name
        self.fd = -1

    def __enter__(self) -> Lock:
        try:
            self.fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            raise NotFound("container %s does not exist" % self.name, subject=self.name) from None
        fcntl.flock(self.fd, fcntl.LOCK_EX)
        return self

    def __exit__(self, *_exc: object) -> None:
        os.close(self.fd)


def start(context: Context, _values: dict[str, Any], words: Sequence[str]) -> int:
    name = words[0]
    with Lock(context.root, name) as lock:
        state = states.load(context.root, name)
        now = states.status(context.root, state)
        if now == states.STOPPED:
            raise Conflict("cannot start a container that has stopped", subject=name)
        if now != states.CREATED:
            raise Conflict("cannot start a container in the %s state" % now, subject=name)
        _release(lock.path)
    if hooks.of(state["config"], "poststart"):
        try:
            hooks.run(state["config"], "poststart", for_hooks(state, states.RUNNING))
        except WharfError:
            destroy(context, state, force=True)
            raise
    return 0


def _release(directory: str) -> None:
    """Let init go on, and learn whether its program runs: the result's end says so, an error is told in it."""
    from ..runtime import wire

    fifo, result = directory + "/" + states.FIFO, directory + "/start.result"
    try:
        answers = os.open(result, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fd = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.write(fd, b"0")
            finally:
                os.close(fd)
            os.unlink(fifo)
            os.unlink(result)
            os.set_blocking(answers, True)
            text = b""
            while True:
                data = os.read(answers, 4096)
                if not data:
                    break
                text += data
        finally:
            os.close(answers)
    except OSError as error:
        raise KernelError.wrap(error, "Cannot start: the container's first process has gone", step="start") from error
    if text:
        from .launch import as_start_error

        try:
            failure = wire.error_from_dict(json.loads(text)["error"])
        except ValueError:
            failure = WharfError(text.decode(errors="replace"))
        raise as_start_error(failure)


def for_hooks(state: dict[str, Any], status: str) -> dict[str, Any]:
    return {
        "ociVersion": state["ociVersion"],
        "id": state["id"],
        "status": status,
        "pid": 0 if status == states.STOPPED else state["pid"],
        "bundle": state["bundle"],
        "annotations": state.get("annotations") or {},
    }


def delete(context: Context, values: dict[str, Any], words: Sequence[str]) -> int:
    name, force = words[0], values["force"]
    try:
        with Lock(context.root, name):
            _delete(context, name, force)
    except NotFound:
        if not force:
            raise
    return 0


def _delete(context: Context, name: str, force: bool) -> None:
    try:
        state = states.load(context.root, name)
    except (NotFound, StateError):
        if not force:
            raise
        remove_directory(states.directory(context.root, name))  # of a create that was killed before it wrote anything
        return
    now = states.status(context.root, state)
    if now not in (states.STOPPED, states.CREATED) and not force:
        raise InUse(
            "cannot delete container %s that is not stopped: %s" % (name, now),
            subject=name,
            hint="Kill it first, or use --force.",
        )
    destroy(context, state, force=True)


def destroy(context: Context, state: dict[str, Any], *, force: bool) -> None:
    """The process, the cgroup, the directory; then the poststop hooks. Raises ``InUse`` when something cannot end."""
    if force and states.is_alive(state):
        fd = pidfds.open_pid(int(state["pid"]), int(state["start"]))
        if fd is not None:
            try:
                group = states.cgroup(state)
                if group is not None and group.is_frozen():
                    group.thaw()
                pidfds.send_signal(fd, signal.SIGKILL)
                if not pidfds.wait(fd, 10.0):
                    raise InUse(
                        "The container's first process does not end",
                        subject=state["id"],
                        hint="A process in uninterruptible sleep (state D) ends only when its device answers.",
                    )
            finally:
                os.close(fd)
    group = states.cgroup(state)
    if group is not None:
        group.remove()  # with whatever still runs in it: without a pid namespace of its own not all died with the first
        if state["cgroup"].get("scope"):
            from . import systemd

            systemd.stop(state["cgroup"]["scope"])
    remove_directory(states.directory(context.root, state["id"]))
    if hooks.of(state["config"], "poststop"):
        for words in hooks.run_all(state["config"], "poststop", for_hooks(state, states.STOPPED)):
            context.warn(words)


def remove_directory(path: str) -> None:
    try:
        for name in os.listdir(path):
            os.unlink("%s/%s" % (path, name))
        os.rmdir(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise KernelError.wrap(error, "Cannot remove %s" % path, step="delete") from error
