# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The byte code of a whole bundle in one file, and the finder that imports from it.

An import from a directory looks at every entry of ``sys.path`` before it, stats, opens and reads a file of its own:
together a third of what a task that changes nothing costs. One file is opened once; a module is a slice of it.

The file lies in the bundle's directory, is written before that directory gets its name, and is named after the Python
that made it. Another Python, or a bundle without the file, imports in the ordinary way.

::

    b"wharf modules 1\\n"  MAGIC_NUMBER (4 bytes)  length of the index (4 bytes, little-endian)
    index: marshalled {module name: (is a package, path below the root, offset, size)}
    marshalled code objects, one after the other
"""

from __future__ import annotations

import os
import sys
from typing import Any, Optional

# As importlib.util has it, which brings four more modules along.
MAGIC_NUMBER: bytes = sys.modules["_frozen_importlib_external"].MAGIC_NUMBER
_HEAD = b"wharf modules 1\n"


def file_name() -> str:
    return "modules.%s" % sys.implementation.cache_tag


def write(directory: str, names: list[str], package: str, final: str) -> None:
    """Compile the files ``names`` below ``directory`` that belong to ``package`` into its module file.

    ``final`` is where the directory will be: tracebacks name it. A file that does not compile here is left out, and
    whoever imports it gets the SyntaxError in the ordinary way.
    """
    import marshal

    index: dict[str, tuple[bool, str, int, int]] = {}
    codes: list[bytes] = []
    offset = 0
    for name in names:
        if not name.endswith(".py") or not name.startswith(package + "/"):
            continue
        with open(os.path.join(directory, name), "rb") as stream:
            source = stream.read()
        try:
            code = marshal.dumps(compile(source, os.path.join(final, name), "exec", dont_inherit=True))
        except (SyntaxError, ValueError):
            continue
        module, is_package = _module_name(name)
        index[module] = (is_package, name, offset, len(code))
        codes.append(code)
        offset += len(code)
    packed = marshal.dumps(index)
    with open(os.path.join(directory, file_name()), "wb") as out:
        out.write(_HEAD + MAGIC_NUMBER + len(packed).to_bytes(4, "little") + packed)
        out.writelines(codes)


def _module_name(name: str) -> tuple[str, bool]:
    parts = name[: -len(".py")].split("/")
    is_package = parts[-1] == "__init__"
    return ".".join(parts[:-1] if is_package else parts), is_package


class Finder:
    """A ``sys.meta_path`` entry for one bundle. It holds no descriptor: children close those they did not make."""

    def __init__(self, root: str) -> None:
        """Raises ``FileNotFoundError`` where this Python has no module file, ``ValueError`` when it is of another."""
        import marshal

        self.root = root
        self._loads = marshal.loads
        self._path = os.path.join(root, file_name())
        head = self._read(0, len(_HEAD) + 8)
        if head[: len(_HEAD)] != _HEAD or head[len(_HEAD) : -4] != MAGIC_NUMBER:
            raise ValueError("%s was written by another Python" % self._path)
        size = int.from_bytes(head[-4:], "little")
        self._start = len(head) + size
        self._index: dict[str, tuple[bool, str, int, int]] = marshal.loads(self._read(len(head), size))

    def _read(self, offset: int, size: int) -> bytes:
        fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(fd, size, offset)
        finally:
            os.close(fd)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Optional[Any]:
        entry = self._index.get(name)
        if entry is None:
            return None
        origin = self.root + "/" + entry[1]
        make: Any = type(sys.__spec__)  # ModuleSpec, without an import for its name
        spec = make(name, self, origin=origin, is_package=entry[0])
        if entry[0]:
            spec.submodule_search_locations = [os.path.dirname(origin)]
        spec.has_location = True  # sets __file__, by which `load` tells bundles apart
        return spec

    def create_module(self, spec: Any) -> None:
        """The default will do."""

    def exec_module(self, module: Any) -> None:
        _package, _name, offset, size = self._index[module.__name__]
        exec(self._loads(self._read(self._start + offset, size)), module.__dict__)

    def get_source(self, name: str) -> str:
        """For tracebacks (``linecache``)."""
        with open(os.path.join(self.root, self._index[name][1]), encoding="utf-8") as stream:
            return stream.read()


def find_in(root: str) -> None:
    """Import from ``root``'s module file where it has one that this Python can read."""
    if any(isinstance(finder, Finder) and finder.root == root for finder in sys.meta_path):
        return
    try:
        sys.meta_path.insert(0, Finder(root))
    except (FileNotFoundError, ValueError):
        return  # made for another Python: the ordinary way
