# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Kernels without mount_setattr(2): what a remount is told, and what has no other way."""

from __future__ import annotations

import pytest
from module_utils._engine.kernel import old_mounts
from module_utils._engine.kernel import syscalls as calls


def test_a_remount_keeps_what_it_is_not_asked_to_change():
    present = 1 | 2 | 4096  # ST_RDONLY, ST_NOSUID, ST_RELATIME
    flags = old_mounts.remount_flags(present, calls.MOUNT_ATTR_NODEV, calls.MOUNT_ATTR_RDONLY)
    assert flags == calls.MS_NOSUID | calls.MS_NODEV | 1 << 21


def test_times_of_access_replace_one_another():
    assert old_mounts.remount_flags(4096, calls.MOUNT_ATTR_NOATIME, 0) == 1 << 10
    assert old_mounts.remount_flags(1 << 10, calls.MOUNT_ATTR_STRICTATIME, 0) == 1 << 24


def test_id_mapped_mounts_are_refused_in_the_kernels_own_words():
    with pytest.raises(OSError, match="Function not implemented"):
        old_mounts.set_attributes(None, 0, calls.MOUNT_ATTR_IDMAP, 0, 0, False)
