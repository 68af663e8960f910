# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Log lines in the two formats that runc's callers read back."""

from __future__ import annotations

import os
import time


def write(path: str, form: str, level: str, words: str) -> None:
    """Append one line to ``path`` ("" is standard error). ``form``: ``text`` or ``json``. Raises ``OSError``."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    if form == "json":
        import json

        line = json.dumps({"level": level, "msg": words, "time": stamp}, separators=(",", ":"))
    else:
        line = 'time="%s" level=%s msg=%s' % (stamp, level, _quoted(words))
    raw = (line + "\n").encode("utf-8", "surrogateescape")
    if not path:
        os.write(2, raw)
        return
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.write(fd, raw)
    finally:
        os.close(fd)


def _quoted(words: str) -> str:
    text = words.replace("\\", "\\\\").replace('"', '\\"')
    return '"%s"' % text.replace("\n", "\\n").replace("\t", "\\t")
