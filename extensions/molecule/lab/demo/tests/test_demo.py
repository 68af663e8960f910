# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The demo's containers as the host's kernel and systemd see them."""

from __future__ import annotations

from typing import Any


def run(host: Any, command: str) -> str:
    with host.sudo():
        return str(host.check_output(command))


def test_the_page_comes_out_of_the_published_port(host: Any) -> None:
    code = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:18080/').read().decode())"
    assert "no daemon runs" in host.check_output('python3 -c "%s"' % code)


def test_containers_and_their_watchers_live_below_a_delegated_unit(host: Any) -> None:
    shown = run(host, "systemctl show wharf-containers.service --property=Delegate,ActiveState,KillMode")
    assert set(shown.split()) == {"Delegate=yes", "ActiveState=active", "KillMode=process"}
    tree = run(host, "systemd-cgls --no-pager --full --unit wharf-containers.service")
    for name in ("httpd -f -v -p 80", "sleep 86400", "wharf_runtime._engine.runtime.spawner", "network.resolver"):
        assert name in tree, tree
    assert "wharf" not in run(host, "cat /proc/[0-9]*/cgroup | grep session- || true")


def test_the_limit_is_in_force(host: Any) -> None:
    unit = "/sys/fs/cgroup/system.slice/wharf-containers.service"
    assert run(host, "cat %s/wharf-*/*/memory.max | sort" % unit).split() == ["67108864", "max"]


def test_systemd_is_content(host: Any) -> None:
    assert run(host, "systemctl list-units --failed --plain --no-legend") == ""
