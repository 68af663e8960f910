# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Layers to measure pulls with: words and noise that gzip packs as it packs a distribution's files."""

from __future__ import annotations

import random

from helpers import tars

MIB = 1 << 20


class Corpus:
    """Slices of a few megabytes that compress to about two fifths, as text and programs together do."""

    def __init__(self, seed: int = 1) -> None:
        self._chance = chance = random.Random(seed)
        words = [chance.randbytes(4).hex()[: chance.randrange(3, 9)].encode() for _n in range(3000)]
        text = b"".join(chance.choice(words) + (b"\n" if chance.random() < 0.1 else b" ") for _n in range(400_000))
        piece = len(text) // 40
        # Every fortieth is followed by noise, as pictures and archives lie among texts.
        self._data = b"".join(
            text[at : at + piece] + chance.randbytes(piece // 12) for at in range(0, len(text), piece)
        )

    def take(self, size: int) -> bytes:
        start = self._chance.randrange(max(1, len(self._data) - size))
        piece = self._data[start : start + size]
        return piece + bytes(size - len(piece))


def layer(corpus: Corpus, entries: int, megabytes: int, top: str, seed: int = 1) -> bytes:
    """An archive of so many members and about so many megabytes: directories, symlinks, and files below ``top``."""
    chance = random.Random(seed)
    size = megabytes * MIB // entries
    parts, folders = [tars.folder(top)], [top]
    for number in range(entries):
        if number % 10 == 0:
            above = chance.choice([one for one in folders[-60:] if one.count("/") < 5] or [top])
            folders.append("%s/directory-%d" % (above, number))
            parts.append(tars.folder(folders[-1]))
        elif number % 13 == 0:
            parts.append(tars.symlink("%s/link-%d" % (folders[-1], number), "../file"))
        else:
            data = corpus.take(chance.randrange(2 * size))
            parts.append(tars.file("%s/some-file-%d.py" % (folders[-1], number), data))
    return tars.build(parts)


def many_files(count: int) -> bytes:
    """An archive of so many empty files, twenty to a directory."""
    parts, base = [], tars.header("usr/lib/python/00000/some-module-000000.py")
    for number in range(count):
        if number % 20 == 0:
            parts.append(tars.folder("usr/lib/python/%05d" % (number // 20)))
        raw = base[:15] + b"%05d/some-module-%06d.py" % (number // 20, number) + base[42:148] + b" " * 8 + base[156:]
        parts.append(raw[:148] + b"%06o\0 " % sum(raw) + raw[156:])
    return tars.build(parts)
