# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""One target under atheris, in a process of its own (libFuzzer ends it): ``python -m fuzz.guided NAME OPTIONS``."""

from __future__ import annotations

import sys


def main() -> None:
    import atheris

    with atheris.instrument_imports(include=["module_utils._engine"]):
        from fuzz.targets import TARGETS

    run = TARGETS[sys.argv[1]].run

    def once(data: bytes) -> None:
        run(data)

    atheris.Setup([sys.argv[0], *sys.argv[2:]], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
