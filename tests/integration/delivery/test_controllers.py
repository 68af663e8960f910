# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Other controllers than the one the collection is developed with: the newest ansible-core, and mitogen."""

from __future__ import annotations

import glob
import sys
from pathlib import Path

import pytest

from .conftest import Controller, Engine, Sshd, make_venv

pytestmark = [pytest.mark.root, pytest.mark.near("an sshd and a user of the test's own, and local connections")]

VOLUME = {"name": "volume", "wharf.engine.volume": {"name": "data"}}
AGAIN = {"name": "again", "wharf.engine.volume": {"name": "data"}}
LIST = {"name": "list", "wharf.engine.volume_info": {"query": "[].Name"}}
BACKGROUND = {"name": "background", "wharf.engine.volume": {"name": "more"}, "async": 60, "poll": 1}


def check(controller: Controller, engine: Engine, sshd: Sshd, background: bool = True) -> None:
    """Local and ssh, pipelined or not, check mode, async: what every controller must be able to do."""
    for pipelining in ("0", "1"):
        controller.env["ANSIBLE_PIPELINING"] = pipelining
        far = controller.play([VOLUME, AGAIN, LIST], hosts={"far": sshd.variables}, become=True)
        assert far.code == 0, far.output
        assert not far.one("again")["changed"] and "data" in far.one("list")["volumes"]
    near = controller.play([VOLUME, LIST, BACKGROUND] if background else [VOLUME, LIST])
    assert near.code == 0, near.output
    assert not near.one("volume")["changed"]
    assert not background or near.one("background")["changed"]
    foreseen = controller.play([{**VOLUME, "wharf.engine.volume": {"name": "foreseen"}}], "--check", "--diff")
    assert foreseen.code == 0 and foreseen.one("volume")["changed"], foreseen.output
    assert len(engine.bundles) == 1


def test_ansible_core_2_21(
    collections: Path, tmp_path: Path, engine: Engine, sshd: Sshd, pythons: dict[str, str]
) -> None:
    python = pythons.get("3.13") or pythons.get("3.12") or pythons.get("3.14")
    if python is None:
        pytest.skip("ansible-core 2.21 needs Python 3.12 or newer, and this machine has none")
    venv = make_venv(python, "ansible-2.21", "ansible-core>=2.21,<2.22")
    controller = Controller(venv, collections, tmp_path, engine)
    assert "core 2.21" in controller.play([VOLUME]).output
    check(controller, engine, sshd)


def test_mitogen(collections: Path, tmp_path: Path, engine: Engine, sshd: Sshd) -> None:
    venv = make_venv(sys.executable, "mitogen", "ansible-core>=2.19,<2.20", "mitogen>=0.3.54")
    strategies = glob.glob(str(Path(venv).parents[1] / "lib/python*/site-packages/ansible_mitogen/plugins/strategy"))
    controller = Controller(venv, collections, tmp_path, engine)
    controller.env.update(ANSIBLE_STRATEGY_PLUGINS=strategies[0], ANSIBLE_STRATEGY="mitogen_linear")
    # mitogen 0.3.54 hangs in any collection's asynchronous module that imports the collection's own module_utils: the
    # detached process asks a parent for them that it has left.
    check(controller, engine, sshd, background=False)
