# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs targets: first under hypothesis, which makes a fault's input small, then, where it is installed, under atheris,
which looks where the code goes. What breaks a target is kept as ``<directory>/faults/<target>-<hash>``."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Optional

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from fuzz.targets import TARGETS, Target

_BATCH = 1000


class Outcome(NamedTuple):
    """``fault``: the file that holds the input which broke the target, or ""; ``words``: how."""

    runs: int
    fault: str
    words: str


def replay(path: str) -> None:
    """Raises what the input in the file (called ``<target>-...``) makes its target raise."""
    with open(path, "rb") as stream:
        TARGETS[os.path.basename(path).partition("-")[0]].run(stream.read())


def guided_is_there() -> bool:
    return importlib.util.find_spec("atheris") is not None


def inputs(target: Target) -> st.SearchStrategy[bytes]:
    """Seeds that something was written over, put into, or cut out of; and noise."""
    piece = st.one_of(st.binary(min_size=1, max_size=12), *([st.sampled_from(target.words)] if target.words else []))
    change = st.tuples(st.integers(0, 1 << 16), st.integers(0, 40), piece)

    def changed(seed: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
        data = bytearray(seed)
        for at, length, text in changes:
            at %= len(data) + 1
            data[at : at + (length if length <= 20 else len(text))] = text if length % 5 else b""
        return bytes(data[: target.length])

    mutated = st.builds(changed, st.sampled_from(target.seeds), st.lists(change, max_size=8))
    joined = st.lists(piece, max_size=40).map(b"".join)
    return st.one_of(mutated, joined, st.binary(max_size=300))


def searched(name: str, target: Target, directory: str, seconds: float, seed: int) -> Outcome:
    """Under hypothesis."""
    counted = [0]
    last = [b""]
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:

        @seeded(seed)
        @settings(
            max_examples=_BATCH, deadline=None, database=None, suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink], report_multiple_bugs=False,
        )  # fmt: skip
        @given(inputs(target))
        def batch(data: bytes) -> None:
            if time.monotonic() > ends + seconds:
                return  # a slow target: enough of this batch
            counted[0] += 1
            last[0] = data
            target.run(data)

        try:
            batch()
        except Exception as error:
            return Outcome(counted[0], kept(name, last[0], directory), "%s: %s" % (type(error).__name__, error))
        seed += 1
    return Outcome(counted[0], "", "")


def kept(name: str, data: bytes, directory: str) -> str:
    os.makedirs(directory + "/faults", exist_ok=True)
    path = "%s/faults/%s-%s" % (directory, name, hashlib.sha256(data).hexdigest()[:16])
    with open(path, "wb") as stream:
        stream.write(data)
    return path


def guided(name: str, target: Target, directory: str, seconds: float, seed: int) -> Outcome:
    """Under atheris. Its corpus stays in ``directory`` and is gone on with by the next run."""
    corpus, faults = "%s/corpus/%s" % (directory, name), directory + "/faults"
    for path in (corpus, faults):
        os.makedirs(path, exist_ok=True)
    for data in target.seeds:
        with open("%s/seed-%s" % (corpus, hashlib.sha256(data).hexdigest()[:16]), "wb") as stream:
            stream.write(data)
    words = "%s/%s.words" % (directory, name)
    with open(words, "w", encoding="ascii") as text:
        text.writelines('"%s"\n' % "".join("\\x%02x" % byte for byte in word) for word in target.words if word)
    before = set(os.listdir(faults))
    command = [
        sys.executable, "-m", "fuzz.guided", name, corpus, "-dict=" + words, "-max_total_time=%d" % max(1, seconds),
        "-max_len=%d" % target.length, "-timeout=60", "-rss_limit_mb=2048", "-seed=%d" % seed,
        "-artifact_prefix=%s/%s-" % (faults, name), "-print_final_stats=1", "-verbosity=1",
    ]  # fmt: skip
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    told = done.stdout.decode("utf-8", "replace")
    runs = re.search(r"stat::number_of_executed_units:\s+(\d+)", told)
    new = sorted(set(os.listdir(faults)) - before)
    words_of = _last_words(told) if done.returncode else ""
    return Outcome(int(runs.group(1)) if runs else 0, "%s/%s" % (faults, new[0]) if new else "", words_of)


def _last_words(told: str) -> str:
    """The exception, or what libFuzzer says in its place (a timeout, too much memory)."""
    lines = told.splitlines()
    for number, line in enumerate(lines):
        if "Uncaught Python exception" in line:
            return " ".join(lines[number + 1 : number + 2])
    return next((line for line in lines if "ERROR: libFuzzer" in line), told[-300:])


def run(
    names: list[str], directory: str, seconds: float, seed: int, say: Callable[[str], Any], engine: Optional[str] = None
) -> int:
    """The number of targets that broke. ``seconds`` for each, a quarter of them under hypothesis where there is
    atheris. ``engine``: only that one."""
    engines = [engine] if engine else ["hypothesis", "atheris"] if guided_is_there() else ["hypothesis"]
    broken = 0
    for name in names:
        counts = []
        for one in engines:
            share = seconds if len(engines) == 1 else seconds / 4 if one == "hypothesis" else seconds * 3 / 4
            work = searched if one == "hypothesis" else guided
            outcome = work(name, TARGETS[name], directory, share, seed)
            counts.append("%d under %s" % (outcome.runs, one))
            if outcome.words:
                broken += 1
                say("%-12s BROKEN: %s" % (name, outcome.words))
                say("%-12s its input: %s" % ("", outcome.fault or "was not kept"))
                break
        say("%-12s %s" % (name, ", ".join(counts)))
    return broken
