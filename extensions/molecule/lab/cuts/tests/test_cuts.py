# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""After three resets in the middle of things."""

from __future__ import annotations

import json
from typing import Any


def run(host: Any, command: str) -> str:
    with host.sudo():
        return str(host.check_output(command))


def test_the_pull_went_on_where_the_power_had_cut_it(host: Any) -> None:
    asked = [line.split() for line in run(host, "cat /root/registry/log").splitlines() if "/blobs/" in line]
    ranges = [int(words[2][6:-1]) for words in asked if len(words) > 2]
    # How much of it had reached the disk is the disk's affair; asking for more than there is would be ours.
    assert all(0 < first <= 24 << 20 for first in ranges), asked


def test_the_layer_is_the_registrys(host: Any) -> None:
    blobs = run(host, "cd /var/lib/wharf/blobs/sha256 && for f in *; do sha256sum $f; done")
    for line in blobs.splitlines():
        digest, name = line.split()
        assert digest == name


def test_the_committed_image_has_what_the_container_wrote(host: Any) -> None:
    wanted, _path = run(host, "cat /var/lib/wharf/containers/*/upper/sum").split()
    module = {"name": "reader", "image": "committed:lab", "command": ["sh", "-c", "sha256sum /much"], "detach": False}
    answer = host.ansible(
        "wharf.engine.container", json.dumps({**module, "output_logs": True}), check=False, become=True
    )
    assert wanted in json.dumps(answer), answer


def test_six_and_no_more_run_and_are_watched(host: Any) -> None:
    assert run(host, "cat /proc/[0-9]*/comm | grep -c wharf-monitor") == "6"


def test_systemd_is_content(host: Any) -> None:
    assert run(host, "systemctl list-units --failed --plain --no-legend") == ""
