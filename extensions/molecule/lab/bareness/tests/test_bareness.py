# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""After a full disk and a closed root file system."""

from __future__ import annotations

from typing import Any


def run(host: Any, command: str) -> str:
    with host.sudo():
        return str(host.check_output(command))


def test_the_engines_table_is_the_kernels_although_there_is_no_nft(host: Any) -> None:
    assert not host.exists("nft")
    code = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8081/hello').read().decode())"
    assert "from the container" in host.check_output('python3 -c "%s"' % code)


def test_two_run_and_are_watched(host: Any) -> None:
    assert run(host, "cat /proc/[0-9]*/comm | grep -c wharf-monitor") == "2"


def test_the_one_beside_the_closed_root_left_nothing_but_its_image(host: Any) -> None:
    listed = run(host, "ls -A /srv/wharf/containers /srv/wharf/tmp").split()
    assert listed == ["/srv/wharf/containers:", "/srv/wharf/tmp:"]


def test_systemd_is_content(host: Any) -> None:
    assert run(host, "systemctl list-units --failed --plain --no-legend") == ""
