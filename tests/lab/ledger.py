# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""``python -m lab.ledger HOST FILE``: clients write to the machine's PostgreSQL until its power is cut in the middle.

They run here, outside the machine, and come in through the published port, so what they were told was committed is
known whatever the machine forgets. FILE gets ``{"acknowledged": {client: n}, "boot_id": ...}``: of each client, the
last of the numbers 1, 2, 3 ... whose transaction was acknowledged. Returns when the machine answers again.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import threading
import time
from typing import Any, Optional

from .guest import Guest
from .images import LabError
from .machines import MACHINES

CLIENTS = 4
_ENOUGH = 40  # acknowledged transactions of each client before the power goes
_TABLES = """
CREATE TABLE ledger (client int, n int, payload text, seal text, PRIMARY KEY (client, n));
CREATE TABLE totals (client int PRIMARY KEY, n int);
CREATE EXTENSION amcheck;
"""
# Both or neither: the row and the count of rows.
_WRITE = """
BEGIN;
INSERT INTO ledger SELECT {client}, {n}, p, md5(p || '{client}/{n}')
  FROM (SELECT repeat(md5(random()::text), 40) AS p) AS made;
UPDATE totals SET n = n + 1 WHERE client = {client};
COMMIT;
"""


class Connection:
    """As much of PostgreSQL's protocol (version 3) as simple queries without a password need."""

    def __init__(self, port: int, patience: float = 300) -> None:
        self.stop = threading.Event()
        deadline = time.monotonic() + patience
        while True:
            try:
                self._sock = self._open(port)
                return
            except OSError:  # it still starts, or still recovers
                if time.monotonic() > deadline:
                    raise
                time.sleep(1)

    def _open(self, port: int) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", port), 60)
        self._sock = sock
        sock.settimeout(1)
        words = b"user\0postgres\0database\0postgres\0\0"
        try:
            sock.sendall(struct.pack(">II", len(words) + 8, 3 << 16) + words)
            self._answer()
        except BaseException:
            sock.close()
            raise
        return sock

    def close(self) -> None:
        self._sock.close()

    def query(self, text: str) -> list[list[Optional[str]]]:
        """Rows of all its statements, when the server is ready again; ``OSError`` when it is gone, or says no."""
        data = text.encode() + b"\0"
        self._sock.sendall(b"Q" + struct.pack(">I", len(data) + 4) + data)
        return self._answer()

    def _answer(self) -> list[list[Optional[str]]]:
        rows: list[list[Optional[str]]] = []
        error = ""
        while True:
            kind = self._exactly(1)
            body = self._exactly(struct.unpack(">I", self._exactly(4))[0] - 4)
            if kind == b"D":
                rows.append(_row(body))
            elif kind == b"E":
                error = body.replace(b"\0", b" ").decode(errors="replace")
                if b"SFATAL" in body:
                    raise OSError(error)
            elif kind == b"Z":
                if error:
                    raise OSError(error)
                return rows

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            try:
                more = self._sock.recv(size - len(data))
            except socket.timeout:
                if self.stop.is_set():
                    raise OSError("told to stop") from None
                continue
            if not more:
                raise OSError("the server closed the connection")
            data += more
        return data


def _row(body: bytes) -> list[Optional[str]]:
    count, at = struct.unpack_from(">H", body)[0], 2
    row: list[Optional[str]] = []
    for _column in range(count):
        size = struct.unpack_from(">i", body, at)[0]
        at += 4
        row.append(None if size < 0 else body[at : at + size].decode())
        at += max(size, 0)
    return row


class Client(threading.Thread):
    def __init__(self, port: int, number: int) -> None:
        super().__init__(daemon=True)
        self.number = number
        self.acknowledged = 0
        self.connection = Connection(port)

    def run(self) -> None:
        try:
            while not self.connection.stop.is_set():
                n = self.acknowledged + 1
                self.connection.query(_WRITE.format(client=self.number, n=n))
                self.acknowledged = n
        except OSError:  # the power is gone
            return


def main(host: str, path: str) -> None:
    guest = Guest(MACHINES[host])
    first = Connection(guest.web)
    first.query(_TABLES + "".join("INSERT INTO totals VALUES (%d, 0);" % n for n in range(CLIENTS)))
    before = guest.boot_id()
    # Somebody in the middle of a transaction, who was told nothing.
    first.query("BEGIN; INSERT INTO ledger VALUES (99, 1, 'never', 'committed')")
    clients = [Client(guest.web, number) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    deadline = time.monotonic() + 900
    while min(client.acknowledged for client in clients) < _ENOUGH:
        if time.monotonic() > deadline or not all(client.is_alive() for client in clients):
            raise LabError("PostgreSQL on %s takes no load: %s" % (host, [c.acknowledged for c in clients]))
        time.sleep(0.1)
    guest.cut_power()
    for client in clients:
        client.connection.stop.set()
    for client in clients:
        client.join()
        client.connection.close()
    result: dict[str, Any] = {"acknowledged": {client.number: client.acknowledged for client in clients}}
    with open(path, "w") as file:
        json.dump({**result, "boot_id": before}, file)
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
