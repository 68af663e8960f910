# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The bundle: same sources, same bytes; nothing but sources; wrong pins are told in one sentence."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
from pathlib import Path

import pytest
from ansible.errors import AnsibleError
from plugin_utils import _bundle


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    utils = tmp_path / "plugins" / "module_utils"
    for part in _bundle.PARTS:
        (utils / part / "deep" / "__pycache__").mkdir(parents=True)
        (utils / part / "deep" / "a.py").write_text("A = 1\n")
        (utils / part / "deep" / "notes.txt").write_text("not code")
        (utils / part / "deep" / "__pycache__" / "a.py").write_text("not a source")
    (tmp_path / "requirements.txt").write_text("# comment\n")
    return tmp_path


def names(tar: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as stream:
        return stream.getnames()


def test_the_same_sources_give_the_same_bytes_wherever_and_whenever(collection: Path, tmp_path: Path) -> None:
    first = _bundle.build(str(collection))
    other = tmp_path / "elsewhere"
    shutil.copytree(collection / "plugins", other / "plugins", copy_function=shutil.copyfile)
    shutil.copy(collection / "requirements.txt", other)
    assert _bundle.build(str(other)) == first


def test_one_changed_byte_gives_another_name(collection: Path) -> None:
    first = hashlib.sha256(_bundle.build(str(collection))).hexdigest()
    (collection / "plugins/module_utils/_engine/deep/a.py").write_text("A = 2\n")
    assert hashlib.sha256(_bundle.build(str(collection))).hexdigest() != first


def test_only_sources_travel(collection: Path) -> None:
    assert names(_bundle.build(str(collection))) == [
        "wharf_runtime/__init__.py",
        "wharf_runtime/_args/deep/a.py",
        "wharf_runtime/_engine/deep/a.py",
    ]


def test_pinned_distributions_lie_beside_the_engine_with_their_licences() -> None:
    inside = names(_bundle.build())
    assert {"urllib3/__init__.py", "jmespath/__init__.py"} <= set(inside)
    for name, _version in _bundle.pins(_bundle.COLLECTION + "/requirements.txt"):
        assert any(entry.startswith(name + "-") and "LICENSE" in entry.upper() for entry in inside), name
    assert all(entry.endswith(".py") or ".dist-info/" in entry for entry in inside)
    assert inside == sorted(inside)


def test_wrong_pins_are_all_named_with_the_command_that_helps(collection: Path) -> None:
    (collection / "requirements.txt").write_text("urllib3==0.0.1\nno-such-distribution==1.0\n")
    with pytest.raises(AnsibleError) as caught:
        _bundle.build(str(collection))
    sentence = str(caught.value)
    assert "urllib3 is " in sentence and "no-such-distribution is not installed" in sentence
    assert "-m pip install -r %s/requirements.txt" % collection in sentence


def test_a_run_builds_its_bundle_once(collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    run.mkdir()
    built = []
    monkeypatch.setattr(_bundle.C, "DEFAULT_LOCAL_TMP", str(run), raising=False)
    monkeypatch.setattr(_bundle, "build", lambda: built.append(1) or b"tar")
    first, second = _bundle.current(), _bundle.current()
    assert first == second and len(built) == 1
    assert first.sha256 == hashlib.sha256(b"tar").hexdigest()
    assert _bundle.archive(first) == _bundle.archive(second)
