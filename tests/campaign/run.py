# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A campaign: random tasks, a fault in each, the next task, and then everything must be as that one asked.

The same seed makes the same choices; when a fault strikes is chosen, too, but what it then interrupts is up to the
machine. Everything happens in a network and a mount namespace of its own, on a small file system of its own.
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any, Optional

from helpers.engine import Engine
from helpers.private_network import private_network
from module_utils._engine.errors import WharfError
from module_utils._engine.kernel.syscalls import CLONE_NEWNS, MS_PRIVATE, MS_REC, Kernel

from campaign import faults, invariants
from campaign.model import NETWORK, Slot, slots

FOUND, FAULTY = 3, 1  # how a task's process ends: a failure in a sentence, a traceback


class Campaign:
    def __init__(self, seed: int, say: Callable[[str], None]) -> None:
        self.seed, self.say = seed, say
        self.rng = random.Random(seed)
        self.slots = slots()
        self.rounds = 0
        self.hits: dict[str, int] = {}
        self.losses: list[str] = []
        self.engine: Optional[Engine] = None
        self.mounts: set[str] = set()
        self._longest = 0.5

    # -- the place -----------------------------------------------------------------------------------------------------

    def run(self, rounds: int, keep_going: bool = False) -> None:
        with private_network(), self._place() as directory:
            self.engine = engine = Engine(directory)
            try:
                self._begin(engine)
                while self.rounds < rounds and (keep_going or not self.losses):
                    self.rounds += 1
                    self._round(engine)
            finally:
                faults.make_room(engine)
                self._end(engine)

    @contextlib.contextmanager
    def _place(self) -> Any:
        """A mount namespace that is only ours, and a file system that can be filled. Left in a child's stead: the
        process keeps the namespace, so nothing of it is ever seen outside."""
        kernel = Kernel()
        home = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        directory = tempfile.mkdtemp(prefix="wharf-campaign-")
        kernel.unshare(CLONE_NEWNS)
        try:
            kernel.mount(None, "/", None, MS_REC | MS_PRIVATE, None)
            kernel.mount("campaign", directory, "tmpfs", 0, "size=256m,mode=0700")
            yield directory
            kernel.umount2(directory, 2)
        finally:
            kernel.setns(home, CLONE_NEWNS)
            os.close(home)
            os.rmdir(directory)

    def _begin(self, engine: Engine) -> None:
        engine.busybox()
        engine.run("network", name=NETWORK)
        for slot in self.slots:
            slot.state = "started"
        begin = time.monotonic()
        self._everything(engine)
        self._longest = max(0.2, time.monotonic() - begin)
        for slot in self.slots:
            if slot.kind == "service":
                slot.precious = "%016x" % self.rng.getrandbits(64)
                engine.sh(slot.name, "echo %s > /keep/precious; sync" % slot.precious)
        self.mounts = invariants.mount_points()

    def _end(self, engine: Engine) -> None:
        try:
            engine.close()
        except WharfError as error:
            self._lose("closing: %s" % error)

    # -- a round -------------------------------------------------------------------------------------------------------

    def _round(self, engine: Engine) -> None:
        fault = self.rng.choice(faults.FAULTS)
        work, what = self._work(engine)
        delay = self.rng.uniform(0, self._longest)
        if fault == "disk full":
            faults.fill(engine)
        hit, ended = faults.run_hit(
            _guarded(work, self.say), lambda pid: faults.inflict(engine, fault, self.rng, pid), delay
        )
        faults.make_room(engine)
        self.hits[hit] = self.hits.get(hit, 0) + 1
        if ended == FAULTY:
            self._lose("%s under %s ended in a traceback" % (what, hit))
        elif ended == -1000:
            self._lose("%s under %s never ended" % (what, hit))
        for sentence in self._invented(engine):
            self._lose("after %s under %s: %s" % (what, hit, sentence))
        try:
            self._everything(engine)
            self._settle(engine)
            left = invariants.all_of(engine, self.slots, self.mounts, fault == "everything") + self._again(engine)
        except WharfError as error:
            left = ["the next task failed: %s" % error]
        for sentence in left:
            self._lose("after %s under %s: %s" % (what, hit, sentence))

    def _work(self, engine: Engine) -> tuple[Callable[[], None], str]:
        """What this round's task does, with the wishes it changes."""
        kind = self.rng.choice(["many", "many", "one", "one", "exec", "image"])
        if kind == "exec":
            names = [slot.name for slot in self.slots if slot.kind != "job" and slot.state == "started"]
            if names:
                name = self.rng.choice(names)
                return lambda: _nothing(engine.exec(name, "sh", "-c", "sleep 0.1; exit 7")), "exec in %s" % name
            kind = "one"
        if kind == "image":
            return lambda: self._image(engine), "import and removal of an image"
        some = self.rng.sample(self.slots, 1 if kind == "one" else 3)
        changes = ["%s %s" % (slot.change(self.rng), slot.name) for slot in some]
        entries = [slot.entry() for slot in (self.slots if kind == "many" else some)]
        if kind == "many":
            return lambda: _nothing(engine.run("containers", containers=entries)), ", ".join(changes)
        return lambda: _nothing(engine.run("container", **entries[0])), ", ".join(changes)

    def _image(self, engine: Engine) -> None:
        engine.busybox("passing:1", ["CMD sh", "LABEL round=%d" % self.rounds])
        engine.run("image", name="passing:1", state="absent")

    def _everything(self, engine: Engine) -> dict[str, Any]:
        return engine.run("containers", containers=[slot.entry() for slot in self.slots])

    def _settle(self, engine: Engine) -> None:
        """Jobs end, and services killed by hand are started again by their monitors."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            shown = {c["Name"][1:]: c["State"] for c in engine.run("container_info")["containers"]}
            if all(self._is_settled(slot, shown.get(slot.name)) for slot in self.slots):
                return
            time.sleep(0.02)

    def _is_settled(self, slot: Slot, state: Optional[dict[str, Any]]) -> bool:
        if slot.state == "absent" or state is None:
            return True
        if slot.kind == "job":
            return not state["Running"]
        return bool(state["Running"]) == (slot.state == "started")

    def _again(self, engine: Engine) -> list[str]:
        """The same task changes nothing. (Jobs have ended meanwhile: ``started`` would start them again.)"""
        entries = [slot.entry() for slot in self.slots if slot.kind != "job"]
        result = engine.run("containers", check=True, containers=entries)
        if not result["changed"]:
            return []
        return ["the same task again would change something: %s" % [(a["how"], a["name"]) for a in result["actions"]]]

    def _invented(self, engine: Engine) -> list[str]:
        """Codes recorded for jobs before anything repairs them. A job ends with its run's code or the one before (when
        the task was killed before it replaced it), by a signal, or unwatched."""
        found = []
        shown = {c["Name"][1:]: c for c in engine.run("container_info")["containers"]}
        for slot in self.slots:
            if slot.kind == "job" and slot.name in shown:
                codes = {3 + (slot.run - back) % 60 for back in (0, 1)} | {137, 143, 255}
                found += invariants.exit_code_is_true(slot, shown[slot.name]["State"], codes)
        return found

    def _lose(self, sentence: str) -> None:
        self.losses.append("round %d: %s" % (self.rounds, sentence))
        self.say("LOSS seed %d, %s" % (self.seed, self.losses[-1]))

    def summary(self) -> str:
        hits = ", ".join("%s %d" % (what, count) for what, count in sorted(self.hits.items()))
        return "seed %d: %d rounds, %d faults (%s), %d losses" % (
            self.seed,
            self.rounds,
            sum(self.hits.values()),
            hits,
            len(self.losses),
        )


def _nothing(_result: object) -> None:
    return None


def _guarded(work: Callable[[], None], say: Callable[[str], None]) -> Callable[[], None]:
    """A failure in a sentence is an answer; anything else is a bug, and says where."""

    def run() -> None:
        try:
            work()
        except WharfError:
            os._exit(FOUND)
        except BaseException:
            import traceback

            say(traceback.format_exc())
            os._exit(FAULTY)

    return run


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
