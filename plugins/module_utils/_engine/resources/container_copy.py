# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ``container_copy`` module: files of the target host into a container, or out of one, and only what differs.

All the work is done by a child process: it may have to make a mount namespace of its own, or files as somebody else.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NoReturn, Optional

from ..errors import Conflict, DiskFull, KernelError, NotFound, UsageError
from ..reconcile.values import bad
from . import container_make as make
from .container_actual import is_starting, state
from .container_files import named, wanted
from .container_userns import context, ranges
from .task import Task

if TYPE_CHECKING:
    from ..runtime.inside import Stopped, View
    from ..storage.copying import Copier
    from ..storage.sides import Side
    from ..store.records import ContainerRecord, ImageRecord

_KERNELS = ("/proc", "/sys", "/dev")
_MADE = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf")  # and mounted over what the image has
_FULL = (28, 122)  # ENOSPC, EDQUOT
_SHOWN = 50  # files in a diff


def run(task: Task) -> dict[str, Any]:
    wish = _Request(task.params)
    record, image = wanted(task)
    lock: Any = nullcontext()
    if not _runs(state(task, record)):
        # Nobody starts it while its files are mounted here, and it is looked at again: somebody may have just now.
        changing = wish.into and not task.check_mode
        lock = task.store.lock("container", record.name, shared=not changing)
    with lock:
        record = named(task, record.id)
        facts = state(task, record)
        if not _runs(facts) and (isinstance(lock, nullcontext) or is_starting(facts)):
            raise Conflict(
                "Container %s is between two runs: nothing can be copied now" % record.name,
                step="copy",
                subject="container %s" % record.name,
                hint="wait for it with wharf.engine.container_wait",
            )
        work = _Work(task, record, image, wish, facts)
        from ..process import isolated

        found = isolated(work.run)
    if found["steps"] and not task.check_mode:
        event = "extract-to-dir" if wish.into else "archive-path"  # Docker's names
        task.store.events.add("container", event, record.id, {"name": record.name, "path": wish.inner})
    return _result(task, record, wish, found)


def _runs(facts: dict[str, Any]) -> bool:
    return facts["status"] in ("running", "paused")


class _Request:
    """The options, brought to one form. Raises ``UsageError``."""

    def __init__(self, params: dict[str, Any]) -> None:
        self.into = params["direction"] == "into"
        self.follow, self.local_follow = bool(params["follow"]), bool(params["local_follow"])
        self.force = params["force"]
        self.content = _content(params)
        self.inner = _absolute("container_path", params["container_path"])
        self.outer = "" if params["path"] is None else _absolute("path", params["path"])
        if self.content is not None and not self.into:
            raise bad("content", "...", "makes sense with direction into only")
        if self.content is None and not self.outer:
            raise UsageError("path is missing: it names the file on the host", step="validate", path="path")
        if self.content is not None and self.outer:
            raise UsageError("path and content are two sources: give one of them", step="validate", path="content")
        self.mode = _mode("mode", params["mode"])
        self.directory_mode = _mode("directory_mode", params["directory_mode"])
        if self.content is not None and self.mode is None:
            raise UsageError("mode is missing: content has none of its own", step="validate", path="mode")
        pair = params["owner_id"], params["group_id"]
        if (pair[0] is None) != (pair[1] is None):
            raise UsageError("owner_id and group_id go together: give both or none", step="validate", path="owner_id")
        for option, number in zip(("owner_id", "group_id"), pair):
            if number is not None and not 0 <= number < (1 << 32) - 1:
                raise bad(option, number, "is no id")
        self.owner: Optional[tuple[int, int]] = None if pair[0] is None else (pair[0], pair[1])
        self.to_directory = str(params["container_path"] if self.into else params["path"]).endswith("/")


def _content(params: dict[str, Any]) -> Optional[bytes]:
    text = params["content"]
    if text is None:
        return None
    if not params["content_is_b64"]:
        return bytes(text.encode("utf-8", "surrogateescape"))
    import base64
    import binascii

    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise UsageError("content is no Base64", step="validate", path="content") from None  # and is not repeated


