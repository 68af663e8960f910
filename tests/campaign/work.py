# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tasks of a campaign: what a round's task does, what it touches, and what must be true of it afterwards."""

from __future__ import annotations

import contextlib
import os
import random
import tarfile
from collections.abc import Callable, Iterable
from typing import Optional

from helpers.engine import Engine
from module_utils._engine.errors import WharfError

from campaign.model import NETWORK, SECOND, Slot

_PASSING = ("commit", "import", "pull", "archive", "network", "volume", "prune")  # what may leave something to tidy

# "many" and "one" carry out changed wishes; the others do one thing to a container, or to no container at all.
KINDS = (
    "many", "many", "many", "one", "one", "one", "exec", "write", "copy", "restart", "pause", "kill", "rename",
    "commit", "export", "import", "pull", "archive", "network", "volume", "prune",
)  # fmt: skip
BESIDE = ("", "", "exec", "look", "prune", "again")  # what goes on at the same time, and is not to be hit
_COPIED = 2000  # lines


class Work:
    """``run`` is the task; ``touched`` the names of slots that it may leave in another state than they were in.
    ``repair`` is done before the next task for everything, ``check(ended, fault)`` after it.
    ``kind``: the first word."""

    def __init__(self, what: str, run: Callable[[], object], touched: Iterable[str] = ()) -> None:
        self.what, self.run, self.touched = what, run, set(touched)
        self.kind = what.split(" ")[0]
        self.repair: Callable[[], object] = lambda: None
        self.check: Callable[[int, str], list[str]] = lambda _ended, _fault: []


class Unfinished(WharfError):
    """The task could not do what it was to do, for a reason that is the fault's."""


