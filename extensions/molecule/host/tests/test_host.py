# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role left on the host is what its documentation says."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

STATE = "/var/lib/wharf-molecule"


@pytest.fixture
def report(host: Any) -> Any:
    return json.loads(host.file(STATE + "/report.json").content_string)


def test_the_engine_was_brought_for_root_alone(host: Any) -> None:
    engine = host.file(STATE + "/engine")
    assert engine.is_directory and engine.user == "root" and engine.mode == 0o700
    current = host.file(STATE + "/engine/current")
    assert current.is_symlink
    assert host.file(STATE + "/engine/current/wharf_runtime/_engine/entry.py").is_file


def test_the_report_is_about_this_host(host: Any, report: Any) -> None:
    assert report["supported"] is True and report["problems"] == []
    assert report["kernel"]["release"] == host.check_output("uname -r")
    assert report["kernel"]["machine"] == host.check_output("uname -m")
    kinds = {"v1", "v2", "hybrid"}
    assert report["cgroups"]["kind"] in kinds
    unified = host.check_output("stat -f -c %T /sys/fs/cgroup") == "cgroup2fs"
    assert (report["cgroups"]["kind"] == "v2") == unified


def test_the_boot_unit_is_there_where_systemd_runs_and_only_there(host: Any, report: Any) -> None:
    systemd = host.file("/run/systemd/system").is_directory
    assert report["init_system"] == ("systemd" if systemd else "other")
    unit = host.file("/etc/systemd/system/wharf.service")
    assert unit.exists == systemd
    if systemd:
        assert host.service("wharf").is_enabled
        assert host.run("systemd-analyze verify /etc/systemd/system/wharf.service").rc == 0


def test_what_runs_at_boot_finds_the_engine(host: Any, report: Any) -> None:
    """The launcher, as the unit calls it: nothing to start here, and nothing to complain about."""
    script = os.path.join(os.path.dirname(__file__), "../../../../roles/host/files/wharf_restore.py")
    python = report["python"]["executable"]
    found = host.run("%s -I -S %s %s /run/wharf-molecule", python, script, STATE)
    assert found.rc == 0, found.stderr


def test_the_runtime_is_on_the_path_and_runs_the_engine_that_came_last(host: Any) -> None:
    runtime = host.file("/usr/local/bin/wharf-oci")
    assert runtime.is_symlink and runtime.linked_to == "/usr/local/lib/wharf-oci/wharf-oci"
    launcher = host.file("/usr/local/lib/wharf-oci/wharf-oci")
    assert launcher.user == "root" and launcher.mode == 0o755
    found = host.run("/usr/local/bin/wharf-oci --version")
    assert found.rc == 0 and found.stdout.startswith("wharf-oci version "), found.stderr
