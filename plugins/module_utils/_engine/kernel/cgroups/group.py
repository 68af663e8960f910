# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""One container's cgroup in every hierarchy of the host.

Unified hierarchy (v2 and hybrid): ``<path>`` holds the limits and no process, ``<path>/ctr`` the container's PID 1 and
what it starts, ``<path>/exec-<id>`` one exec each, so that an exec can be killed whole and alone. ``ctr`` repeats the
limits: it is ``/`` in the container's cgroup namespace, and run-times size their heaps by what they read there.
v1 hierarchies: ``<path>``, with everything in it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any, Optional

from ...errors import InUse, KernelError, Unsupported, UsageError
from . import v1, v2
from .files import Write
from .layout import V2_CONTROLLERS, Layout
from .resources import OPTIONS, expected, hint, taken_back

LEAF = "ctr"

_MIRRORED = ("memory.max", "memory.swap.max", "cpu.max", "pids.max")
_EINVAL, _EBUSY, _ENOENT, _ENODEV = 22, 16, 2, 19
# Options that ``expected`` depends on, too, or that name devices which may be gone.
_FURTHER = frozenset(
    ("cpu_quota", "cpu_period", "device_read_bps", "device_write_bps", "device_read_iops", "device_write_iops")
)


class Cgroup:
    """``path`` is relative to the layout's base in every hierarchy, e.g. ``wharf/<container id>``."""

    __slots__ = ("files", "layout", "path")

    def __init__(self, layout: Layout, path: str) -> None:
        parts = path.split("/")
        if not path or any(part in ("", ".", "..") for part in parts):
            raise UsageError("%r is not the path of a cgroup" % path, path="cgroup")
        self.layout = layout
        self.path = path
        self.files = layout.files

    # -- where things are ------------------------------------------------------------------------------------

    def directory(self, controller: str) -> Optional[str]:
        """This cgroup's directory in the hierarchy of ``controller``; ``None`` where the host has no such one."""
        found = self.layout.controllers.get(controller)
        return None if found is None else self.layout.directory(found[1], self.path)

    def unified(self, leaf: str = "") -> Optional[str]:
        """This cgroup's directory (or a leaf's) in the unified hierarchy."""
        if self.layout.unified is None:
            return None
        path = self.layout.directory(self.layout.unified, self.path)
        return path + "/" + leaf if leaf else path

    def directories(self) -> list[str]:
        """In every hierarchy, the unified one first."""
        ordered = sorted(self.layout.hierarchies, key=lambda h: -h.version)
        return [self.layout.directory(h.mountpoint, self.path) for h in ordered]

    def exists(self) -> bool:
        layout = self.layout
        return any(self.files.exists(layout.directory(h.mountpoint, self.path)) for h in layout.hierarchies)

    def _read(self, controller: str, file: str) -> Optional[str]:
        directory = self.directory(controller)
        return None if directory is None else self.files.value(directory + "/" + file)

    def _read_parent(self, controller: str, file: str) -> Optional[str]:
        directory = self.directory(controller)
        if directory is None:
            return None
        path, common = os.path.dirname(directory) + "/" + file, self.layout.common
        if path not in common:
            common[path] = self.files.value(path)
        return common[path]

    def _controllers(self, version: int) -> set[str]:
        return {name for name, found in self.layout.controllers.items() if found[0] == version}

    # -- life ------------------------------------------------------------------------------------------------

    def create(self, leaf: str = LEAF) -> None:
        """Make it everywhere; what exists is kept. ``leaf`` "": the processes go right into it.
        Raises ``KernelError`` and leaves nothing half-made."""
        made: list[str] = []
        try:
            for hierarchy in self.layout.hierarchies:
                if hierarchy.version == 1:
                    self._create_v1(hierarchy.mountpoint, "cpuset" in hierarchy.controllers, made)
                else:
                    wanted = set(V2_CONTROLLERS) & set(hierarchy.controllers)
                    self._create_v2(hierarchy.mountpoint, wanted, leaf, made)
        except OSError as error:
            # Only what is new and empty goes: an older cgroup of this name may hold a running container.
            for directory in reversed(made):
                try:
                    self.files.rmdir(directory)
                except OSError:  # the cause is already being reported
                    continue
            raise KernelError.wrap(
                error, "Cannot create the cgroup %s" % self.path, step="create_cgroup", subject=self.path
            ) from error

    def _mkdir(self, directory: str, made: list[str]) -> None:
        if self.files.mkdir(directory):
            made.append(directory)

    def _chain(self, mountpoint: str) -> list[str]:
        """Directories from the base (exclusive) down to this cgroup."""
        here = self.layout.directory(mountpoint, "")
        chain = []
        for part in self.path.split("/"):
            here += "/" + part
            chain.append(here)
        return chain

    def _create_v1(self, mountpoint: str, cpuset: bool, made: list[str]) -> None:
        for directory in self._chain(mountpoint):
            self._mkdir(directory, made)
            if cpuset:
                self._seed(directory)

    def _seed(self, directory: str) -> None:
        """A v1 cpuset starts empty and then takes no process (ENOSPC): give it what its parent has."""
        for file in ("cpuset.cpus", "cpuset.mems"):
            if not self.files.read(directory + "/" + file):
                self.files.write(directory + "/" + file, self.files.read(os.path.dirname(directory) + "/" + file))

    def _create_v2(self, mountpoint: str, wanted: set[str], leaf: str, made: list[str]) -> None:
        parent = self.layout.directory(mountpoint, "")
        for directory in [*self._chain(mountpoint), ""] if leaf else self._chain(mountpoint):
            if wanted:
                self._enable(parent, wanted)
            if directory:
                self._mkdir(directory, made)
                parent = directory
        if leaf:
            self._mkdir(parent + "/" + leaf, made)

    def _enable(self, directory: str, wanted: set[str]) -> None:
        """Switch controllers on for the children of ``directory``, as far as they are available there."""
        on = set(self.files.read(directory + "/cgroup.subtree_control").split())
        there = set(self.files.read(directory + "/cgroup.controllers").split())
        missing = sorted((wanted & there) - on)
        if not missing:
            return
        control = directory + "/cgroup.subtree_control"
        try:
            self.files.write(control, " ".join("+" + name for name in missing))
        except OSError as error:
            if error.errno == _EBUSY:
                raise
            for name in missing:  # one that cannot be had (cpu with realtime processes about) must not cost the rest
                try:
                    self.files.write(control, "+" + name)
                except OSError as single:
                    if single.errno not in (_EINVAL, _ENOENT):
                        raise

    def add_leaf(self, leaf: str) -> None:
        """A sibling of ``ctr`` for an exec (``exec-<id>``); nothing to do without a unified hierarchy."""
        directory = self.unified(leaf)
        if directory is not None:
            try:
                self.files.mkdir(directory)
            except OSError as error:
                raise KernelError.wrap(
                    error, "Cannot create the cgroup %s" % directory, step="create_cgroup"
                ) from error

    def fd_v2(self, leaf: str = LEAF) -> Optional[int]:
        """Directory descriptor for ``clone3(CLONE_INTO_CGROUP)``; ``None`` without a unified hierarchy."""
        directory = self.unified(leaf)
        if directory is None:
            return None
        try:
            return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise KernelError.wrap(error, "Cannot open the cgroup %s" % directory, step="open_cgroup") from error

    def join(self, pid: int, leaf: str = LEAF, *, unified: bool = True) -> None:
        """Move a whole process in. Each hierarchy may cost milliseconds (the kernel waits for an RCU grace period):
        the start path uses ``clone3`` and ``join_self`` instead."""
        for directory, version in self._join_order(leaf, unified):
            self._move(directory + "/cgroup.procs", str(pid), version)

    def join_self(self, leaf: str = LEAF, *, unified: bool = True) -> None:
        """Move the calling process, which must have one thread only, in. ``unified=False`` when ``clone3`` put it
        there already: then no global lock is taken at all, 0.4 ms instead of 7 for seven hierarchies."""
        for directory, version in self._join_order(leaf, unified):
            self._move(directory + ("/tasks" if version == 1 else "/cgroup.procs"), "0", version)

    def _join_order(self, leaf: str, unified: bool) -> list[tuple[str, int]]:
        order = []
        for hierarchy in sorted(self.layout.hierarchies, key=lambda h: -h.version):
            directory = self.layout.directory(hierarchy.mountpoint, self.path)
            if hierarchy.version == 1:
                order.append((directory, 1))
            elif unified:
                order.append((directory + "/" + leaf if leaf else directory, 2))
        return order

    def _move(self, path: str, pid: str, version: int) -> None:
        for attempt in range(6):
            try:
                self.files.write(path, pid)
                return
            except OSError as error:
                # EINVAL for a moment after fork, while the task is not yet runnable (TASK_NEW).
                if error.errno == _EINVAL and attempt < 5:
                    time.sleep(0.03)
                    continue
                why = "The v1 cpuset of the cgroup is empty." if error.errno == 28 and version == 1 else None
                raise KernelError.wrap(
                    error, "Cannot move process %s to %s" % (pid, path), step="join_cgroup", subject=self.path, hint=why
                ) from error

    # -- limits ----------------------------------------------------------------------------------------------

    def apply(self, resources: Mapping[str, Any]) -> list[str]:
        """Set what OCI ``linux.resources`` names (``devices`` excepted: see ``kernel.devices``), leave the rest.

        Returns warnings (what this kernel cannot do and is no loss). Raises ``Unsupported`` for a controller the host
        lacks, ``UsageError``, ``KernelError`` with ``path`` = the option; after a failure the old values are restored.
        """
        return self._run(self.writes(resources))

    def update(self, resources: Mapping[str, Any], before: Optional[Mapping[str, Any]] = None) -> list[str]:
        """Make the limits exactly these: what ``resources`` does not name goes back to unlimited. ``before``: the
        resources until now, for those limits of which only that tells that they are set (rates of devices)."""
        self.check_memory(resources)
        wanted = taken_back(before, resources) if before else resources
        return self._run(self.writes(self._complete(wanted)), changed_only=True)

    def _complete(self, resources: Mapping[str, Any]) -> dict[str, Any]:
        merged: dict[str, Any] = {
            key: dict(value) if isinstance(value, dict) else value for key, value in resources.items()
        }
        sections = {"memory": "memory", "shares": "cpu", "quota": "cpu", "cpus": "cpuset", "mems": "cpuset"}
        sections["limit"] = "pids"
        for version, base in ((1, v1.defaults(self._read_parent)), (2, v2.defaults())):
            mine = self._controllers(version)
            for section, values in base.items():
                target = merged.setdefault(section, {})
                for key, value in values.items():
                    controller = section if section in ("memory", "pids") else sections.get(key, "cpu")
                    if controller in mine and target.get(key) is None and value is not None:
                        target[key] = value
        return merged

    def check_memory(self, resources: Mapping[str, Any]) -> None:
        """v2 answers a limit below usage with the OOM killer, v1 with EBUSY: here both raise ``KernelError``."""
        limit = (resources.get("memory") or {}).get("limit")
        if limit is None or limit < 0 or self.layout.controllers.get("memory", (0, ""))[0] != 2:
            return
        usage = v1.number(self._read("memory", "memory.current")) or 0
        firm = usage - (v2.reclaimable(self._read) or 0)
        if firm > limit:
            raise KernelError(
                "Cannot lower memory to %d bytes: the container uses %d now" % (limit, firm),
                step="set_limit",
                subject=self.path,
                path="memory",
                errno=_EBUSY,
            )

    def writes(self, resources: Mapping[str, Any]) -> list[Write]:
        """What ``resources`` mean for the files of this host's controllers. Raises ``Unsupported``, ``UsageError``."""
        found, wanted, done = [], {}, set()
        for version, module in ((1, v1), (2, v2)):
            mine = self._controllers(version)
            for write in module.writes(resources, self._read):
                wanted[write.option] = write
                if write.controller in mine:
                    found.append(write)
                    done.add(write.option)
        for option, write in wanted.items():
            if option not in done and not (write.optional and write.value in ("-1", "max")):
                raise Unsupported(
                    "This host's kernel has no %s controller, so %s cannot be set" % (write.controller, option),
                    step="set_limit",
                    path=option,
                    hint="Controllers here: %s" % (", ".join(sorted(self.layout.controllers)) or "none"),
                )
        return found

    def _run(self, writes: list[Write], *, changed_only: bool = False) -> list[str]:
        warnings: list[str] = []
        undo: list[tuple[str, str]] = []
        for write in writes:
            for path in self._targets(write):
                old = self.files.value(path)
                if changed_only and old == write.value:
                    continue
                try:
                    if old is None and write.optional:
                        if write.value not in ("-1", "max", "0"):
                            warnings.append("%s is not enforced: this kernel has no %s" % (write.option, write.file))
                        continue
                    self.files.write(path, write.value)
                    if old is not None:
                        undo.append((path, old))
                except OSError as error:
                    self._undo(undo)
                    raise self._refused(write, error) from error
        return warnings

    def _targets(self, write: Write) -> list[str]:
        directory = self.directory(write.controller)
        if directory is None:
            return []
        paths = [directory + "/" + write.file]
        if self.layout.controllers[write.controller][0] == 2 and write.file in _MIRRORED:
            leaf = "%s/%s/%s" % (directory, LEAF, write.file)
            paths += [leaf] if self.files.exists(leaf) else []
        return paths

    def _undo(self, undo: list[tuple[str, str]]) -> None:
        for path, value in reversed(undo):
            try:
                self.files.write(path, value)
            except OSError:  # the first failure is what is reported; this one has the same cause
                continue

    def _refused(self, write: Write, error: OSError) -> KernelError:
        failure = KernelError.wrap(
            error,
            "Cannot set %s: the kernel refused %r for %s" % (write.option, write.value, write.file),
            step="set_limit",
            subject=self.path,
            hint=hint(write.option, error.errno or 0),
        )
        failure.path = write.option
        return failure

    def read(self) -> dict[str, Any]:
        """The limits the kernel has, as options: ``memory memory_swap memory_reservation`` (bytes), ``cpus``,
        ``cpu_shares``, ``cpuset_cpus``, ``cpuset_mems``, ``pids_limit``. ``None``: unlimited, or the default."""
        return self._limits(self._read)

    def _limits(self, read: v1.Reader) -> dict[str, Any]:
        found: dict[str, Any] = dict.fromkeys(OPTIONS)
        found.update(v1.limits(read, self._read_parent, self._controllers(1)))
        found.update(v2.limits(read, self._controllers(2)))
        return found

    def expected(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """What ``read`` gives once the task's ``options`` are in force (see ``resources.expected``)."""
        version = {name: found[0] for name, found in self.layout.controllers.items()}
        file = "memory.swap.max" if version.get("memory") == 2 else "memory.memsw.limit_in_bytes"
        common = self.layout.common
        if file not in common:
            common[file] = self._read("memory", file)
        wanted = expected(options, version=version, swap=common[file] is not None)
        for option, file in (("cpuset_cpus", "cpuset.cpus"), ("cpuset_mems", "cpuset.mems")):
            # In v1 "all the parent has" and "nothing asked" are the same.
            if version.get("cpuset") == 1 and wanted[option] and wanted[option] == self._read_parent("cpuset", file):
                wanted[option] = None
        return wanted

    def drift(self, options: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        """Option → (should be, is) for every limit that is not what ``options`` ask for."""
        return self._judge(self._read, options)

    def _judge(self, read: v1.Reader, options: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        is_, should = self._limits(read), self.expected(options)
        return {name: (should[name], is_[name]) for name in should if not _same(should[name], is_[name])}

    def changed(self, options: Mapping[str, Any]) -> Optional[dict[str, tuple[Any, Any]]]:
        """``drift``; None when there is no such cgroup. Of many with the same limits whose files read alike, one is
        thought about: all of them are read."""
        key = (os.path.dirname(self.path), *[options.get(name) for name in OPTIONS])
        plain = _FURTHER.isdisjoint(options)
        known = self.layout.judged.get(key) if plain else None
        if known is not None:
            value, path = self.files.value, self.path
            if [value(top + path + file) for top, file in known[0]] == known[1]:
                return known[2]
        if not self.exists():
            return None
        files: list[tuple[str, str]] = []
        texts: list[Optional[str]] = []

        def read(controller: str, file: str) -> Optional[str]:
            text = self._read(controller, file)
            if controller in self.layout.controllers:
                files.append((self.layout.directory(self.layout.controllers[controller][1], "") + "/", "/" + file))
                texts.append(text)
            return text

        drift = self._judge(read, options)
        if plain and any(text is not None for text in texts):
            self.layout.judged[key] = files, texts, drift
        return drift

    # -- figures ---------------------------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """``cpu {usage_ns user_ns system_ns periods throttled_periods throttled_ns}``, ``memory {usage working_set
        inactive_file anon file swap max_usage limit oom_kills}``, ``pids {current limit}``, ``io [{major minor
        read_bytes write_bytes read_ops write_ops}]``; a section is absent where its controller is."""
        found = v1.stats(self._read, self._controllers(1))
        found.update(v2.stats(self._read, self._controllers(2)))
        return found

    def memory_stat(self) -> dict[str, int]:
        """The lines of ``memory.stat``, whichever version it is of."""
        from .files import keyed

        return keyed(self._read("memory", "memory.stat"))

    def oom_kill_count(self) -> int:
        """How often the kernel killed in this cgroup for lack of memory, ever."""
        from .events import oom_kills

        return oom_kills(self)

    def processes(self) -> list[int]:
        """Every process in it, in all its children and hierarchies (as seen from the caller's pid namespace)."""
        from .control import processes

        return processes(self)

    # -- control: see control.py -----------------------------------------------------------------------------

    def kill_all(self, leaf: str = "", timeout: float = 10.0) -> bool:
        """SIGKILL to all (of one leaf only: an exec's), and wait. False when some are left after ``timeout`` s."""
        from .control import kill_all

        return kill_all(self, leaf, timeout)

    def freeze(self, timeout: float = 10.0) -> None:
        """Stop every process where it is. Raises ``KernelError`` (after thawing) when that does not succeed in time."""
        from .control import freeze

        freeze(self, timeout)

    def thaw(self) -> None:
        from .control import thaw

        thaw(self)

    def is_frozen(self) -> bool:
        from .control import is_frozen

        return is_frozen(self)

    def remove(self, timeout: float = 5.0, *, quiet: bool = False) -> None:
        """Kill what is in it, remove it everywhere. No error when it is gone already. Raises ``InUse`` when something
        stays (unless ``quiet``: the next one to come removes it)."""
        from .control import remove

        left = remove(self, timeout)
        if left and not quiet:
            raise InUse(
                "The cgroup %s cannot be removed: processes are still in it" % left,
                step="remove_cgroup",
                subject=self.path,
                path=left,
                hint="A process in uninterruptible sleep (state D) ends only when its device answers.",
            )

    def remove_leaf(self, leaf: str, timeout: float = 5.0) -> bool:
        """Kill and remove an exec's leaf; False when it could not be."""
        from .control import remove_leaf

        return remove_leaf(self, leaf, timeout)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) < 1e-9
    return bool(one == other)
