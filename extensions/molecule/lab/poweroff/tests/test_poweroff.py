# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""After the power failed: what was promised is there, and nothing of the run before is in the way."""

from __future__ import annotations

import time
from typing import Any


def run(host: Any, command: str) -> str:
    with host.sudo():
        return str(host.check_output(command))


def test_no_number_that_was_on_the_disk_was_lost(host: Any) -> None:
    counted = int(run(host, "cat /var/lib/wharf/counted"))
    now = int(run(host, "cat /var/lib/wharf/volumes/count/_data/n"))
    assert now >= counted > 0
    time.sleep(3)
    assert int(run(host, "cat /var/lib/wharf/volumes/count/_data/n")) > now  # it goes on


def test_the_published_port_answers(host: Any) -> None:
    code = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8081/etc/passwd').read().decode())"
    assert "root" in host.check_output('python3 -c "%s"' % code)


def test_three_containers_run_and_nothing_more(host: Any) -> None:
    assert run(host, "cat /proc/[0-9]*/comm | grep -c wharf-monitor") == "3"
    assert run(host, "ls /run/wharf/containers | wc -l") == "3"


def test_the_database_is_sound(host: Any) -> None:
    code = (
        "import sqlite3 as s; print(*s.connect('/var/lib/wharf/state.db').execute('pragma integrity_check').fetchone())"
    )
    assert run(host, 'python3 -c "%s"' % code) == "ok"


def test_systemd_is_content(host: Any) -> None:
    assert run(host, "systemctl list-units --failed --plain --no-legend") == ""
