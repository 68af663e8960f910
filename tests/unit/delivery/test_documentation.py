# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the documentation says about options is what the option tables do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from module_utils._args import common, container, network, volume
from module_utils._engine import VERSION

ROOT = Path(__file__).parents[3]
MODULES = sorted(path.stem for path in (ROOT / "plugins/modules").glob("*.py"))


class _Loader(yaml.SafeLoader):
    """With Ansible's mark for text that is no Jinja."""


_Loader.add_constructor("!unsafe", lambda loader, node: loader.construct_scalar(node))


def block(module: str, name: str) -> Any:
    text = (ROOT / "plugins/modules" / (module + ".py")).read_text()
    found = re.search(r'^%s = r"""\n(.*?)^"""' % name, text, re.MULTILINE | re.DOTALL)
    return yaml.load(found.group(1), _Loader) if found else None


def test_every_module_is_routed_to_the_action_and_in_the_action_group() -> None:
    runtime = yaml.safe_load((ROOT / "meta/runtime.yml").read_text())
    assert runtime["action_groups"]["all"] == MODULES
    routed = {name: {"action_plugin": "wharf.engine.container"} for name in MODULES}
    assert runtime["plugin_routing"]["modules"] == routed


def test_the_engine_and_the_collection_have_one_version() -> None:
    assert yaml.safe_load((ROOT / "galaxy.yml").read_text())["version"] == VERSION


@pytest.mark.parametrize(
    ("module", "table", "live"),
    [
        ("container", container.CONFIG, "Changed on the running container."),
        ("network", network.CONFIG, "Changed on the existing network."),
        ("volume", volume.CONFIG, "Changed on the existing volume."),
    ],
)
def test_the_documentation_says_how_a_change_is_made(module: str, table: common.Table, live: str) -> None:
    options = block(module, "DOCUMENTATION")["options"]
    for name, option in table.items():
        if option.get("compare") in (None, "ignore") or len(option.get("choices", ())) == 1:
            continue
        sentence = last_sentence(options, name)
        if table[option.get("into", name)]["change"] == "live":  # perhaps "where the kernel allows it"
            assert sentence.startswith(live.rstrip(".")), name
        else:
            assert re.fullmatch(r"Changing (it|them) replaces the %s\." % module, sentence), name


def last_sentence(options: dict[str, Any], name: str) -> str:
    """What the documentation says last about an option; "Changed as O(other) are." is what it says about the other."""
    sentences = options[name]["description"]
    sentence = str(sentences if isinstance(sentences, str) else sentences[-1])
    other = re.fullmatch(r"Changed as O\((\w+)\) are\.", sentence)
    return last_sentence(options, other.group(1)) if other else sentence


@pytest.mark.parametrize("module", MODULES)
def test_examples_name_only_options_that_exist(module: str) -> None:
    known: set[str] = set()
    text = (ROOT / "plugins/modules" / (module + ".py")).read_text()
    documented = block(module, "DOCUMENTATION")
    for name, option in documented["options"].items():
        known |= {name, *option.get("aliases", ())}
    if "_engine.QUERY" in text:
        known.add("query")
    if "_engine.FORMAT" in text:
        known.add("format")
    if "_engine.TRANSPORT" in text:
        known |= {"validate_certs", "ca_path"}
    for task in block(module, "EXAMPLES"):
        assert "name" in task
        for option in task.get("wharf.engine." + module) or {}:
            assert option in known, task["name"]
