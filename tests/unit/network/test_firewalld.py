# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bridges in firewalld's zones. The lab's scenario ``firewalls`` asks a real one."""

from __future__ import annotations

from typing import Any

import pytest
from module_utils._engine.kernel import dbus
from module_utils._engine.network import firewalld


class Daemon:
    """firewalld as the bus shows it; ``fails`` is raised by every call."""

    def __init__(self) -> None:
        self.zones: dict[str, str] = {}
        self.fails: Any = None

    def __enter__(self) -> Daemon:
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def call(self, method: dbus.Method, *arguments: str) -> str:
        if self.fails is not None:
            raise self.fails
        if method.member == "getZoneOfInterface":
            return self.zones.get(arguments[0], "")
        zone, link = arguments
        if method.member == "changeZoneOfInterface":
            self.zones[link] = zone
        else:
            assert self.zones.pop(link) == zone
        return zone


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Daemon:
    made = Daemon()
    monkeypatch.setattr(dbus, "Bus", lambda: made)
    return made


def test_a_bridge_without_a_zone_is_trusted_and_is_taken_out_again(daemon: Daemon) -> None:
    assert firewalld.unbound(["wh1", "wh2"]) == ["wh1", "wh2"]
    assert firewalld.bind(["wh1", "wh2"])
    assert daemon.zones == {"wh1": "trusted", "wh2": "trusted"}
    assert firewalld.unbound(["wh1", "wh2"]) == [] and not firewalld.bind(["wh1"])
    assert firewalld.unbind("wh1") and not firewalld.unbind("wh1")
    assert daemon.zones == {"wh2": "trusted"}


def test_a_bridge_that_somebody_bound_to_a_zone_stays_there(daemon: Daemon) -> None:
    daemon.zones["wh1"] = "dmz"
    assert firewalld.unbound(["wh1"]) == [] and not firewalld.bind(["wh1"]) and not firewalld.unbind("wh1")
    assert daemon.zones == {"wh1": "dmz"}


@pytest.mark.parametrize("failure", [dbus.Refused("org.freedesktop.DBus.Error.ServiceUnknown", ""), TimeoutError()])
def test_one_that_does_not_answer_keeps_nobody_from_anything(daemon: Daemon, failure: Exception) -> None:
    assert firewalld.answers()
    daemon.fails = failure
    assert firewalld.unbound(["wh1"]) == [] and not firewalld.bind(["wh1"]) and not firewalld.unbind("wh1")
    assert not firewalld.answers()


def test_a_host_without_a_bus_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    bus = dbus.Bus
    monkeypatch.setattr(dbus, "Bus", lambda: bus("/nonexistent/bus"))
    assert firewalld.unbound(["wh1"]) == [] and not firewalld.bind(["wh1"]) and not firewalld.unbind("wh1")
    assert not firewalld.answers()
