# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a campaign's host should look like: a few containers of different kinds, and what tasks do to them."""

from __future__ import annotations

import random
from typing import Any

SLEEP = ["sleep", "100000"]
COUNT = 'i=0; while true; do i=$((i+1)); echo "line $i of $RUN"; [ $((i%400)) = 0 ] && sleep 0.05; done'
NETWORK = "campaign"


class Slot:
    """One container that may or may not be there. ``want`` is what the last whole task asked, ``precious`` what its
    volume holds."""

    def __init__(self, number: int, kind: str) -> None:
        self.number, self.kind = number, kind
        self.name = "%s-%d" % (kind, number)
        self.state = "absent"
        self.run = 0  # what makes a replacement: the container sees it in its environment
        self.memory = 64
        self.port = 18100 + number
        self.precious = ""

    @property
    def volume(self) -> str:
        return "keep-%d" % self.number

    def entry(self) -> dict[str, Any]:
        """The slot as an entry of ``containers``."""
        if self.state == "absent":
            return {"name": self.name, "state": "absent", "force_kill": True}
        entry: dict[str, Any] = {
            "name": self.name,
            "image": "bb:1",
            "state": self.state,
            "stop_timeout": 1,
            "env": {"RUN": str(self.run)},
            "memory": "%dm" % self.memory,
            "networks": [{"name": NETWORK, "aliases": ["n%d" % self.number]}],
        }
        if self.own_ids:
            entry["userns_mode"] = "auto"
        if self.kind == "service":
            entry.update(
                command=SLEEP,
                restart_policy="always",
                published_ports=["%d:80" % self.port],
                volumes=[self.volume + ":/keep"],
            )
        elif self.kind == "talker":
            entry.update(
                command=["sh", "-c", COUNT],
                restart_policy="unless-stopped",
                log_options={"max-size": "1m", "max-file": "2"},
            )
        else:  # a job ends by itself, with a code that says which run it was
            entry.update(command=["sh", "-c", "sleep 0.%d; exit %d" % (self.number % 4, self.code)])
        return entry

    @property
    def own_ids(self) -> bool:
        """Whether it has a user namespace: one of each kind has."""
        return self.number % 2 == 1

    @property
    def code(self) -> int:
        """The true exit code of a job."""
        return 3 + self.run % 60

    def change(self, rng: random.Random) -> str:
        """Want something else of it; returns what, in a word."""
        if self.state == "absent":
            self.state = "started"
            return "create"
        what = rng.choice(["replace", "replace", "limit", "stop", "start", "remove", "again"])
        if what == "replace":
            self.run += 1
            self.state = "started"
        elif what == "limit":
            self.memory = rng.choice([32, 48, 64, 96])
        elif what in ("stop", "start"):
            self.state = "stopped" if what == "stop" and self.kind != "job" else "started"
        elif what == "remove":
            self.state = "absent"
        return what


def slots() -> list[Slot]:
    kinds = ["service", "service", "service", "talker", "job", "job"]
    return [Slot(number, kind) for number, kind in enumerate(kinds)]
