# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A campaign: random tasks, a fault in each, the next task, and then everything must be as that one asked.

The same seed makes the same choices, round by round; when a fault strikes is chosen, too, as a part of the time that
the task usually takes, but what it then interrupts is up to the machine. Everything happens in namespaces and on a
disk of its own (``place``).
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Optional

from helpers.engine import Engine
from module_utils._engine.errors import WharfError
from module_utils._engine.kernel.syscalls import Kernel
from module_utils._engine.restore import restore

from campaign import faults, host, invariants
from campaign.model import slots
from campaign.place import comes_true, place
from campaign.work import Work, Works, guarded

FOUND, FAULTY, LATE = 3, 1, -1000  # how a task's process ends: a failure in a sentence, a traceback, never
_SETTLED = 60.0  # seconds


class Campaign:
    def __init__(
        self,
        seed: int,
        say: Callable[[str], None],
        *,
        disk: str = "",
        clock: bool = False,
        among: Sequence[str] = faults.FAULTS,
    ) -> None:
        """``disk``: see ``place``. ``clock``: the machine's own may be put forward and back. ``among``: the faults."""
        self.seed, self.say, self.disk, self.among = seed, say, disk, among
        self.slots = slots()
        self.rounds = 0
        self.hits: dict[str, int] = {}
        self.losses: list[str] = []
        self.clock = faults.Clock(clock)
        self.spent: dict[str, float] = {}  # seconds, by what they went to
        self._usual: dict[str, float] = {}  # seconds that a kind of task takes

    def run(self, rounds: int, keep_going: bool = False, first: int = 1) -> None:
        """``first``: the wishes of the rounds before are made, but not carried out one by one."""
        with place(self.disk) as here, registry() as reference:
            self.place, self.disk = here, here.disk
            self.engine = Engine(here.directory)
            self.works = Works(self.engine, self.slots, reference)
            try:
                self._begin(first)
                while self.rounds < rounds and (keep_going or not self.losses):
                    self.rounds += 1
                    self._round(first + self.rounds - 1)
                    if self.rounds % 25 == 0:
                        self.say("%d rounds, %d losses; %s" % (self.rounds, len(self.losses), self._spent()))
            finally:
                self.clock.put_right()
                faults.make_room(self.engine)
                self._end()

    def _begin(self, first: int) -> None:
        for number in range(1, first):
            self.works.choose(self._choices(number)[0])
        engine = self.engine
        engine.busybox()
        self.works.networks()
        wished = [slot.state for slot in self.slots]
        for slot in self.slots:  # so that each volume is made
            slot.state = "started"
        self._everything()
        for slot in self.slots:
            if slot.kind == "service":
                slot.precious, slot.copied = "%016x" % self.slots.index(slot), ""
                engine.sh(slot.name, "echo %s > /keep/precious" % slot.precious)
        for slot, state in zip(self.slots, wished):
            slot.state = state
        self._everything()
        fd = os.open(self.place.directory, os.O_RDONLY | os.O_CLOEXEC)
        Kernel().syncfs(fd)
        os.close(fd)
        self.before = host.Before(self.place.directory)

    def _end(self) -> None:
        try:
            self.engine.close()
        except WharfError as error:
            self._lose("closing: %s" % error)

    def _choices(self, number: int) -> tuple[random.Random, random.Random]:
        """A round's own: what it does must not depend on what happened in the rounds before."""
        return random.Random("%d work %d" % (self.seed, number)), random.Random("%d fault %d" % (self.seed, number))

    # -- a round -------------------------------------------------------------------------------------------------------

    def _round(self, number: int) -> None:
        for_work, rng = self._choices(number)
        work = self.works.choose(for_work)
        beside = self.works.beside(for_work)
        fault, moment = rng.choice(self.among), rng.random() * 1.2
        self.title = "%s%s under %s" % (work.what, ", beside %s" % beside.what if beside else "", fault)
        with self._timed("task and fault"):
            ended = self._hit(work, beside, fault, moment, rng)
        if fault == "disk full" and ended == 0:
            self.title += " (it fitted)"
        for sentence in self._before_the_next_task(work, fault):
            self._lose(sentence)
        if rng.random() < 0.5:
            self.clock.put_right()
        try:
            with self._timed("the next task"):
                work.repair()
                self.works.tidy(work, beside)
                self._everything()
            with self._timed("settling"):
                comes_true(self._is_settled, _SETTLED)
            with self._timed("checks"):
                left = work.check(ended, fault) + self._all(fault, rng.random() < 0.3)
            with self._timed("the same task again"):
                left += self._again()
        except WharfError as error:
            left = ["the next task failed: %s" % error]
        self.clock.put_right()
        for sentence in left:
            self._lose(sentence)

    @contextlib.contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        begin = time.monotonic()
        try:
            yield
        finally:
            self.spent[what] = self.spent.get(what, 0.0) + time.monotonic() - begin

    def _hit(self, work: Work, beside: Optional[Work], fault: str, moment: float, rng: random.Random) -> int:
        """Do the work, and strike meanwhile. How the task's process ended."""
        run = guarded(work.run, self.say, FOUND, FAULTY)
        away = rng.choice([-1, 1]) * rng.choice([60.0, 3600.0, 86400.0 * 3])
        if fault == "clock" and not self.clock.machine:
            child = faults.spawn(faults.at_another_time(away, run))
        else:
            if fault.startswith("disk full"):
                faults.fill(self.engine)
            child = faults.spawn(run)
        other = faults.spawn(guarded(beside.run, self.say, FOUND, FAULTY)) if beside else 0
        kind = work.kind
        begin = time.monotonic()
        early = faults.ended_within(child, moment * self._usual.get(kind, 0.3))
        hit = self._strike(fault, rng, [child, other] if other else [child], away)
        ended = faults.outcome(child)
        if ended == 0 and not early:
            self._usual[kind] = (self._usual.get(kind, 0.3) + time.monotonic() - begin) / 2
        others = faults.outcome(other) if other else 0
        faults.make_room(self.engine)
        self.hits[hit] = self.hits.get(hit, 0) + 1
        if fault != "power":
            for what, code in ((work.what, ended), (beside.what if beside else "", others)):
                if code in (FAULTY, LATE):
                    self._lose("%s %s" % (what, "ended in a traceback" if code == FAULTY else "never ended"))
            for group in (child, other):
                if group and not comes_true(lambda group=group: _is_gone(group), _SETTLED):  # type: ignore[misc]
                    self._lose("processes of the task are still there")
        return ended

    def _strike(self, fault: str, rng: random.Random, tasks: list[int], away: float) -> str:
        if fault == "power":
            faults.kill_groups(tasks)  # they would see a disk that fails, which is another fault
            self.place.cut_power(self.engine, lambda: faults.kill_all(self.engine))
        elif fault == "clock" and self.clock.machine:
            self.clock.jump(away)
        elif fault not in ("clock", "disk full"):
            return faults.strike(self.engine, fault, rng, tasks[0])
        return fault

    # -- what must be true ---------------------------------------------------------------------------------------------

    def _before_the_next_task(self, work: Work, fault: str) -> list[str]:
        """What nobody has to repair: codes, and the containers that this round's task was not about."""
        left: list[str] = []
        try:
            if fault == "power":
                result = restore({"state_dir": self.engine.paths.state, "run_dir": self.engine.paths.run})
                left += ["after the boot: could not start %s" % sentence for sentence in result["failed"]]
            others = [slot for slot in self.slots if slot.name not in work.touched]
            running = fault not in faults.UNWATCHED or fault == "power"
            comes_true(lambda: not invariants.stand(self._look(), others, running, fault == "power"), _SETTLED)
            left += ["meanwhile, %s" % one for one in invariants.stand(self.shown, others, running, fault == "power")]
            left += invariants.codes_are_true(self.shown, self.slots)
        except WharfError as error:
            left.append("looking at it failed: %s" % error)
        return left

    def _all(self, fault: str, names: bool) -> list[str]:
        unknown = {255} if fault in faults.UNWATCHED else set()
        return [
            *invariants.all_of(self.engine, self.slots, self.shown, unknown),
            *host.all_of(self.engine, self.slots, self.shown, self.before, names),
        ]

    def _look(self) -> dict[str, Any]:
        self.shown = {c["Name"][1:]: c for c in self.engine.run("container_info")["containers"]}
        return self.shown

    def _everything(self) -> None:
        self.engine.run("containers", containers=[slot.entry() for slot in self.slots])

    def _is_settled(self) -> bool:
        """Jobs have ended, and what was killed has been started again by its monitor."""
        shown = self._look()
        return not any(
            (shown[slot.name]["State"]["Status"] == "running") != (slot.state == "started" and slot.kind != "job")
            for slot in self.slots
            if slot.name in shown and slot.state != "absent"
        )

    def _again(self) -> list[str]:
        """The same task changes nothing. (Jobs have ended meanwhile: ``started`` would start them again.)"""
        entries = [slot.entry() for slot in self.slots if slot.kind != "job"]
        result = self.engine.run("containers", check=True, containers=entries)
        if not result["changed"]:
            return []
        return ["the same task again would change something: %s" % [(a["how"], a["name"]) for a in result["actions"]]]

    def _lose(self, sentence: str) -> None:
        self.losses.append("round %d, after %s: %s" % (self.rounds, getattr(self, "title", "the start"), sentence))
        self.say("LOSS seed %d, %s" % (self.seed, self.losses[-1]))

    def _spent(self) -> str:
        return ", ".join("%s %.0f s" % item for item in self.spent.items())

    def summary(self) -> str:
        hits = ", ".join("%s %d" % (what, count) for what, count in sorted(self.hits.items()))
        return "seed %d on %s, Linux %s: %d rounds, %d faults (%s), %d losses; %s" % (
            self.seed,
            self.disk,
            os.uname().release,
            self.rounds,
            sum(self.hits.values()),
            hits,
            len(self.losses),
            self._spent(),
        )


def _is_gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


@contextlib.contextmanager
def registry() -> Iterator[str]:
    """A registry in a process of its own (it has threads, and tasks fork); yields the reference of the image it has.
    It ends with us, however we end."""
    from helpers.fake_registry import FakeRegistry
    from helpers.images import build_image, layer

    said, tell = os.pipe()
    until, hold = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(hold)
            image = build_image([layer({"a/%d" % n: os.urandom(1 << 18)}) for n in range(4)])
            with FakeRegistry() as served:
                os.write(tell, served.add("campaign/app", "1", image).encode())
                os.read(until, 1)
        finally:
            os._exit(0)
    os.close(until)
    os.close(tell)
    try:
        yield os.read(said, 256).decode()
    finally:
        os.close(said)
        os.close(hold)
        os.waitpid(pid, 0)


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
