# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import secrets
import shutil
import tempfile

import pytest
from helpers.bundle import Bundle


@pytest.fixture
def bundle():
    if os.geteuid() != 0 or not os.path.exists("/bin/busybox"):
        pytest.skip("needs root and a busybox")
    directory = tempfile.mkdtemp(prefix="wt-bundle-", dir="/var/tmp")
    os.chmod(directory, 0o755)
    made = Bundle(directory, "/run/wt" + secrets.token_hex(4))
    yield made
    made.clean()
    shutil.rmtree(directory)
