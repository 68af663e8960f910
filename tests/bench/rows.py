# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lines of the benchmark's report, and how their samples are taken."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable
from typing import Any, Optional

Samples = list[float]


class Row:
    """One line of the report: our samples, the peers' samples, the budget in words."""

    def __init__(self, what: str, unit: str, ours: Samples, peers: dict[str, Samples], budget: str) -> None:
        self.what, self.unit, self.ours, self.peers, self.budget = what, unit, ours, peers, budget

    def as_dict(self) -> dict[str, Any]:
        mine = statistics.median(self.ours)
        return {
            "what": self.what,
            "unit": self.unit,
            "budget": self.budget,
            "wharf": summary(self.ours),
            "peers": {
                name: {**summary(s), "ratio": round(statistics.median(s) / mine, 2)} for name, s in self.peers.items()
            },
        }


def summary(samples: Samples) -> dict[str, float]:
    return {
        "median": round(statistics.median(samples), 3),
        "min": round(min(samples), 3),
        "max": round(max(samples), 3),
        "n": len(samples),
    }


def timed(work: Callable[[], Any]) -> float:
    """Milliseconds."""
    begin = time.perf_counter()
    work()
    return (time.perf_counter() - begin) * 1000


def interleaved(
    count: int, works: dict[str, Callable[[], Any]], between: Optional[Callable[[], Any]] = None
) -> dict[str, Samples]:
    """Every candidate once per round, so that drift of the machine hits all alike."""
    samples: dict[str, Samples] = {name: [] for name in works}
    for _n in range(count):
        for name, work in works.items():
            samples[name].append(timed(work))
            if between is not None:
                between()
    return samples


def command(*argv: str) -> Callable[[], Any]:
    return lambda: subprocess.run(argv, check=True, capture_output=True)
