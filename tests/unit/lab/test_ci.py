# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A lab that could not be had fails nobody's run and is not overlooked; an assertion that fails twice fails it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from lab import ci, images, run
from lab.guest import Guest
from lab.machines import MACHINES

ROOT = Path(__file__).parents[3]


class Machine:
    """Stands for a guest. ``trouble``: what ``up`` says, per call; then it works."""

    def __init__(self, *trouble: str, answers: bool = True) -> None:
        self.trouble = list(trouble)
        self.machine = MACHINES["debian13"]
        self.on = False
        self.life: list[str] = []
        self._answers = answers

    def up(self) -> None:
        assert not self.on, "not fresh: it was on already"
        self.life.append("up")
        if self.trouble:
            raise images.LabError(self.trouble.pop(0))
        self.on = True

    def down(self) -> None:
        self.on = False

    def answers(self) -> bool:
        return self._answers

    def inventory(self) -> dict[str, Any]:
        return {}


class Plays:
    """What the scenarios come to, one after another."""

    def __init__(self, *outcomes: bool | str) -> None:
        self.outcomes = list(outcomes)
        self.played: list[str] = []

    def __call__(self, scenario: str, guests: list[Machine], tree: str, log: str, margin: str) -> bool:
        (guest,) = guests
        assert guest.on and tree == "tree" and os.path.isdir(os.path.dirname(log)) and margin
        self.played.append(scenario)
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, str):
            raise images.LabError(outcome)
        return outcome


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "cache"
    monkeypatch.setenv("WHARF_LAB", str(path))
    return path


def outcome(monkeypatch: pytest.MonkeyPatch, machine: Machine, plays: Plays, minutes: float = 30) -> int:
    # The timer of this process belongs to the test runner's own time-out.
    monkeypatch.setattr(ci, "_SIGNALS", (signal.SIGHUP,))
    monkeypatch.setattr(signal, "setitimer", lambda *_args: (0.0, 0.0))
    code = ci.ci("tree", minutes, make_guest=lambda: machine, play=plays)
    assert not machine.on
    return code


def last_lines(capsys: pytest.CaptureFixture[str]) -> str:
    return "\n".join(capsys.readouterr().out.rstrip().splitlines()[-4:])


def test_all_passed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cache: Path) -> None:
    machine, plays = Machine(), Plays(True, True)
    assert outcome(monkeypatch, machine, plays) == 0
    assert plays.played == ["demo", "reboot"]
    assert machine.life == ["up", "up"]  # a fresh machine for each
    assert "THE LAB PASSED on debian13: demo, reboot" in last_lines(capsys)
    assert list(cache.iterdir()) == [] and os.environ["WHARF_LAB"] == str(cache)


def test_failed_once_is_retried_on_a_fresh_machine(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine, plays = Machine(), Plays(False, True, True)
    assert outcome(monkeypatch, machine, plays) == 0
    assert plays.played == ["demo", "demo", "reboot"]
    assert machine.life == ["up", "up", "up"]
    assert "RETRIED: demo" in last_lines(capsys)


def test_failed_twice_is_a_failure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    plays = Plays(True, False, False)
    assert outcome(monkeypatch, Machine(), plays) == 1
    assert plays.played == ["demo", "reboot", "reboot"]
    assert "THE LAB FAILED on debian13: reboot, twice; passed before: demo" in last_lines(capsys)


def test_a_machine_that_does_not_boot_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plays = Plays()
    assert outcome(monkeypatch, Machine("debian13 did not answer in time"), plays) == 3
    assert plays.played == []
    text = last_lines(capsys)
    assert "NOT RUN TO ITS END" in text and "did not answer in time" in text and "passed before that: none" in text


def test_a_machine_that_is_lost_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert outcome(monkeypatch, Machine(), Plays(True, "debian13 was lost during reboot")) == 3
    text = last_lines(capsys)
    assert "was lost during reboot" in text and "passed before that: demo" in text


def test_a_retry_without_an_end_decides_nothing_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert outcome(monkeypatch, Machine(), Plays(False, "debian13 was lost during demo")) == 3
    assert "failed once and RETRIED: demo" in last_lines(capsys)


def test_a_fault_of_the_lab_itself_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_args: Any) -> bool:
        raise OSError(28, "No space left on device")

    assert outcome(monkeypatch, Machine(), full) == 3  # type: ignore[arg-type]
    assert "No space left on device" in last_lines(capsys)


