# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A local connection on which somebody changes the engine bundle in transit."""

from __future__ import annotations

from ansible.plugins.connection.local import Connection as Local

DOCUMENTATION = """
name: tampering
short_description: Change the engine bundle in transit
description: Change the engine bundle in transit.
author: The wharf.engine authors (@wharf-engine)
extends_documentation_fragment:
  - connection_pipelining
"""


class Connection(Local):
    transport = "tampering"

    def put_file(self, in_path: str, out_path: str) -> None:
        super().put_file(in_path, out_path)
        if "wharf-engine" in out_path:
            with open(out_path, "r+b") as stream:
                data = bytearray(stream.read())
                data[len(data) // 2] ^= 1
                stream.seek(0)
                stream.write(data)
