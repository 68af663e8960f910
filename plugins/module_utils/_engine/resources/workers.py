# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A handful of forked workers that do numbered jobs, several at a time.

Processes, not threads: a process that forks into containers never has threads, and a job here starts containers. What
a job is about is inherited by the fork; only its number and its result (JSON) travel.
"""

from __future__ import annotations

import json
import os
import select
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, Optional

from ..errors import Interrupted, WharfError

Work = Callable[[int], dict[str, Any]]


class Worker:
    __slots__ = ("buffer", "job", "pid", "read", "write")

    def __init__(self, pid: int, read: int, write: int) -> None:
        self.pid, self.read, self.write = pid, read, write
        self.job: Optional[int] = None
        self.buffer = b""


class Pool:
    """Workers made when they are first needed, up to ``size``. Use in ``with``: leaving it waits for all of them."""

    def __init__(self, size: int, make: Callable[[], Work]) -> None:
        """``make`` is called in each new worker and returns what does a job: it opens what must not be inherited
        (database, sockets)."""
        self._size = size
        self._make = make
        self._workers: list[Worker] = []
        self._poll = select.poll()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_error: object) -> None:
        for worker in self._workers:
            os.close(worker.write)
        for worker in self._workers:
            os.close(worker.read)
            os.waitpid(worker.pid, 0)

    @property
    def has_room(self) -> bool:
        return len(self._workers) < self._size or any(worker.job is None for worker in self._workers)

    @property
    def busy(self) -> int:
        return sum(1 for worker in self._workers if worker.job is not None)

    def submit(self, job: int) -> None:
        worker = next((worker for worker in self._workers if worker.job is None), None) or self._fork()
        worker.job = job
        os.write(worker.write, b"%d\n" % job)

    def results(self, timeout: float) -> Iterator[tuple[int, dict[str, Any], Optional[WharfError]]]:
        """``(job, result, error)`` of what has ended, after at most ``timeout`` seconds."""
        ready = {fd for fd, _events in self._poll.poll(timeout * 1000)}
        for worker in self._workers:
            if worker.read in ready and worker.job is not None:
                answer = self._receive(worker)
                if answer is not None:
                    job, worker.job = worker.job, None
                    yield (job, *answer)

    def _receive(self, worker: Worker) -> Optional[tuple[dict[str, Any], Optional[WharfError]]]:
        from ..runtime import wire

        data = os.read(worker.read, 1 << 20)
        worker.buffer += data
        if not data:
            self._poll.unregister(worker.read)
            return {}, Interrupted("A worker of this task was killed", step="worker", hint="Run the task again.")
        if not worker.buffer.endswith(b"\n"):
            return None
        answer = json.loads(worker.buffer)
        worker.buffer = b""
        if "error" in answer:
            return {}, wire.error_from_dict(answer["error"])
        result: dict[str, Any] = answer["result"]
        return result, None

    def _fork(self) -> Worker:
        jobs_read, jobs_write = os.pipe()
        answers_read, answers_write = os.pipe()
        pid = os.fork()
        if pid == 0:
            for other in self._workers:  # or its end would never be seen
                os.close(other.write)
                os.close(other.read)
            os.close(jobs_write)
            os.close(answers_read)
            _work(self._make, jobs_read, answers_write)
        os.close(jobs_read)
        os.close(answers_write)
        worker = Worker(pid, answers_read, jobs_write)
        self._workers.append(worker)
        self._poll.register(answers_read, select.POLLIN)
        return worker


def _work(make: Callable[[], Work], jobs: int, answers: int) -> NoReturn:
    """A worker's whole life."""
    from ..runtime import wire

    code = 1
    try:
        work: Optional[Work] = None
        with os.fdopen(jobs, "rb") as stream:
            for line in stream:
                try:
                    work = work or make()
                    answer: dict[str, Any] = {"result": work(int(line))}
                except BaseException as error:  # nothing may unwind into the parent's frames
                    answer = {"error": wire.error_to_dict(error, "worker")}
                data = memoryview(json.dumps(answer).encode() + b"\n")
                while data:
                    data = data[os.write(answers, data) :]
        code = 0
    finally:
        os._exit(code)
