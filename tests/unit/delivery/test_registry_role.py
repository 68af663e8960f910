# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role ``registry`` renders where no registry and no systemd runs: its timer, and what collects garbage."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROLE = Path(__file__).parents[3] / "roles/registry"


def rendered(tmp_path: Path, name: str, **facts: Any) -> str:
    """A template of the role (or an expression: ``{{ ... }}``), rendered by Ansible with the role's own variables."""
    source = ROLE / "templates" / name
    if name.startswith("{{"):
        source = tmp_path / "expression.j2"
        source.write_text(name)
    target = tmp_path / "rendered"
    command = [os.path.join(os.path.dirname(sys.executable), "ansible"), "-i", "localhost,", "-c", "local", "localhost"]
    command += ["-m", "ansible.builtin.template", "-a", "src=%s dest=%s" % (source, target)]
    command += ["-e", "@%s" % (ROLE / "defaults/main.yml"), "-e", "@%s" % (ROLE / "vars/main.yml")]
    command += [
        "-e",
        json.dumps({"registry_python": "/usr/bin/python3", "ansible_python_interpreter": sys.executable, **facts}),
    ]
    environment = {**os.environ, "HOME": str(tmp_path), "ANSIBLE_LOCAL_TEMP": str(tmp_path / "local")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return target.read_text()


@pytest.mark.parametrize("source", ["image", "package"])
def test_the_timer_and_its_service_are_units_that_systemd_takes(tmp_path: Path, source: str) -> None:
    texts = {}
    for kind in ("service", "timer"):
        texts[kind] = rendered(
            tmp_path,
            "gc.%s.j2" % kind,
            registry_source=source,
            registry_gc_schedule="Sun 03:00",
            registry_name="harbour",
        )
        (tmp_path / ("harbour-gc." + kind)).write_text(texts[kind])
    assert "OnCalendar=Sun 03:00" in texts["timer"] and "Persistent=true" in texts["timer"]
    home = "/etc/wharf-registry"
    command = "/usr/bin/python3 -I -S %s/collect.py /var/lib/wharf /run/wharf %s/collect.json" % (home, home)
    assert "\nExecStart=%s\n" % command in texts["service"]
    if shutil.which("systemd-analyze"):
        units = [str(tmp_path / ("harbour-gc." + kind)) for kind in ("timer", "service")]
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, check=False
        )
        told = [line for line in done.stderr.splitlines() if "harbour" in line]
        assert told == []


def test_a_package_s_registry_is_collected_by_its_own_program_and_user(tmp_path: Path) -> None:
    plan = json.loads(
        rendered(
            tmp_path,
            "{{ registry_collect_plan | to_json }}",
            registry_source="package",
            registry_gc_delete_untagged=True,
        )
    )
    assert plan == {
        "package": {
            "program": "docker-registry",
            "config": "/etc/docker/registry/config.yml",
            "service": "docker-registry",
            "user": "docker-registry",
            "flags": ["--delete-untagged"],
        }
    }