def _absolute(option: str, path: str) -> str:
    if not path.startswith("/"):
        raise bad(option, path, "is not an absolute path")
    if "\0" in path:
        raise bad(option, path, "holds a NUL byte")
    return os.path.normpath("/" + path.lstrip("/"))


def _mode(option: str, value: Any) -> Optional[int]:
    """A number is what YAML made of 0644; text is octal, as everywhere in Ansible."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise bad(option, value, "is no file mode", "write it as text: '0644'")
    try:
        number = value if isinstance(value, int) else int(value, 8)
    except ValueError:
        raise bad(option, value, "is no octal file mode", "write it as '0644'") from None
    if not 0 <= number <= 0o7777:
        raise bad(option, value, "is no file mode")
    return number


class _Work:
    """What the child does. Only plain values leave it."""

    def __init__(
        self, task: Task, record: ContainerRecord, image: ImageRecord, wish: _Request, facts: dict[str, Any]
    ) -> None:
        self.task = task
        self.record = record
        self.wish = wish
        self.facts = facts
        self.running = _runs(facts)
        self.ids = ranges(record) or ()
        if self.ids and self.ids[0].outside == 0:  # keep-id: the same ids
            self.ids = ()
        self.user = record.spec.get("user") or make.image_config(image).get("User") or ""
        self._refuse_kernels([] if self.running else record.resolved["mounts"])
        self.tree = None if self.running else self._stopped(image)

    def _refuse_kernels(self, mounts: list[dict[str, Any]]) -> None:
        """What is the kernel's, by name; what leads there through links is found by its device. ``mounts``: of a
        stopped container, whose memory file systems do not exist."""
        name = self.record.name
        for place in _KERNELS:
            if _below(self.wish.inner, place) and not (self.running and _below(self.wish.inner, "/dev/shm")):
                self._refuse("%s in container %s is the kernel's, and holds no files to copy" % (place, name))
        if self.wish.into and not self.running and self.wish.inner in _MADE:
            self._refuse("%s is made from the container's options whenever it starts" % self.wish.inner)
        for mount in mounts:
            if mount["type"] == "tmpfs" and _below(self.wish.inner, mount["target"]):
                self._refuse("%s is a tmpfs, which is only there while container %s runs" % (mount["target"], name))

    def _refuse(self, why: str) -> NoReturn:
        subject = "container %s" % self.record.name
        raise UsageError("container_path: " + why, step="copy", subject=subject, path="container_path")

    def _stopped(self, image: ImageRecord) -> Stopped:
        from ..runtime import spec as oci
        from ..runtime.inside import Stopped
        from ..storage.shifted import NAME

        task, record = self.task, self.record
        mounts = record.resolved["mounts"]
        directory = task.paths.container(record.id)
        words = oci.id_words(context(task, record)) if self.ids else []
        return Stopped(
            make.layer_paths(task, image),
            directory + "/upper",
            directory + "/work",
            [oci.mount(make.host_mount(task, mount), words) for mount in mounts if mount["type"] != "tmpfs"],
            bool(record.spec.get("read_only")),
            "%s/%s" % (directory, NAME),
            self.ids,
            task.paths.run,
        )

    def run(self) -> dict[str, Any]:
        from ..kernel.syscalls import PR_SET_DUMPABLE

        kernel, where = self.task.kernel, "container %s" % self.record.name
        kernel.prctl(PR_SET_DUMPABLE, 0)  # a container that shares the host's processes sees this one
        os.umask(0o022)
        try:
            return self._copy()
        except OSError as error:
            kind = DiskFull if error.errno in _FULL else KernelError
            read_only = error.errno == 30 and self.wish.into
            hint = "The container's root, or what is mounted there, is read-only." if read_only else None
            sentence = "Cannot copy %s %s" % ("into" if self.wish.into else "out of", where)
            raise kind.wrap(error, sentence, step="copy", subject=where, hint=hint) from error

    def _copy(self) -> dict[str, Any]:
        from ..runtime import inside
        from ..storage.copying import Copier, Wish
        from ..storage.sides import Side

        task, wish, kernel = self.task, self.wish, self.task.kernel
        writing = not task.check_mode
        # The host's side first: in a stopped container's namespace something of it is covered.
        host = Side(kernel, os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), "on the host")
        outer = None if wish.content is not None else host.locate(wish.outer, wish.local_follow)
        view = self._view(writing and wish.into)
        name = "in container %s" % self.record.name
        side = Side(kernel, view.root, name, inside=True, ids=self.ids, refused=view.refused)
        inner = side.locate(wish.inner, wish.follow)
        owner = wish.owner if wish.owner is not None else self._default_owner(view)
        source, target, at = (host, side, (outer, inner)) if wish.into else (side, host, (inner, outer))
        copier = Copier(
            source,
            target,
            Wish(
                owner,
                wish.mode,
                wish.directory_mode,
                # A container's set-id program must not become one of the host's.
                0o7777 if wish.into else 0o777,
                wish.force,
                wish.owner is not None or wish.directory_mode is not None,
            ),
            content=wish.content,
        )
        begin, end = at[0] or inner, at[1] or inner
        path = wish.inner if wish.into else wish.outer
        there = source.look(begin) if wish.content is None else None
        if wish.content is None and there is None:
            self._missing(source)
        if wish.to_directory and path != "/" and (there is None or there.kind != "directory"):
            option = "container_path" if wish.into else "path"
            raise bad(option, path + "/", "names a directory, and a file is to be copied", "name the file itself")
        copier.look(begin, end, path, text=wish.content is None)
        if writing and self.running and wish.into:
            inside.enter(kernel, view, self.facts["pid"], self.ids)
        if writing:
            copier.apply(begin, end, path)
        return _found(copier)

    def _missing(self, source: Side) -> None:
        option, path = ("path", self.wish.outer) if self.wish.into else ("container_path", self.wish.inner)
        raise NotFound(
            "%s: there is no %s %s" % (option, path, source.words),
            step="copy",
            subject="container %s" % self.record.name,
            path=option,
        )

    def _view(self, writable: bool) -> View:
        from ..runtime import inside

        if self.tree is not None:
            return inside.stopped(self.task.kernel, self.tree, writable=writable)
        return inside.running(self.task.kernel, self.facts["pid"], self.facts["pid_start"])

    def _default_owner(self, view: View) -> tuple[int, int]:
        """On the host root's; in the container who its command runs as, from its own passwd."""
        if not self.wish.into:
            return os.geteuid(), os.getegid()
        from ..runtime import users

        identity = users.resolve(self.task.kernel, view.root, self.user)
        return identity.uid, identity.gid


