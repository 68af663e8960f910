# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Repair what a crash left. The rules are in the package's docstring."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from ..errors import KernelError
from ..paths import Paths
from . import scratch
from .containers import REMOVED

if TYPE_CHECKING:
    from .state import Store


def recover(store: Store) -> list[str]:
    """Compare directory listings with rows; touch something only where they differ. The first call after a boot (the
    run directory has no marker of this boot) also looks at what cannot go wrong without a power cut."""
    if store.db.read_only:
        return []
    done: list[str] = []
    if os.listdir(store.paths.tmp):
        swept = scratch.sweep(store.paths.tmp)
        done += ["removed the leftover tmp/%s" % name for name in swept.gone]
        done += swept.problems
    ids = set(os.listdir(store.paths.containers))
    chains = {"sha256:" + name for name in os.listdir(store.paths.layers)}
    if ids != _ids(store) or chains != _chains(store):
        done += _repair(store)
    if not _same_boot(store.paths.run + "/boot_id"):
        done += _after_boot(store)
    return done


def _ids(store: Store) -> set[str]:
    return {row[0] for row in store.db.execute("SELECT id FROM containers")}


def _chains(store: Store) -> set[str]:
    return {row[0] for row in store.db.execute("SELECT chain_id FROM layers")}


def _repair(store: Store) -> list[str]:
    """Under the write lock, so nobody is half way through: what differs now is what a crash left."""
    done: list[str] = []
    paths = store.paths
    with store.transaction(durable=True):
        rows, present = _ids(store), set(os.listdir(paths.containers))
        for name in sorted(present - rows):
            done.append(_orphan(paths, name))
        for name in sorted(rows - present):
            store.containers.make_directory(name)
            done.append("made the directory of container %s again" % name)
        chains, there = _chains(store), {"sha256:" + name for name in os.listdir(paths.layers)}
        for chain in sorted(there - chains):
            done.append(_discard(paths, paths.layer(chain), "removed the unfinished layer %s" % chain))
        for chain in sorted(chains - there):
            done += _forget_layer(store, chain)
    return done + scratch.sweep(paths.tmp).problems


def _orphan(paths: Paths, name: str) -> str:
    """A container directory without row: see ``containers``."""
    path = paths.container(name)
    if os.path.lexists(path + "/" + REMOVED):
        return _discard(paths, path, "finished the removal of container %s" % name)
    try:
        _set_aside(paths, name)
    except KernelError as error:
        return error.msg  # as in _discard
    return "set container directory %s aside in lost/: the database does not know it" % name


def _set_aside(paths: Paths, name: str) -> None:
    lost = paths.state + "/lost"
    try:
        os.makedirs(lost, 0o700, exist_ok=True)
        os.rename(paths.container(name), "%s/%s-%d" % (lost, name, int(time.time())))
        scratch.sync_dir(lost)
    except FileNotFoundError:
        return
    except OSError as error:
        raise scratch.wrap(error, "Cannot set a container aside", step="recover", path=lost, needed=4096) from error


def _discard(paths: Paths, path: str, sentence: str) -> str:
    """One thing that cannot be removed (a mount on it) must not stop the repair of others, nor the task at hand."""
    try:
        scratch.trash(paths.tmp, path)
    except KernelError as error:
        return error.msg
    return sentence


def _forget_layer(store: Store, chain: str) -> list[str]:
    """A row without directory. An image that needs it is broken: it is removed (a pull brings it back), or waits
    unnamed for the last of its containers (which cannot start until the image was pulled again)."""
    done = []
    images = store.db.execute("SELECT DISTINCT image_id FROM image_layers WHERE chain_id = ?", (chain,))
    for (image_id,) in images:
        store.db.execute("DELETE FROM image_layers WHERE image_id = ?", (image_id,))
        store.images.remove(image_id, force=True)
        done.append("image %s lost its layer %s: pull it again" % (image_id, chain))
    store.db.execute("DELETE FROM layers WHERE chain_id = ?", (chain,))
    return [*done, "forgot the missing layer %s" % chain]


def _same_boot(marker: str) -> bool:
    try:
        with open(marker, "rb") as file:
            return file.read() == _boot_id()
    except OSError:
        return False


def _boot_id() -> bytes:
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            return file.read().strip()
    except OSError:
        return b"unknown"


def _after_boot(store: Store) -> list[str]:
    done = _adopt_volumes(store)
    marker = store.paths.run + "/boot_id"
    try:
        with open("%s.%d" % (marker, os.getpid()), "wb") as file:
            file.write(_boot_id())
        os.rename("%s.%d" % (marker, os.getpid()), marker)
    except OSError as error:
        raise scratch.wrap(error, "Cannot mark the boot", step="recover", path=marker, needed=4096) from error
    return done


def _adopt_volumes(store: Store) -> list[str]:
    """A volume directory without a row (the database was lost, or a removal was cut short) becomes a volume again:
    data is never deleted for metadata's sake."""
    from .records import VolumeRecord

    done = []
    with store.transaction(durable=True):
        rows = {row[0] for row in store.db.execute("SELECT name FROM volumes")}
        for name in sorted(set(os.listdir(store.paths.volumes)) - rows):
            if os.path.isdir(store.paths.volume_data(name)):
                store.volumes.create(VolumeRecord(name, "local", {}, False, {}, time.time()))
                done.append("found volume %s again" % name)
    return done
