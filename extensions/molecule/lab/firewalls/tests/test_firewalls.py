# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Afterwards, with none of them running any more."""

from __future__ import annotations

from typing import Any


def run(host: Any, command: str) -> str:
    with host.sudo():
        return str(host.check_output(command))


def test_one_container_runs_and_is_watched(host: Any) -> None:
    assert run(host, "cat /proc/[0-9]*/comm | grep -c wharf-monitor") == "1"


def test_the_published_port_answers_on_the_host(host: Any) -> None:
    code = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8081/hello').read().decode())"
    assert "from the container" in host.check_output('python3 -c "%s"' % code)


def test_systemd_is_content(host: Any) -> None:
    assert run(host, "systemctl list-units --failed --plain --no-legend") == ""
