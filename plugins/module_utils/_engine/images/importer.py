# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A root file system archive becomes an image of one layer (``docker import``), always the same one.

Docker stamps the time of the import into the config, so that importing twice gives two images. Here the time is that
of the newest file in the archive: the image id depends on the archive, the changes and the platform alone, and a task
that imports what is already there changes nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Optional, Union

from ..errors import IntegrityError, KernelError, UsageError
from . import changes as instructions

if TYPE_CHECKING:
    from ..kernel.syscalls import Kernel
    from ..store.layers import Stage
    from ..store.records import ImageRecord
    from ..store.state import Store
    from .layers import LayerResult
    from .reference import Reference
    from .seen import Seen

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
_PIECE = 1 << 20


def image_id(
    path: str, *, changes: Sequence[str] = (), platform: Optional[str] = None, store: Optional[Store] = None
) -> str:
    """The id of the image that ``import_tar`` would make. Reads the whole archive and checks its form (so check mode
    finds what is wrong with it), writes nothing. With ``store``, an archive file that was imported before and has not
    been touched since is not read. Raises as ``import_tar``."""
    from . import seen

    settings = instructions.apply(changes)
    known = seen.recall(store.paths, path) if store is not None else None
    if known is None:
        known = _survey(path)
    return "sha256:" + hashlib.sha256(_config(settings, known.diff_id, known.newest, platform)).hexdigest()


def _survey(path: str) -> Seen:
    from .seen import Seen
    from .tarstream import TarStream
    from .tree import LayerTree

    digest = hashlib.sha256()
    stream = TarStream(LayerTree())

    def take(data: bytes) -> None:
        digest.update(data)
        stream.write(data)

    _feed(path, take)
    stream.close()
    return Seen("sha256:" + digest.hexdigest(), stream.newest)


def import_tar(
    store: Store,
    kernel: Kernel,
    path: str,
    *,
    ref: Union[Reference, str],
    changes: Sequence[str] = (),
    platform: Optional[str] = None,
) -> ImageRecord:
    """Import the archive at ``path`` (plain, gzip, xz or bzip2, told by its first bytes) and name it ``ref``.

    ``changes``: Dockerfile instructions for the config (see ``changes.py``). ``platform``: as ``linux/arm64``, by
    default the host's. Raises ``UsageError`` (reference, changes, path), ``Unsupported`` (compression),
    ``IntegrityError`` (no or a hostile archive), ``DiskFull``.
    """
    from ..store.records import ImageRecord, LayerRecord, LayerRef
    from . import config as configs
    from . import seen

    name = _name(ref)
    settings = instructions.apply(changes)
    layer, stage, length, info = _import_layer(store, kernel, path)
    try:
        record = LayerRecord(layer.diff_id, layer.diff_id, "", layer.form, layer.size)
        store.layers.commit(stage, record)
    finally:
        stage.discard()
    blob = _keep_archive(store, path, layer, info) or (layer.diff_id, length, LAYER_TYPE)
    config = _config(settings, layer.diff_id, layer.newest, platform)
    config_digest = store.blobs.put_bytes(config)
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {"mediaType": CONFIG_TYPE, "digest": config_digest, "size": len(config)},
            "layers": [{"mediaType": blob[2], "digest": blob[0], "size": blob[1]}],
        }
    )
    image = ImageRecord(
        config_digest,
        store.blobs.put_bytes(manifest),
        MANIFEST_TYPE,
        configs.parse_config(config, layers=1, subject=name),
        layer.size,
        time.time(),
        (LayerRef(layer.diff_id, layer.diff_id, *(blob if blob[2] != LAYER_TYPE else ("", 0, LAYER_TYPE))),),
    )
    store.images.put(image, references=[name])
    seen.remember(store.paths, path, info, seen.Seen(layer.diff_id, layer.newest))
    return store.images.get(config_digest) or image


def _keep_archive(store: Store, path: str, layer: LayerResult, info: os.stat_result) -> Optional[tuple[str, int, str]]:
    """(digest, size, media type) of the archive as a blob, for a layer that was extracted: a push could not make the
    same archive again. A layer kept as an archive is compressed when it is pushed."""
    if layer.form != "tree":
        return None
    from .packing import pack_stream
    from .seen import stamp

    states: list[os.stat_result] = []
    digest, size = pack_stream(store, lambda write: states.append(_feed(path, write)[1]))
    if stamp(states[0]) != stamp(info):
        raise IntegrityError("Cannot import %s: it changed while it was read" % path, step="import", path="path")
    return digest, size, LAYER_TYPE + "+gzip"