def test_too_late_is_not_begun(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    machine = Machine()
    assert outcome(monkeypatch, machine, Plays(), minutes=-3) == 3
    assert machine.life == []
    assert "too late to begin" in last_lines(capsys)


def test_a_machine_that_cannot_be_built_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, cache: Path
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("qemu-system-x86_64", "qemu-img", "mke2fs", "mmdebstrap"):
        (programs / name).write_text("#!/bin/sh\necho E: the mirror is away\nexit 25\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs) + ":" + os.environ["PATH"])
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(images, "recipe", lambda _machine: "recipe")
    monkeypatch.setattr(images, "key", lambda: "/key")
    monkeypatch.setattr(ci, "_SIGNALS", (signal.SIGHUP,))
    monkeypatch.setattr(signal, "setitimer", lambda *_args: (0.0, 0.0))
    assert ci.ci("tree", play=Plays()) == 3
    text = last_lines(capsys)
    assert "mmdebstrap failed" in text and "the mirror is away" in text
    assert list(cache.iterdir()) == []


# What a machine of a run that was killed left is taken away by the next run, and nothing of one that goes on.
def test_only_leftovers_of_the_dead_are_removed(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    for name in ("ci.%d" % dead.pid, "ci.%d" % os.getppid(), "debian12"):
        (cache / name).mkdir(parents=True)
    assert outcome(monkeypatch, Machine(), Plays(True, True)) == 0
    assert {path.name for path in cache.iterdir()} == {"ci.%d" % os.getppid(), "debian12"}


STORY = """
import subprocess, sys, time
from lab import ci

class Machine:
    child = None
    def up(self):
        self.child = subprocess.Popen(["sleep", "600"])
        print("machine", self.child.pid, flush=True)
    def down(self):
        if self.child:
            self.child.kill()
            self.child.wait()
            self.child = None
            print("off", flush=True)

def play(*_args):
    while True:
        time.sleep(60)

ci.LEAST_MINUTES = 0
sys.exit(ci.ci("tree", float(sys.argv[1]), make_guest=Machine, play=play))
"""


def story(minutes: str) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    return subprocess.Popen([sys.executable, "-c", STORY, minutes], env=env, stdout=subprocess.PIPE, text=True)


def test_too_late_ends_it_and_the_machine_goes_off(cache: Path) -> None:
    with story("0.03") as process:
        text, _errors = process.communicate()
    assert process.returncode == 3
    assert "NOT RUN TO ITS END" in text and "longer than 0.03 minutes" in text and "off" in text.splitlines()
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_whoever_ends_it_leaves_no_machine(cache: Path, name: str) -> None:
    with story("30") as process:
        assert process.stdout
        lines = iter(process.stdout.readline, "")
        assert any(line.startswith("machine") for line in lines)
        process.send_signal(getattr(signal, name))
        text = "".join(lines)
    assert process.returncode == 3
    assert "ended by " + name in text and "off" in text.splitlines()
    assert list(cache.iterdir()) == []


def test_a_bound_machine_ends_with_a_run_that_was_killed(tmp_path: Path, cache: Path) -> None:
    guest = Guest(MACHINES["debian13"])
    os.makedirs(guest.directory)
    fake = tmp_path / "qemu-system-x86_64"
    fake.write_text("#!%s\nimport signal\nsignal.pause()\n" % sys.executable)
    fake.chmod(0o755)
    code = (
        "import signal; from lab.guest import Guest; from lab.machines import MACHINES\n"
        "guest = Guest(MACHINES['debian13'], bound=True); guest._launch([]); print(guest.pid(), flush=True)\n"
        "signal.pause()"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT / "tests"), "PATH": "%s:%s" % (tmp_path, os.environ["PATH"])}
    with subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and int(process.stdout.readline()) == guest.pid()
        process.kill()
    until(lambda: guest.pid() is None)


def until(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def molecule(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str) -> None:
    """A program in place of molecule."""
    (tmp_path / "molecule").write_text("#!/bin/sh\n" + script)
    (tmp_path / "molecule").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))


def played(tmp_path: Path, machine: Machine) -> bool:
    tree = tmp_path / "a/b/c"
    tree.mkdir(parents=True)
    return run.play("demo", [machine], str(tree), str(tmp_path / "log"), "lab| ")  # type: ignore[arg-type]


def test_what_molecule_says_is_shown_behind_a_margin_and_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    molecule(monkeypatch, tmp_path, "echo '=== 5 passed in 3s ==='")
    assert played(tmp_path, Machine())
    assert capsys.readouterr().out == "lab| === 5 passed in 3s ===\n"
    assert (tmp_path / "log").read_text() == "=== 5 passed in 3s ===\n"


def test_a_failure_on_a_machine_that_answers_is_a_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    molecule(monkeypatch, tmp_path, "echo '1 failed'; exit 1")
    assert not played(tmp_path, Machine())


@pytest.mark.parametrize(
    "script",
    [
        "echo 'fatal: [debian13]: UNREACHABLE! => {}'; exit 2",
        # The machine's image is not there, and this one cannot make it.
        "PATH=/nowhere %s -m lab up debian13; exit 2" % sys.executable,
    ],
)
def test_a_failure_for_want_of_a_machine_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str) -> None:
    monkeypatch.setattr(images, "key", lambda: "/key")
    molecule(monkeypatch, tmp_path, script)
    with pytest.raises(images.LabError, match="was lost during demo"):
        played(tmp_path, Machine())


