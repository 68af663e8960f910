# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The target side: installed whole or not at all, by one of many, and kept while somebody runs from it."""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import importlib.util
import io
import multiprocessing
import os
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from module_utils import _delivery


def make_tar(**files: str) -> bytes:
    files.setdefault("wharf_runtime/__init__.py", "")
    files.setdefault("wharf_runtime/_engine/__init__.py", "")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in sorted(files):
            info = tarfile.TarInfo(name)
            info.size = len(files[name])
            tar.addfile(info, io.BytesIO(files[name].encode()))
    return buffer.getvalue()


def sha(tar: bytes) -> str:
    return hashlib.sha256(tar).hexdigest()


@pytest.fixture
def engine(tmp_path: Path) -> str:
    return str(tmp_path / "state" / "engine")


@pytest.fixture
def held() -> Iterator[_delivery.Held]:
    held = _delivery.Held()
    yield held
    held.release()


def entries(engine: str) -> set[str]:
    return {name for name in os.listdir(engine) if name not in (".install", "current")}


def test_an_installed_bundle_has_byte_code_and_is_private(engine: str, held: _delivery.Held) -> None:
    tar = make_tar(**{"wharf_runtime/_engine/entry.py": "X = 1\n"})
    root = _delivery.install(engine, sha(tar), tar, held)
    source = root + "/wharf_runtime/_engine/entry.py"
    assert os.path.isfile(importlib.util.cache_from_source(source))
    assert os.stat(engine).st_mode & 0o777 == 0o700
    assert os.stat(os.path.dirname(engine)).st_mode & 0o777 == 0o710
    assert entries(engine) == {sha(tar)}


def test_what_does_not_compile_on_this_python_does_not_matter_until_it_is_imported(
    engine: str, held: _delivery.Held
) -> None:
    tar = make_tar(**{"library/future.py": "def ("})
    assert os.path.isdir(_delivery.install(engine, sha(tar), tar, held))


def test_a_bundle_in_use_stays_and_goes_with_the_next_installation_after(engine: str) -> None:
    tars = [make_tar(n=str(n)) for n in range(3)]
    running, second, third = _delivery.Held(), _delivery.Held(), _delivery.Held()
    _delivery.install(engine, sha(tars[0]), tars[0], running)
    _delivery.install(engine, sha(tars[1]), tars[1], second)
    assert entries(engine) == {sha(tars[0]), sha(tars[1])}
    running.release()
    second.release()
    _delivery.install(engine, sha(tars[2]), tars[2], third)
    assert entries(engine) == {sha(tars[2])}
    assert os.readlink(engine + "/current") == sha(tars[2])
    third.release()


def test_litter_of_a_killed_installer_is_removed(engine: str, held: _delivery.Held) -> None:
    os.makedirs(engine + "/.new-99999/half", mode=0o700)
    os.makedirs(engine + "/.old-" + "0" * 64)
    tar = make_tar()
    _delivery.install(engine, sha(tar), tar, held)
    assert entries(engine) == {sha(tar)}


