# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A journald and a syslog to send to: sockets that the test listens on."""

from __future__ import annotations

import os
import select
import socket
import struct
import time


class Receiver:
    """``kind``: "udp", "tcp", "unix" (a stream) or "unixgram". ``url``: what the container is told."""

    def __init__(self, kind, directory):
        family = socket.AF_UNIX if kind.startswith("unix") else socket.AF_INET
        self.stream = kind in ("tcp", "unix")
        self.place = directory + "/" + kind if family == socket.AF_UNIX else ("127.0.0.1", 0)
        self.family = family
        self._raw = b""
        self._connections = []
        self.open()
        name = self.place if family == socket.AF_UNIX else "127.0.0.1:%d" % self.place[1]
        self.url = "%s://%s" % (kind, name)

    def open(self):
        self.sock = socket.socket(self.family, socket.SOCK_STREAM if self.stream else socket.SOCK_DGRAM)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.sock.bind(self.place)
        self.place = self.sock.getsockname()
        if self.stream:
            self.sock.listen()

    def close(self):
        """The daemon goes away; ``open`` brings it back."""
        for sock in (self.sock, *self._connections):
            sock.close()
        self._connections = []
        if self.family == socket.AF_UNIX:
            os.unlink(self.place)

    def message(self, timeout=10.0):
        """The next one: a datagram, or a line of a stream."""
        deadline = time.monotonic() + timeout
        while not (self.stream and b"\n" in self._raw):
            ready = select.select([self.sock, *self._connections], [], [], max(0, deadline - time.monotonic()))[0]
            assert ready, "nothing came within %g seconds" % timeout
            for sock in ready:
                if not self.stream:
                    return sock.recv(1 << 20)
                if sock is self.sock:
                    self._connections.append(sock.accept()[0])
                    continue
                data = sock.recv(1 << 16)
                self._raw += data
                if not data:
                    self._connections.remove(sock)
                    sock.close()
        line, _end, self._raw = self._raw.partition(b"\n")
        return line + b"\n"

    def messages(self, count):
        return [self.message() for _n in range(count)]


class Journal(Receiver):
    def __init__(self, directory):
        super().__init__("unixgram", directory)

    def entry(self, timeout=10.0):
        """Fields of the next message, as systemd-journald parses them (JOURNAL_NATIVE_PROTOCOL)."""
        assert select.select([self.sock], [], [], timeout)[0], "nothing came"
        raw, control, _flags, _address = self.sock.recvmsg(1 << 20, socket.CMSG_SPACE(4))
        for _level, _kind, data in control:
            assert not raw
            fd = struct.unpack("i", data)[0]
            raw = os.pread(fd, os.fstat(fd).st_size, 0)
            os.close(fd)
        fields = {}
        while raw:
            name, separator, raw = raw.partition(b"\n")
            if b"=" in name:
                name, _equals, value = name.partition(b"=")
            else:
                assert separator
                length = int.from_bytes(raw[:8], "little")
                value, end, raw = raw[8 : 8 + length], raw[8 + length : 9 + length], raw[9 + length :]
                assert end == b"\n"
            assert name.decode() not in fields, "twice: %r" % name
            fields[name.decode()] = value
        return fields
