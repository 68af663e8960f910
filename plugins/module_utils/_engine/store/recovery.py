# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Repair what a crash left. The rules are in the package's docstring."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from . import scratch

if TYPE_CHECKING:
    from .state import Store


def recover(store: Store) -> list[str]:
    """Compare directory listings with rows; touch something only where they differ. The first call after a boot (the
    run directory has no marker of this boot) also looks at what cannot go wrong without a power cut."""
    done: list[str] = []
    fresh = store.db.fresh
    if os.listdir(store.paths.tmp):
        names, _freed = scratch.sweep(store.paths.tmp)
        done += ["removed the leftover tmp/%s" % name for name in names]
    ids = set(os.listdir(store.paths.containers))
    chains = {"sha256:" + name for name in os.listdir(store.paths.layers)}
    if ids != _ids(store) or chains != _chains(store):
        done += _repair(store, fresh)
    if not _same_boot(store.paths.run + "/boot_id"):
        done += _after_boot(store)
    return done


def _ids(store: Store) -> set[str]:
    return {row[0] for row in store.db.execute("SELECT id FROM containers")}


def _chains(store: Store) -> set[str]:
    return {row[0] for row in store.db.execute("SELECT chain_id FROM layers")}


def _repair(store: Store, fresh: bool) -> list[str]:
    """Under the write lock, so nobody is half way through: what differs now is what a crash left."""
    done: list[str] = []
    trashed = []
    paths = store.paths
    with store.transaction(durable=True):
        rows, present = _ids(store), set(os.listdir(paths.containers))
        for name in sorted(present - rows):
            if fresh:
                done.append(_set_aside(store, name))
            else:
                trashed.append(scratch.trash(paths.tmp, paths.container(name)))
                done.append("finished the removal of container %s" % name)
        for name in sorted(rows - present):
            store.containers.make_directory(name)
            done.append("made the directory of container %s again" % name)
        chains, there = _chains(store), {"sha256:" + name for name in os.listdir(paths.layers)}
        for chain in sorted(there - chains):
            trashed.append(scratch.trash(paths.tmp, paths.layer(chain)))
            done.append("removed the unfinished layer %s" % chain)
        for chain in sorted(chains - there):
            done += _forget_layer(store, chain)
    for path in trashed:
        scratch.empty(path)
    return done


def _set_aside(store: Store, name: str) -> str:
    """The database was lost (this process made a new one): the container's writable layer may be all that is left of
    somebody's data, so it is kept where nothing will delete it."""
    lost = store.paths.state + "/lost"
    os.makedirs(lost, 0o700, exist_ok=True)
    os.rename(store.paths.container(name), "%s/%s-%d" % (lost, name, int(time.time())))
    return "set container directory %s aside in lost/: the database that knew it is gone" % name


def _forget_layer(store: Store, chain: str) -> list[str]:
    """A row without directory. An image that needs it is broken: it is removed (a pull brings it back) unless
    containers are made from it; those cannot start, and say so."""
    done = []
    images = store.db.execute("SELECT DISTINCT image_id FROM image_layers WHERE chain_id = ?", (chain,))
    for (image_id,) in images:
        store.db.execute("DELETE FROM image_layers WHERE image_id = ?", (image_id,))
        if not store.db.first("SELECT 1 FROM containers WHERE image_id = ?", (image_id,)):
            store.db.execute("DELETE FROM images WHERE id = ?", (image_id,))
        done.append("image %s lost its layer %s: pull it again" % (image_id, chain))
    store.db.execute("DELETE FROM layers WHERE chain_id = ?", (chain,))
    return [*done, "forgot the missing layer %s" % chain]


def _same_boot(marker: str) -> bool:
    try:
        with open(marker, encoding="ascii") as file:
            return file.read() == _boot_id()
    except OSError:
        return False


def _boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return "unknown"


def _after_boot(store: Store) -> list[str]:
    done = _adopt_volumes(store)
    marker = store.paths.run + "/boot_id"
    try:
        with open("%s.%d" % (marker, os.getpid()), "w", encoding="ascii") as file:
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