def _import_layer(store: Store, kernel: Kernel, path: str) -> tuple[LayerResult, Stage, int, os.stat_result]:
    """The written layer in its stage, the bytes of the uncompressed archive, and the file as it was."""
    from .layers import LayerWriter, best_form

    stage = store.layers.stage()
    try:
        with LayerWriter(stage.path, form=best_form(kernel, store.paths.tmp), kernel=kernel) as writer:
            length, info = _feed(path, writer.write)
            return writer.finish(), stage, length, info
    except BaseException:
        stage.discard()
        raise


def _name(ref: Union[Reference, str]) -> str:
    from .reference import parse

    parsed = parse(ref) if isinstance(ref, str) else ref
    if parsed.digest:
        raise UsageError(
            "Cannot import as %s: what is imported gets its digest from its contents" % str(parsed),
            step="validate",
            path="name",
        )
    return parsed.canonical()


def _config(settings: dict[str, Any], diff_id: str, newest: int, platform: Optional[str]) -> bytes:
    from .platform import host_platform, parse

    chosen = parse(platform) if platform else host_platform()
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(newest))
    document: dict[str, Any] = {
        "architecture": chosen.architecture,
        "os": chosen.os,
        "created": created,
        "config": settings,
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created": created, "comment": "Imported from -"}],
    }
    if chosen.variant:
        document["variant"] = chosen.variant
    return _json(document)


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


# -- reading -----------------------------------------------------------------------------------------------------


def _feed(path: str, write: Callable[[bytes], Any]) -> tuple[int, os.stat_result]:
    """Give the archive's uncompressed bytes to ``write``; returns their number and the file's state. An empty file is
    no archive, and neither is one that changes meanwhile."""
    from .seen import stamp
    from .unpack import compression, unpack

    total = 0

    def count(data: bytes) -> None:
        nonlocal total
        total += len(data)
        write(data)

    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise UsageError(
            "Cannot import %s: %s" % (path, error.strerror), step="import", path="path", errno=error.errno
        ) from error
    try:
        before = os.fstat(fd)
        if not stat.S_ISREG(before.st_mode):
            raise UsageError("Cannot import %s: it is not a file" % path, step="import", path="path")
        kind = compression(os.pread(fd, 512, 0))
        if kind in ("xz", "bzip2"):
            decompress(fd, kind, count, path)
        else:
            unpack(fd, count, subject=path)
        if stamp(os.fstat(fd)) != stamp(before):
            raise IntegrityError("Cannot import %s: it changed while it was read" % path, step="import", path="path")
    except OSError as error:
        raise KernelError.wrap(error, "Cannot read %s" % path, step="import") from error
    finally:
        os.close(fd)
    if not total:
        raise IntegrityError("Cannot import %s: it is empty" % path, step="import", path="path")
    return total, before


def decompress(fd: int, kind: str, write: Callable[[bytes], Any], path: str) -> None:
    """xz and bzip2, of several streams too (both tools concatenate so); at most 1 MiB comes out at a time."""
    from .unpack import RATIO_FREE, RATIO_LIMIT

    taken = given = 0
    decoder, fresh = _decoder(kind), True
    data = os.read(fd, _PIECE)
    taken += len(data)
    while data or not fresh:
        try:
            out = decoder.decompress(data, _PIECE)
        except (OSError, ValueError, EOFError) as error:  # bz2 raises OSError
            raise _damaged(path, kind, str(error)) from error
        except Exception as error:  # lzma.LZMAError is a plain Exception
            raise _damaged(path, kind, str(error)) from error
        fresh = False
        given += len(out)
        if given > RATIO_FREE and given > RATIO_LIMIT * taken:
            raise _damaged(path, kind, "it unpacks to more than %d times its size" % RATIO_LIMIT)
        if out:
            write(out)
        if bool(decoder.eof):  # bool: pylint takes the C type's attributes for constants
            data = decoder.unused_data or os.read(fd, _PIECE)
            data = data.lstrip(b"\0") if kind == "xz" else data  # stream padding
            decoder, fresh = _decoder(kind), True
        elif bool(decoder.needs_input):
            data = os.read(fd, _PIECE)
            if not data:
                raise _damaged(path, kind, "it ends in the middle")
            taken += len(data)
        else:
            data = b""


def _decoder(kind: str) -> Any:
    try:
        if kind == "xz":
            import lzma

            return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=256 << 20)
        import bz2

        return bz2.BZ2Decompressor()
    except ImportError as error:
        from ..errors import Unsupported

        raise Unsupported(
            "This host's Python cannot read %s" % kind,
            step="import",
            hint="Install the module %s, or recompress the archive with gzip." % ("lzma" if kind == "xz" else "bz2"),
        ) from error


def _damaged(path: str, kind: str, why: str) -> IntegrityError:
    return IntegrityError("Cannot import %s: damaged %s data (%s)" % (path, kind, why), step="import", path="path")