def _below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _found(copier: Copier) -> dict[str, Any]:
    return {"steps": copier.steps, "left_out": copier.left_out, "texts": copier.texts[:_SHOWN]}


def _result(task: Task, record: ContainerRecord, wish: _Request, found: dict[str, Any]) -> dict[str, Any]:
    steps = found["steps"]
    actions = [
        {
            "how": s["how"],
            "kind": s["detail"].get("kind", "file"),
            "name": s["path"],
            "why": s["why"],
            "detail": s["detail"],
        }
        for s in steps
    ]
    diff: list[dict[str, Any]] = list(found["texts"])
    shown = {text["after_header"] for text in diff}
    before, after = {}, {}
    for step in steps:
        if step["path"] not in shown or step["how"] == "attributes":
            before[step["path"]], after[step["path"]] = _sides(step)
    if before or after or not diff:
        diff.append({"before": before, "after": after})
    if found["left_out"]:
        listed = ", ".join(found["left_out"][:5]) + (", ..." if len(found["left_out"]) > 5 else "")
        task.warn("Not copied, being no files, directories or links: %s" % listed)
    return {
        "changed": bool(steps),
        "container": record.name,
        "container_path": wish.inner,
        "path": wish.outer or None,
        "actions": actions,
        "diff": diff[0] if len(diff) == 1 else diff,
    }


def _sides(step: dict[str, Any]) -> tuple[Any, Any]:
    """What ``--diff`` says of an entry whose text is not shown."""
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    for name, value in step["detail"].items():
        if isinstance(value, dict):
            before[name], after[name] = value["before"], value["after"]
        else:
            after[name] = value
    if step["how"] == "create":
        return None, after
    if "content" in step["why"] or "force" in step["why"]:
        before["content"], after["content"] = "(other)", "(new)"
    return before, after
