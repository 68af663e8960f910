# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The target side of delivery: find or install the engine, run it, and turn its errors into ``fail_json``.

A module's payload holds this file and the option tables, and no engine: AnsiballZ compiles whatever it carries on
every task. The engine lies in ``<state_dir>/engine/<sha256>/`` with its byte code, put there by the first task
(``plugins/action/container.py`` brings the archive). So nothing here imports ``_engine`` statically.

This file alone must still load on Python 3.8, which ansible-core 2.19 accepts and the engine does not.
"""

from __future__ import annotations

import fcntl
import os
import sys
from typing import Any, Dict, List, NoReturn, Optional

from ansible.module_utils.basic import AnsibleModule

from ._args.common import COMMON, Table, argument_spec

MINIMUM_PYTHON = (3, 9)
MINIMUM_KERNEL = (5, 10)
PACKAGE = "wharf_runtime"
BYTE_CODE = "_engine/bytecode.py"
LARGEST_BUNDLE = 64 << 20


class DeliveryError(Exception):
    """Something about the host or the bundle, in one sentence. ``kind`` and ``hint`` as in the engine's errors."""

    def __init__(self, kind: str, msg: str, hint: Optional[str] = None) -> None:
        super().__init__(msg)
        self.kind = kind
        self.hint = hint


class BundleMissing(Exception):
    """The target lacks the bundle and was given no archive: the action's cue to bring it."""


class EngineModule(AnsibleModule):
    """An ``AnsibleModule`` whose underscored arguments are the action plugin's, not the user's.

    ``_load_params`` exists "so that custom modules could read the parameters"; taking ours out there keeps them out
    of the argument spec, the documentation and ``invocation``.
    """

    delivery: Dict[str, Any]

    def _load_params(self) -> None:
        super()._load_params()
        names = [name for name in self.params if name.startswith(("_bundle", "_progress", "_image"))]
        self.delivery = {name: self.params.pop(name) for name in names}


def run(noun: str, *tables: Table, **rules: Any) -> None:
    """What a module's ``main`` does: ``rules`` are AnsibleModule's ``required_if`` and relatives."""
    module = EngineModule(argument_spec=argument_spec(COMMON, *tables), supports_check_mode=True, **rules)
    held = Held()
    try:
        check_host()
        result = _run_engine(module, noun, held)
    except BundleMissing:
        _answer_missing(module)
    except DeliveryError as error:
        module.fail_json(msg=str(error), error=_error(error.kind, hint=error.hint))
    except Exception as error:  # the boundary: whatever is not a WharfError is a bug, and told as one
        _fail(module, error)
    finally:
        held.release()
    module.exit_json(**result)


def check_host(python: Any = None, system: str = "", release: str = "", euid: Optional[int] = None) -> None:
    """Raises ``DeliveryError`` when this host cannot run the engine. Arguments replace what the host says."""
    python = tuple(python or sys.version_info)[:3]
    if python[:2] < MINIMUM_PYTHON:
        raise DeliveryError(
            "unsupported",
            "wharf.engine needs Python %d.%d or newer on the target, and %s is Python %d.%d.%d"
            % (*MINIMUM_PYTHON, sys.executable, *python),
            "Set ansible_python_interpreter to a newer Python.",
        )
    uname = os.uname()
    system, release = system or uname.sysname, release or uname.release
    if system != "Linux":
        raise DeliveryError("unsupported", "wharf.engine runs on Linux, and this target is %s" % system)
    if _kernel_version(release) < MINIMUM_KERNEL:
        raise DeliveryError(
            "unsupported",
            "wharf.engine needs Linux %d.%d or newer, and this target runs %s" % (*MINIMUM_KERNEL, release),
        )
    if (os.geteuid() if euid is None else euid) != 0:
        raise DeliveryError(
            "permission",
            "wharf.engine must run as root to create namespaces and mounts, and this task runs as uid %d"
            % (os.geteuid() if euid is None else euid),
            "Add become: true to the task or the play.",
        )


def _kernel_version(release: str) -> Any:
    numbers = []
    for part in release.split(".")[:2]:
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        numbers.append(int(digits) if digits else 0)
    return tuple(numbers)


def _run_engine(module: EngineModule, noun: str, held: Held) -> Dict[str, Any]:
    sha256 = module.delivery.get("_bundle")
    if not sha256:
        raise DeliveryError(
            "usage",
            "This module was not started by the collection's action plugin, which brings the engine",
            "Call it as wharf.engine.%s from a playbook, a role or the ansible command." % noun,
        )
    root = _find_or_install(module, os.path.join(module.params["state_dir"], "engine"), sha256, held)
    if module.delivery.get("_bundle_only"):
        return {"changed": False}
    entry = load(root, "entry")
    progress = str(module.delivery.get("_progress") or "")
    params = {**module.params, **{key: value for key, value in module.delivery.items() if key.startswith("_image")}}
    result: Dict[str, Any] = entry.dispatch(noun, params, bool(module.check_mode), bool(module._diff), progress)
    return result


