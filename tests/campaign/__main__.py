# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""``make campaign ROUNDS=500 SEED=1``: prints rounds, faults and losses; fails when there was a loss.

In a guest: ``PYTHONPATH=plugins:tests python3 -m campaign --rounds 50 --clock``. It needs Python, root, a static
busybox and, for power cuts that cost what was not on the disk, mkfs.ext4 and losetup.
"""

from __future__ import annotations

import argparse
import faulthandler
import random
import signal
import sys

from campaign.faults import FAULTS
from campaign.run import Campaign, say


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=None, help="a random one is chosen, and printed, without")
    parser.add_argument("--first", type=int, default=1, help="the round to begin with; wishes before it are skipped")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at the first loss")
    parser.add_argument("--disk", choices=["ext4", "tmpfs"], default="", help="ext4 where it can be had, without")
    parser.add_argument("--clock", action="store_true", help="the machine's own clock may be put forward and back")
    parser.add_argument("--fault", action="append", choices=sorted(set(FAULTS)), help="this one only; several times")
    options = parser.parse_args()
    faulthandler.register(signal.SIGUSR1)  # where does it hang?
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(1))  # it leaves nothing behind
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    say("campaign with seed %d, %d rounds" % (seed, options.rounds))
    campaign = Campaign(seed, say, disk=options.disk, clock=options.clock, among=options.fault or FAULTS)
    campaign.run(options.rounds, options.keep_going, options.first)
    say(campaign.summary())
    return 1 if campaign.losses or campaign.rounds < options.rounds else 0


if __name__ == "__main__":
    sys.exit(main())
