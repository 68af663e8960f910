# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_module_that_takes_a_list_documents_what_container_documents() -> None:
    spec = importlib.util.spec_from_file_location("containers_module", ROOT / "tools/containers_module.py")
    assert spec is not None and spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert (ROOT / "plugins/modules/containers.py").read_text() == tool.module(), "run tools/containers_module.py"