def load(root: str, name: str) -> Any:
    """The engine's module ``name`` from the bundle at ``root``, and from nowhere else.

    Under mitogen one interpreter serves many tasks: what an earlier task loaded from another bundle must go.
    """
    import importlib

    loaded = sys.modules.get(PACKAGE)
    if loaded is not None and list(loaded.__path__) != [os.path.join(root, PACKAGE)]:
        other = os.path.dirname(next(iter(loaded.__path__))) + os.sep
        for key, value in list(sys.modules.items()):
            if (getattr(value, "__file__", None) or "").startswith(other):
                del sys.modules[key]
        sys.path[:] = [path for path in sys.path if path + os.sep != other]
        sys.meta_path[:] = [finder for finder in sys.meta_path if getattr(finder, "root", "") + os.sep != other]
    if root not in sys.path:
        sys.path.insert(0, root)
    if os.path.exists(os.path.join(root, PACKAGE, BYTE_CODE)):
        importlib.import_module(PACKAGE + "._engine.bytecode").find_in(root)
    return importlib.import_module("%s._engine.%s" % (PACKAGE, name))


# --- the bundle directory ---------------------------------------------------------------------------------------------
#
# <state_dir>/engine/               0700, owned by root
#     .install                      flock: one installer at a time
#     <sha256>/                     complete, because it came here by rename after everything in it was on disk
#         .lock                     whoever runs code from here holds a shared flock on it
#         wharf_runtime/ pyroute2/ ...
#     current -> <sha256>           the one that came last, for what starts at boot
#     .new-<pid>                    an installer's litter, if .install can be locked
#     .old-<sha256>                 on its way out


class Held:
    """The shared lock on the bundle this process runs from. The descriptor is close-on-exec."""

    def __init__(self) -> None:
        self._fd = -1
        self._scratch = ""

    def take(self, root: str) -> bool:
        """False when there is no such bundle, or it was being removed."""
        path = os.path.join(root, ".lock")
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
            here, there = os.fstat(fd), os.stat(path)
        except FileNotFoundError:
            os.close(fd)
            return False
        if (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino):
            os.close(fd)
            return False
        self._fd = fd
        return True

    def scratch(self) -> str:
        """A private directory that goes with ``release``."""
        import tempfile

        self._scratch = tempfile.mkdtemp(prefix="wharf-")
        return self._scratch

    def release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._scratch:
            _remove_tree(self._scratch)
            self._scratch = ""


def _find_or_install(module: EngineModule, engine: str, sha256: str, held: Held) -> str:
    if len(sha256) != 64 or sha256.strip("0123456789abcdef"):
        raise DeliveryError("usage", "%r is not the name of an engine bundle" % sha256)
    root = os.path.join(engine, sha256)
    _refuse_writable_by_others(engine)
    if held.take(root):
        return root
    archive = module.delivery.get("_bundle_archive")
    if not archive:
        raise BundleMissing()
    tar = unpack(archive, sha256)
    if module.check_mode:
        # Check mode leaves nothing on the host, not even the engine.
        root = held.scratch()
        _extract(tar, root)
        return root
    try:
        return install(engine, sha256, tar, held)
    except OSError as error:
        raise DeliveryError("disk_full" if error.errno in (28, 122) else "kernel", _os_sentence(engine, error))


def _os_sentence(engine: str, error: OSError) -> str:
    return "Cannot install the engine below %s: %s" % (engine, error.strerror or error)


def _refuse_writable_by_others(engine: str) -> None:
    """The task runs this directory's code as root: whoever else can write to it would own the host."""
    try:
        status = os.lstat(engine)
    except FileNotFoundError:
        return
    if status.st_uid != os.geteuid() or status.st_mode & 0o022 or (status.st_mode & 0o170000) != 0o040000:
        raise DeliveryError(
            "permission",
            "Refusing to run the engine from %s: it must be a directory that only its owner, uid %d, can write to"
            % (engine, os.geteuid()),
            "Remove it, or set state_dir to a directory of root's.",
        )


def unpack(archive: str, sha256: str) -> bytes:
    """The uncompressed tar, only if it is what ``sha256`` names; nothing of it is parsed before that is known."""
    import hashlib
    import zlib

    with open(archive, "rb") as stream:
        packed = stream.read(LARGEST_BUNDLE)
    try:
        tar = zlib.decompressobj(31).decompress(packed, LARGEST_BUNDLE)
    except zlib.error:
        tar = b""
    if hashlib.sha256(tar).hexdigest() != sha256:
        raise DeliveryError(
            "integrity",
            "The engine bundle that arrived is not the one the controller sent (sha256 is not %s); nothing was "
            "installed" % sha256,
            "Somebody or something changed it on the way. Run the task again, and look at the target's temporary "
            "directory if it happens twice.",
        )
    return tar


