# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The little of ASN.1 DER that keys and signatures are written in, read strictly: one value has one encoding.

A laxer reader would take several byte strings for one signature, and hides what it skips (Wycheproof has hundreds of
such signatures). Anything else than the canonical form raises ``Malformed``.
"""

from __future__ import annotations

INTEGER = 0x02
BIT_STRING = 0x03
NULL = 0x05
OBJECT = 0x06
SEQUENCE = 0x30


class Malformed(ValueError):
    """Not the one encoding that DER allows."""


class Reader:
    """Values of ``data``, from the first to the last."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, tag: int) -> bytes:
        """The content of the next value, which must have this tag."""
        data, at = self._data, self._at
        if len(data) - at < 2 or data[at] != tag:
            raise Malformed("tag %#x expected" % tag)
        length = data[at + 1]
        at += 2
        if length & 0x80:
            count = length & 0x7F
            if not 1 <= count <= 4 or len(data) - at < count:
                raise Malformed("bad length")
            length = int.from_bytes(data[at : at + count], "big")
            if length < 0x80 or length >> (8 * (count - 1)) == 0:
                raise Malformed("a length longer than it needs to be")
            at += count
        if len(data) - at < length:
            raise Malformed("cut off")
        self._at = at + length
        return data[at : at + length]

    def integer(self) -> int:
        """The next value as an integer that is not negative."""
        content = self.take(INTEGER)
        if not content or content[0] & 0x80:
            raise Malformed("a negative or empty integer")
        if len(content) > 1 and content[0] == 0 and not content[1] & 0x80:
            raise Malformed("an integer longer than it needs to be")
        return int.from_bytes(content, "big")

    def sequence(self) -> Reader:
        return Reader(self.take(SEQUENCE))

    def bits(self) -> bytes:
        """The next value as whole bytes out of a bit string."""
        content = self.take(BIT_STRING)
        if not content or content[0] != 0:
            raise Malformed("a bit string that is not whole bytes")
        return content[1:]

    def empty(self) -> bool:
        return self._at == len(self._data)

    def end(self) -> None:
        """Raises ``Malformed`` unless everything has been read."""
        if not self.empty():
            raise Malformed("something follows")


def whole_sequence(data: bytes) -> Reader:
    """``data`` as exactly one sequence."""
    outer = Reader(data)
    inner = outer.sequence()
    outer.end()
    return inner
