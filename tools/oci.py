# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Builds the runtime's executable: ``oci.py DIRECTORY [NAME]``.

``DIRECTORY/wharf-oci`` finds ``DIRECTORY/wharf-oci.d`` beside it (through symbolic links, too): the engine and its
byte code for the Python that runs this tool, which the launcher names.
"""

from __future__ import annotations

import os
import py_compile
import shutil
import sys

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ENGINE = os.path.join(REPOSITORY, "plugins", "module_utils", "_engine")
LAUNCHER = os.path.join(REPOSITORY, "roles", "host", "files", "wharf_oci.py")
PACKAGE = "wharf_runtime"
_FIRST = ("__init__.py", "_engine/__init__.py", "_engine/bytecode.py", "_engine/oci/__init__.py", "_engine/oci/slim.py")


def build(directory: str, name: str = "wharf-oci") -> str:
    """Path of the launcher."""
    launcher = os.path.join(directory, name)
    final, code = launcher + ".d", launcher + ".d.new"
    os.makedirs(directory, exist_ok=True)
    shutil.rmtree(code, ignore_errors=True)
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ENGINE, os.path.join(code, PACKAGE, "_engine"), ignore=ignore)
    with open(os.path.join(code, PACKAGE, "__init__.py"), "w"):
        pass
    names = []
    for top, _directories, files in os.walk(code):
        names += [os.path.relpath(os.path.join(top, file), code) for file in files if file.endswith(".py")]
    sys.path.insert(0, os.path.join(REPOSITORY, "plugins"))
    sys.dont_write_bytecode = True
    from module_utils._engine import bytecode

    bytecode.write(code, sorted(names), PACKAGE, final)
    for path in _FIRST:  # what is imported before it is in use
        whole = os.path.join(code, PACKAGE, path)
        py_compile.compile(whole, dfile=whole, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    shutil.rmtree(final, ignore_errors=True)
    os.rename(code, final)
    with open(LAUNCHER, encoding="utf-8") as stream:
        text = stream.read()
    python = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    temporary = launcher + ".new"
    with open(temporary, "w", encoding="utf-8") as stream:
        stream.write("#!%s -IS\n" % python + text)
    os.chmod(temporary, 0o755)
    os.rename(temporary, launcher)
    return launcher


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    print(build(*sys.argv[1:]))
