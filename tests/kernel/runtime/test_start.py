# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


def test_a_program_runs_and_its_output_is_logged(engine):
    state, out, err = engine.sh("echo hello; echo oops >&2; exit 3")
    assert (out, err) == ("hello\n", "oops\n")
    assert state["exit_code"] == 3 and state["status"] == "exited"
