# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""``make fuzz SECONDS=60 TARGET=tar``: prints runs of each target, and the input that broke one; or replays such."""

from __future__ import annotations

import argparse
import random
import sys

from fuzz.run import guided_is_there, replay, run
from fuzz.targets import TARGETS


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="for each target")
    parser.add_argument("--target", action="append", choices=sorted(TARGETS))
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--directory", default=".build/fuzz", help="for the corpus and for what broke a target")
    parser.add_argument("--engine", choices=("hypothesis", "atheris"))
    parser.add_argument("--replay", help="only this input, with its traceback")
    options = parser.parse_args()
    if options.replay:
        replay(options.replay)
        sys.stdout.write("no fault\n")
        return 0
    seed = random.SystemRandom().randrange(1, 10**6) if options.seed is None else options.seed

    def say(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    say("seed %d%s" % (seed, "" if guided_is_there() else "; atheris is not installed, so hypothesis alone"))
    return (
        1 if run(options.target or list(TARGETS), options.directory, options.seconds, seed, say, options.engine) else 0
    )


if __name__ == "__main__":
    sys.exit(main())