def test_a_removed_bundle_is_missing_even_for_who_opened_its_lock_before(engine: str, held: _delivery.Held) -> None:
    tar = make_tar()
    root = _delivery.install(engine, sha(tar), tar, held)
    held.release()
    fd = os.open(root + "/.lock", os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    os.rename(root, root + ".gone")
    os.close(fd)
    assert not held.take(root)


def _install_in_process(engine: str, tar: bytes, barrier: Any, results: Any) -> None:
    barrier.wait()
    held = _delivery.Held()
    results.put(_delivery.install(engine, sha(tar), tar, held))
    held.release()


def test_concurrent_first_tasks_all_find_it(engine: str) -> None:
    context = multiprocessing.get_context("fork")
    tar = make_tar(**{"wharf_runtime/_engine/m%d.py" % n: "X = %d\n" % n for n in range(30)})
    barrier, results = context.Barrier(6), context.Queue()
    workers = [context.Process(target=_install_in_process, args=(engine, tar, barrier, results)) for _n in range(6)]
    for worker in workers:
        worker.start()
    roots = {results.get(timeout=30) for _worker in workers}
    for worker in workers:
        worker.join(30)
        assert worker.exitcode == 0
    assert roots == {os.path.join(engine, sha(tar))}
    assert entries(engine) == {sha(tar)}


@pytest.mark.parametrize("damage", ["flipped", "truncated", "not gzip", "other content", "bomb"])
def test_a_bundle_that_is_not_what_the_controller_sent_is_refused(tmp_path: Path, damage: str) -> None:
    tar = make_tar()
    packed = bytearray(gzip.compress(tar))
    if damage == "flipped":
        packed[len(packed) // 2] ^= 1
    elif damage == "truncated":
        packed = packed[: len(packed) // 2]
    elif damage == "not gzip":
        packed = bytearray(b"#!/bin/sh\n")
    elif damage == "other content":
        packed = bytearray(gzip.compress(make_tar(evil="import os")))
    else:
        packed = bytearray(gzip.compress(bytes(_delivery.LARGEST_BUNDLE + 1)))
    path = tmp_path / "bundle"
    path.write_bytes(packed)
    with pytest.raises(_delivery.DeliveryError) as caught:
        _delivery.unpack(str(path), sha(tar))
    assert caught.value.kind == "integrity"


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "a/../../outside"])
def test_names_that_lead_outside_are_refused(engine: str, held: _delivery.Held, name: str) -> None:
    tar = make_tar(**{name: "x"})
    with pytest.raises(_delivery.DeliveryError, match="unexpected entry"):
        _delivery.install(engine, sha(tar), tar, held)
    assert not entries(engine) - {".new-%d" % os.getpid()}


@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_code_is_never_run_from_where_others_can_write(engine: str, mode: int) -> None:
    os.makedirs(engine)
    os.chmod(engine, mode)
    with pytest.raises(_delivery.DeliveryError, match="Refusing to run the engine"):
        _delivery._refuse_writable_by_others(engine)


def test_the_engine_directory_is_no_symlink(tmp_path: Path, engine: str) -> None:
    os.makedirs(os.path.dirname(engine))
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    os.symlink(tmp_path / "elsewhere", engine)
    with pytest.raises(_delivery.DeliveryError, match="Refusing"):
        _delivery._refuse_writable_by_others(engine)


def test_the_engine_comes_from_the_bundle_asked_for_even_in_an_interpreter_that_ran_another(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """mitogen keeps one interpreter for many tasks."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    seen = []
    for n in (1, 2):
        held = _delivery.Held()
        tar = make_tar(
            **{"wharf_runtime/_engine/entry.py": "import beside\nN = beside.N\n", "beside.py": "N = %d\n" % n}
        )
        root = _delivery.install(engine, sha(tar), tar, held)
        seen.append(_delivery.load(root, "entry").N)
        assert sys.path[0] == root and sum(path.startswith(engine) for path in sys.path) == 1
        held.release()
    for name in [name for name in sys.modules if name.partition(".")[0] in ("wharf_runtime", "beside")]:
        del sys.modules[name]
    assert seen == [1, 2]


@pytest.mark.parametrize(
    ("host", "words", "hint"),
    [
        ({"python": (3, 8, 18)}, "needs Python 3.9 or newer on the target", "ansible_python_interpreter"),
        ({"release": "4.18.0-553.el8.x86_64"}, "needs Linux 5.10 or newer, and this target runs 4.18.0", ""),
        ({"release": "5.9-rc1"}, "needs Linux 5.10", ""),
        ({"system": "FreeBSD"}, "this target is FreeBSD", ""),
        ({"euid": 1000}, "must run as root", "become: true"),
    ],
)
def test_a_host_that_will_not_do_is_told_in_a_sentence(host: dict[str, Any], words: str, hint: str) -> None:
    with pytest.raises(_delivery.DeliveryError) as caught:
        _delivery.check_host(**{"euid": 0, "release": "6.1.0-26-amd64", **host})
    assert words in str(caught.value)
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize("release", ["5.10.0", "5.10", "6.1.0-26-amd64", "7.0-rc3", "10.0.0+"])
def test_a_new_enough_kernel_will_do(release: str) -> None:
    _delivery.check_host(release=release, euid=0)
