# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The engine bundle: what the delivery action brings to a target that does not have it yet. Controller side only.

A bundle is a gzipped tar of ``wharf_runtime/`` (the collection's ``_engine`` and ``_args``) and, beside it, the
pure-Python distributions pinned in ``requirements.txt`` as they are installed in the controller's environment.
Its name is the SHA-256 of the tar before compression, so that it says what is inside and not which zlib packed it.
Same sources, same name: members are sorted, owners, modes and times are constant.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import importlib.metadata
import io
import json
import os
import re
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from ansible import constants as C
from ansible.errors import AnsibleError

COLLECTION = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PACKAGE = "wharf_runtime"
PARTS = ("_engine", "_args")


class Bundle(NamedTuple):
    sha256: str
    tar: str  # path on the controller, not compressed


def current() -> Bundle:
    """The bundle of this controller run: built by the first task that asks, found by all others.

    Workers are forked per task and host, so the meeting point is the run's own temporary directory (0700, removed
    by Ansible at exit). Raises ``AnsibleError`` when a pinned distribution is missing or another version.
    """
    index = os.path.join(_run_directory(), "wharf-bundle.json")
    found = _read_index(index)
    if found:
        return found
    with _locked():
        return _read_index(index) or _build_into(_run_directory(), index)


def archive(bundle: Bundle) -> str:
    """Path of the compressed bundle; made when the first target of the run needs it."""
    path = bundle.tar + ".gz"
    if not os.path.exists(path):
        with _locked():
            _write(path, gzip.compress(_read(bundle.tar), compresslevel=6, mtime=0))
    return path


def _run_directory() -> str:
    return str(C.DEFAULT_LOCAL_TMP)  # type: ignore[attr-defined]  # constants are made from the configuration


@contextmanager
def _locked() -> Iterator[None]:
    with open(os.path.join(_run_directory(), "wharf-bundle.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read_index(index: str) -> Bundle | None:
    try:
        return Bundle(**json.loads(_read(index)))
    except FileNotFoundError:
        return None


def _build_into(directory: str, index: str) -> Bundle:
    tar = build()
    sha256 = hashlib.sha256(tar).hexdigest()
    bundle = Bundle(sha256, os.path.join(directory, "wharf-bundle-%s.tar" % sha256[:16]))
    _write(bundle.tar, tar)
    _write(index, json.dumps(bundle._asdict()).encode())
    return bundle


def build(collection: str = COLLECTION) -> bytes:
    """The uncompressed tar."""
    members = dict(_engine_files(os.path.join(collection, "plugins", "module_utils")))
    members[PACKAGE + "/__init__.py"] = b""
    members.update(_pinned_files(os.path.join(collection, "requirements.txt")))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in sorted(members):
            info = tarfile.TarInfo(name)
            info.size = len(members[name])
            info.mode = 0o644
            tar.addfile(info, io.BytesIO(members[name]))
    return buffer.getvalue()


def _engine_files(utils: str) -> Iterator[tuple[str, bytes]]:
    for part in PARTS:
        for directory, subdirectories, names in os.walk(os.path.join(utils, part)):
            subdirectories[:] = [name for name in subdirectories if name != "__pycache__"]
            for name in names:
                if name.endswith(".py"):
                    path = os.path.join(directory, name)
                    yield PACKAGE + "/" + os.path.relpath(path, utils), _read(path)


def _pinned_files(requirements: str) -> Iterator[tuple[str, bytes]]:
    """Every source file of every pinned distribution, and the licence texts that must go where the code goes."""
    wrong = []
    found = []
    for name, version in pins(requirements):
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append("%s is not installed" % name)
            continue
        if distribution.version != version:
            wrong.append("%s is %s" % (name, distribution.version))
        elif distribution.files is None:
            wrong.append("%s was not installed by pip (it has no RECORD)" % name)
        else:
            found.append(distribution)
    if wrong:
        raise AnsibleError(
            "wharf.engine takes pure-Python libraries from the controller's Python (%s) to its targets, and they are "
            "not the pinned ones: %s. Run: %s -m pip install -r %s"
            % (sys.executable, ", ".join(wrong), sys.executable, requirements)
        )
    for distribution in found:
        for file in distribution.files or ():
            name = str(file).replace(os.sep, "/")
            if not name.startswith(("../", "/")) and (name.endswith(".py") or _is_licence(name)):
                yield name, _read(str(distribution.locate_file(file)))


def pins(requirements: str) -> list[tuple[str, str]]:
    """``[(name, version)]`` of the ``name==version`` lines."""
    with open(requirements) as stream:
        return re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", stream.read(), re.MULTILINE)


def _is_licence(name: str) -> bool:
    directory, _slash, base = name.rpartition("/")
    return ".dist-info" in directory and base.upper().startswith(("LICEN", "COPYING", "NOTICE", "AUTHORS"))


def _read(path: str) -> bytes:
    with open(path, "rb") as stream:
        return stream.read()


def _write(path: str, data: bytes) -> None:
    """Whole or not at all: other workers read these files without the lock."""
    with open(path + ".new", "wb") as stream:
        stream.write(data)
    os.rename(path + ".new", path)
