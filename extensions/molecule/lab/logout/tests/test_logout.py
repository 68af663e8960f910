# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The session that started the container is over, and took along what it owned; the container runs and is looked
after."""

from __future__ import annotations

from typing import Any


def test_the_container_answers(host: Any) -> None:
    code = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8081/etc/passwd').read().decode())"
    assert "root" in host.check_output('python3 -c "%s"' % code)


def test_its_monitor_and_the_resolver_are_there(host: Any) -> None:
    with host.sudo():
        assert host.check_output("cat /proc/[0-9]*/comm | grep -c wharf-monitor") == "1"
        assert host.check_output("cat /proc/[0-9]*/comm | grep -c wharf-resolver") == "1"


def test_a_command_runs_in_it(host: Any) -> None:
    result = host.ansible(
        "wharf.engine.container_exec", '{"container": "stays", "argv": ["hostname"]}', check=False, become=True
    )
    assert result["rc"] == 0, result
