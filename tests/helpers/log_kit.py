# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A container's log without a container: what is fed goes through the pump into a file."""

from __future__ import annotations

import os
import select

from module_utils._engine.kernel.syscalls import Kernel
from module_utils._engine.runtime.pump import NUMBERS, Pump


class Log:
    """``directory`` is both run directory and home of the log. ``settings``: of run.json's ``log``."""

    def __init__(self, directory, driver="json-file", **settings):
        self.directory = str(directory)
        self.path = self.directory + "/log"
        file = self.path + (".local" if driver == "local" else "")
        self.settings = {"driver": driver, "path": file, **settings}
        self.pump = Pump(Kernel(), self.directory)
        self.pump.configure(self.settings)

    def write(self, stream, data):
        self.pump.feed(NUMBERS[stream], data)
        self.work(stream)

    def work(self, stream, final=False):
        while True:
            try:
                self.pump.work(NUMBERS[stream], final)
                return
            except BlockingIOError:
                poll = select.poll()
                poll.register(self.pump.sink.waits, self.pump.sink.events)
                poll.poll(10_000)

    def settle(self):
        """Until nothing is being compressed."""
        sink = self.pump.sink
        if sink._child:
            sink.reap(0)

    def close(self):
        for stream in NUMBERS:
            self.work(stream, final=True)
        self.pump.close()

    def crash(self):
        """The monitor is gone from one instruction to the next: nothing is written any more."""
        for fd in (self.pump._mark, *(source.fd for source in self.pump.sources.values()), self.pump.sink.fd):
            os.close(fd)
        self.pump = None

    def successor(self):
        return Log(self.directory, **self.settings)
