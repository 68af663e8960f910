# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Molecule scenarios on machines, and what is kept of their results."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

from . import images
from .guest import Guest
from .machines import MACHINES

SCENARIOS = ("demo", "limits", "logout", "reboot", "poweroff")
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_FACTS = """
. /etc/os-release; echo "$PRETTY_NAME"; uname -r; python3 -c 'import platform; print(platform.python_version())'
systemctl --version | sed -n 's/^systemd \\([0-9]*\\).*/\\1/p'
stat -f -c %T /sys/fs/cgroup | sed 's/cgroup2fs/v2/; s/tmpfs/v1 or hybrid/'
cat /sys/module/apparmor/parameters/enabled 2>/dev/null || echo N
"""
_KEYS = ("system", "kernel", "python", "systemd", "cgroups", "apparmor")


def results() -> str:
    path = os.path.join(images.cache(), "results")
    os.makedirs(path, exist_ok=True)
    return path


def run(scenario: str, host: str, tree: str, keep: bool = False) -> bool:
    """One scenario on one machine, from the collection at ``tree``. Prints as it goes; keeps the outcome."""
    guest = Guest(MACHINES[host])
    inventory = os.path.join(images.cache(), "inventory-%s.json" % host)
    with open(inventory, "w") as file:
        json.dump({"all": {"hosts": {host: guest.inventory()}}}, file, indent=2)
    scripts = os.path.dirname(sys.executable)
    env = {
        **os.environ,
        "PATH": scripts + ":" + os.environ["PATH"],
        "PYTHONPATH": os.path.join(ROOT, "tests"),
        "ANSIBLE_COLLECTIONS_PATH": os.path.dirname(os.path.dirname(os.path.dirname(tree))),
        "ANSIBLE_NOCOLOR": "1",
        "LAB_HOST": host,
        "LAB_INVENTORY": inventory,
        "LAB_KEEP": "1",  # the machine is asked for its versions first
    }
    begun = time.monotonic()
    guest.up()
    facts = dict(zip(_KEYS, guest.ssh(_FACTS).stdout.splitlines()))
    command = [scripts + "/molecule", "-c", "extensions/molecule/lab_config.yml", "test", "-s", "lab/" + scenario]
    log = os.path.join(results(), "%s-%s.log" % (scenario, host))
    with open(log, "w") as stream:
        process = subprocess.Popen(
            command, cwd=tree, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for line in process.stdout or ():
            sys.stdout.write(line)
            stream.write(line)
        passed = process.wait() == 0
    if not keep:
        guest.down()
    _record({
        "scenario": scenario, "host": host, "passed": passed, "seconds": round(time.monotonic() - begun),
        "date": time.strftime("%Y-%m-%d", time.gmtime()), "facts": facts, "commit": _commit(),
    })  # fmt: skip
    sys.stdout.write("\n== %s on %s: %s (%s)\n" % (scenario, host, "passed" if passed else "FAILED", log))
    return passed


def ci(tree: str, minutes: int = 30) -> int:
    """What continuous integration runs. 0: passed; 1: failed; 3: could not be run, which is said."""

    def too_late(_number: int, _frame: Any) -> None:
        raise images.LabError("it took longer than %d minutes" % minutes)

    signal.signal(signal.SIGALRM, too_late)
    signal.alarm(minutes * 60)
    try:
        outcomes = [run(scenario, "debian13", tree) for scenario in ("demo", "reboot")]
    except images.LabError as error:
        sys.stdout.write("\n== THE LAB WAS NOT RUN TO ITS END: %s\n" % error)
        return 3
    finally:
        signal.alarm(0)
        Guest(MACHINES["debian13"]).down()
    return 0 if all(outcomes) else 1


def _record(result: dict[str, Any]) -> None:
    with open(os.path.join(results(), "%s-%s.json" % (result["scenario"], result["host"])), "w") as file:
        json.dump(result, file, indent=2)


def _commit() -> str:
    answer = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return answer.stdout.strip()