class Works:
    def __init__(self, engine: Engine, slots: list[Slot], reference: str) -> None:
        """``reference``: an image in a registry."""
        self.engine, self.slots, self.reference = engine, slots, reference

    def choose(self, rng: random.Random) -> Work:
        kind = rng.choice(KINDS)
        if kind in ("many", "one"):
            return self._change(rng, kind == "many")
        if kind in ("import", "pull", "archive", "network", "volume", "prune"):
            return Work(kind, getattr(self, "_" + kind))
        lasting = [slot for slot in self.slots if slot.kind != "job"]
        if kind in ("exec", "write", "restart", "pause", "kill"):
            lasting = [slot for slot in lasting if slot.state == "started"]
        if kind in ("write", "copy"):
            lasting = [slot for slot in lasting if slot.kind == "service"]
        there = [slot for slot in lasting if slot.state != "absent"]
        if not there:
            return self._change(rng, False)
        work: Work = getattr(self, "_" + kind)(rng.choice(there), rng)
        return work

    def beside(self, rng: random.Random) -> Optional[Work]:
        kind = rng.choice(BESIDE)
        started = [slot for slot in self.slots if slot.kind != "job" and slot.state == "started"]
        if kind == "exec" and started:
            return self._exec(rng.choice(started), rng)
        if kind == "look":
            return Work("look", self._look)
        if kind == "prune":
            return Work("prune", self._prune)
        return Work("again", self._everything) if kind == "again" else None

    def networks(self) -> None:
        for name in (NETWORK, SECOND):
            self.engine.run("network", name=name)

    # -- wishes --------------------------------------------------------------------------------------------------------

    def _everything(self) -> None:
        self.engine.run("containers", containers=[slot.entry() for slot in self.slots])

    def _change(self, rng: random.Random, many: bool) -> Work:
        some = rng.sample(self.slots, 3 if many else 1)
        what = ", ".join("%s %s" % (slot.change(rng), slot.name) for slot in some)
        names = [slot.name for slot in some]
        if many:
            return Work("many: " + what, self._everything, names)
        entry = some[0].entry()
        return Work(what, lambda: self.engine.run("container", **entry), names)

    # -- in a container ------------------------------------------------------------------------------------------------

    def _exec(self, slot: Slot, _rng: random.Random) -> Work:
        def run() -> None:
            result = self.engine.exec(slot.name, "sh", "-c", "seq 1 300; sleep 0.05; exit 7")
            if result["rc"] == 137:
                raise Unfinished("killed")
            if result["rc"] != 7 or result["stdout"].split() != [str(n) for n in range(1, 301)]:
                raise AssertionError("an exec was said to end with %d and %r" % (result["rc"], result["stdout"][-200:]))

        return Work("exec in " + slot.name, run)

    def _write(self, slot: Slot, rng: random.Random) -> Work:
        old, new = slot.precious, "%016x" % rng.getrandbits(64)
        slot.precious = new
        script = "echo %s >/keep/new && sync -f /keep && mv /keep/new /keep/precious && sync -f /keep" % new

        def run() -> None:
            if self.engine.exec(slot.name, "sh", "-c", script)["rc"]:
                raise Unfinished("killed")

        def check(ended: int, _fault: str) -> list[str]:
            slot.precious = held(self.engine, slot, "precious").strip()
            return _one_of("volume %s" % slot.volume, slot.precious, [new] if ended == 0 else [old, new])

        def repair() -> None:  # both are right until ``check`` has looked
            found = held(self.engine, slot, "precious").strip()
            slot.precious = found if found == old else new

        work = Work("write in " + slot.name, run)
        work.check, work.repair = check, repair
        return work

    def _copy(self, slot: Slot, rng: random.Random) -> Work:
        tag = "%08x" % rng.getrandbits(32)
        old, new = slot.copied, "".join("%s %d\n" % (tag, n) for n in range(_COPIED))
        slot.copied = ""

        def run() -> None:
            self.engine.run("container_copy", container=slot.name, container_path="/keep/copied", content=new)

        def check(ended: int, fault: str) -> list[str]:
            found = held(self.engine, slot, "copied")
            may = [new] if ended == 0 else [old, new]
            if fault == "power":  # nobody said that it is on the disk
                may = [old, new, ""]
            slot.copied = found
            _to_disk(_data(self.engine, slot, "copied"))
            return _one_of("the copied file in %s" % slot.name, found, may)

        work = Work("copy into " + slot.name, run)
        work.check = check
        return work

    # -- to a container ------------------------------------------------------------------------------------------------

    def _restart(self, slot: Slot, _rng: random.Random) -> Work:
        return Work(
            "restart of " + slot.name,
            lambda: self.engine.run("container_restart", container=slot.name, stop_timeout=1),
            [slot.name],
        )

    def _pause(self, slot: Slot, _rng: random.Random) -> Work:
        def run() -> None:
            for paused in (True, False):
                self.engine.run("container_pause", container=slot.name, paused=paused)

        def repair() -> None:
            if self.engine.inspect(slot.name)["State"]["Paused"]:
                self.engine.run("container_pause", container=slot.name, paused=False)

        work = Work("pause of " + slot.name, run, [slot.name])
        work.repair = repair
        return work

    def _kill(self, slot: Slot, rng: random.Random) -> Work:
        number = rng.choice(["KILL", "TERM"])
        return Work(
            "SIG%s to %s" % (number, slot.name),
            lambda: self.engine.run("container_kill", container=slot.name, signal=number),
            [slot.name],
        )

    def _rename(self, slot: Slot, _rng: random.Random) -> Work:
        def there(name: str) -> bool:
            return bool(self.engine.run("container_info", name=name)["exists"])

        def rename(old: str, new: str) -> None:
            self.engine.run("container_rename", container=old, name=new)

        def run() -> None:
            rename(slot.name, "passing")
            rename("passing", slot.name)

        work = Work("renaming of " + slot.name, run, [slot.name])
        work.repair = lambda: rename("passing", slot.name) if there("passing") else None
        return work

    def _commit(self, slot: Slot, _rng: random.Random) -> Work:
        def run() -> None:
            self.engine.run("container_commit", container=slot.name, name="passing:1")

        work = Work("commit of " + slot.name, run, [slot.name])
        work.repair = lambda: self._without_image("passing:1")
        return work

    def _export(self, slot: Slot, _rng: random.Random) -> Work:
        path = os.path.dirname(self.engine.paths.state) + "/exported.tar"
        work = Work(
            "export of " + slot.name, lambda: self.engine.run("container_export", container=slot.name, path=path)
        )
        work.check = lambda ended, fault: _archive(path, ended, fault)
        return work

    # -- without a container -------------------------------------------------------------------------------------------

    def _without_image(self, name: str) -> None:
        self.engine.run("image", name=name, state="absent", force=True)

    def _import(self) -> None:
        self.engine.busybox("passing:1", ["CMD sh", "LABEL by=%d" % os.getpid()])
        self._without_image("passing:1")

    def _pull(self) -> None:
        self.engine.run("image", name=self.reference)
        self._without_image(self.reference)

    def _archive(self) -> None:
        path = "%s/archive-%d.tar" % (os.path.dirname(self.engine.paths.state), os.getpid())
        try:
            self.engine.run("image_export", names=["bb:1"], path=path)
            self.engine.run("image_load", path=path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def _network(self) -> None:
        self.engine.run("network", name="passing")
        self.engine.run("network", name="passing", state="absent")

    def _volume(self) -> None:
        self.engine.run("volume", name="passing")
        self.engine.run("volume", name="passing", state="absent")

    def _prune(self) -> None:
        self.engine.run("prune", images=True, volumes=True, networks=True)

    def _look(self) -> None:
        self.engine.run("container_info", name=self.slots[0].name, size=True, stats=True, top=True)
        for noun in ("container_info", "events_info", "network_info", "volume_info", "image_info"):
            self.engine.run(noun)

    def tidy(self, *done: Optional[Work]) -> None:
        """Away with what these may have made in passing, whatever became of it; back with what pruning took."""
        if not any(work is not None and work.kind in _PASSING for work in done):
            return
        for name in ("passing:1", self.reference):
            self._without_image(name)
        self.engine.run("network", name="passing")  # which sweeps up the bridge of one whose removal was killed
        self.engine.run("network", name="passing", state="absent")
        self.engine.run("volume", name="passing", state="absent")
        self.engine.run("prune", images=True)
        self.networks()
        directory = os.path.dirname(self.engine.paths.state)
        for name in os.listdir(directory):
            if name.startswith(("archive-", ".archive-")):
                os.unlink("%s/%s" % (directory, name))


def _data(engine: Engine, slot: Slot, name: str) -> str:
    return "%s/%s" % (engine.paths.volume_data(slot.volume), name)


def held(engine: Engine, slot: Slot, name: str) -> str:
    """What a file of the slot's volume holds; "" when there is none."""
    try:
        with open(_data(engine, slot, name)) as stream:
            return stream.read()
    except FileNotFoundError:
        return ""


def _to_disk(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        os.fsync(fd)
        os.close(fd)


def _one_of(what: str, found: str, may: list[str]) -> list[str]:
    if found in may:
        return []
    return ["%s holds %r..., %d bytes, which nobody wrote" % (what, found[:40], len(found))]


def _archive(path: str, ended: int, fault: str) -> list[str]:
    """A file that was exported is there, or not, and whole."""
    directory, name = os.path.split(path)
    found: list[str] = []
    try:
        with tarfile.open(path) as tar:
            names = tar.getnames()
        if "bin/busybox" not in names:
            found.append("the exported archive lacks files: it has %d" % len(names))
    except FileNotFoundError:
        if ended == 0 and fault != "power":
            found.append("the exported archive is missing")
    except (tarfile.TarError, EOFError) as error:
        found.append("the exported archive is not whole: %s" % error)
    for entry in os.listdir(directory):
        if entry.startswith((name, "." + name)):
            os.unlink("%s/%s" % (directory, entry))
    return found


def guarded(run: Callable[[], object], say: Callable[[str], None], found: int, faulty: int) -> Callable[[], None]:
    """A failure in a sentence is an answer (the process ends with ``found``); anything else (``faulty``) is a bug."""

    def child() -> None:
        try:
            run()
        except WharfError:
            os._exit(found)
        except BaseException:
            import traceback

            say(traceback.format_exc())
            os._exit(faulty)

    return child
