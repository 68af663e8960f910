# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""``python -m lab COMMAND [HOST ...]``: see ``--help``."""

from __future__ import annotations

import argparse
import json
import os
import sys

from . import images, matrix, postgres, run
from .ci import ci
from .guest import Guest
from .machines import MACHINES


def main() -> int:
    parser = argparse.ArgumentParser(prog="lab", description="Virtual machines to test wharf.engine on.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("build", "make the disk image, if it is missing or of another recipe"),
        ("up", "start, or put back to the state after the first boot"),
        ("down", "switch off"),
        ("cut-power", "switch off and on again without asking the machine"),
        ("inventory", "print an Ansible inventory"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("hosts", nargs="*", choices=[*MACHINES, []], default=[], metavar="HOST")
    commands.add_parser("image", help="make the image of PostgreSQL, if it is missing, and print where it is")
    again = commands.add_parser("await-boot", help="wait until a machine has reset itself and answers")
    again.add_argument("host", choices=MACHINES)
    again.add_argument("before", help="its boot id before")
    shell = commands.add_parser("ssh", help="a shell, or one command")
    shell.add_argument("host", choices=MACHINES)
    shell.add_argument("words", nargs=argparse.REMAINDER)
    commands.add_parser("matrix", help="write docs/support.md from the results of the last runs")
    short = commands.add_parser("ci", help="what continuous integration runs")
    short.add_argument("--tree", required=True)
    short.add_argument("--minutes", type=float, default=30, help="what it may take at most")
    scenario = commands.add_parser("run", help="run scenarios on machines; the results are kept for the matrix")
    scenario.add_argument("--scenario", action="append", choices=[*run.SCENARIOS, *run.SPECIAL, *run.FLEETS])
    scenario.add_argument("--host", action="append", choices=MACHINES)
    scenario.add_argument("--tree", required=True, help="the collection: .../ansible_collections/wharf/engine")
    scenario.add_argument("--keep", action="store_true", help="leave the machine running")
    suite = commands.add_parser("suite", help="run the integration tests on machines, over ssh")
    suite.add_argument("--host", action="append", choices=MACHINES)
    suite.add_argument("--keep", action="store_true", help="leave the machine running")
    suite.add_argument("words", nargs="*", help="pytest's, after --")
    options = parser.parse_args()
    try:
        return _do(options)
    except images.LabError as error:
        sys.stderr.write("lab: %s\n" % error)
        if os.environ.get("LAB_TROUBLE"):  # a task of a scenario called us
            with open(os.environ["LAB_TROUBLE"], "w") as file:
                file.write(str(error))
        return 1


def _do(options: argparse.Namespace) -> int:
    if options.command == "ssh":
        argv = Guest(MACHINES[options.host]).ssh_command() + options.words
        os.execvp(argv[0], argv)
    if options.command == "image":
        sys.stdout.write(postgres.ensure() + "\n")
        return 0
    if options.command == "await-boot":
        Guest(MACHINES[options.host]).await_boot(options.before)
        return 0
    if options.command == "matrix":
        sys.stdout.write(matrix.write() + "\n")
        return 0
    if options.command == "ci":
        return ci(options.tree, options.minutes)
    if options.command == "run":
        named, hosts = options.scenario, options.host
        wanted = [
            (name, host)
            for host in hosts or MACHINES
            for name in (*run.SCENARIOS, *run.SPECIAL)
            if name in (named or (name,)) and (run.is_planned(name, host) or (named and hosts))
        ]
        if not hosts or named:  # a fleet's machines are its own
            wanted += [(name, fleet) for name, fleet in run.FLEETS.items() if name in (named or run.FLEETS)]
        outcomes = [run.run(scenario, host, options.tree, options.keep) for scenario, host in wanted]
        return 0 if all(outcomes) else 1
    if options.command == "suite":
        hosts = options.host or ["debian13b", "debian12b"]
        outcomes = [run.suite(host, options.words, options.keep) for host in hosts]
        return 0 if all(outcomes) else 1
    guests = [Guest(MACHINES[name]) for name in options.hosts or MACHINES]
    if options.command == "inventory":
        hosts = {guest.machine.name: guest.inventory() for guest in guests}
        sys.stdout.write(json.dumps({"all": {"hosts": hosts}}, indent=2) + "\n")
        return 0
    for guest in guests:
        if options.command == "build":
            images.ensure(guest.machine)
        elif options.command == "up":
            guest.up()
        elif options.command == "down":
            guest.down()
        else:
            guest.cut_power()
    return 0


if __name__ == "__main__":
    sys.exit(main())
