# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""``cut.py COUNT BYTES PATTERN...``: resets this machine once COUNT things match, and have BYTES together.

Nothing is flushed, unmounted or told (sysrq b): what the power button of the lab does, but at a moment that is over
before anybody outside could press it.
"""

from __future__ import annotations

import glob
import os
import sys


def size(path: str) -> int:
    try:
        return os.lstat(path).st_size
    except FileNotFoundError:  # gone since it was listed
        return 0


def main(count: int, size_wanted: int, patterns: list[str]) -> None:
    with open("/proc/sysrq-trigger", "w") as trigger:
        while True:
            found = [path for pattern in patterns for path in glob.glob(pattern)]
            if len(found) >= count and (not size_wanted or sum(size(path) for path in found) >= size_wanted):
                trigger.write("b")
                trigger.flush()
                return


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