def install(engine: str, sha256: str, tar: bytes, held: Held) -> str:
    """Put the bundle in place and take its lock. Safe when several tasks do it at once; older bundles that nobody
    uses are removed."""
    root = os.path.join(engine, sha256)
    _make_directories(engine)
    with open(os.path.join(engine, ".install"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if held.take(root):
            return root  # somebody else was faster
        new = os.path.join(engine, ".new-%d" % os.getpid())
        _remove_tree(new)
        os.mkdir(new, 0o700)
        names = _extract(tar, new)
        _compile(new, names, root)
        os.close(os.open(os.path.join(new, ".lock"), os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        _flush(new)
        os.rename(new, root)
        _point_current(engine, sha256)
        _flush_directory(engine)
        held.take(root)
        _remove_unused(engine, sha256)
    return root


def _point_current(engine: str, sha256: str) -> None:
    link = os.path.join(engine, ".new-current")
    if os.path.islink(link):
        os.unlink(link)
    os.symlink(sha256, link)
    os.rename(link, os.path.join(engine, "current"))


def _make_directories(engine: str) -> None:
    state = os.path.dirname(engine)
    for path, mode in ((state, 0o710), (engine, 0o700)):
        if not os.path.isdir(path):
            os.makedirs(path, mode=0o700, exist_ok=True)
            os.chmod(path, mode)


def _extract(tar: bytes, target: str) -> List[str]:
    """Writes regular files only. The archive's hash is known, so these checks only guard against our own mistakes."""
    import io
    import tarfile

    names = []
    made = set()
    with tarfile.open(fileobj=io.BytesIO(tar), mode="r:") as stream:
        for member in stream:
            parts = member.name.split("/")
            source = stream.extractfile(member) if member.isreg() else None
            if source is None or member.name.startswith("/") or ".." in parts:
                raise DeliveryError("integrity", "The engine bundle holds an unexpected entry: %s" % member.name)
            path = os.path.join(target, *parts)
            directory = os.path.dirname(path)
            if directory not in made:
                os.makedirs(directory, mode=0o700, exist_ok=True)
                made.add(directory)
            with open(path, "wb") as out:
                out.write(source.read())
            names.append(member.name)
    return names


def _compile(directory: str, names: List[str], final: str) -> None:
    """Byte code for the Python that runs this task; another one makes its own when it first imports.

    Unchecked: the directory's name is the hash of the sources, so they cannot change under it.
    """
    import py_compile

    for name in names:
        if name.endswith(".py"):
            try:
                py_compile.compile(
                    os.path.join(directory, name),
                    dfile=os.path.join(final, name),
                    doraise=True,
                    invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
                )
            except py_compile.PyCompileError:
                continue  # a library's file for newer Pythons: whoever imports it gets the SyntaxError
    if "%s/%s" % (PACKAGE, BYTE_CODE) in names:
        load(directory, "bytecode").write(directory, names, PACKAGE, final)


def _flush(directory: str) -> None:
    """Everything in ``directory`` is on disk before its name says so. One syncfs instead of some 600 fsyncs."""
    import ctypes

    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(fd):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), directory)
    finally:
        os.close(fd)


def _flush_directory(directory: str) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _remove_unused(engine: str, current: str) -> None:
    """Caller holds ``.install``. A bundle whose lock somebody holds stays until a later installation."""
    for name in os.listdir(engine):
        path = os.path.join(engine, name)
        if name.startswith((".new-", ".old-")):
            _remove_tree(path)
        elif len(name) == 64 and name != current and _retire(path, os.path.join(engine, ".old-" + name)):
            _remove_tree(os.path.join(engine, ".old-" + name))


def _retire(path: str, away: str) -> bool:
    try:
        fd = os.open(os.path.join(path, ".lock"), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        os.rename(path, away)
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rename(path, away)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(fd)


def _remove_tree(path: str) -> None:
    import shutil

    shutil.rmtree(path, ignore_errors=True)


# --- answers ----------------------------------------------------------------------------------------------------------


def _answer_missing(module: EngineModule) -> NoReturn:
    module.fail_json(
        msg="The engine is not on this target yet, and only the collection's action plugin can bring it",
        wharf_bundle="missing",
    )


def _fail(module: EngineModule, error: Exception) -> NoReturn:
    """A ``WharfError`` in its own words with whatever was done before it; anything else as a bug with a traceback."""
    errors = sys.modules.get(PACKAGE + "._engine.errors")
    if errors is not None and isinstance(error, errors.WharfError):
        fields = error.as_dict()
        result = fields.pop("result", None) or {}
        module.fail_json(**{**result, "msg": error.msg, "error": fields})
    import traceback

    module.fail_json(
        msg="Internal error in wharf.engine: %s: %s" % (type(error).__name__, error),
        exception=traceback.format_exc(),
        error=_error("internal", hint="This is a bug. Please report it with the traceback."),
    )


def _error(kind: str, hint: Optional[str] = None) -> Dict[str, Any]:
    return {"kind": kind, "step": "delivery", "subject": None, "path": None, "errno": None, "hint": hint}
