# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The short way that ordinary files take into a layer's tree leads to the same tree as the long one."""

from __future__ import annotations

import random
from typing import Any, Union

from helpers.tars import build, file, folder, link, symlink
from module_utils._engine.errors import IntegrityError
from module_utils._engine.images.tarstream import TarStream
from module_utils._engine.images.tree import LayerTree


class Thorough(LayerTree):
    """Takes every file as an entry."""

    taken = 0

    def file(self, *_fields: Any) -> bool:
        return False


class Counting(LayerTree):
    """Notes how many went the short way."""

    taken = 0

    def file(self, *fields: Any) -> bool:
        took = super().file(*fields)
        self.taken += took
        return took


def read(tree: Union[Thorough, Counting], data: bytes) -> Any:
    """All there is to know about the tree, or the sentence of its refusal."""
    stream = TarStream(tree)
    try:
        stream.write(data)
        stream.close()
        before = [tree.whiteouts, tree.opaque, tree.missing, tree.linked, list(tree.implied)]
        told = repr(before)
        tree.finish()
    except IntegrityError as error:
        return error.msg
    return told, bytes(tree.records), bytes(tree.types), tree.kids, tree.targets, tree.xattrs, list(tree.walk())


def same(parts: list[bytes]) -> int:
    data = build(parts)
    short = Counting()
    assert read(short, data) == read(Thorough(), data)
    return short.taken


def test_files_in_a_known_directory_take_the_short_way() -> None:
    assert same([folder("a"), *(file("a/f%d" % n, b"x" * n) for n in range(100))]) >= 99


def test_what_is_unusual_comes_out_the_same() -> None:
    odd = [
        "a/.wh.f1", "a/.wh..wh..opq", "a/..", "a/.", "a/", "a//f", "./a/f", "a/../f", "/a/f", ".hidden", "a/.hidden",
        "l/f", "a/f1/below", "f", "a/" + "n" * 90,
    ]  # fmt: skip
    for name in odd:
        parts = [folder("a"), symlink("l", "a"), file("a/f1", b"1"), file(name, b"2"), file("a/f2", b"3")]
        same([*parts, file(name, b"4")])


def test_archives_made_at_random_come_out_the_same() -> None:
    chance = random.Random(1)
    names = ["a", "b", "a/b", "a/c", "b/a", "a/b/c", "a/.wh.b", "b/.wh.a", "./a/d", "a/b/d/", "c", "c/d"]
    names += ["a/f%d" % n for n in range(6)] + ["b/f%d" % n for n in range(6)]
    short = 0
    for _turn in range(300):
        parts = [folder("a"), folder("b")]
        for _n in range(chance.randrange(2, 14)):
            name, kind = chance.choice(names), chance.randrange(8)
            if kind < 4:
                parts.append(file(name, b"z" * chance.randrange(3)))
            elif kind < 6:
                parts.append(folder(name))
            elif kind == 6:
                parts.append(symlink(name, chance.choice(names)))
            else:
                parts.append(link(name, chance.choice(names)))
        short += same(parts)
    assert short > 100
