# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""After a reboot: what should run does, on its network, with its port, and nothing else does."""

from __future__ import annotations

import json
from typing import Any

import pytest


@pytest.fixture(scope="module")
def containers(host: Any) -> Any:
    with host.sudo():
        states = host.check_output("cat /var/lib/wharf/containers/*/state.json | sed 's/}{/}\\n{/g'")
        pids = {json.loads(line)["id"]: json.loads(line) for line in states.splitlines()}
        names = host.check_output(
            "python3 -c \"import sqlite3; print(sqlite3.connect('/var/lib/wharf/state.db').execute("
            "'select name, id from containers').fetchall())\""
        )
    import ast

    return {name: pids[key] for name, key in ast.literal_eval(names)}


def alive(host: Any, state: Any) -> bool:
    with host.sudo():
        return state["status"] == "running" and bool(host.file("/proc/%d" % state["pid"]).exists)


@pytest.mark.parametrize("name", ["always", "unless-stopped", "on-failure"])
def test_it_came_back(host: Any, containers: Any, name: str) -> None:
    assert alive(host, containers[name]), containers[name]


@pytest.mark.parametrize("name", ["told-to-stop", "never"])
def test_it_stayed_down(host: Any, containers: Any, name: str) -> None:
    assert not alive(host, containers[name]), containers[name]


def test_the_published_port_answers(host: Any) -> None:
    code = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8081/etc/passwd').read().decode())"
    assert "root" in host.check_output('python3 -c "%s"' % code)


def test_the_shutdown_stopped_them_in_order(host: Any) -> None:
    with host.sudo():
        log = host.check_output("journalctl --no-pager --boot=-1 --unit=wharf-containers.service --output=cat")
        boot = host.check_output("journalctl --no-pager --boot=0 --unit=wharf.service --output=cat")
    assert "Stopped" in log and "timed out" not in log and "SIGKILL" not in log, log
    assert boot.count("wharf: started") == 3 and "could not" not in boot, boot


def test_systemd_is_content(host: Any) -> None:
    assert host.check_output("systemctl list-units --failed --plain --no-legend") == ""
