# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""One process that builds layers while their blobs still come in. ``workshop`` forks it, and tells it by a pipe what
there is to read; it answers with a line of JSON per layer.

A process, because most of what a layer costs beside zlib is Python (a tar header takes longer than its file), and
because the parent's downloads are threads. What it reads of a blob is not verified yet. So it commits a layer only
after it has been told that the blob is what it should be, and only if what it read has the layer's DiffID; whatever
else it finds is no verdict: the parent looks at the verified blob again and says what is wrong.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from ..errors import KernelError, NotFound
from .unpack import CHUNK, unpack_source

if TYPE_CHECKING:
    from ..kernel.syscalls import Kernel
    from ..paths import Paths
    from ..store.records import LayerRef

# Orders, each with the number of a layer and a count of bytes (or of layers).
ORDER = struct.Struct("<cxxxIQ")
BUILD = b"J"  # build this layer
BYTES = b"A"  # so much of its blob is in the partial file
RESTART = b"R"  # its partial file begins anew
VERIFIED = b"V"  # its blob is verified and in its place
COMMITTED = b"C"  # all layers below this number are committed


class _Anew(Exception):
    """What was read of the blob has been thrown away."""


class _Over(Exception):
    """The parent wants nothing any more, or is gone."""


def main(
    paths: Paths, kernel: Kernel, layers: Sequence[LayerRef], subject: str, orders: int, answers: int, parent: int
) -> NoReturn:
    """The whole life of a freshly forked builder."""
    from ..kernel.syscalls import PR_SET_PDEATHSIG
    from ..process import reset_child

    code = 1
    try:
        gc.freeze()  # nothing of the parent's may be finalised here: its descriptors' numbers are ours now
        kernel.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:
            reset_child((orders, answers, *_database(paths)))
            _Builder(paths, kernel, layers, subject, orders, answers).run()
        code = 0
    finally:
        os._exit(code)


def _database(paths: Paths) -> list[int]:
    """The descriptors that SQLite has open. It keeps what it knows of a file per process, a forked one's included, and
    a new connection to the same file goes on with them."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink("/proc/self/fd/" + name).startswith(paths.database):
                found.append(int(name))
        except FileNotFoundError:
            continue  # the one that listed the directory
    return found


class _Builder:
    def __init__(
        self, paths: Paths, kernel: Kernel, layers: Sequence[LayerRef], subject: str, orders: int, answers: int
    ) -> None:
        from ..store.state import Store

        self._store = Store(paths)  # the parent has opened it: there is nothing to make or to repair
        self._kernel = kernel
        self._layers = layers
        self._subject = subject
        self._orders = orders
        self._answers = answers
        self._committed = 0
        self.layer = -1  # number of the one that is being built
        self.available = 0  # bytes of its blob that may be read
        self.begun_anew = False
        self.verified = False

    def run(self) -> None:
        try:
            while True:
                self.receive()
                if self.layer >= 0:
                    self._answer(self.layer)
                    self.layer = -1
        except _Over:
            return

    def receive(self) -> None:
        """Wait for one order."""
        data = os.read(self._orders, ORDER.size)
        if len(data) < ORDER.size:
            raise _Over()
        kind, layer, count = ORDER.unpack(data)
        if kind == BUILD:
            self.layer, self.available, self.begun_anew, self.verified = layer, 0, False, False
        elif kind == COMMITTED:
            self._committed = max(self._committed, layer)
        elif layer != self.layer:
            return  # about one that is done
        elif kind == BYTES:
            self.available = max(self.available, count)
        elif kind == RESTART:
            self.begun_anew, self.available = True, count
        elif kind == VERIFIED:
            self.verified, self.available = True, count

    def _answer(self, number: int) -> None:
        from ..runtime import wire

        answer: dict[str, Any] = {"layer": number}
        try:
            self._build(number)
        except _Over:
            raise
        except BaseException as error:
            answer["error"] = wire.error_to_dict(error, "unpack_layer")
        data = memoryview(json.dumps(answer).encode() + b"\n")
        while data:
            data = data[os.write(self._answers, data) :]

    def _build(self, number: int) -> None:
        from .apply import build_layer

        store, layer, below = self._store, self._layers[number], self._layers[:number]
        what = "Layer %s of %s" % (layer.blob_digest, self._subject)
        with store.lock("blob", "layer-" + layer.chain_id):
            if store.layers.get(layer.chain_id) is not None and store.layers.pin(layer.chain_id):
                return
            while True:
                source = _Arriving(
                    self, store.blobs.partial(layer.blob_digest), store.blobs.path(layer.blob_digest), what
                )

                def feed(write: Callable[[bytes], Any], source: _Arriving = source) -> None:
                    unpack_source(source, write, subject=what)
                    source.finish()
                    while self._committed < number:
                        self.receive()

                try:
                    size = layer.blob_size
                    build_layer(
                        store, self._kernel, layer, below, feed, what=what, subject=self._subject, blob_size=size
                    )
                    return
                except _Anew:
                    continue
                finally:
                    source.close()


class _Arriving:
    """A blob as ``unpack`` reads it, that may still be coming in: ``read`` waits for what is not there yet."""

    def __init__(self, builder: _Builder, partial: str, path: str, what: str) -> None:
        self._builder = builder
        self._paths = (partial, path)
        self._what = what
        self._fd = -1
        self.offset = 0
        builder.begun_anew = False

    def read(self) -> bytes:
        builder = self._builder
        # The first piece decides about the compression, and a few bytes would not do.
        enough = CHUNK if not self.offset else 1
        while builder.available - self.offset < enough and not builder.verified:
            self._receive()
        size = min(CHUNK, builder.available - self.offset)
        if size <= 0:
            return b""
        try:
            if self._fd < 0:
                self._fd = self._open()
            data = os.pread(self._fd, size, self.offset)
        except OSError as error:
            raise KernelError.wrap(error, "Cannot read %s" % self._what, step="unpack_layer") from error
        if not data:  # truncated: that it begins anew is about to be told
            self._receive()
            return self.read()
        self.offset += len(data)
        return data

    def _receive(self) -> None:
        self._builder.receive()
        # What was read so far was of the old file. Before anything was read there is nothing to forget.
        if self._builder.begun_anew and self._fd >= 0:
            raise _Anew()
        self._builder.begun_anew = False

    def _open(self) -> int:
        for path in self._paths:  # its place last: it is put there before the partial file's name goes
            try:
                return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
        raise NotFound("%s is not in the store" % self._what, step="unpack_layer", subject=self._what)

    def finish(self) -> None:
        """Until the blob is verified."""
        while not self._builder.verified:
            self._receive()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
