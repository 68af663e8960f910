# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""``make campaign ROUNDS=500 SEED=1``: prints rounds, faults and losses; fails when there was a loss."""

from __future__ import annotations

import argparse
import random
import sys

from campaign.run import Campaign, say


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=None, help="a random one is chosen, and printed, without")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at the first loss")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    say("campaign with seed %d, %d rounds" % (seed, options.rounds))
    campaign = Campaign(seed, say)
    campaign.run(options.rounds, options.keep_going)
    say(campaign.summary())
    return 1 if campaign.losses or campaign.rounds < options.rounds else 0


if __name__ == "__main__":
    sys.exit(main())
