# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What continuous integration runs of the lab, and how it judges.

The machine is built by the run itself, in a directory of its own, and goes with it. Only an assertion that fails
twice, each time on a fresh machine, is a failure of the code. A machine that could not be built, did not boot, was
lost, or was too slow says nothing about the code: that is its own outcome, told where nobody overlooks it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Iterator
from typing import Any, Callable

from . import images
from .guest import Guest
from .machines import MACHINES
from .run import play as _play

SCENARIOS = ("demo", "reboot")
HOST = "debian13"
PASSED, FAILED, UNKNOWN = 0, 1, 3
LEAST_MINUTES = 8.0  # what building and booting alone can take
_SIGNALS = (signal.SIGALRM, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Ended(BaseException):
    """Time is up, or somebody wants us to stop. Not an ``Exception``: nothing on the way may take it for its own."""


def ci(
    tree: str,
    minutes: float = 30,
    *,
    make_guest: Callable[[], Any] = lambda: Guest(MACHINES[HOST], bound=True),
    play: Callable[..., bool] = _play,
) -> int:
    """0: passed; 1: an assertion failed twice; 3: it could not be run to its end. The last lines say which, and why."""
    passed: list[str] = []
    retried: list[str] = []
    try:
        with _place() as directory, _limited(minutes):
            guest = make_guest()
            try:
                code = _run(guest, tree, directory, play, passed, retried)
            finally:
                _ignore_signals()  # nothing may come between us and cleaning up
                guest.down()
    except Ended as error:
        return _unknown(str(error), passed, retried)
    except images.LabError as error:
        return _unknown(str(error), passed, retried)
    except Exception as error:
        # Whatever it is (a full disk, a bug of the lab), it is not the code under test that failed.
        traceback.print_exc(file=sys.stdout)
        return _unknown("%s: %s" % (type(error).__name__, error), passed, retried)
    note = " (RETRIED: %s)" % ", ".join(retried) if retried else ""
    if code == PASSED:
        _say("== THE LAB PASSED on %s: %s%s" % (HOST, ", ".join(passed), note))
    else:
        _say("== THE LAB FAILED on %s: %s, twice; passed before: %s" % (HOST, retried[-1], ", ".join(passed) or "none"))
    return code


def _run(guest: Any, tree: str, where: str, play: Callable[..., bool], passed: list[str], retried: list[str]) -> int:
    for scenario in SCENARIOS:
        for attempt in (1, 2):
            _say("\n== lab: %s on %s" % (scenario, HOST))
            guest.down()
            guest.up()
            log = os.path.join(where, "%s.%d.log" % (scenario, attempt))
            # The margin keeps what a test runner says in there apart from what this run's own test runners said.
            if play(scenario, [guest], tree, log, "lab| "):
                passed.append(scenario)
                break
            if attempt == 1:
                retried.append(scenario)
                _say("\n== lab: %s failed; RETRIED on a fresh machine" % scenario)
        else:
            return FAILED
    return PASSED


@contextlib.contextmanager
def _place() -> Iterator[str]:
    """A cache of this run's own: no other run's machine is touched, and nothing of it stays. One whose run was killed
    goes first."""
    before = os.environ.get("WHARF_LAB")
    cache = images.cache()
    for name in os.listdir(cache):
        if name.startswith("ci.") and not os.path.exists("/proc/" + name[3:]):
            shutil.rmtree(os.path.join(cache, name), ignore_errors=True)
    path = os.path.join(cache, "ci.%d" % os.getpid())
    os.mkdir(path, 0o700)
    os.environ["WHARF_LAB"] = path
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        if before is None:
            del os.environ["WHARF_LAB"]
        else:
            os.environ["WHARF_LAB"] = before


@contextlib.contextmanager
def _limited(minutes: float) -> Iterator[None]:
    """Raises ``Ended`` inside when the time is up, or when somebody ends this process, once."""

    def end(number: int, _frame: Any) -> None:
        _ignore_signals()
        if number == signal.SIGALRM:
            raise Ended("it took longer than %g minutes" % round(minutes, 2))
        raise Ended("it was ended by %s" % signal.Signals(number).name)

    if minutes < LEAST_MINUTES:
        raise images.LabError("only %g minutes are left, which is too late to begin" % max(0, round(minutes, 1)))
    before = {number: signal.signal(number, end) for number in _SIGNALS}
    signal.setitimer(signal.ITIMER_REAL, minutes * 60)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore_signals() -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _unknown(why: str, passed: list[str], retried: list[str]) -> int:
    rule = "!" * 100
    _say(rule)
    _say("== THE LAB WAS NOT RUN TO ITS END, so nobody knows whether this works on a real host: " + why.strip())
    _say("== passed before that: %s; failed once and RETRIED: %s" % (
        ", ".join(passed) or "none", ", ".join(retried) or "none"))  # fmt: skip
    _say(rule)
    return UNKNOWN


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
