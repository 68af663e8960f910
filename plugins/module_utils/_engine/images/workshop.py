# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Layers are built while their blobs come in, by processes beside the one that downloads.

Blobs arrive in order, and layers are given out in order, so the lowest layer that is not done is always being built or
next: nobody waits for a layer that nobody builds. Anything a builder cannot do counts as not done: the pull then does
it by itself, from the verified blob (``apply``), and is the one that tells what is wrong.
"""

from __future__ import annotations

import json
import os
import select
import signal
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Optional

from ..errors import Interrupted, WharfError
from . import builder

if TYPE_CHECKING:
    from ..kernel.syscalls import Kernel
    from ..paths import Paths
    from ..store.records import LayerRef

BUILDERS = 4
WORTH_IT = 1 << 20  # bytes of blobs: for less, a fork costs more than it saves
_ROOM = 4096  # a pipe that poll calls writable takes at least this much


class NoBuilder(WharfError):
    """Why nobody builds a layer, when nothing is wrong with it. Never the error a user sees."""


class _Process:
    __slots__ = ("answers", "buffer", "layer", "orders", "pid")

    def __init__(self, pid: int, orders: int, answers: int) -> None:
        self.pid, self.orders, self.answers = pid, orders, answers
        self.layer = -1
        self.buffer = b""


class _Blob:
    __slots__ = ("available", "begun", "verified")

    def __init__(self) -> None:
        self.available = 0
        self.begun = self.verified = False


class Workshop:
    """Use it in ``with``, entered before any thread is started (it forks). ``tell`` is for ``download.Fetcher``.
    Without ``early``, no byte of a blob is looked at before all of it is verified."""

    def __init__(
        self,
        paths: Paths,
        kernel: Kernel,
        layers: Sequence[LayerRef],
        missing: Sequence[int],
        subject: str,
        early: bool = True,
    ) -> None:
        self._paths = paths
        self._kernel = kernel
        self._layers = layers
        self._subject = subject
        self._early = early
        self._todo = list(missing)
        self._undone = set(missing)
        self._errors: dict[int, WharfError] = {}
        self._blobs = {layers[number].blob_digest: _Blob() for number in missing}
        self._processes: list[_Process] = []
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._listen, name="workshop", daemon=True)

    # -- for the pull ---------------------------------------------------------------------------------------

    def __enter__(self) -> Workshop:
        count = min(BUILDERS, len(self._todo), len(os.sched_getaffinity(0)))
        try:
            for _n in range(count):
                self._fork()
        except OSError as error:  # no process, descriptor or memory is left: so many will have to do
            if not self._processes:
                self._give_up(error)
        except BaseException:
            self._end(kill=True)
            raise
        with self._changed:
            for process in self._processes:
                self._assign(process)
        self._thread.start()
        return self

    def _give_up(self, error: OSError) -> None:
        for number in self._todo:
            self._errors[number] = NoBuilder("There is no process to unpack with: %s" % error.strerror)
        self._todo.clear()

    def __exit__(self, kind: Optional[type[BaseException]], *_rest: object) -> None:
        self._end(kill=kind is not None)

    def wait(self, number: int) -> Optional[WharfError]:
        """Until the layer is done (None), or is not going to be: why. To be asked for one layer after the other."""
        with self._changed:
            while number in self._undone and number not in self._errors:
                self._changed.wait()
            return self._errors.get(number)

    def done(self, number: int) -> None:
        """The layer has been committed by somebody else."""
        with self._changed:
            self._finish(number)

    def tell(self, digest: str, what: str, offset: int) -> None:
        """As ``Fetcher.tell`` is called, by its threads."""
        with self._changed:
            blob = self._blobs.get(digest)
            if blob is None:
                return
            order = _ORDERS[what]
            if order != builder.VERIFIED and not self._early:
                return
            blob.available, blob.begun = offset, True
            blob.verified = blob.verified or order == builder.VERIFIED
            for process in self._processes:
                if process.layer >= 0 and self._layers[process.layer].blob_digest == digest:
                    self._order(process, order, process.layer, offset)

    # -- processes ------------------------------------------------------------------------------------------

    def _fork(self) -> None:
        orders_read, orders_write = os.pipe()
        answers_read, answers_write = os.pipe()
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError:
            for fd in (orders_read, orders_write, answers_read, answers_write):
                os.close(fd)
            raise
        if pid == 0:
            builder.main(self._paths, self._kernel, self._layers, self._subject, orders_read, answers_write, parent)
        os.close(orders_read)
        os.close(answers_write)
        self._processes.append(_Process(pid, orders_write, answers_read))

    def _end(self, kill: bool) -> None:
        """Builders end when nobody orders anything any more; those that were in the middle of something are killed:
        what they leave is litter that nobody holds."""
        with self._changed:
            for process in self._processes:
                if kill or process.layer >= 0:
                    os.kill(process.pid, signal.SIGKILL)
                os.close(process.orders)
                process.orders = -1
        if self._thread.ident is not None:
            self._thread.join()
        for process in self._processes:
            os.waitpid(process.pid, 0)
            os.close(process.answers)
        self._processes.clear()

    def _listen(self) -> None:
        """The thread that takes answers, until every builder is gone."""
        poll = select.poll()
        by_fd = {process.answers: process for process in self._processes}
        for fd in by_fd:
            poll.register(fd, select.POLLIN)
        while by_fd:
            for fd, _events in poll.poll():
                process = by_fd[fd]
                data = os.read(fd, 65536)
                with self._changed:
                    if data:
                        self._take(process, data)
                        continue
                    poll.unregister(fd)
                    del by_fd[fd]
                    self._lost(process, not by_fd)

    # -- under the condition's lock -------------------------------------------------------------------------

    def _take(self, process: _Process, data: bytes) -> None:
        from ..runtime import wire

        process.buffer += data
        if not process.buffer.endswith(b"\n"):
            return
        answer, process.buffer = json.loads(process.buffer), b""
        number, process.layer = answer["layer"], -1
        if "error" in answer:
            self._fail(number, wire.error_from_dict(answer["error"]))
        else:
            self._finish(number)
        self._assign(process)

    def _lost(self, process: _Process, last: bool) -> None:
        """A builder is gone: what it was at will not be done, and after the last one nothing will."""
        gone = [process.layer] if process.layer >= 0 else []
        process.layer = -1
        if last:
            gone += self._todo
            self._todo.clear()
        for number in gone:
            error = Interrupted(
                "A process that unpacked a layer of %s was killed" % self._subject,
                step="unpack_layer",
                subject=self._subject,
                hint="Run the task again. If that ends the same way, look whether the host runs out of memory.",
            )
            self._fail(number, error)

    def _fail(self, number: int, error: WharfError) -> None:
        self._errors[number] = error
        self._changed.notify_all()

    def _finish(self, number: int) -> None:
        self._errors.pop(number, None)
        self._undone.discard(number)
        for process in self._processes:
            self._order(process, builder.COMMITTED, self._ready(), 0)
        self._changed.notify_all()

    def _ready(self) -> int:
        """How many layers are committed, from the base up without a gap."""
        return min(self._undone, default=len(self._layers))

    def _assign(self, process: _Process) -> None:
        if not self._todo or process.orders < 0:
            return
        process.layer = self._todo.pop(0)
        self._order(process, builder.COMMITTED, self._ready(), 0)
        self._order(process, builder.BUILD, process.layer, 0)
        blob = self._blobs[self._layers[process.layer].blob_digest]
        if blob.begun:
            self._order(process, builder.VERIFIED if blob.verified else builder.BYTES, process.layer, blob.available)

    def _order(self, process: _Process, kind: bytes, layer: int, count: int) -> None:
        """Into the pipe of a process that reads it while it has something to do. That there are more bytes need not be
        said if there is no room to say it: the next time will do, or the end."""
        if process.orders < 0:
            return
        if kind == builder.BYTES:
            poll = select.poll()
            poll.register(process.orders, select.POLLOUT)
            if not poll.poll(0):
                return
        try:
            os.write(process.orders, builder.ORDER.pack(kind, layer, count))
        except BrokenPipeError:
            return  # it is gone, and ``_listen`` is about to notice


_ORDERS = {"restart": builder.RESTART, "bytes": builder.BYTES, "verified": builder.VERIFIED}
