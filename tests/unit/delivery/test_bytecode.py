# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The bundle's byte code in one file: the same modules as from the directory, never from another Python or bundle."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from module_utils import _delivery
from module_utils._engine import bytecode

ENGINE = os.path.dirname(bytecode.__file__)
MODULES = {
    "wharf_runtime/__init__.py": "",
    "wharf_runtime/_engine/__init__.py": "N = 1\n",
    "wharf_runtime/_engine/entry.py": "from .room import thing\nfrom . import N\nWHERE = __file__\n",
    "wharf_runtime/_engine/room/__init__.py": "",
    "wharf_runtime/_engine/room/thing.py": "def fail():\n    raise KeyError('here')\n",
    "library.py": "X = 1\n",
}


def bundle(engine: Path, **more: str) -> tuple[str, _delivery.Held]:
    with open(bytecode.__file__) as stream:
        files = {**MODULES, "wharf_runtime/_engine/bytecode.py": stream.read(), **more}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in sorted(files):
            info = tarfile.TarInfo(name)
            info.size = len(files[name])
            tar.addfile(info, io.BytesIO(files[name].encode()))
    held = _delivery.Held()
    return _delivery.install(str(engine), "0" * 64, buffer.getvalue(), held), held


def in_fresh_python(root: str, code: str) -> str:
    """What ``code`` prints in an interpreter of its own, where ``load`` is the delivery's."""
    head = "import sys; sys.path.insert(0, %r); from module_utils import _delivery; root = %r; " % (
        os.path.dirname(os.path.dirname(ENGINE)),
        root,
    )
    done = subprocess.run([sys.executable, "-c", head + code], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    return done.stdout.strip()


def test_modules_come_from_the_one_file_and_are_what_the_directory_has(tmp_path: Path) -> None:
    root, held = bundle(tmp_path / "engine")
    for directory, _names, files in os.walk(root + "/wharf_runtime"):
        for name in files:
            if name.endswith(".pyc") and "bytecode" not in name and "_engine/__" not in directory + "/":
                os.unlink(os.path.join(directory, name))
    code = (
        "entry = _delivery.load(root, 'entry'); print(entry.WHERE == root + '/wharf_runtime/_engine/entry.py', "
        "entry.N, type(entry.__spec__.loader).__name__, type(entry.thing.__spec__.loader).__name__, "
        "sys.modules['wharf_runtime._engine.room'].__path__ == [root + '/wharf_runtime/_engine/room'])"
    )
    assert in_fresh_python(root, code) == "True 1 Finder Finder True"
    held.release()


def test_a_traceback_shows_the_line(tmp_path: Path) -> None:
    root, held = bundle(tmp_path / "engine")
    code = (
        "import traceback\nentry = _delivery.load(root, 'entry')\n"
        "try:\n    entry.thing.fail()\nexcept KeyError:\n    print(traceback.format_exc())"
    )
    shown = in_fresh_python(root, "\n" + code)
    assert "raise KeyError('here')" in shown and root + "/wharf_runtime/_engine/room/thing.py" in shown
    held.release()


def test_the_file_of_another_python_is_not_used(tmp_path: Path) -> None:
    root, held = bundle(tmp_path / "engine")
    path = os.path.join(root, bytecode.file_name())
    with open(path, "r+b") as stream:
        stream.seek(16)
        stream.write(b"\0\0\0\0")
    code = "print(type(_delivery.load(root, 'entry').__spec__.loader).__name__)"
    assert in_fresh_python(root, code) == "SourceFileLoader"
    os.unlink(path)
    assert in_fresh_python(root, code) == "SourceFileLoader"
    held.release()


def test_what_does_not_compile_here_raises_its_syntax_error_when_imported(tmp_path: Path) -> None:
    root, held = bundle(tmp_path / "engine", **{"wharf_runtime/_engine/later.py": "def ("})
    code = "\ntry:\n    _delivery.load(root, 'later')\nexcept SyntaxError as error:\n    print(error.filename)"
    assert in_fresh_python(root, code) == root + "/wharf_runtime/_engine/later.py"
    held.release()


def test_an_interpreter_that_ran_another_bundle_imports_from_the_one_asked_for(tmp_path: Path) -> None:
    """mitogen keeps one interpreter for many tasks."""
    first, held = bundle(tmp_path / "one" / "engine")
    second, other = bundle(tmp_path / "two" / "engine", **{"wharf_runtime/_engine/__init__.py": "N = 2\n"})
    code = (
        "print(_delivery.load(root, 'entry').N, _delivery.load(%r, 'entry').N, _delivery.load(root, 'entry').N, "
        "sum(type(f).__name__ == 'Finder' for f in sys.meta_path))" % second
    )
    assert in_fresh_python(first, code) == "1 2 1 1"
    held.release()
    other.release()


def test_imports_survive_that_every_descriptor_is_closed(tmp_path: Path) -> None:
    """Forked children close what they did not open; what then gets the number must not be taken for byte code."""
    root, held = bundle(tmp_path / "engine")
    code = (
        "import os; b = _delivery.load(root, 'bytecode'); os.closerange(3, 64); "
        "fds = [os.open('/dev/zero', os.O_RDONLY) for n in range(20)]; print(_delivery.load(root, 'entry').N)"
    )
    assert in_fresh_python(root, code) == "1"
    held.release()


@pytest.mark.parametrize("name", ["wharf_runtime._engine.nothing", "library", "os"])
def test_what_is_not_the_engines_is_left_to_the_other_finders(tmp_path: Path, name: str) -> None:
    root, held = bundle(tmp_path / "engine")
    assert bytecode.Finder(root).find_spec(name) is None
    held.release()
