# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tasks that want different things of the same container at the same moment: one after the other, and each is answered.

``WHARF_RACES`` sets the number of rounds.
"""

from __future__ import annotations

import os
import random
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.engine import Engine
from helpers.option_laws import SLEEP
from module_utils._engine.errors import WharfError
from module_utils._engine.kernel.cgroups import Cgroup, Layout

ROUNDS = int(os.environ.get("WHARF_RACES", "12"))
SENTENCE, DONE, BUG = 3, 0, 1


def at_once(works: list[Callable[[], object]]) -> list[int]:
    """Each in a process of its own, begun at the same moment: DONE, SENTENCE for a ``WharfError``, BUG."""
    ready, go = os.pipe()
    pids = []
    for work in works:
        pid = os.fork()
        if pid == 0:
            code = BUG
            try:
                os.close(go)
                os.read(ready, 1)
                work()
                code = DONE
            except WharfError:
                code = SENTENCE
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
            finally:
                os._exit(code)
        pids.append(pid)
    os.close(ready)
    os.close(go)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


@pytest.mark.parametrize("seed", [1, 2])
def test_removing_starting_stopping_and_executing_at_once_leave_one_state_that_is_true(
    fresh: Engine, seed: int
) -> None:
    chance = random.Random(seed)
    choices: list[Callable[[], object]] = [
        lambda: fresh.container("race", command=SLEEP),
        lambda: fresh.run("container", name="race", state="absent", force_kill=True),
        lambda: fresh.exec("race", "true"),
        lambda: fresh.run("container", name="race", state="stopped", force_kill=True),
        lambda: fresh.container("race", command=SLEEP, env={"N": "1"}),
        lambda: fresh.run("container_info", name="race"),
    ]
    for _round in range(ROUNDS):
        codes = at_once(chance.sample(choices, 4))
        assert BUG not in codes and not [code for code in codes if code < 0], codes
        found = fresh.run("container_info")["containers"]
        assert len(found) <= 1
        for shown in found:
            assert shown["Name"] == "/race"
            running = shown["State"]["Status"] == "running"
            assert (
                running is os.path.exists("/proc/%d" % shown["State"]["Pid"]) if shown["State"]["Pid"] else not running
            )
    fresh.run("container", name="race", state="absent", force_kill=True)
    group = Cgroup(Layout.detect(), fresh.paths.cgroup)
    left = [path for path in group.directories() if os.path.isdir(path)]
    assert not [name for path in left for name in os.listdir(path) if len(name) == 64]
    assert os.listdir(fresh.paths.containers) == [] and os.listdir(fresh.paths.netns) == []


def test_a_removed_image_and_a_container_made_of_it_at_once_are_one_or_the_other(fresh: Engine, tmp_path: Path) -> None:
    for number in range(max(2, ROUNDS // 3)):
        name = "gone:%d" % number
        fresh.busybox(name, changes=["CMD sh", "LABEL n=%d" % number])
        codes = at_once(
            [
                lambda name=name: fresh.run("image", name=name, state="absent"),  # type: ignore[misc]
                lambda name=name: fresh.container("made", image=name, command=SLEEP, pull="never"),  # type: ignore[misc]
            ]
        )
        assert BUG not in codes, codes
        made = fresh.run("container_info", name="made")["exists"]
        if made:
            assert fresh.sh("made", "echo alive") == "alive"
            fresh.run("container", name="made", state="absent", force_kill=True)


def test_ranges_of_ids_reserved_at_once_are_different(fresh: Engine) -> None:
    works = [lambda n=n: fresh.container("u%d" % n, command=SLEEP, userns_mode="auto") for n in range(6)]
    assert at_once(works) == [DONE] * 6  # type: ignore[arg-type]
    first = [Path("/proc/%d/uid_map" % fresh.pid("u%d" % n)).read_text().split()[1] for n in range(6)]
    assert len(set(first)) == 6
