# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""In which order containers of one list are worked on."""

from __future__ import annotations

from typing import Any

from ..errors import UsageError

CONDITIONS = ("started", "healthy", "completed")


class Graph:
    """Who waits for whom, and until what. ``outside``: dependencies that are not in the list."""

    def __init__(self, entries: dict[str, dict[str, Any]]) -> None:
        """``entries``: name → parameters, in the task's order. Raises ``UsageError`` for a circle."""
        self._before: dict[str, dict[str, str]] = {name: {} for name in entries}
        self.outside: list[str] = []
        for name, params in entries.items():
            for other, condition in _dependencies(params).items():
                if other not in entries:
                    if condition[0] == "asked":
                        self.outside.append(other)
                        self._before[name][other] = condition[1]
                    continue
                if params["state"] == "absent":  # what depends goes first
                    self._before[other].setdefault(name, "ended") if entries[other]["state"] == "absent" else None
                elif entries[other]["state"] != "absent":
                    self._before[name][other] = condition[1]
        for name, params in entries.items():
            if params["state"] == "absent":
                self._before[name] = {k: v for k, v in self._before[name].items() if v == "ended"}
        self._check(entries)

    def before(self, name: str) -> list[tuple[str, str]]:
        """``[(container, condition)]`` that must hold before ``name`` is worked on; "ended": its work is done."""
        return list(self._before[name].items())

    def _check(self, entries: dict[str, dict[str, Any]]) -> None:
        done: set[str] = set()

        def visit(name: str, path: tuple[str, ...]) -> None:
            if name in path:
                circle = " → ".join([*path[path.index(name) :], name])
                raise UsageError(
                    "depends_on: these containers wait for each other: %s" % circle,
                    step="order",
                    path="containers[].depends_on",
                )
            if name in done or name not in self._before:
                return
            for other in self._before[name]:
                visit(other, (*path, name))
            done.add(name)

        for name in entries:
            visit(name, ())


def _dependencies(params: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Other container → (how it is known, condition). What shares a namespace, volumes or a name waits without being
    asked to."""
    found: dict[str, tuple[str, str]] = {}
    for option in ("network_mode", "ipc_mode", "pid_mode"):
        mode = str(params.get(option) or "")
        if mode.startswith("container:"):
            found[mode.partition(":")[2]] = ("implied", "started")
    for option in ("volumes_from", "links"):
        for text in params.get(option) or ():
            found.setdefault(str(text).partition(":")[0], ("implied", "started" if option == "links" else "ended"))
    for network in params.get("networks") or ():
        for text in network.get("links") or ():
            found.setdefault(str(text).partition(":")[0], ("implied", "started"))
    for entry in params.get("depends_on") or ():
        found[entry["name"]] = ("asked", entry["condition"])
    return found
