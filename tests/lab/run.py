# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Molecule scenarios on machines, and what is kept of their results."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence

from . import images
from .guest import Guest
from .machines import MACHINES

SCENARIOS = ("demo", "limits", "logout", "reboot", "poweroff")
SPECIAL = {"firewalls": "crowded", "database": "bare", "cuts": "bare", "bareness": "bare"}  # each on its machine
SUITE = "suite"  # tests/integration against a machine, instead of a scenario
FLEETS = {"fleet": "debian12b+debian13b"}  # scenarios of several machines at once, and which
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_FACTS = """
. /etc/os-release; echo "$PRETTY_NAME"; uname -r; python3 -c 'import platform; print(platform.python_version())'
systemctl --version | sed -n 's/^systemd \\([0-9]*\\).*/\\1/p'
stat -f -c %T /sys/fs/cgroup | sed 's/cgroup2fs/v2/; s/tmpfs/v1 or hybrid/'
cat /sys/module/apparmor/parameters/enabled 2>/dev/null || echo N
"""
_LOST = "UNREACHABLE!"  # Ansible's word for a machine that does not answer
_KEYS = ("system", "kernel", "python", "systemd", "cgroups", "apparmor")


def results() -> str:
    path = os.path.join(images.cache(), "results")
    os.makedirs(path, exist_ok=True)
    return path


def is_planned(scenario: str, host: str) -> bool:
    """Whether a run of everything has it. The second of two equal machines is for plays that need both."""
    if scenario in SPECIAL:
        return SPECIAL[scenario] == host
    return host not in SPECIAL.values() and not host.endswith("b")


def run(scenario: str, host: str, tree: str, keep: bool = False) -> bool:
    """One scenario on one machine, or on several (``A+B``), from the collection at ``tree``. Prints as it goes; keeps
    the outcome."""
    guests = [Guest(MACHINES[name]) for name in host.split("+")]
    log = os.path.join(results(), "%s-%s.log" % (scenario, host))
    begun = time.monotonic()
    facts: list[dict[str, str]] = []
    trouble = ""
    try:
        for guest in guests:
            guest.up()
            facts.append(_facts(guest))
        passed = play(scenario, guests, tree, log)
    except images.LabError as error:
        passed, trouble = False, str(error)
        sys.stdout.write("\n== %s on %s: %s\n" % (scenario, host, error))
    for guest in guests if not keep else ():
        guest.down()
    _record(scenario, host, passed, begun, facts, trouble)
    sys.stdout.write("\n== %s on %s: %s (%s)\n" % (scenario, host, "passed" if passed else "FAILED", log))
    return passed


def play(scenario: str, guests: Sequence[Guest], tree: str, log: str, margin: str = "") -> bool:
    """Whether a scenario passes on machines that are up. Every line is printed, after ``margin``, and goes to the file
    ``log``. Raises ``LabError`` when a machine was lost on the way: then the scenario says nothing about the code."""
    host = "+".join(guest.machine.name for guest in guests)
    scripts = os.path.dirname(sys.executable)
    env = {
        **os.environ,
        "PATH": scripts + ":" + os.environ["PATH"],
        "PYTHONPATH": os.path.join(ROOT, "tests"),
        "ANSIBLE_COLLECTIONS_PATH": os.path.dirname(os.path.dirname(os.path.dirname(tree))),
        "ANSIBLE_NOCOLOR": "1",
        "LAB_HOST": host,
        "LAB_INVENTORY": _inventory(guests, host),
        "LAB_KEEP": "1",  # whoever started the machine switches it off
        "LAB_TROUBLE": log + ".trouble",  # what `lab up` and `lab cut-power`, called by tasks, could not do
        "NO_COLOR": "1",
        "COLUMNS": "160",
    }
    command = [scripts + "/molecule", "-c", "extensions/molecule/lab_config.yml", "test", "-s", "lab/" + scenario]
    lost = False
    with contextlib.suppress(FileNotFoundError):
        os.unlink(env["LAB_TROUBLE"])
    with open(log, "w") as stream:
        process = subprocess.Popen(
            command,
            cwd=tree,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        try:
            for line in process.stdout or ():
                sys.stdout.write(margin + line)
                sys.stdout.flush()
                stream.write(line)
                lost = lost or _LOST in line
            passed = process.wait() == 0
        except BaseException:
            images.end_group(process)
            raise
    if not passed and (lost or os.path.exists(env["LAB_TROUBLE"]) or not all(guest.answers() for guest in guests)):
        raise images.LabError("%s was lost during %s: see above" % (host, scenario))
    return passed


def suite(host: str, words: list[str], keep: bool = False) -> bool:
    """The integration tests against one machine, over ssh, as a user who becomes root; ``words`` are pytest's."""
    guest = Guest(MACHINES[host])
    begun = time.monotonic()
    facts: list[dict[str, str]] = []
    trouble = ""
    try:
        guest.up()
        facts.append(_facts(guest))
        command = [sys.executable, "-m", "pytest", "tests/integration", "--timeout", "3600", "--durations", "0", *words]
        env = {**os.environ, "WHARF_TEST_INVENTORY": _inventory([guest], host), "PYTHONUNBUFFERED": "1"}
        passed = subprocess.run(command, cwd=ROOT, env=env, check=False).returncode == 0
    except images.LabError as error:
        passed, trouble = False, str(error)
    if not keep:
        guest.down()
    if not words:  # a part of it says nothing about all of it
        _record(SUITE, host, passed, begun, facts, trouble)
    sys.stdout.write("\n== the suite on %s: %s %s\n" % (host, "passed" if passed else "FAILED", trouble))
    return passed


def _inventory(guests: Sequence[Guest], name: str) -> str:
    path = os.path.join(images.cache(), "inventory-%s.json" % name)
    with open(path, "w") as file:
        json.dump({"all": {"hosts": {guest.machine.name: guest.inventory() for guest in guests}}}, file, indent=2)
    return path


def _facts(guest: Guest) -> dict[str, str]:
    return dict(zip(_KEYS, guest.ssh(_FACTS).stdout.splitlines()))


def _record(scenario: str, host: str, passed: bool, begun: float, facts: list[dict[str, str]], trouble: str) -> None:
    result = {
        "scenario": scenario, "host": host, "passed": passed, "seconds": round(time.monotonic() - begun),
        "date": time.strftime("%Y-%m-%d", time.gmtime()), "facts": facts[0] if facts else {}, "fleet": facts,
        "commit": _commit(), "trouble": trouble,
    }  # fmt: skip
    with open(os.path.join(results(), "%s-%s.json" % (scenario, host)), "w") as file:
        json.dump(result, file, indent=2)


def _commit() -> str:
    argv = ["git", "-C", ROOT, "rev-parse", "--short", "HEAD"]
    answer = subprocess.run(argv, capture_output=True, text=True, check=False)
    return answer.stdout.strip()
