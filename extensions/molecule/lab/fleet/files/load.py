# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Asks every URL twice a second at most, and writes each answer down: ``load.py RECORD SECONDS URL...``.

A line of RECORD is {"url", "at" (monotonic seconds), "took", "body"} or has "error" instead of "body". Every request
has a connection of its own, as strangers' have. Ends when RECORD.enough is there or after SECONDS; then RECORD.done is.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import urllib.request
from typing import Any

PAUSE = 0.5  # seconds between an answer and the next question
PATIENCE = 60.0  # seconds; the processors of the lab's machines are emulated


def main(record: str, seconds: str, *urls: str) -> None:
    deadline = time.monotonic() + float(seconds)
    with open(record, "a", buffering=1) as stream:
        threads = [threading.Thread(target=ask, args=(url, stream, record + ".enough", deadline)) for url in urls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    with open(record + ".done", "w"):
        pass


def ask(url: str, stream: Any, enough: str, deadline: float) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < deadline and not os.path.exists(enough):
        begun = time.monotonic()
        try:
            with opener.open(url, timeout=PATIENCE) as answer:
                told = {"body": answer.read().decode().strip()}
        except OSError as error:  # every error of urllib, of a socket and of a timeout is one
            told = {"error": repr(error)}
        line = {"url": url, "at": begun, "took": time.monotonic() - begun, **told}
        stream.write(json.dumps(line) + "\n")
        time.sleep(PAUSE)


if __name__ == "__main__":
    main(*sys.argv[1:])
