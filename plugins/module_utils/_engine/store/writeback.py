# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A large file goes to the disk while it still grows, so that the sync at its end has little left to wait for.

The kernel by itself waits up to 30 seconds (or for a tenth of the memory) before it writes anything; a pull that
downloads for three seconds would then wait for the disk for another three.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Optional

if TYPE_CHECKING:
    from threading import Thread

STEP = 16 << 20


class Writeback:
    """Tell it with ``grown`` what was written to ``fd``; ``settle`` before the descriptor is closed. A short-lived
    thread syncs (fdatasync lets go of the interpreter); none is left behind after ``settle``.

    Both raise the ``OSError`` of a sync that failed: the kernel reports such a failure only once.
    """

    __slots__ = ("_error", "_fd", "_fresh", "_thread")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._fresh = 0
        self._thread: Optional[Thread] = None
        self._error: Optional[OSError] = None

    def grown(self, count: int) -> None:
        self._fresh += count
        if self._fresh < STEP:
            return
        if self._thread is not None:
            if self._thread.is_alive():
                return  # the disk is slower than we are: it has enough to do
            self.settle()
        from threading import Thread

        self._fresh = 0
        self._thread = Thread(target=self._sync, name="writeback", daemon=True)
        self._thread.start()

    def _sync(self) -> None:
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            self._error = error

    def settle(self) -> None:
        """Wait for a sync that is going on."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()
        error, self._error = self._error, None
        if error is not None:
            raise error
