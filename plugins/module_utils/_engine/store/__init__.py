# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the engine remembers: intent in SQLite, content in files. Nothing here knows a kernel object.

Layout (``paths.state``; everything on one file system)::

    state.db, -wal, -shm     images, references, layers, containers, networks, leases, ports, volumes, events
    blobs/sha256/<hex>       whole and verified, or not there. Never written in place
    layers/<hex of chain id> whole (form "erofs": tar, index; form "tree": tree/). Never written in place
    containers/<id>/         exists from the commit of the container's row on
    volumes/<name>/_data     never deleted here
    locks/<kind>.<name>      empty files for flock; may vanish when nobody holds them
    tmp/ingest-<hex>         a blob with that digest coming in, or a partial one waiting (a day) to be resumed
    tmp/ingest-r<hex>        a blob coming in whose digest nobody knows yet
    tmp/layer-<hex>/         a layer being built
    tmp/trash-<hex>          something being deleted
    reserve                  some space given back on a full disk, so that something can be removed
    lost/<id>-<time>/        container directories set aside because the database that knew them was lost
    <paths.run>/boot_id      which boot this state was last looked through in

Locks, in the order they may be taken:

1. ``flock`` on ``locks/``: store, image, network, volume, container (and blob, the only one that may be held over
   network I/O); several of a kind by ascending name. ``locks.Locks`` refuses anything else.
2. SQLite's write lock (``Store.transaction()``): short, no network I/O, no waiting inside.
3. ``flock`` on the thing itself. Exclusive, on an entry of ``tmp/``: I am working on it. Shared, on a blob or layer
   directory: a *pin*, I am going to name it in an image. Only ever waited for by whoever wants the same blob;
   under the write lock it is tried, never waited for.

Order of work, which makes every crash one of the cases below:

* blob: write ``tmp/ingest-*`` under its flock, verify, fsync, ``link`` into place (exclusive), fsync directory, unlink.
* layer: build ``tmp/layer-*`` under its flock, syncfs; in one transaction: rename into place, fsync directory, row.
* image: its layers and blobs first (pinned), then one durable transaction with all rows; then the pins go.
* container: row (durable), then directory. Removal: mark, row, endpoints, ports (durable), directory to the trash.
* collecting: sync; in one transaction: recompute what is reachable, rename the rest (unless pinned) to the trash,
  delete its rows; then rm -rf outside of every lock.

What may be found half-done after kill -9 or a power cut, and what ``recover()`` does about it at the next ``open()``:

=====================================  ==============================================================================
``tmp/ingest-<digest>``                kept for a day; the next writer of that digest hashes it again and goes on
other ``tmp/`` entry, lockable         deleted
blob that no image names               whole and verified, so of use to the next pull; ``collect()`` deletes it
layer directory without row            deleted (a crash before the commit; a pull builds it again)
layer row without directory            row deleted (a crash in ``collect()``); an image that needs it goes too
container row without directory        directory made
container directory without row        with the mark ``.removed``: deleted (its removal had been committed). Without:
                                       set aside in ``lost/``, for the row was lost, not removed (an old copy of the
                                       database was put back, or a new one made)
volume directory without row           becomes a volume (looked for once per boot)
last ordinary transactions missing     (power cut only) the state before them; durable ones are never missing
=====================================  ==============================================================================
"""
