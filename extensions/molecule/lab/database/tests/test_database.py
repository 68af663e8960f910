# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the database promised its clients before the power failed, asked from where they are."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from lab.guest import Guest
from lab.ledger import CLIENTS, Connection
from lab.machines import MACHINES


@pytest.fixture(scope="module")
def acknowledged() -> dict[int, int]:
    with open(os.environ["LAB_INVENTORY"] + ".ledger") as file:
        return {int(client): n for client, n in json.load(file)["acknowledged"].items()}


@pytest.fixture(scope="module")
def database() -> Iterator[Connection]:
    made = Connection(Guest(MACHINES[os.environ["LAB_HOST"]]).web)
    yield made
    made.close()


def test_the_machine_did_lose_its_memory(host: Any) -> None:
    with open(os.environ["LAB_INVENTORY"] + ".ledger") as file:
        before = json.load(file)["boot_id"]
    assert host.check_output("cat /proc/sys/kernel/random/boot_id") != before


def test_the_database_was_not_shut_down_and_recovered(host: Any) -> None:
    with host.sudo():
        log = host.check_output("cat /var/lib/wharf/containers/*/log*")
    assert "automatic recovery in progress" in log and "PANIC" not in log


def test_every_acknowledged_row_is_there_and_nothing_is_torn(
    database: Connection, acknowledged: dict[int, int]
) -> None:
    rows = database.query(
        "SELECT client, count(*), min(n), max(n), bool_and(seal = md5(payload || client || '/' || n))"
        " FROM ledger GROUP BY client ORDER BY client"
    )
    found = {int(str(row[0])): row[1:] for row in rows}
    assert sorted(found) == list(range(CLIENTS))  # and not 99, who never committed
    for client, (count, first, last, whole) in found.items():
        assert whole == "t" and first == "1" and count == last
        # The one that was on its way may have been committed: its client was not told.
        assert acknowledged[client] <= int(str(last)) <= acknowledged[client] + 1


def test_transactions_are_there_whole_or_not_at_all(database: Connection) -> None:
    assert database.query("SELECT client, n FROM totals ORDER BY 1") == database.query(
        "SELECT client::text, count(*)::text FROM ledger GROUP BY client ORDER BY client"
    )


def test_the_index_has_every_row_and_pages_have_their_checksums(database: Connection) -> None:
    assert database.query("SELECT bt_index_parent_check('ledger_pkey', true)") == [[""]]
    assert database.query("SHOW data_checksums") == [["on"]]
    for _row in database.query("SELECT count(payload) FROM ledger"):
        assert database.query("SELECT checksum_failures FROM pg_stat_database WHERE datname = 'postgres'") == [["0"]]


def test_it_takes_the_next_row(database: Connection) -> None:
    database.query("INSERT INTO ledger VALUES (100, 1, 'after', 'all')")
    assert database.query("SELECT payload FROM ledger WHERE client = 100") == [["after"]]


def test_systemd_is_content(host: Any) -> None:
    with host.sudo():
        assert host.check_output("systemctl list-units --failed --plain --no-legend") == ""
