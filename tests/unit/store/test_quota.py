# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A quota that is used up is a full disk, whoever notices it. The error is made here: few kernels have quotas."""

from __future__ import annotations

import errno
import os
import sqlite3
from typing import Any

import pytest
from module_utils._engine.errors import DiskFull, StateError
from module_utils._engine.store.state import Store


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.ENOSPC, errno.EIO])
def test_what_sqlite_calls_an_i_o_error_is_a_full_disk_where_nothing_can_be_written(
    store: Store, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """And damage where the reason is another: the advice for that is to move the database away."""

    def refuse(*_arguments: Any) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(StateError if number == errno.EIO else DiskFull):
        store.db._fail(sqlite3.OperationalError("disk I/O error"))


def test_an_i_o_error_on_a_disk_with_room_is_no_full_disk(store: Store) -> None:
    with pytest.raises(StateError, match="disk I/O error"):
        store.db._fail(sqlite3.OperationalError("disk I/O error"))
