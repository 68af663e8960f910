# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The stand-ins for library modules behave as the real ones where the engine uses them, and give way where not."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys

import pytest
from helpers.bundle import PLUGINS
from hypothesis import given
from hypothesis import strategies as st
from module_utils._engine.oci import slim

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@pytest.fixture(scope="module")
def stand_in():
    return slim._json()


def test_nothing_is_put_in_place_where_the_real_modules_are():
    assert slim.install() is False
    assert not isinstance(sys.modules["json"], slim.StandIn)


@given(VALUES)
def test_json_is_read_and_written_as_by_the_real_module(value):
    module = slim._json()
    text = module.dumps(value)
    assert text == json.dumps(value)
    assert module.loads(text) == json.loads(text) and module.loads(text.encode()) == value
    assert module.loads(" \n" + text + "\t ") == value


@pytest.mark.parametrize("text", ["", "{", '{"a":1}x', "[1,]", "nul", '{"a" 1}', '"\\x"', b"\xff", "1 2"])
def test_what_is_no_json_is_refused_by_the_real_module(stand_in, text):
    with pytest.raises(ValueError):
        stand_in.loads(text)


def test_options_and_odd_numbers_are_the_real_modules(stand_in):
    assert stand_in.dumps({"b": 1, "a": [2]}, indent=1, sort_keys=True) == json.dumps(
        {"b": 1, "a": [2]}, indent=1, sort_keys=True
    )
    assert math.isnan(stand_in.loads("NaN")) and stand_in.loads("-Infinity") == -math.inf
    with pytest.raises(TypeError):
        stand_in.dumps({"x": object()})


def test_the_fast_path_imports_no_real_module_and_others_are_there_when_asked_for(tmp_path):
    """What the budget rests on: not one of the modules that are stood in for, nor what they bring along."""
    script = (
        "import sys; sys.dont_write_bytecode = True; sys.path.insert(0, %r)\n"
        "from module_utils._engine.oci import slim\n"
        "assert slim.install()\n"
        "from module_utils._engine.oci.main import main\n"
        "import module_utils._engine.oci.create, module_utils._engine.oci.lifecycle, module_utils._engine.oci.report\n"
        "import module_utils._engine.oci.execute, module_utils._engine.oci.foreground\n"
        "import module_utils._engine.kernel.devices\n"
        "heavy = {'re', 'enum', 'functools', 'contextlib', 'selectors', 'argparse', 'subprocess', 'importlib.util'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
        "import typing, collections, signal\n"
        "print(collections.OrderedDict.__name__, signal.Signals(9).name, typing.get_type_hints.__name__)\n"
        "import socket, subprocess, json\n"
        "print(json.JSONDecodeError.__name__, socket.gethostname.__name__, subprocess.run(['true']).returncode)\n"
    ) % PLUGINS
    result = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["[]", "OrderedDict SIGKILL get_type_hints", "JSONDecodeError gethostname 0"]


def test_a_build_runs_from_anywhere_and_through_a_link(tmp_path):
    repository = os.path.normpath(os.path.join(PLUGINS, ".."))
    tool = os.path.join(repository, "tools/oci.py")
    subprocess.run([sys.executable, tool, str(tmp_path / "built")], check=True, stdout=subprocess.DEVNULL)
    os.symlink("built/wharf-oci", tmp_path / "link")
    shown = subprocess.run([tmp_path / "link", "--version"], capture_output=True, text=True, check=True, cwd="/").stdout
    assert shown.startswith("wharf-oci version ")
    root = str(tmp_path / "root")
    result = subprocess.run(
        [tmp_path / "link", "--root", root, "state", "x"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1 and "does not exist" in result.stderr
