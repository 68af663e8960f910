# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The engine's house rules, read off its syntax trees: rooms import only downward, nothing forbidden is called,
third-party packages stay inside functions, files stay short, and the oldest Python can parse them all."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator

import pytest

ENGINE = os.path.normpath(os.path.join(os.path.dirname(__file__), "../../plugins/module_utils/_engine"))

# From the street to the cellar (docs: design, layout). A room may import from itself and from what comes after it.
ROOMS = (
    "doors", "api", "resources", "oci", "reconcile", "build", "images", "registry", "runtime", "network", "storage",
    "store", "kernel", "templates", "base",
)  # fmt: skip
DOORS = {"bytecode", "entry", "restore"}  # modules beside the rooms that lead into them from outside
BASE = {"errors", "process", "fds", "paths", "timestamps", "tuples"}  # modules that everybody may use

FORBIDDEN_MODULES = {"subprocess", "ansible", "module_utils", "asyncio", "dataclasses"}
FORBIDDEN_CALLS = {"print", "exit", "quit", "breakpoint", "sys.exit", "os.system", "os.popen"}
LINES = 500


def _files() -> list[str]:
    found = []
    for top, _dirs, names in os.walk(ENGINE):
        found += [os.path.relpath(os.path.join(top, name), ENGINE) for name in names if name.endswith(".py")]
    return sorted(found)


FILES = _files()


def _read(file: str) -> str:
    with open(os.path.join(ENGINE, file), encoding="utf-8") as handle:
        return handle.read()


def _tree(file: str) -> ast.Module:
    return ast.parse(_read(file), file)


def _room(parts: list[str]) -> str:
    """The room of a module given as its dotted parts below ``_engine``; "" for the package itself."""
    if not parts:
        return ""
    if parts[0] in DOORS:
        return "doors"
    return "base" if parts[0] in BASE else parts[0]


def _is_below(room: str, own: str) -> bool:
    if room == "_args":
        return own in ("doors", "api", "resources", "reconcile")
    return ROOMS.index(room) >= ROOMS.index(own)


def _imports(file: str) -> Iterator[tuple[int, list[str]]]:
    """``(line, parts below _engine)`` of every relative import, wherever in the file it is."""
    package = file.split("/")[:-1]
    for node in ast.walk(_tree(file)):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        up = len(package) - (node.level - 1)
        if up < 0:  # only the option tables, which are data and travel with the engine
            outside = "" if up == -1 and (node.module or "").partition(".")[0] == "_args" else "<outside>"
            yield node.lineno, [outside or "_args"]
            continue
        base = package[:up] + (node.module.split(".") if node.module else [])
        if base:
            yield node.lineno, base
        else:  # ``from .. import errors``, or a name of the package itself (``VERSION``)
            for alias in node.names:
                if os.path.exists(os.path.join(ENGINE, alias.name)) or alias.name + ".py" in FILES:
                    yield node.lineno, [alias.name]


def _absolute_imports(tree: ast.Module) -> Iterator[tuple[ast.stmt, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name.partition(".")[0]
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node, node.module.partition(".")[0]


def test_every_module_is_in_a_room():
    for file in FILES:
        room = _room(file[:-3].split("/")) if file != "__init__.py" else "base"
        assert room in ROOMS, "%s is in no room" % file


@pytest.mark.parametrize("file", FILES)
def test_a_room_imports_only_from_rooms_below(file):
    own = _room(file[:-3].split("/")) if file != "__init__.py" else "base"
    wrong = []
    for line, parts in _imports(file):
        room = _room(parts)
        if room not in (*ROOMS, "_args"):
            wrong.append("%s:%d imports from %s, which is no room" % (file, line, "/".join(parts)))
        elif not _is_below(room, own):
            wrong.append("%s:%d (%s) imports upward from %s" % (file, line, own, "/".join(parts)))
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("file", FILES)
def test_nothing_forbidden_is_imported_or_called(file):
    tree = _tree(file)
    wrong = [
        "%s:%d imports %s" % (file, node.lineno, root)
        for node, root in _absolute_imports(tree)
        if root in FORBIDDEN_MODULES
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            wrong.append("%s:%d asserts" % (file, node.lineno))
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in FORBIDDEN_CALLS:
            wrong.append("%s:%d calls %s" % (file, node.lineno, ast.unparse(node.func)))
    assert not wrong, "\n".join(wrong)


@pytest.mark.skipif(not hasattr(sys, "stdlib_module_names"), reason="needs Python 3.10")
@pytest.mark.parametrize("file", FILES)
def test_third_party_packages_are_imported_inside_functions(file):
    """ansible-test imports every module on a Python without them, and a task that does not need them must not pay."""
    tree, lazy = _tree(file), set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.If)):
            # Of all ``if`` statements only TYPE_CHECKING keeps an import from running.
            if isinstance(node, ast.If) and ast.unparse(node.test) != "TYPE_CHECKING":
                continue
            lazy |= {id(inner) for inner in ast.walk(node)}
    wrong = [
        "%s:%d imports %s" % (file, node.lineno, root)
        for node, root in _absolute_imports(tree)
        if root not in sys.stdlib_module_names and id(node) not in lazy
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("file", FILES)
def test_named_tuples_are_those_that_cost_nothing(file):
    """Each of typing's costs every process that imports it a quarter of a millisecond."""
    wrong = [
        "%s:%d" % (file, node.lineno)
        for node in ast.walk(_tree(file))
        if isinstance(node, ast.ImportFrom)
        and (node.module in ("typing", "collections"))
        and {"NamedTuple", "namedtuple"} & {alias.name for alias in node.names}
        and file != "tuples.py"
    ]
    assert not wrong, "take it from _engine/tuples.py: " + ", ".join(wrong)


@pytest.mark.parametrize("file", FILES)
def test_a_long_file_says_at_its_top_why(file):
    count = _read(file).count("\n")
    if count > LINES:
        docstring = ast.get_docstring(_tree(file)) or ""
        assert "%d lines" % LINES in docstring, "%s has %d lines and no reason for it" % (file, count)


@pytest.mark.parametrize("file", FILES)
def test_the_oldest_python_can_parse_it_and_it_says_whose_it_is(file):
    text = _read(file)
    ast.parse(text, file, feature_version=(3, 9))
    lines = text.split("\n")
    assert lines[0].startswith("# Copyright: (c)") and lines[1].startswith(
        "# SPDX-License-Identifier: GPL-3.0-or-later"
    )
