# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a campaign's host should look like: a few containers of different kinds, and what tasks do to them."""

from __future__ import annotations

import random
from typing import Any

NETWORK, SECOND = "campaign", "second"
_WAIT = "trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done"
_COUNT = (
    "trap 'exit 0' TERM; i=0; while :; do i=$((i+1)); echo \"line $i of $RUN\"; [ $((i%50)) = 0 ] && sleep 0.05; done"
)
_JOB = 'echo "run $RUN begins"; sleep 0.%d; echo "run $RUN ends"; exit %d'
_SERVE = "echo run $RUN >/tmp/index.html; exec httpd -f -p 80 -h /tmp"


class Slot:
    """One container that may or may not be there, as it was asked for last. ``precious``: what its volume holds;
    ``copied``: what a file holds that was copied into it, "" when nobody knows."""

    def __init__(self, number: int, kind: str) -> None:
        self.number, self.kind = number, kind
        self.name = "%s-%d" % (kind, number)
        self.state = "started"
        self.run = 0  # what makes a replacement: the container sees it in its environment
        self.before = 0  # the run before
        self.memory = 64
        self.label = "a"
        self.second = False  # in the second network, too
        self.moved = False  # the published port is the other one
        self.precious = self.copied = ""

    @property
    def volume(self) -> str:
        return "keep-%d" % self.number

    @property
    def port(self) -> int:
        return 0 if self.kind not in ("service", "web") else 18100 + self.number + (100 if self.moved else 0)

    @property
    def own_ids(self) -> bool:
        """Whether it has a user namespace: one of each kind has."""
        return self.number % 2 == 1

    @property
    def code(self) -> int:
        """The true exit code of a job."""
        return 3 + self.run % 60

    @property
    def codes(self) -> set[int]:
        """Which a job may have ended with before its last change was carried out."""
        return {self.code, 3 + self.before % 60}

    def entry(self) -> dict[str, Any]:
        """The slot as an entry of ``containers``."""
        if self.state == "absent":
            return {"name": self.name, "state": "absent", "force_kill": True}
        networks = [{"name": NETWORK, "aliases": ["n%d" % self.number]}]
        if self.second:
            networks.append({"name": SECOND})
        entry: dict[str, Any] = {
            "name": self.name,
            "image": "bb:1",
            "state": self.state,
            "stop_timeout": 1,
            "env": {"RUN": str(self.run)},
            "labels": {"campaign": self.label},
            "memory": "%dm" % self.memory,
            "networks": networks,
        }
        if self.own_ids:
            entry["userns_mode"] = "auto"
        if self.port:
            entry["published_ports"] = ["%d:80" % self.port]
        entry.update(getattr(self, "_" + self.kind)())
        return entry

    def _service(self) -> dict[str, Any]:
        return {"command": ["sh", "-c", _WAIT], "restart_policy": "always", "volumes": [self.volume + ":/keep"]}

    def _web(self) -> dict[str, Any]:
        return {
            "command": ["sh", "-c", _SERVE],
            "restart_policy": "unless-stopped",
            "init": True,
            "healthcheck": {"test": ["CMD", "test", "-s", "/tmp/index.html"], "interval": "200ms", "timeout": "30s"},
            "state": "healthy" if self.state == "started" else self.state,
            "healthy_wait_timeout": 60.0,
        }

    def _talker(self) -> dict[str, Any]:
        return {
            "command": ["sh", "-c", _COUNT],
            "restart_policy": "unless-stopped",
            "log_options": {"max-size": "64k", "max-file": "2"},
        }

    def _job(self) -> dict[str, Any]:
        """It ends by itself, with a code that says which run it was."""
        return {"command": ["sh", "-c", _JOB % (self.number % 4, self.code)]}

    def change(self, rng: random.Random) -> str:
        """Want something else of it; returns what, in a word."""
        self.before = self.run
        if self.state == "absent":
            self.state = "started"
            return "create"
        what = rng.choice(["replace", "replace", "limit", "label", "join", "port", "stop", "start", "remove", "again"])
        if what == "replace":
            self.run += 1
            self.state = "started"
        elif what == "limit":
            self.memory = rng.choice([32, 48, 64, 96])
        elif what == "label":
            self.label = rng.choice("abc")
        elif what == "join":
            self.second = not self.second
        elif what == "port":
            self.moved = not self.moved
        elif what in ("stop", "start"):
            self.state = "stopped" if what == "stop" and self.kind != "job" else "started"
        elif what == "remove":
            self.state = "absent"
        return what


def slots() -> list[Slot]:
    kinds = ["service", "service", "web", "talker", "job"]
    return [Slot(number, kind) for number, kind in enumerate(kinds)]
