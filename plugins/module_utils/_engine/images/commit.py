# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A container becomes an image (``docker commit``): the image it was made from, and one layer of what it changed."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Optional

from ..registry import mediatypes as media
from ..tuples import NamedTuple
from . import changes as instructions
from . import config as configs
from . import diff

if TYPE_CHECKING:
    from ..kernel.syscalls import Kernel
    from ..storage.shifted import Owners
    from ..store.records import ImageRecord, LayerRef
    from ..store.state import Store

_EMPTY = "sha256:" + hashlib.sha256(bytes(1024)).hexdigest()


class Container(NamedTuple):
    """What is to become a layer: ``layers`` of its image as ``(directory, form)``, its ``upper`` directory, and the
    paths something is ``mounted`` on (absolute, as the container sees them); ``owners`` of a user namespace."""

    layers: Sequence[tuple[str, str]]
    upper: str
    mounted: Sequence[str]
    owners: Optional[Owners] = None


class Wish(NamedTuple):
    """The new image's inner ``config``, and what its history says."""

    config: dict[str, Any]
    author: str
    message: str
    created_by: str


@contextmanager
def opened(kernel: Kernel, container: Container) -> Iterator[tuple[int, diff.Walk]]:
    """Descriptor of the upper, and the walk over its changes."""
    from ..storage.overlay import mount_rootfs

    lower = mount_rootfs(kernel, container.layers)
    try:
        upper = os.open(container.upper, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            mounted = _mounted(kernel, lower, container.mounted)
            yield upper, diff.Walk(kernel, upper, lower, mounted, container.owners)
        finally:
            os.close(upper)
    finally:
        os.close(lower)


def _mounted(kernel: Kernel, lower: int, targets: Sequence[str]) -> frozenset[bytes]:
    """Where the mount points really are: the image may have symlinks on the way (``/var/run``)."""
    found = set()
    for target in targets:
        parts = [os.fsencode(part) for part in target.split("/") if part not in ("", ".", "..")]
        for cut in range(len(parts), -1, -1):
            try:
                fd = kernel.open_in_root(lower, b"/".join(parts[:cut]) or b".", os.O_PATH)
            except OSError:  # not in the image: its parent, then
                continue
            try:
                # The mount is detached: its root is where the path begins.
                place = os.readlink(b"/proc/self/fd/%d" % fd).lstrip(b"/")
            finally:
                os.close(fd)
            found.add(b"/".join([place, *parts[cut:]] if place else parts[cut:]))
            break
    found.discard(b"")
    return frozenset(found)


def diff_id(kernel: Kernel, container: Container) -> str:
    """Of the layer that a commit would make now. Writes nothing."""
    checksum = hashlib.sha256()
    with opened(kernel, container) as (upper, walk):
        diff.write_layer(kernel, upper, iter(walk), checksum.update, container.owners)
    return "sha256:" + checksum.hexdigest()


def is_made_of(record: ImageRecord, base: ImageRecord, layer: str, wish: Wish) -> bool:
    """Whether ``record`` is what a commit of that layer would make, but for the time."""
    wanted = _document(base, layer, wish, "")
    return _timeless(record.config) == _timeless(configs.parse_config(_json(wanted)))


def _timeless(config: dict[str, Any]) -> dict[str, Any]:
    history = [dict(entry) for entry in config.get("history") or []]
    if history:
        history[-1].pop("created", None)
    return {**config, "created": "", "history": history}


def commit(store: Store, kernel: Kernel, container: Container, base: ImageRecord, wish: Wish, name: str) -> ImageRecord:
    """Make the image and let ``name`` (canonical) mean it. Raises ``IntegrityError``, ``Unsupported``, ``DiskFull``."""
    from ..store.records import ImageRecord
    from .sources import manifest_of

    added, size = _layer(store, kernel, container, base)
    layers = base.layers if added is None else (*base.layers, added)
    created = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + "Z"
    data = _json(_document(base, added.diff_id if added is not None else _EMPTY, wish, created))
    image_id = store.blobs.put_bytes(data)
    manifest = manifest_of(store, image_id, len(data), layers)
    record = ImageRecord(
        image_id,
        store.blobs.put_bytes(manifest),
        media.OCI_MANIFEST,
        configs.parse_config(data, layers=len(layers), subject=name),
        base.size + size,
        time.time(),
        layers,
    )
    store.images.put(record, references=[name])
    return store.images.get(image_id) or record


def _layer(store: Store, kernel: Kernel, container: Container, base: ImageRecord) -> tuple[Optional[LayerRef], int]:
    """The new layer (None when nothing changed) and its size. Where layers are extracted, its archive is kept as a
    blob: read twice, the files could be others."""
    from ..store.records import LayerRecord, LayerRef
    from .layers import LayerWriter, best_form
    from .packing import Gzip
    from .pull import check_depth

    check_depth(len(base.layers) + 1, "The new image")
    form = best_form(kernel, store.paths.layers)
    parent = base.layers[-1].chain_id if base.layers else ""
    with store.layers.stage() as stage, store.blobs.writer() as blob:
        packed = Gzip(blob.write) if form == "tree" else None
        with LayerWriter(stage.path, form=form, parents=container.layers, kernel=kernel) as writer:

            def write(data: bytes) -> None:
                writer.write(data)
                if packed is not None:
                    packed.write(data)

            with opened(kernel, container) as (upper, walk):
                if not diff.write_layer(kernel, upper, iter(walk), write, container.owners):
                    return None, 0
            result = writer.finish()
        chain = configs.chain_ids([*(layer.diff_id for layer in base.layers), result.diff_id])[-1]
        store.layers.commit(stage, LayerRecord(chain, result.diff_id, parent, result.form, result.size))
        if packed is None:
            return LayerRef(result.diff_id, chain, "", 0, media.OCI_LAYER), result.size
        packed.finish()
        size = blob.offset
        return LayerRef(result.diff_id, chain, blob.commit(), size, media.OCI_LAYER_GZIP), result.size


def _document(base: ImageRecord, layer: str, wish: Wish, created: str) -> dict[str, Any]:
    """The image config. A commit without changes adds to the history only, as in Docker."""
    kept = ("architecture", "os", "variant", "os.version")
    document: dict[str, Any] = {key: base.config[key] for key in kept if key in base.config}
    entry: dict[str, Any] = {"created": created, "created_by": wish.created_by}
    for key, value in (("author", wish.author), ("comment", wish.message)):
        if value:
            entry[key] = value
    if layer == _EMPTY:
        entry["empty_layer"] = True
    diff_ids = [one.diff_id for one in base.layers]
    document.update(
        created=created,
        config=wish.config,
        rootfs={"type": "layers", "diff_ids": diff_ids if layer == _EMPTY else [*diff_ids, layer]},
        history=[*(base.config.get("history") or []), entry],
    )
    if wish.author:
        document["author"] = wish.author
    return document


def new_config(present: dict[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """The container's configuration after Docker's ``-c`` changes. An ENTRYPOINT without a CMD drops the command that
    was meant for another one. Raises ``UsageError``."""
    config = instructions.apply(changes, present)
    words = {change.split(None, 1)[0].upper() for change in changes if change.strip()}
    if "ENTRYPOINT" in words and "CMD" not in words:
        config.pop("Cmd", None)
    return {key: value for key, value in config.items() if value not in (None, "", [], {})}


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