def test_a_failure_after_which_the_machine_is_silent_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    molecule(monkeypatch, tmp_path, "exit 1")
    with pytest.raises(images.LabError, match="was lost"):
        played(tmp_path, Machine(answers=False))


def test_a_play_that_is_broken_off_leaves_no_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    molecule(monkeypatch, tmp_path, "sleep 600 & echo $!; echo ready; wait")
    pids = []

    class Stop(BaseException):
        pass

    def write(text: str) -> int:
        if text.endswith("ready\n"):
            raise Stop
        pids.append(int(text.split("|")[1]))
        return len(text)

    monkeypatch.setattr(sys.stdout, "write", write)
    with pytest.raises(Stop):
        played(tmp_path, Machine())
    until(lambda: ended(pids[0]))


def ended(pid: int) -> bool:
    try:
        return Path("/proc/%d/stat" % pid).read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize(("ended_with", "by_hand", "in_ci"), [(0, 0, 0), (1, 1, 1), (3, 3, 0), (70, 3, 0)])
def test_only_a_failure_fails_ci(tmp_path: Path, ended_with: int, by_hand: int, in_ci: int) -> None:
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\nexit %d\n" % ended_with)
    fake.chmod(0o755)
    env = {key: value for key, value in os.environ.items() if key != "CI"}
    for more, expected in (({}, by_hand), ({"CI": "true"}, in_ci)):
        result = subprocess.run(
            [str(ROOT / "tools/lab-ci.sh"), str(fake), "tree", "30"],
            env={**env, **more}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert result.returncode == expected
        assert bool("does not fail the run" in result.stdout) == (expected != ended_with and bool(more))
        assert ("NOT RUN TO ITS END" in result.stdout) == (ended_with == 70)
